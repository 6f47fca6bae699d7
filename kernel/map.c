// SPDX-License-Identifier: GPL-2.0-only
/* The two-level map; see map.h. */

#include <linux/init.h>
#include <linux/log2.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "dm-qcow.h"
#include "delta.h"
#include "page.h"

/**
 * qcow_map_init() - an empty map
 * @map: embedded in its owner
 * @block_size: bytes, a power of two in the uapi's range
 * @budget: bytes the map may use
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_map_init(struct qcow_map *map, unsigned int block_size, size_t budget)
{
	memset(map, 0, sizeof(*map));
	xa_init(&map->pages);
	map->block_shift = ilog2(block_size) - SECTOR_SHIFT;
	map->budget = budget;
	INIT_LIST_HEAD(&map->dirty);
	INIT_LIST_HEAD(&map->sealed);
	return qcow_page_pool_init(map);
}

/**
 * qcow_map_exit() - undo qcow_map_init()
 * @map: that nobody looks up any more
 *
 * Context: process; sleeps for an RCU grace period.
 */
void qcow_map_exit(struct qcow_map *map)
{
	qcow_map_forget_deltas(map);
	qcow_map_reset(map);
	qcow_page_pool_exit(map);
	xa_destroy(&map->pages);
}

/*
 * More than a block, and over page boundaries if need be. A function of its own, so
 * that small I/O need not save the registers it takes.
 */
static noinline void lookup_far(struct qcow_map *map, const void *slot, sector_t sector,
				unsigned int nr_sectors, struct qcow_extent *x)
{
	u64 block = sector >> map->block_shift;
	u64 blocks = qcow_blocks_touched(map, sector, nr_sectors);
	u64 nr, n, e;

	e = qcow_slot_first(map, slot, block, blocks, &nr);
	while (nr < blocks && (block + nr) % DM_QCOW_PAGE_BLOCKS == 0 &&
	       FIELD_GET(ENTRY_TYPE, e) != DM_QCOW_RUN_FETCH) {
		slot = xa_load(&map->pages, (block + nr) / DM_QCOW_PAGE_BLOCKS);
		if (!slot)
			break;
		n = qcow_slot_count(map, slot, 0, qcow_entry_ahead(map, e, nr), blocks - nr);
		if (!n)
			break;
		nr += n;
	}
	qcow_extent_finish(map, x, e, sector, nr_sectors, nr);
}

/**
 * qcow_map_lookup() - where are these sectors?
 * @map: the map
 * @sector: guest sector
 * @nr_sectors: how far the caller wants to go; at least 1
 * @x: the answer, valid if true is returned
 *
 * Goes on over page boundaries, so that large I/O stays large.
 *
 * Context: an RCU read section. The answer holds until the caller's in-flight epoch
 * is fenced.
 * Return: false if the first sector's page is not loaded.
 */
bool qcow_map_lookup(struct qcow_map *map, sector_t sector, unsigned int nr_sectors,
		     struct qcow_extent *x)
{
	XA_STATE(xas, &map->pages, qcow_map_page_of(map, sector));
	void *slot = xas_load(&xas);
	unsigned int skip;

	/* A node on its way out: take the long way round. */
	if (unlikely(xas_retry(&xas, slot)))
		slot = xa_load(&map->pages, qcow_map_page_of(map, sector));
	if (unlikely(!slot))
		return false;
	if (!xa_is_value(slot) && !READ_ONCE(((struct qcow_map_page *)slot)->used))
		WRITE_ONCE(((struct qcow_map_page *)slot)->used, true);
	skip = sector & (qcow_map_block_sectors(map) - 1);
	if (unlikely(skip + nr_sectors > qcow_map_block_sectors(map))) {
		lookup_far(map, slot, sector, nr_sectors, x);
		return true;
	}
	qcow_extent_of_entry(x, qcow_slot_entry(map, slot, qcow_map_index_of(map, sector)));
	x->host_sector += skip;
	x->nr_sectors = nr_sectors;
	return true;
}

/**
 * qcow_map_has_deltas() - may there be deltas among these blocks that are not durable?
 * @map: the map
 * @sector: guest sector
 * @nr_sectors: at least 1
 *
 * Context: an RCU read section. Sees whatever was set before the call.
 * Return: false if there are none; true if there may be.
 */
bool qcow_map_has_deltas(struct qcow_map *map, sector_t sector, unsigned int nr_sectors)
{
	u64 idx = qcow_map_page_of(map, sector);
	u64 last = qcow_map_page_of(map, sector + nr_sectors - 1);
	void *slot;

	for (; idx <= last; idx++) {
		slot = xa_load(&map->pages, idx);
		if (slot && !xa_is_value(slot) &&
		    READ_ONCE(((struct qcow_map_page *)slot)->pins))
			return true;
	}
	return false;
}

/**
 * qcow_map_seq() - the sequence number to send with a LOAD
 * @map: the map
 * @page_idx: the page
 *
 * Context: any; does not sleep.
 * Return: the number that qcow_map_insert() compares.
 */
u32 qcow_map_seq(struct qcow_map *map, u64 page_idx)
{
	return READ_ONCE(map->seq[page_idx % QCOW_MAP_SEQS]);
}

static void account_locked(struct qcow_map *map, void *slot, int sign)
{
	bool value = xa_is_value(slot);

	lockdep_assert_held(&map->pages.xa_lock);
	map->bytes += sign * (ssize_t)qcow_slot_bytes(slot);
	map->nr_pages += sign;
	if (value)
		map->nr_collapsed += sign;
}

static void drop_locked(struct qcow_map *map, void *slot)
{
	if (!slot)
		return;
	account_locked(map, slot, -1);
	if (!xa_is_value(slot))
		qcow_page_free_rcu(slot);
}

static bool is_pinned(const void *slot)
{
	return !xa_is_value(slot) && ((const struct qcow_map_page *)slot)->pins;
}

/* May the clock hand take this slot? A page looked at lately is passed once. */
static bool may_evict(void *slot)
{
	struct qcow_map_page *page = slot;

	if (is_pinned(slot))
		return false;
	if (xa_is_value(slot) || !READ_ONCE(page->used))
		return true;
	WRITE_ONCE(page->used, false);
	return false;
}

/*
 * Second-chance eviction until the map is within its budget. Two rounds find a
 * victim whatever the used bits say. @keep, just inserted, is spared.
 */
static void evict_locked(struct qcow_map *map, u64 keep)
{
	XA_STATE(xas, &map->pages, map->hand);
	int rounds = 0;
	void *slot;

	while (map->bytes > map->budget && rounds < 3) {
		slot = xas_find(&xas, ULONG_MAX);
		if (!slot) {
			xas_set(&xas, 0);
			rounds++;
			continue;
		}
		if (xas.xa_index == keep || !may_evict(slot))
			continue;
		xas_store(&xas, NULL);
		drop_locked(map, slot);
		map->nr_evicted++;
	}
	map->hand = xas.xa_index;
}

static int store_locked(struct qcow_map *map, struct xa_state *xas, void *slot)
{
	void *old = xas_store(xas, slot);

	if (xas_error(xas))
		return xas_error(xas);
	drop_locked(map, old);
	account_locked(map, slot, 1);
	evict_locked(map, xas->xa_index);
	return 0;
}

/*
 * Two LOADs of one page can be answered: a bio that missed it asks again if the first
 * answer was faster than it. What is there already is at least as new, and may be pinned.
 */
static int insert_locked(struct qcow_map *map, struct xa_state *xas, void *slot)
{
	return xas_load(xas) ? -EEXIST : store_locked(map, xas, slot);
}

/**
 * qcow_map_insert() - publish a page
 * @map: the map
 * @page_idx: its number
 * @seq: what qcow_map_seq() said when the LOAD was made
 * @page: filled; the map's when 0 is returned, else still the caller's
 *
 * Evicts other pages if the map is over its budget.
 *
 * Context: process; may sleep, without I/O.
 * Return: 0; -ESTALE if the LOAD must be asked again; -ENOMEM: use the page for
 * the bios that wait and destroy it.
 */
int qcow_map_insert(struct qcow_map *map, u64 page_idx, u32 seq, struct qcow_map_page *page)
{
	XA_STATE(xas, &map->pages, page_idx);
	void *value = qcow_page_collapse(map, page);
	int r;

	page->idx = page_idx;
	page->seq = seq;
	/* Nor may who waits be served from it. */
	if (seq != qcow_map_seq(map, page_idx))
		return -ESTALE;
	/*
	 * A page from the reserve must go back there, or the next one would wait
	 * for memory that nobody gives up.
	 */
	if (READ_ONCE(map->pool.curr_nr) < POOL_MIN)
		return -ENOMEM;
	do {
		xas_lock(&xas);
		r = seq == qcow_map_seq(map, page_idx) ? 0 : -ESTALE;
		if (!r)
			r = insert_locked(map, &xas, value ?: page);
		xas_unlock(&xas);
	} while (xas_nomem(&xas, GFP_NOIO | __GFP_NOWARN));
	if ((!r && value) || r == -EEXIST)
		qcow_map_page_destroy(map, page);
	return r == -EEXIST ? 0 : r;
}

/**
 * qcow_map_reset() - forget all but pinned pages, and refuse LOADs asked before
 * @map: the map
 *
 * Context: process; may sleep. Lookups may run.
 */
void qcow_map_reset(struct qcow_map *map)
{
	XA_STATE(xas, &map->pages, 0);
	unsigned int i, nr = 0;
	void *slot;

	xas_lock(&xas);
	for (i = 0; i < QCOW_MAP_SEQS; i++)
		WRITE_ONCE(map->seq[i], map->seq[i] + 1);
	xas_for_each(&xas, slot, ULONG_MAX) {
		if (!is_pinned(slot)) {
			xas_store(&xas, NULL);
			drop_locked(map, slot);
		}
		if (++nr % XA_CHECK_SCHED)
			continue;
		xas_pause(&xas);
		xas_unlock(&xas);
		cond_resched();
		xas_lock(&xas);
	}
	xas_unlock(&xas);
}

static struct qcow_map_page *pin_locked(struct qcow_map *map, struct qcow_map_page *page)
{
	lockdep_assert_held(&map->pages.xa_lock);
	if (!page->pins++)
		map->nr_pinned++;
	return page;
}

/* Replaces a value by a page; a slot that is in use needs no memory to be stored to. */
static void expand_locked(struct qcow_map *map, struct xa_state *xas, struct qcow_map_page *page)
{
	void *value = xas_load(xas);

	qcow_page_expand(page, value);
	page->idx = xas->xa_index;
	account_locked(map, value, -1);
	xas_store(xas, page);
	account_locked(map, page, 1);
}

/**
 * qcow_map_pin() - keep a page in the map, as a page, and be allowed to change it
 * @map: the map
 * @page_idx: its number
 *
 * Context: process; may sleep, without I/O; cannot fail for want of memory.
 * Return: the page, to be given to qcow_map_unpin(); NULL if it is not loaded.
 */
struct qcow_map_page *qcow_map_pin(struct qcow_map *map, u64 page_idx)
{
	XA_STATE(xas, &map->pages, page_idx);
	struct qcow_map_page *page = NULL, *new = NULL;
	void *slot;

	for (;;) {
		xas_lock(&xas);
		xas_reset(&xas);
		slot = xas_load(&xas);
		if (slot && xa_is_value(slot) && new) {
			expand_locked(map, &xas, new);
			slot = new;
			new = NULL;
		}
		if (slot && !xa_is_value(slot))
			page = pin_locked(map, slot);
		xas_unlock(&xas);
		if (page || !slot)
			break;
		new = qcow_map_page_create(map);
	}
	if (new)
		qcow_map_page_destroy(map, new);
	return page;
}

/**
 * qcow_map_unpin_locked() - undo one qcow_map_pin()
 * @map: the map, its xa_lock held
 * @page: pinned
 *
 * Context: process; does not sleep. The page may be gone afterwards.
 */
void qcow_map_unpin_locked(struct qcow_map *map, struct qcow_map_page *page)
{
	XA_STATE(xas, &map->pages, page->idx);
	void *value;

	lockdep_assert_held(&map->pages.xa_lock);
	if (--page->pins)
		return;
	map->nr_pinned--;
	if (page->credited) {
		page->credited = false;
		map->nr_credited--;
	}
	value = qcow_page_collapse(map, page);
	if (value)
		store_locked(map, &xas, value);
	else
		evict_locked(map, ULONG_MAX);
}

/**
 * qcow_map_unpin() - undo one qcow_map_pin()
 * @map: the map
 * @page: pinned; may be gone afterwards
 *
 * Context: process; does not sleep.
 */
void qcow_map_unpin(struct qcow_map *map, struct qcow_map_page *page)
{
	xa_lock(&map->pages);
	qcow_map_unpin_locked(map, page);
	xa_unlock(&map->pages);
}

#ifdef QCOW_SELFTEST
#include "selftest/map.c"
#else
static bool __init qcow_map_selftest(void)
{
	return true;
}
#endif

/**
 * qcow_map_module_exit() - undo qcow_map_module_init()
 *
 * Context: module exit.
 */
void qcow_map_module_exit(void)
{
	qcow_page_module_exit();
}

/**
 * qcow_map_module_init() - make what all maps share
 *
 * In debug builds the map is tested then.
 *
 * Context: module init.
 * Return: 0, -ENOMEM, or -EINVAL if the test failed.
 */
int __init qcow_map_module_init(void)
{
	int r = qcow_page_module_init();

	if (r)
		return r;
	if (qcow_map_selftest())
		return 0;
	qcow_page_module_exit();
	return -EINVAL;
}
