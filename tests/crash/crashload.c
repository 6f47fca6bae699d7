// SPDX-License-Identifier: GPL-2.0-only
/*
 * crashload: writes, discards and flushes on a device whose disk is a dm-log-writes target, and
 * notes what was acknowledged when. After each flush the log gets a mark, so that whoever replays
 * it knows which operations must have survived.
 */
#include "../integration/expect.h"
#include "../integration/ranges.h"
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define IO_MAX	    (256U << 10)
#define ENTRIES_MAX (1U << 17)

static const char usage_text[] =
	"Usage: crashload [OPTION]... JOURNAL DEVICE [OPERATION]...\n"
	"  --log NAME   the dm-log-writes device that gets the marks\n"
	"  --seed N     which random numbers (1)\n"
	"  --ops N      operations of all threads together (1000)\n"
	"  --threads N  that work at once (4)\n"
	"  --flush N    one operation of so many is a flush (10)\n"
	"JOURNAL is gone on with if it has a journal. An OPERATION is\n"
	"write:SECTOR:NR, discard:SECTOR:NR or flush: these are then all,\n"
	"one after the other; flush:MS is a flush of which the end is not\n"
	"waited for: so many milliseconds later comes the next.\n";

struct config {
	uint64_t seed, ops, threads, flush;
	const char *log, *journal, *device;
	char *const *script; /* NULL: what the random numbers say */
};

enum state {
	STATE_STARTED,
	STATE_DONE, /* completed, so that the next flush covers it */
	STATE_ACKED,
};

struct load {
	struct config config;
	struct journal *journal;
	struct ranges ranges;
	/* journal, state and the marks */
	pthread_mutex_t lock;
	unsigned char state[ENTRIES_MAX];
	/* Sends one mark after the other, so that their order in the log is their order in number.
	 */
	pthread_mutex_t mark_lock;
	atomic_ullong total, failed;
	bool ahead; /* marks get their numbers before they are in the log */
	int fd, control;
};

struct thread {
	struct load *load;
	unsigned int nr;
	uint64_t random;
	unsigned char *buf;
	pthread_t id, flusher;
};

/* ---- marks ---------------------------------------------------------------------------------- */

static void send_mark(struct load *load, uint32_t mark)
{
	struct {
		struct dm_ioctl head;
		struct dm_target_msg message;
		char text[64];
	} request = { 0 };

	request.head.version[0] = DM_VERSION_MAJOR;
	request.head.data_size = sizeof(request);
	request.head.data_start = sizeof(request.head);
	snprintf(request.head.name, sizeof(request.head.name), "%s", load->config.log);
	snprintf((char *)request.message.message, sizeof(request.text), "mark %" PRIu32, mark);
	if (ioctl(load->control, DM_TARGET_MSG, &request))
		die("mark on %s: %s", load->config.log, strerror(errno));
}

/* All that is in state DONE was so before the flush began, or was a FUA write. */
static void acknowledge(struct load *load, const uint32_t *entries, uint32_t nr)
{
	struct journal *journal = load->journal;
	uint32_t mark;

	pthread_mutex_lock(&load->mark_lock);
	pthread_mutex_lock(&load->lock);
	mark = (uint32_t)++journal->marks;
	for (uint32_t i = 0; i < nr; i++) {
		if (load->state[entries[i]] != STATE_DONE)
			continue;
		load->state[entries[i]] = STATE_ACKED;
		journal->entries[entries[i]].mark = mark;
	}
	pthread_mutex_unlock(&load->lock);
	send_mark(load, mark);
	pthread_mutex_unlock(&load->mark_lock);
}

/* ---- operations ------------------------------------------------------------------------------ */

static uint32_t begin(struct load *load, enum journal_op op, const struct range *range)
{
	struct journal *journal = load->journal;
	struct journal_entry *entry;
	uint32_t i;

	pthread_mutex_lock(&load->lock);
	i = (uint32_t)journal->nr_entries++;
	if (i >= ENTRIES_MAX)
		die("the journal is full");
	entry = &journal->entries[i];
	entry->version = JOURNAL_FIRST_VERSION + i;
	entry->sector = range->sector;
	entry->nr = range->nr;
	entry->op = op;
	/* The last mark has a number, but may not be in the log yet. */
	entry->begun = (uint32_t)journal->marks;
	if (load->ahead && entry->begun)
		entry->begun--;
	pthread_mutex_unlock(&load->lock);
	return i;
}

static void end(struct load *load, uint32_t i)
{
	pthread_mutex_lock(&load->lock);
	load->state[i] = STATE_DONE;
	pthread_mutex_unlock(&load->lock);
}

static int do_write(struct thread *t, const struct range *range, uint64_t version, int flags)
{
	struct iovec iov = { t->buf, range->nr * SECTOR };
	ssize_t n;

	for (uint64_t i = 0; i < range->nr; i++)
		stamp_put(t->buf + i * SECTOR, 1, range->sector + i, version);
	n = pwritev2(t->load->fd, &iov, 1, (off_t)(range->sector * SECTOR), flags);
	if (n < 0)
		return -errno;
	return (size_t)n == iov.iov_len ? 0 : -EIO;
}

static int do_ioctl(struct thread *t, const struct range *range, enum journal_op op)
{
	uint64_t bytes[2] = { range->sector * SECTOR, range->nr * SECTOR };

	if (!ioctl(t->load->fd, op == JOURNAL_ZERO ? BLKZEROOUT : BLKDISCARD, bytes))
		return 0;
	return op == JOURNAL_DISCARD && errno == EOPNOTSUPP ? 0 : -errno;
}

static void complain(struct load *load, const char *what, int r)
{
	fprintf(stderr, "crashload: %s: %s\n", what, strerror(-r));
	atomic_fetch_add(&load->failed, 1);
}

static void change(struct thread *t, const struct range *range, enum journal_op op, bool fua)
{
	struct load *load = t->load;
	uint32_t i;
	int r;

	range_take(&load->ranges, t->nr, range);
	i = begin(load, op, range);
	if (op == JOURNAL_WRITE)
		r = do_write(t, range, load->journal->entries[i].version, fua ? RWF_DSYNC : 0);
	else
		r = do_ioctl(t, range, op);
	if (r)
		complain(load, "change", r);
	else
		end(load, i);
	range_give_back(&load->ranges, t->nr);
	if (fua && !r)
		acknowledge(load, &i, 1);
}

static void flush(struct thread *t)
{
	struct load *load = t->load;
	uint32_t *entries, nr = 0;

	pthread_mutex_lock(&load->lock);
	entries = malloc((load->journal->nr_entries + 1) * sizeof(*entries));
	if (!entries)
		die("out of memory");
	for (uint32_t i = 0; i < load->journal->nr_entries; i++)
		if (load->state[i] == STATE_DONE)
			entries[nr++] = i;
	pthread_mutex_unlock(&load->lock);
	if (fsync(load->fd))
		complain(load, "flush", -errno);
	else
		acknowledge(load, entries, nr);
	free(entries);
}

/* ---- threads -----------------------------------------------------------------------------------
 */

/* Many small ones that meet in few clusters, some that cover whole clusters. */
static struct range choose_range(struct thread *t)
{
	uint64_t size = t->load->journal->nr_sectors;
	uint64_t hot = random_below(&t->random, 3) ? size / 8 : size;
	uint64_t sector = random_below(&t->random, hot), nr = 8;

	switch (random_below(&t->random, 4)) {
	case 0:
		nr = random_below(&t->random, 16) + 1;
		break;
	case 1:
		nr = random_below(&t->random, IO_MAX / SECTOR) + 1;
		break;
	default:
		sector &= ~7ULL;
	}
	return (struct range){ sector, nr > size - sector ? size - sector : nr };
}

static void step(struct thread *t)
{
	struct range range = choose_range(t);
	uint64_t dice = random_below(&t->random, 100);

	if (!random_below(&t->random, t->load->config.flush))
		flush(t);
	else if (dice < 70)
		change(t, &range, JOURNAL_WRITE, false);
	else if (dice < 80)
		change(t, &range, JOURNAL_WRITE, true);
	else if (dice < 90)
		change(t, &range, JOURNAL_DISCARD, false);
	else
		change(t, &range, JOURNAL_ZERO, false);
}

/* ---- scripts ------------------------------------------------------------------------------------
 */

static void *flush_beside(void *arg)
{
	flush(arg);
	return NULL;
}

static void end_flush(struct thread *t)
{
	if (!t->load->ahead)
		return;
	pthread_join(t->flusher, NULL);
	t->load->ahead = false;
}

/* There is never more than one such flush. */
static void begin_flush(struct thread *t, unsigned int ms)
{
	end_flush(t);
	t->load->ahead = true;
	if (pthread_create(&t->flusher, NULL, flush_beside, t))
		die("cannot start a thread");
	usleep(ms * 1000);
}

static void follow_word(struct thread *t, const char *word)
{
	struct range range = { 0 };
	unsigned int ms;
	char op[16];

	if (!strcmp(word, "flush")) {
		flush(t);
		return;
	}
	if (sscanf(word, "flush:%u", &ms) == 1) {
		begin_flush(t, ms);
		return;
	}
	if (sscanf(word, "%15[a-z]:%" SCNu64 ":%" SCNu64, op, &range.sector, &range.nr) != 3 ||
	    !range.nr || range.nr > IO_MAX / SECTOR)
		die("what is %s?", word);
	/* Whoever replays the log knows from this mark on that it has begun. */
	acknowledge(t->load, NULL, 0);
	change(t, &range, *op == 'w' ? JOURNAL_WRITE : JOURNAL_DISCARD, false);
}

static void *work(void *arg)
{
	struct thread *t = arg;

	for (char *const *word = t->load->config.script; word && *word; word++)
		follow_word(t, *word);
	if (t->load->config.script)
		end_flush(t);
	while (!t->load->config.script &&
	       atomic_fetch_add(&t->load->total, 1) < t->load->config.ops)
		step(t);
	return NULL;
}

static void start(struct load *load, struct thread *threads)
{
	for (unsigned int i = 0; i < load->config.threads; i++) {
		struct thread *t = &threads[i];

		t->load = load;
		t->nr = i;
		t->random = load->config.seed << 8 | i;
		if (posix_memalign((void **)&t->buf, 4096, IO_MAX) ||
		    pthread_create(&t->id, NULL, work, t))
			die("cannot start a thread");
	}
}

/* ---- the journal's file
 * -------------------------------------------------------------------------- */

static size_t journal_bytes(const struct journal *journal)
{
	return sizeof(*journal) + journal->nr_entries * sizeof(journal->entries[0]);
}

static void journal_read(struct load *load)
{
	size_t room = sizeof(struct journal) + ENTRIES_MAX * sizeof(struct journal_entry);
	FILE *f = fopen(load->config.journal, "rb");
	uint64_t bytes;

	load->journal = calloc(1, room);
	if (!load->journal || ioctl(load->fd, BLKGETSIZE64, &bytes))
		die("%s: %s", load->config.device, strerror(errno));
	if (f && fread(load->journal, 1, room, f) >= sizeof(struct journal) &&
	    load->journal->magic != JOURNAL_MAGIC)
		memset(load->journal, 0, room);
	if (f)
		fclose(f);
	load->journal->magic = JOURNAL_MAGIC;
	load->journal->nr_sectors = bytes / SECTOR;
	/* Whatever an earlier run left unacknowledged was complete before this one began. */
	for (uint64_t i = 0; i < load->journal->nr_entries; i++)
		load->state[i] = load->journal->entries[i].mark ? STATE_ACKED : STATE_DONE;
}

static void journal_write(struct load *load)
{
	FILE *f = fopen(load->config.journal, "r+b");

	if (!f)
		f = fopen(load->config.journal, "wb");
	if (!f || fwrite(load->journal, journal_bytes(load->journal), 1, f) != 1 || fclose(f))
		die("%s: %s", load->config.journal, strerror(errno));
}

static int parse(int argc, char **argv, struct config *c)
{
	uint64_t *const numbers[] = { &c->seed, &c->ops, &c->threads, &c->flush };
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 0 },	   { "ops", required_argument, NULL, 1 },
		{ "threads", required_argument, NULL, 2 }, { "flush", required_argument, NULL, 3 },
		{ "log", required_argument, NULL, 4 },	   { NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == '?')
			return -1;
		if (opt == 4)
			c->log = optarg;
		else
			*numbers[opt] = strtoull(optarg, NULL, 0);
	}
	if (argc - optind < 2 || !c->log || !c->flush || !c->threads || c->threads > THREADS_MAX)
		return -1;
	c->journal = argv[optind];
	c->device = argv[optind + 1];
	if (argc - optind > 2) {
		c->script = &argv[optind + 2];
		c->threads = 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct load load = {
		.config = { .seed = 1, .ops = 1000, .threads = 4, .flush = 10 },
		.ranges = RANGES_INIT,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.mark_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	struct thread threads[THREADS_MAX] = { 0 };

	if (parse(argc, argv, &load.config)) {
		fputs(usage_text, stderr);
		return 2;
	}
	load.fd = open(load.config.device, O_RDWR | O_DIRECT | O_CLOEXEC);
	load.control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (load.fd < 0 || load.control < 0)
		die("%s: %s", load.config.device, strerror(errno));
	journal_read(&load);
	load.ahead = !load.config.script;
	start(&load, threads);
	for (unsigned int i = 0; i < load.config.threads; i++)
		pthread_join(threads[i].id, NULL);
	journal_write(&load);
	printf("seed %" PRIu64 " entries %" PRIu64 " marks %" PRIu64 " failed %llu\n",
	       load.config.seed, load.journal->nr_entries, load.journal->marks,
	       atomic_load(&load.failed));
	return atomic_load(&load.failed) != 0;
}
