// SPDX-License-Identifier: GPL-2.0-only
/* Map pages; see page.h. */

#include <linux/init.h>
#include <linux/slab.h>

#include "delta.h"
#include "dm-qcow.h"
#include "page.h"

#define VALUE_BYTES	(2 * sizeof(void *))	/* a slot and its share of the xarray's nodes */

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
 * qcow_page_pool_init() - set up the pool that pages come from
 * @map: the map
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_page_pool_init(struct qcow_map *map)
{
	return mempool_init(&map->pool, POOL_MIN, pool_alloc, pool_free, NULL);
}

/**
 * qcow_map_reserve() - set memory aside for the places of pages
 * @map: of a table that allows writing
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM; qcow_map_exit() frees it.
 */
int qcow_map_reserve(struct qcow_map *map)
{
	return mempool_init_kmalloc_pool(&map->places, POOL_MIN, ENTRY_ARRAY_BYTES);
}

/**
 * qcow_page_pool_exit() - undo qcow_page_pool_init()
 * @map: the map, empty
 *
 * Context: process; sleeps for an RCU grace period.
 */
void qcow_page_pool_exit(struct qcow_map *map)
{
	/* Pages on their way through RCU go back to these pools. */
	rcu_barrier();
	mempool_exit(&map->places);
	mempool_exit(&map->pool);
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
	page->places = NULL;
	page->used = true;
	page->pins = 0;
	page->credited = false;
	bitmap_zero(page->dirty, DM_QCOW_PAGE_BLOCKS);
	INIT_LIST_HEAD(&page->dirty_node);
	INIT_LIST_HEAD(&page->sealed_node);
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
	if (page->places)
		mempool_free(page->places, &map->places);
	mempool_free(page, &map->pool);
}

static void free_rcu(struct rcu_head *rcu)
{
	struct qcow_map_page *page = container_of(rcu, struct qcow_map_page, rcu);

	qcow_map_page_destroy(page->map, page);
}

/**
 * qcow_page_free_rcu() - free a page that lookups may still be in
 * @page: no longer published
 *
 * Context: any.
 */
void qcow_page_free_rcu(struct qcow_map_page *page)
{
	call_rcu(&page->rcu, free_rcu);
}

/**
 * qcow_page_need_places() - have the page remember where unwritten blocks go
 * @map: the map
 * @page: not published, or pinned by the caller
 *
 * Context: process; may sleep, without I/O; cannot fail.
 */
void qcow_page_need_places(struct qcow_map *map, struct qcow_map_page *page)
{
	u64 *places;

	if (READ_ONCE(page->places))
		return;
	places = mempool_alloc(&map->places, GFP_NOIO);
	memset(places, 0, ENTRY_ARRAY_BYTES);
	/* Cells of two clusters may race here. */
	xa_lock(&map->pages);
	if (!page->places) {
		WRITE_ONCE(page->places, places);
		if (page->pins)
			map->bytes += ENTRY_ARRAY_BYTES;
		places = NULL;
	}
	xa_unlock(&map->pages);
	if (places)
		mempool_free(places, &map->places);
}

/**
 * qcow_slot_bytes() - what a slot costs
 * @slot: a page or a value
 *
 * Context: any.
 * Return: bytes.
 */
size_t qcow_slot_bytes(const void *slot)
{
	const struct qcow_map_page *page = slot;

	if (xa_is_value(slot))
		return VALUE_BYTES;
	return sizeof(*page) + ENTRY_ARRAY_BYTES + (page->places ? ENTRY_ARRAY_BYTES : 0);
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

/* What the entry becomes when the block is written where it was told to go. */
static u64 place_of_run(const struct qcow_map *map, const struct dm_qcow_run *run, unsigned int i)
{
	if (!(run->flags & DM_QCOW_RUN_RESERVED))
		return 0;
	return qcow_entry_ahead(map, qcow_map_entry(map, run->reserved_off >> SECTOR_SHIFT), i);
}

/**
 * qcow_map_fill() - write the next run into a page
 * @map: the map
 * @fill: the page, and how far it is filled
 * @run: whose type, layer and offset have been checked
 *
 * Context: process; may sleep, without I/O.
 * Return: 0; -EINVAL if the run is empty or does not fit.
 */
int qcow_map_fill(struct qcow_map *map, struct qcow_map_fill *fill,
		  const struct dm_qcow_run *run)
{
	struct qcow_map_page *page = fill->page;
	u64 e = entry_of_run(run);
	unsigned int i;

	if (!run->nr_blocks || run->nr_blocks > DM_QCOW_PAGE_BLOCKS - fill->nr_blocks)
		return -EINVAL;
	if (run->flags & DM_QCOW_RUN_RESERVED)
		qcow_page_need_places(map, page);
	for (i = 0; i < run->nr_blocks; i++) {
		page->entries[fill->nr_blocks] = qcow_entry_ahead(map, e, i);
		if (page->places)
			page->places[fill->nr_blocks] = place_of_run(map, run, i);
		fill->nr_blocks++;
	}
	return 0;
}

/**
 * qcow_slot_count() - how many blocks continue as expected
 * @map: the map
 * @slot: a page or a value; a value answers without a loop
 * @i: index of the first block
 * @want: its entry
 * @max: blocks to look at, at most to the page's end
 *
 * Context: any; does not sleep.
 * Return: blocks.
 */
u64 qcow_slot_count(const struct qcow_map *map, const void *slot, unsigned int i, u64 want,
		    u64 max)
{
	u64 n, room = min_t(u64, max, DM_QCOW_PAGE_BLOCKS - i);

	if (xa_is_value(slot))
		return qcow_slot_entry(map, slot, i) == want ? room : 0;
	for (n = 0; n < room; n++)
		if (qcow_slot_entry(map, slot, i + n) != qcow_entry_ahead(map, want, n))
			break;
	return n;
}

/**
 * qcow_slot_first() - the first extent in a page
 * @map: the map
 * @slot: a page or a value
 * @block: guest block
 * @blocks: how many the caller is interested in
 * @nr: how many the extent has of them in this page
 *
 * Context: any; does not sleep.
 * Return: the entry.
 */
u64 qcow_slot_first(const struct qcow_map *map, const void *slot, u64 block, u64 blocks, u64 *nr)
{
	unsigned int i = block % DM_QCOW_PAGE_BLOCKS;
	u64 e = qcow_slot_entry(map, slot, i);

	*nr = 1;
	/* A FETCH is one upcall for one block: extents of it never merge. */
	if (blocks > 1 && FIELD_GET(ENTRY_TYPE, e) != DM_QCOW_RUN_FETCH)
		*nr = qcow_slot_count(map, slot, i, e, blocks);
	return e;
}

/**
 * qcow_extent_finish() - make an extent of sectors of one of blocks
 * @map: the map
 * @x: to be filled
 * @e: the first block's entry
 * @sector: first sector
 * @nr_sectors: how many the caller wants
 * @nr_blocks: how many blocks there are, from the one of @sector on
 *
 * Context: any; does not sleep.
 */
void qcow_extent_finish(const struct qcow_map *map, struct qcow_extent *x, u64 e, sector_t sector,
			unsigned int nr_sectors, u64 nr_blocks)
{
	unsigned int skip = sector & (qcow_map_block_sectors(map) - 1);
	u64 found = (nr_blocks << map->block_shift) - skip;

	qcow_extent_of_entry(x, e);
	x->host_sector += skip;
	x->nr_sectors = min_t(u64, found, nr_sectors);
}

/**
 * qcow_map_page_lookup() - look into a page that could not be put into the map
 * @map: the map
 * @page: the page of @sector
 * @sector: guest sector
 * @nr_sectors: how far the caller wants to go; at least 1
 * @x: the answer, valid if true is returned
 *
 * Context: any; does not sleep. The caller keeps @page alive, and is in an epoch: what
 * is true now is not used for anything else before that is fenced.
 * Return: false if the page is no longer true.
 */
bool qcow_map_page_lookup(struct qcow_map *map, const struct qcow_map_page *page,
			  sector_t sector, unsigned int nr_sectors, struct qcow_extent *x)
{
	u64 nr, e;

	if (page->seq != qcow_map_seq(map, page->idx))
		return false;
	e = qcow_slot_first(map, page, sector >> map->block_shift,
			    qcow_blocks_touched(map, sector, nr_sectors), &nr);
	qcow_extent_finish(map, x, e, sector, nr_sectors, nr);
	return true;
}

/**
 * qcow_page_collapse() - the value that can stand for a page
 * @map: the map
 * @page: whole
 *
 * Context: any; does not sleep.
 * Return: the value, or NULL if there is none.
 */
void *qcow_page_collapse(const struct qcow_map *map, const struct qcow_map_page *page)
{
	u64 first = page->entries[0];

	if (page->places)
		return NULL;
	if (qcow_slot_count(map, page, 0, first, DM_QCOW_PAGE_BLOCKS) != DM_QCOW_PAGE_BLOCKS)
		return NULL;
	return xa_mk_value(first);
}

/**
 * qcow_page_expand() - fill a page with what a value stands for
 * @page: not published
 * @value: from the map
 *
 * Context: any; does not sleep.
 */
void qcow_page_expand(struct qcow_map_page *page, void *value)
{
	unsigned int i;

	for (i = 0; i < DM_QCOW_PAGE_BLOCKS; i++)
		page->entries[i] = qcow_slot_entry(page->map, value, i);
}

/**
 * qcow_page_module_exit() - undo qcow_page_module_init()
 *
 * Context: module exit; waits for the RCU callbacks that free pages.
 */
void qcow_page_module_exit(void)
{
	rcu_barrier();
	kmem_cache_destroy(page_cache);
}

/**
 * qcow_page_module_init() - make the slab cache of page headers
 *
 * Context: module init.
 * Return: 0 or -ENOMEM.
 */
int __init qcow_page_module_init(void)
{
	page_cache = KMEM_CACHE(qcow_map_page, 0);
	return page_cache ? 0 : -ENOMEM;
}
