// SPDX-License-Identifier: GPL-2.0-only
/* The two-level map; see map.h. */

#include <linux/bitfield.h>
#include <linux/bits.h>
#include <linux/init.h>
#include <linux/log2.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "dm-qcow.h"
#include "map.h"

#define ENTRY_SECTOR	GENMASK_ULL(46, 0)
#define ENTRY_LAYER	GENMASK_ULL(56, 47)
#define ENTRY_WRITABLE	BIT_ULL(57)
#define ENTRY_TYPE	GENMASK_ULL(59, 58)

#define PAGE_BYTES	(DM_QCOW_PAGE_BLOCKS * sizeof(u64) + sizeof(struct qcow_map_page))
#define VALUE_BYTES	(2 * sizeof(void *))	/* a slot and its share of the xarray's nodes */
#define POOL_MIN	2	/* pages held back: one being filled, one being used */

/*
 * The entries are an allocation of their own: a header in front of 4096 bytes
 * would make the allocator round up to 8192, and double the map's memory.
 */
struct qcow_map_page {
	struct rcu_head rcu;
	struct qcow_map *map;
	u64 *entries;
	bool used;		/* looked at since the clock hand passed; racy, a hint */
};

static struct kmem_cache *page_cache;

static void *pool_alloc(gfp_t gfp, void *unused)
{
	struct qcow_map_page *page = kmem_cache_alloc(page_cache, gfp);

	if (!page)
		return NULL;
	page->entries = kmalloc_array(DM_QCOW_PAGE_BLOCKS, sizeof(u64), gfp);
	if (page->entries)
		return page;
	kmem_cache_free(page_cache, page);
	return NULL;
}

static void pool_free(void *element, void *unused)
{
	struct qcow_map_page *page = element;

	kfree(page->entries);
	kmem_cache_free(page_cache, page);
}

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
	return mempool_init(&map->pool, POOL_MIN, pool_alloc, pool_free, NULL);
}

/**
 * qcow_map_exit() - undo qcow_map_init()
 * @map: that nobody looks up any more
 *
 * Context: process; sleeps for an RCU grace period.
 */
void qcow_map_exit(struct qcow_map *map)
{
	qcow_map_reset(map);
	/* Pages on their way through RCU go back to this pool. */
	rcu_barrier();
	mempool_exit(&map->pool);
	xa_destroy(&map->pages);
}

/**
 * qcow_map_page_create() - memory for one page
 * @map: the map
 *
 * Context: process; may sleep, without I/O. Falls back on the pool's reserve, so
 * it cannot fail; it may wait until another page is destroyed.
 * Return: the page, the caller's until qcow_map_insert() takes it.
 */
struct qcow_map_page *qcow_map_page_create(struct qcow_map *map)
{
	struct qcow_map_page *page = mempool_alloc(&map->pool, GFP_NOIO);

	page->map = map;
	page->used = true;
	return page;
}

/**
 * qcow_map_page_destroy() - free a page that was never published
 * @map: the map
 * @page: from qcow_map_page_create()
 *
 * Context: any.
 */
void qcow_map_page_destroy(struct qcow_map *map, struct qcow_map_page *page)
{
	mempool_free(page, &map->pool);
}

static void free_rcu(struct rcu_head *rcu)
{
	struct qcow_map_page *page = container_of(rcu, struct qcow_map_page, rcu);

	qcow_map_page_destroy(page->map, page);
}

static u64 entry_of_run(const struct dm_qcow_run *run)
{
	u64 e = FIELD_PREP(ENTRY_TYPE, run->type);

	if (run->type != DM_QCOW_RUN_DATA)
		return e;
	e |= FIELD_PREP(ENTRY_LAYER, run->layer);
	e |= FIELD_PREP(ENTRY_SECTOR, run->host_off >> SECTOR_SHIFT);
	if (run->flags & DM_QCOW_RUN_WRITABLE)
		e |= ENTRY_WRITABLE;
	return e;
}

/* The entry @n blocks behind the block of @e in a contiguous run. */
static u64 entry_ahead(const struct qcow_map *map, u64 e, u64 n)
{
	if (FIELD_GET(ENTRY_TYPE, e) != DM_QCOW_RUN_DATA)
		return e;
	return e + (n << map->block_shift);
}

/**
 * qcow_map_fill() - write the next run into a page
 * @map: the map
 * @fill: the page, and how far it is filled
 * @run: whose type, layer and offset have been checked
 *
 * Context: any; does not sleep.
 * Return: 0; -EINVAL if the run is empty or does not fit.
 */
int qcow_map_fill(struct qcow_map *map, struct qcow_map_fill *fill,
		  const struct dm_qcow_run *run)
{
	u64 e = entry_of_run(run);
	unsigned int i;

	if (!run->nr_blocks || run->nr_blocks > DM_QCOW_PAGE_BLOCKS - fill->nr_blocks)
		return -EINVAL;
	for (i = 0; i < run->nr_blocks; i++)
		fill->page->entries[fill->nr_blocks++] = entry_ahead(map, e, i);
	return 0;
}

static void extent_of_entry(struct qcow_extent *x, u64 e)
{
	x->type = FIELD_GET(ENTRY_TYPE, e);
	x->layer = FIELD_GET(ENTRY_LAYER, e);
	x->writable = e & ENTRY_WRITABLE;
	x->host_sector = FIELD_GET(ENTRY_SECTOR, e);
}

static u64 entry_at(const struct qcow_map *map, const void *slot, unsigned int i)
{
	if (xa_is_value(slot))
		return entry_ahead(map, xa_to_value(slot), i);
	return ((const struct qcow_map_page *)slot)->entries[i];
}

/*
 * How many blocks of @slot, from index @i on, continue as @want says; at most
 * @max. A collapsed page answers without a loop.
 */
static u64 count_ahead(const struct qcow_map *map, const void *slot, unsigned int i, u64 want,
		       u64 max)
{
	u64 n, room = min_t(u64, max, DM_QCOW_PAGE_BLOCKS - i);

	if (xa_is_value(slot))
		return entry_at(map, slot, i) == want ? room : 0;
	for (n = 0; n < room; n++)
		if (entry_at(map, slot, i + n) != entry_ahead(map, want, n))
			break;
	return n;
}

/* Fills @x from the page of @sector; returns the entry and, in @nr, its blocks. */
static u64 first_part(const struct qcow_map *map, const void *slot, u64 block, u64 blocks, u64 *nr)
{
	unsigned int i = block % DM_QCOW_PAGE_BLOCKS;
	u64 e = entry_at(map, slot, i);

	*nr = 1;
	/* A FETCH is one upcall for one block: extents of it never merge. */
	if (blocks > 1 && FIELD_GET(ENTRY_TYPE, e) != DM_QCOW_RUN_FETCH)
		*nr = count_ahead(map, slot, i, e, blocks);
	return e;
}

static void finish(const struct qcow_map *map, struct qcow_extent *x, u64 e, sector_t sector,
		   unsigned int nr_sectors, u64 nr_blocks)
{
	unsigned int skip = sector & (qcow_map_block_sectors(map) - 1);
	u64 found = (nr_blocks << map->block_shift) - skip;

	extent_of_entry(x, e);
	x->host_sector += skip;
	x->nr_sectors = min_t(u64, found, nr_sectors);
}

/* Blocks that @nr_sectors from @sector on touch. */
static u64 blocks_touched(const struct qcow_map *map, sector_t sector, unsigned int nr_sectors)
{
	return ((sector + nr_sectors - 1) >> map->block_shift) - (sector >> map->block_shift) + 1;
}

/**
 * qcow_map_page_lookup() - look into a page that need not be in the map
 * @map: the map
 * @page: the page of @sector
 * @sector: guest sector
 * @nr_sectors: how far the caller wants to go; at least 1
 * @x: the answer
 *
 * Context: any; does not sleep. The caller keeps @page alive.
 */
void qcow_map_page_lookup(struct qcow_map *map, const struct qcow_map_page *page,
			  sector_t sector, unsigned int nr_sectors, struct qcow_extent *x)
{
	u64 nr, e;

	e = first_part(map, page, sector >> map->block_shift,
		       blocks_touched(map, sector, nr_sectors), &nr);
	finish(map, x, e, sector, nr_sectors, nr);
}

/*
 * More than a block, and over page boundaries if need be. A function of its own, so
 * that small I/O need not save the registers it takes.
 */
static noinline void lookup_far(struct qcow_map *map, const void *slot, sector_t sector,
				unsigned int nr_sectors, struct qcow_extent *x)
{
	u64 block = sector >> map->block_shift;
	u64 blocks = blocks_touched(map, sector, nr_sectors);
	u64 nr, n, e;

	e = first_part(map, slot, block, blocks, &nr);
	while (nr < blocks && (block + nr) % DM_QCOW_PAGE_BLOCKS == 0 &&
	       FIELD_GET(ENTRY_TYPE, e) != DM_QCOW_RUN_FETCH) {
		slot = xa_load(&map->pages, (block + nr) / DM_QCOW_PAGE_BLOCKS);
		n = slot ? count_ahead(map, slot, 0, entry_ahead(map, e, nr), blocks - nr) : 0;
		if (!n)
			break;
		nr += n;
	}
	finish(map, x, e, sector, nr_sectors, nr);
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
	extent_of_entry(x, entry_at(map, slot,
				    (sector >> map->block_shift) % DM_QCOW_PAGE_BLOCKS));
	x->host_sector += skip;
	x->nr_sectors = nr_sectors;
	return true;
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
	map->bytes += sign * (ssize_t)(value ? VALUE_BYTES : PAGE_BYTES);
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
		call_rcu(&((struct qcow_map_page *)slot)->rcu, free_rcu);
}

/* May the clock hand take this slot? A page looked at lately is passed once. */
static bool may_evict(void *slot)
{
	struct qcow_map_page *page = slot;

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

/* The value a page collapses to, or NULL. */
static void *collapse(const struct qcow_map *map, const struct qcow_map_page *page)
{
	u64 first = page->entries[0];

	if (count_ahead(map, page, 0, first, DM_QCOW_PAGE_BLOCKS) != DM_QCOW_PAGE_BLOCKS)
		return NULL;
	return xa_mk_value(first);
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
	void *value = collapse(map, page);
	int r;

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
			r = store_locked(map, &xas, value ?: page);
		xas_unlock(&xas);
	} while (xas_nomem(&xas, GFP_NOIO | __GFP_NOWARN));
	if (!r && value)
		qcow_map_page_destroy(map, page);
	return r;
}

/**
 * qcow_map_reset() - forget everything, and refuse LOADs asked before
 * @map: the map
 *
 * Context: process; may sleep. Lookups may run; they find nothing.
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
		xas_store(&xas, NULL);
		drop_locked(map, slot);
		if (++nr % XA_CHECK_SCHED)
			continue;
		xas_pause(&xas);
		xas_unlock(&xas);
		cond_resched();
		xas_lock(&xas);
	}
	xas_unlock(&xas);
}

/**
 * qcow_map_module_exit() - undo qcow_map_module_init()
 *
 * Context: module exit; waits for the RCU callbacks that free pages.
 */
void qcow_map_module_exit(void)
{
	rcu_barrier();
	kmem_cache_destroy(page_cache);
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
 * qcow_map_module_init() - make the slab cache of page headers
 *
 * In debug builds the map is tested then.
 *
 * Context: module init.
 * Return: 0, -ENOMEM, or -EINVAL if the test failed.
 */
int __init qcow_map_module_init(void)
{
	page_cache = KMEM_CACHE(qcow_map_page, 0);
	if (!page_cache)
		return -ENOMEM;
	if (qcow_map_selftest())
		return 0;
	qcow_map_module_exit();
	return -EINVAL;
}
