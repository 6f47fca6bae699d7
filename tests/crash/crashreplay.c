// SPDX-License-Identifier: GPL-2.0-only
/*
 * crashreplay: what a power cut can leave on a disk, from the log of its writes. The disk is made
 * as it was at every flush and at random moments between flushes: once with all of the writes since
 * the last flush, once with a random subset, some of them in part, sector by sector. For each such
 * disk a script makes the raw contents that QEMU reads, and they are compared with what was
 * acknowledged.
 */
#include "dmlog.h"
#include "journal.h"
#include "overtaken.h"

#include <getopt.h>
#include <inttypes.h>
#include <sys/wait.h>

static const char usage_text[] =
	"Usage: crashreplay [OPTION]... LOG JOURNAL DISK RAW COMMAND\n"
	"DISK has the contents from before the log, and is changed. COMMAND (with the number of the\n"
	"mark, how often somebody else has written, DISK and RAW) checks what is on DISK and writes\n"
	"its contents as QEMU reads them to RAW.\n"
	"  --initial FILE  the contents, as QEMU reads them, before the log\n"
	"  --seed N        which random numbers (1)\n"
	"  --points N      random moments, no two the same (1000)\n"
	"  --flushes N     at most so many of the moments right after a flush (all)\n"
	"  --only N        this moment only\n"
	"  --every         instead of all that: after every entry, the disk with each of: all of the\n"
	"                  writes since the last flush, none, the last alone, all but the first\n"
	"  --break N       one flush of N is forgotten: to see the checks fail\n";

struct config {
	uint64_t seed, points, flushes, only, break_at;
	bool every;
	const char *initial;
	const char *log, *journal, *disk, *raw, *command;
};

/* For one sector: from which version on its contents may be, and whether zeros may be. */
struct allowed {
	uint64_t version, initial;
	bool zero;
};

struct undo {
	uint64_t sector;
	unsigned char data[SECTOR];
};

struct replay {
	struct config config;
	struct dmlog log;
	const struct journal *journal;
	unsigned char *disk;
	size_t disk_size;
	const unsigned char *initial;
	struct allowed *allowed;
	uint64_t durable; /* entries applied for good */
	struct undo *undo;
	uint64_t nr_undo, room_undo;
	uint64_t *seen; /* hashes of disks that were judged, under --every */
	uint64_t nr_seen, room_seen;
	uint64_t random;
	uint64_t moments, points, sectors, bad;
};

/* ---- the disk ---------------------------------------------------------------------------------
 */

static void put_sector(struct replay *r, uint64_t sector, const unsigned char *data)
{
	if ((sector + 1) * SECTOR > r->disk_size)
		die("a write past the disk's end: sector %" PRIu64, sector);
	if (data)
		memcpy(r->disk + sector * SECTOR, data, SECTOR);
	else
		memset(r->disk + sector * SECTOR, 0, SECTOR);
}

static void remember(struct replay *r, uint64_t sector)
{
	if (r->nr_undo == r->room_undo) {
		r->room_undo = r->room_undo * 2 + 1024;
		r->undo = realloc(r->undo, r->room_undo * sizeof(*r->undo));
		if (!r->undo)
			die("out of memory");
	}
	r->undo[r->nr_undo].sector = sector;
	memcpy(r->undo[r->nr_undo++].data, r->disk + sector * SECTOR, SECTOR);
}

static void take_back(struct replay *r)
{
	while (r->nr_undo) {
		const struct undo *undo = &r->undo[--r->nr_undo];

		put_sector(r, undo->sector, undo->data);
	}
}

/*
 * What a discard leaves behind is anybody's guess, sector by sector: the old bytes, zeros, or what
 * never was there. The guess depends on the place only, so that one moment can be looked at alone.
 */
static uint64_t guess(const struct replay *r, const struct dmlog_entry *entry, uint64_t i)
{
	uint64_t random = r->config.seed + (uint64_t)(entry - r->log.entries) * 1000003 + i;

	return random_next(&random) & 3;
}

static bool discard_spares(const struct replay *r, const struct dmlog_entry *entry, uint64_t i)
{
	return (entry->flags & DMLOG_DISCARD) && guess(r, entry, i) < 2;
}

static const unsigned char *data_of(const struct replay *r, const struct dmlog_entry *entry,
				    uint64_t i)
{
	static const unsigned char rubbish[SECTOR] = { 0xee, 0xee, 0xee, 0xee };

	if (!(entry->flags & DMLOG_DISCARD))
		return entry->data + i * SECTOR;
	return guess(r, entry, i) == 2 ? rubbish : NULL;
}

static bool is_spared(const struct replay *r, const struct dmlog_entry *entry, uint64_t i)
{
	return (entry->overtaken && entry->overtaken[i]) || discard_spares(r, entry, i);
}

static void apply(struct replay *r, const struct dmlog_entry *entry)
{
	for (uint64_t i = 0; i < entry->nr; i++)
		if (!is_spared(r, entry, i))
			put_sector(r, entry->sector + i, data_of(r, entry, i));
}

/* percent: how many of its sectors */
static void apply_for_now(struct replay *r, const struct dmlog_entry *entry, unsigned int percent)
{
	for (uint64_t i = 0; i < entry->nr; i++) {
		if (random_below(&r->random, 100) >= percent || is_spared(r, entry, i))
			continue;
		remember(r, entry->sector + i);
		put_sector(r, entry->sector + i, data_of(r, entry, i));
	}
}

/* ---- moments ------------------------------------------------------------------------------------
 */

static bool is_flush(const struct replay *r, uint64_t i)
{
	uint64_t at = r->config.break_at;

	return (r->log.entries[i].flags & DMLOG_FLUSH) && !(at && i % at == 0);
}

static bool may_be_lost(const struct dmlog_entry *entry)
{
	return entry->nr && !(entry->flags & DMLOG_FUA);
}

/* Everything before entry @end that a flush covered is there for good. */
static void make_durable(struct replay *r, uint64_t end)
{
	uint64_t last = r->durable;

	for (uint64_t i = r->durable; i < end; i++)
		if (is_flush(r, i))
			last = i;
	for (; r->durable < last; r->durable++)
		apply(r, &r->log.entries[r->durable]);
}

/* Of the entries before @end, one that no flush covered, and that may be lost. */
static uint64_t choose_lost(struct replay *r, uint64_t end)
{
	uint64_t nr = 0, lost = end;

	for (uint64_t i = r->durable; i < end; i++)
		if (may_be_lost(&r->log.entries[i]) && !random_below(&r->random, ++nr))
			lost = i;
	return lost;
}

/* A power cut when entry @end was under way: those before it have completed. */
static void cut_before(struct replay *r, uint64_t end)
{
	static const unsigned char densities[] = { 100, 50, 50, 10, 90 };
	unsigned int density = densities[random_below(&r->random, sizeof(densities))];
	bool torn = random_next(&r->random) & 1;
	uint64_t lost = choose_lost(r, end);

	for (uint64_t i = r->durable; i < end; i++) {
		const struct dmlog_entry *entry = &r->log.entries[i];

		if (entry->flags & DMLOG_FUA)
			apply_for_now(r, entry, 100);
		else if (i != lost && random_below(&r->random, 100) < density)
			apply_for_now(r, entry,
				      torn && random_next(&r->random) % 4 == 0 ? 50 : 100);
	}
	if (end < r->log.nr_entries && torn)
		apply_for_now(r, &r->log.entries[end], 50);
}

/* A power cut that loses nothing but what was under way. */
static void cut_after(struct replay *r, uint64_t end)
{
	for (uint64_t i = r->durable; i < end; i++)
		apply_for_now(r, &r->log.entries[i], 100);
}

static uint32_t last_mark(const struct replay *r, uint64_t end)
{
	for (uint64_t i = end; i > 0; i--)
		if (r->log.entries[i - 1].mark)
			return r->log.entries[i - 1].mark;
	return 0;
}

/* ---- what must be there -------------------------------------------------------------------------
 */

static void learn_initial(struct replay *r)
{
	for (uint64_t i = 0; i < r->journal->nr_sectors; i++) {
		uint64_t version = r->initial ? stamp_get(r->initial + i * SECTOR, 1, i) : 0;

		if (version == STAMP_FOREIGN)
			die("sector %" PRIu64 " of the initial contents is not stamped", i);
		r->allowed[i].initial = version;
	}
}

static void allow(struct replay *r, uint32_t mark)
{
	const struct journal *journal = r->journal;

	for (uint64_t i = 0; i < journal->nr_sectors; i++) {
		r->allowed[i].version = 0;
		r->allowed[i].zero = !r->allowed[i].initial;
	}
	for (uint64_t e = 0; e < journal->nr_entries; e++) {
		const struct journal_entry *entry = &journal->entries[e];
		bool acked = entry->mark && entry->mark <= mark;

		if (entry->begun > mark)
			continue;
		for (uint64_t i = entry->sector; i < entry->sector + entry->nr; i++) {
			if (acked && entry->op != JOURNAL_DISCARD) {
				r->allowed[i].version = entry->version;
				r->allowed[i].zero = false;
			}
			r->allowed[i].zero |= entry->op != JOURNAL_WRITE;
		}
	}
}

static bool is_allowed(const struct allowed *allowed, uint64_t version)
{
	if (version == STAMP_FOREIGN)
		return false;
	if (!version)
		return allowed->zero;
	return allowed->version ? version >= allowed->version
				: version == allowed->initial || version >= JOURNAL_FIRST_VERSION;
}

static uint64_t compare(struct replay *r)
{
	uint64_t wrong = 0;
	unsigned char *raw;
	size_t size;
	char name[96];

	raw = map_file(r->config.raw, &size, false);
	if (size != r->journal->nr_sectors * SECTOR)
		die("%s: has another size than the device had", r->config.raw);
	for (uint64_t i = 0; i < r->journal->nr_sectors; i++) {
		uint64_t version = stamp_get(raw + i * SECTOR, 1, i);

		if (is_allowed(&r->allowed[i], version))
			continue;
		if (wrong++ < COMPLAINTS)
			fprintf(stderr,
				"  sector %" PRIu64 ": %s; acknowledged is version %" PRIu64 "%s\n",
				i, stamp_name(raw + i * SECTOR, name, sizeof(name)),
				r->allowed[i].version, r->allowed[i].zero ? " or zeros" : "");
	}
	munmap(raw, size);
	r->sectors += r->journal->nr_sectors;
	return wrong;
}

static int run_command(const struct replay *r, uint64_t end, uint32_t mark)
{
	char number[16], goes[16];
	int status;
	pid_t pid;

	snprintf(number, sizeof(number), "%" PRIu32, mark);
	snprintf(goes, sizeof(goes), "%" PRIu32, end ? r->log.entries[end - 1].goes : 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		execl(r->config.command, r->config.command, number, goes, r->config.disk,
		      r->config.raw, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("%s: does not start", r->config.command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void judge(struct replay *r, uint64_t end, const char *what)
{
	uint32_t mark = last_mark(r, end);
	uint64_t wrong = 0;
	int status;

	msync(r->disk, r->disk_size, MS_ASYNC);
	status = run_command(r, end, mark);
	if (!status) {
		allow(r, mark);
		wrong = compare(r);
	}
	r->moments++;
	if (!status && !wrong)
		return;
	r->bad++;
	printf("entry %" PRIu64 " (%s, mark %" PRIu32 "): status %d, %" PRIu64
	       " sectors are wrong\n",
	       end, what, mark, status, wrong);
}

/* ---- all of it
 * ------------------------------------------------------------------------------------ */

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool is_wanted(const struct replay *r, uint64_t end)
{
	if (r->log.entries[end - 1].paused)
		return false;
	return !r->config.only || r->config.only == end;
}

/*
 * Right after each write, if some of what is there by then may yet be lost: so that one moment's
 * disk with all of it is another than any other moment's, and another than the disk without some.
 */
static uint64_t possible_moments(const struct replay *r, uint64_t *moments)
{
	bool unsure = false;
	uint64_t nr = 0;

	for (uint64_t i = 0; i < r->log.nr_entries; i++) {
		if (is_flush(r, i))
			unsure = false;
		unsure |= may_be_lost(&r->log.entries[i]);
		if (r->log.entries[i].nr && unsure && is_wanted(r, i + 1))
			moments[nr++] = i + 1;
	}
	return nr;
}

/* The first ones of @moments become the chosen. */
static uint64_t random_moments(struct replay *r, uint64_t *moments)
{
	uint64_t possible = possible_moments(r, moments);
	uint64_t nr = possible < r->config.points ? possible : r->config.points;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t other = i + random_below(&r->random, possible - i);
		uint64_t chosen = moments[other];

		moments[other] = moments[i];
		moments[i] = chosen;
	}
	qsort(moments, nr, sizeof(*moments), by_number);
	return nr;
}

static void random_cut(struct replay *r, uint64_t end)
{
	/* So that one moment can be repeated alone. */
	r->random = (r->config.seed << 32) + end;
	cut_after(r, end);
	judge(r, end, "all that came before");
	take_back(r);
	cut_before(r, end);
	judge(r, end, "random subset");
	take_back(r);
	r->points++;
}

/* ---- every moment of a short log
 * -----------------------------------------------------------------
 */

static uint64_t hash_now(const struct replay *r, uint32_t mark)
{
	uint64_t hash = mark, word;

	for (size_t i = 0; i < r->disk_size; i += sizeof(word)) {
		memcpy(&word, r->disk + i, sizeof(word));
		hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	return hash;
}

/* Most moments leave a disk that another one left, too. */
static bool is_new(struct replay *r, uint64_t end)
{
	uint64_t hash = hash_now(r, last_mark(r, end) ^ r->log.entries[end - 1].goes << 24);

	for (uint64_t i = 0; i < r->nr_seen; i++)
		if (r->seen[i] == hash)
			return false;
	if (r->nr_seen == r->room_seen) {
		r->room_seen = r->room_seen * 2 + 64;
		r->seen = realloc(r->seen, r->room_seen * sizeof(*r->seen));
		if (!r->seen)
			die("out of memory");
	}
	r->seen[r->nr_seen++] = hash;
	return true;
}

enum subset {
	SUBSET_ALL,
	SUBSET_NONE,
	SUBSET_LAST,
	SUBSET_NOT_FIRST,
	NR_SUBSETS
};

static const char *const subset_names[NR_SUBSETS] = { "all", "none", "only the last",
						      "all but the first" };

static void cut_subset(struct replay *r, uint64_t end, enum subset subset)
{
	uint64_t first = r->durable, last = end - 1;

	while (first < end && !r->log.entries[first].nr)
		first++;
	while (last > first && !r->log.entries[last].nr)
		last--;
	for (uint64_t i = first; i < end; i++) {
		const struct dmlog_entry *entry = &r->log.entries[i];

		if (entry->flags & DMLOG_FUA || subset == SUBSET_ALL ||
		    (subset == SUBSET_LAST && i == last) ||
		    (subset == SUBSET_NOT_FIRST && i != first))
			apply_for_now(r, entry, 100);
	}
}

static void run_every(struct replay *r)
{
	for (uint64_t i = 1; i <= r->log.nr_entries; i++) {
		make_durable(r, i);
		for (enum subset subset = 0; subset < NR_SUBSETS && is_wanted(r, i); subset++) {
			cut_subset(r, i, subset);
			if (is_new(r, i))
				judge(r, i, subset_names[subset]);
			take_back(r);
		}
	}
}

/* Moments in the order of the log, so that the disk is written once. */
static void run_some(struct replay *r, uint64_t flushes)
{
	uint64_t *moments = calloc(r->log.nr_entries + 1, sizeof(*moments));
	uint64_t next = 0, nr = 0, nr_moments, every;

	if (!moments)
		die("out of memory");
	nr_moments = random_moments(r, moments);
	every = r->config.flushes ? flushes / r->config.flushes + 1 : 1;
	for (uint64_t i = 1; i <= r->log.nr_entries; i++) {
		make_durable(r, i);
		if (is_flush(r, i - 1) && ++nr % every == 0 && is_wanted(r, i))
			judge(r, i, "after a flush");
		if (next < nr_moments && moments[next] == i)
			random_cut(r, moments[next++]);
	}
	free(moments);
}

static void run(struct replay *r)
{
	uint64_t flushes = 0;

	for (uint64_t i = 0; i < r->log.nr_entries; i++)
		flushes += !!(r->log.entries[i].flags & DMLOG_FLUSH);
	if (r->config.every)
		run_every(r);
	else
		run_some(r, flushes);
	printf("entries %" PRIu64 " flushes %" PRIu64 " moments %" PRIu64 " sectors %" PRIu64
	       " points %" PRIu64 " bad %" PRIu64 "\n",
	       r->log.nr_entries, flushes, r->moments, r->sectors, r->points, r->bad);
}

static int parse(int argc, char **argv, struct config *c)
{
	uint64_t *const numbers[] = { &c->seed, &c->points, &c->flushes, &c->only, &c->break_at };
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 0 },	   { "points", required_argument, NULL, 1 },
		{ "flushes", required_argument, NULL, 2 }, { "only", required_argument, NULL, 3 },
		{ "break", required_argument, NULL, 4 },   { "every", no_argument, NULL, 5 },
		{ "initial", required_argument, NULL, 6 }, { NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == '?')
			return -1;
		if (opt == 5)
			c->every = true;
		else if (opt == 6)
			c->initial = optarg;
		else
			*numbers[opt] = strtoull(optarg, NULL, 0);
	}
	if (argc - optind != 5)
		return -1;
	c->log = argv[optind];
	c->journal = argv[optind + 1];
	c->disk = argv[optind + 2];
	c->raw = argv[optind + 3];
	c->command = argv[optind + 4];
	return 0;
}

int main(int argc, char **argv)
{
	struct replay r = { .config = { .seed = 1, .points = 1000 } };
	size_t size;

	if (parse(argc, argv, &r.config)) {
		fputs(usage_text, stderr);
		return 2;
	}
	r.random = r.config.seed;
	dmlog_open(&r.log, r.config.log);
	r.journal = map_file(r.config.journal, &size, false);
	if (size < sizeof(*r.journal) || r.journal->magic != JOURNAL_MAGIC)
		die("%s: no journal in there", r.config.journal);
	overtaken_find(&r.log, r.journal);
	r.disk = map_file(r.config.disk, &r.disk_size, true);
	if (r.config.initial) {
		r.initial = map_file(r.config.initial, &size, false);
		if (size != r.journal->nr_sectors * SECTOR)
			die("%s: has another size than the device had", r.config.initial);
	}
	r.allowed = calloc(r.journal->nr_sectors, sizeof(*r.allowed));
	if (!r.allowed)
		die("out of memory");
	learn_initial(&r);
	run(&r);
	return r.bad || !r.moments;
}
