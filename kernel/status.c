// SPDX-License-Identifier: GPL-2.0-only
/* What "dmsetup status" says of a target; docs/dm-qcow.rst has the words. */

#include "dm-qcow.h"
#include "target.h"

/**
 * qcow_mode_name() - a mode for people
 * @mode: the mode
 *
 * Context: any.
 * Return: the word that status has for it.
 */
const char *qcow_mode_name(enum qcow_mode mode)
{
	static const char *const names[] = {
		[QCOW_MODE_RW] = "RW",
		[QCOW_MODE_RO] = "RO",
		[QCOW_MODE_FAIL] = "FAIL",
	};

	return names[mode];
}

static const char *helper_word(struct qcow_target *t)
{
	if (qcow_link_attached(&t->link))
		return "attached";
	return qcow_link_epoch(&t->link) ? "lost" : "none";
}

static const char *image_word(const struct qcow_target *t)
{
	if (READ_ONCE(t->image) != DM_QCOW_STATE_OPEN)
		return "closed";
	return READ_ONCE(t->unclean) ? "unclean" : "open";
}

static struct qcow_io_stats sum_stats(const struct qcow_disk *disk)
{
	struct qcow_io_stats sum = { };
	int cpu;

	for_each_possible_cpu(cpu) {
		const struct qcow_io_stats *s = per_cpu_ptr(disk->stats, cpu);

		sum.reads += READ_ONCE(s->reads);
		sum.writes += READ_ONCE(s->writes);
		sum.deferred += READ_ONCE(s->deferred);
		sum.zero_fills += READ_ONCE(s->zero_fills);
	}
	return sum;
}

struct pair {
	const char *name;
	unsigned long value;
};

/* How much is left below, where that is known. */
static unsigned int room_pairs(struct qcow_target *t, struct pair pairs[2])
{
	struct qcow_room *room = &t->disk.room;
	u64 left;

	if (!qcow_room_left(room, &left))
		return 0;
	pairs[0] = (struct pair){ "space_left", left };
	pairs[1] = (struct pair){ "low_space", left < room->mark };
	return 2;
}

static unsigned int print_pairs(const struct pair *pairs, unsigned int nr, unsigned int sz,
				char *result, unsigned int maxlen)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		DMEMIT(" %s %lu", pairs[i].name, pairs[i].value);
	return sz;
}

/* What failed, in four pairs; nothing if nothing has. */
static unsigned int print_failure(const struct qcow_failure *f, const char *name,
				  unsigned int sz, char *result, unsigned int maxlen)
{
	DMEMIT(" %s_op %s %s_errno %d %s_at ", name, f->op, name, -f->error, name);
	sz = qcow_args_print_word(f->at, result, maxlen, sz);
	if (f->off == QCOW_NO_OFF)
		DMEMIT(" %s_offset -", name);
	else
		DMEMIT(" %s_offset %llu", name, f->off);
	return sz;
}

#define FAILURE_PAIRS	4

static void print_failures(struct qcow_errors *e, bool last, bool mode, unsigned int sz,
			   char *result, unsigned int maxlen)
{
	spin_lock_irq(&e->lock);
	if (last)
		sz = print_failure(&e->last, "last", sz, result, maxlen);
	if (mode)
		print_failure(&e->mode, "mode", sz, result, maxlen);
	spin_unlock_irq(&e->lock);
}

/**
 * qcow_status_print() - the status line
 * @t: the target
 * @result: where to
 * @maxlen: its size
 *
 * Numbers for people and tests; one may be older than the next.
 *
 * Context: process; does not sleep.
 */
void qcow_status_print(struct qcow_target *t, char *result, unsigned int maxlen)
{
	const struct qcow_io_stats stats = sum_stats(&t->disk);
	const struct qcow_upcalls *ucs = &t->disk.upcalls;
	const struct qcow_cache *cache = &t->disk.cache;
	const struct qcow_map *map = &t->disk.map;
	const struct qcow_alloc *alloc = &t->disk.alloc;
	const struct qcow_commit *commit = &t->disk.commit;
	const struct pair pairs[] = {
		{ "reads", stats.reads },
		{ "zero_fills", stats.zero_fills },
		{ "in_flight", qcow_inflight_count(&t->disk.inflight) },
		{ "errors", atomic_long_read(&t->nr_errors) },
		{ "layers", t->disk.nr_layers },
		{ "upcalls", ucs->nr_submitted },
		{ "loads", ucs->nr_loads },
		{ "fetches", ucs->nr_fetches },
		{ "timeouts", ucs->nr_timeouts },
		{ "attaches", qcow_link_epoch(&t->link) },
		{ "helper_deaths", ucs->nr_deaths },
		{ "map_pages", map->nr_pages },
		{ "map_collapsed", map->nr_collapsed },
		{ "map_bytes", map->bytes },
		{ "map_evicted", map->nr_evicted },
		{ "cache_blocks", cache->nr_blocks },
		{ "cache_bytes", cache->bytes },
		{ "cache_hits", cache->nr_hits },
		{ "writes", stats.writes },
		{ "deferred", stats.deferred },
		{ "waits", t->disk.cells.nr_waits },
		{ "leases", alloc->nr_leases },
		{ "clusters_leased", alloc->nr_free },
		{ "clusters_leaked", alloc->nr_leaked },
		{ "no_space", !!READ_ONCE(alloc->shortage.since) },
		{ "deltas", map->nr_dirty },
		{ "map_pinned", map->nr_pinned },
		{ "flushes", commit->nr_flushes },
		{ "commits", commit->nr_commits },
		{ "committed", commit->nr_committed },
		{ "commits_resent", ucs->nr_commits_resent },
	};
	/* Once there is one there always is; what it says may change until it is printed. */
	bool last = READ_ONCE(t->disk.errors.last.op), mode = READ_ONCE(t->disk.errors.mode.op);
	struct pair room[2];
	unsigned int nr_room = room_pairs(t, room), sz = 0;

	DMEMIT("%s %s %s %zu", qcow_mode_name(READ_ONCE(t->mode)), helper_word(t), image_word(t),
	       ARRAY_SIZE(pairs) + nr_room + FAILURE_PAIRS * (last + mode));
	sz = print_pairs(pairs, ARRAY_SIZE(pairs), sz, result, maxlen);
	sz = print_pairs(room, nr_room, sz, result, maxlen);
	print_failures(&t->disk.errors, last, mode, sz, result, maxlen);
}
