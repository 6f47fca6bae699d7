/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The map: guest block -> where its bytes are, resolved through the whole chain.
 *
 * Two levels: an xarray of map pages, each DM_QCOW_PAGE_BLOCKS entries. A page
 * that is all ZERO, all FETCH, or one contiguous DATA run is a single xarray
 * value (the entry of its first block), so holes and contiguous images cost
 * nearly nothing. A page that is absent is not loaded.
 *
 * Entry, 60 bits so that it fits an xarray value:
 *
 *	bits  0..46	host offset in 512-byte sectors (2^56 bytes)
 *	bits 47..56	layer
 *	bit  57		writable in place
 *	bits 58..59	enum dm_qcow_run_type
 *
 * Lookups are lockless (RCU). A published page changes entry by entry, and only while
 * it is pinned; see delta.h.
 */
#ifndef DM_QCOW_MAP_H
#define DM_QCOW_MAP_H

#include <linux/mempool.h>
#include <linux/types.h>
#include <linux/xarray.h>
#include <linux/dm-qcow.h>

#define QCOW_MAP_SEQS	256	/* sequence counters; pages share them by number */

struct qcow_map_page;

struct qcow_map {
	struct xarray pages;		/* page number -> page or value; RCU */
	unsigned int block_shift;	/* log2 of sectors per block; constant */
	size_t budget;			/* bytes the map may use; constant */
	u16 data_layer;			/* where guest writes go; constant while open */
	mempool_t pool;			/* pages; a few are held back for hard times */
	mempool_t places;		/* their side arrays; none in a read-only table */
	/* the rest under the xa_lock of @pages */
	size_t bytes;			/* used now */
	unsigned long nr_pages;		/* loaded, collapsed ones included */
	unsigned long nr_collapsed;
	unsigned long nr_evicted;
	unsigned long hand;		/* clock hand of the eviction */
	unsigned long nr_pinned;	/* pages */
	unsigned long nr_credited;	/* of them, those with a table reserved */
	unsigned long nr_dirty;		/* blocks with deltas in the open generation */
	bool exposing;			/* some of them must have their data flushed first */
	struct list_head dirty;		/* pages with such blocks */
	struct list_head sealed;	/* pages with deltas in the sealed generation */
	u32 seq[QCOW_MAP_SEQS];		/* bumped when what a LOAD says went stale */
};

/**
 * struct qcow_extent - what a lookup found
 * @host_sector: DATA: first sector in the layer
 * @nr_sectors: how far it goes; one block at most for FETCH
 * @type: enum dm_qcow_run_type
 * @layer: DATA: the layer's number
 * @writable: DATA: may be written in place
 */
struct qcow_extent {
	sector_t host_sector;
	unsigned int nr_sectors;
	u16 layer;
	u8 type;
	bool writable;
};

/**
 * struct qcow_map_fill - a page being filled, run by run
 * @page: not published yet
 * @nr_blocks: filled so far; the page is whole at DM_QCOW_PAGE_BLOCKS
 */
struct qcow_map_fill {
	struct qcow_map_page *page;
	unsigned int nr_blocks;
};

int qcow_map_init(struct qcow_map *map, unsigned int block_size, size_t budget);
int qcow_map_reserve(struct qcow_map *map);
void qcow_map_exit(struct qcow_map *map);
void qcow_map_reset(struct qcow_map *map);

bool qcow_map_lookup(struct qcow_map *map, sector_t sector, unsigned int nr_sectors,
		     struct qcow_extent *x);

bool qcow_map_has_deltas(struct qcow_map *map, sector_t sector, unsigned int nr_sectors);

u32 qcow_map_seq(struct qcow_map *map, u64 page_idx);
struct qcow_map_page *qcow_map_page_create(struct qcow_map *map);
void qcow_map_page_destroy(struct qcow_map *map, struct qcow_map_page *page);
int qcow_map_fill(struct qcow_map *map, struct qcow_map_fill *fill,
		  const struct dm_qcow_run *run);
bool qcow_map_page_lookup(struct qcow_map *map, const struct qcow_map_page *page,
			  sector_t sector, unsigned int nr_sectors, struct qcow_extent *x);
int qcow_map_insert(struct qcow_map *map, u64 page_idx, u32 seq, struct qcow_map_page *page);
struct qcow_map_page *qcow_map_pin(struct qcow_map *map, u64 page_idx);
void qcow_map_unpin(struct qcow_map *map, struct qcow_map_page *page);
void qcow_map_unpin_locked(struct qcow_map *map, struct qcow_map_page *page);
int qcow_map_module_init(void);
void qcow_map_module_exit(void);

/**
 * qcow_map_page_of() - the map page a sector is in
 * @map: the map
 * @sector: guest sector
 *
 * Return: the page's number.
 */
static inline u64 qcow_map_page_of(const struct qcow_map *map, sector_t sector)
{
	return sector >> map->block_shift >> ilog2(DM_QCOW_PAGE_BLOCKS);
}

/**
 * qcow_map_index_of() - which entry of its page a sector belongs to
 * @map: the map
 * @sector: guest sector
 *
 * Return: the index, below DM_QCOW_PAGE_BLOCKS.
 */
static inline unsigned int qcow_map_index_of(const struct qcow_map *map, sector_t sector)
{
	return (sector >> map->block_shift) % DM_QCOW_PAGE_BLOCKS;
}

/**
 * qcow_map_page_end() - the first sector behind a sector's map page
 * @map: the map
 * @sector: guest sector
 *
 * Return: guest sector.
 */
static inline sector_t qcow_map_page_end(const struct qcow_map *map, sector_t sector)
{
	return (sector_t)(qcow_map_page_of(map, sector) + 1)
		<< ilog2(DM_QCOW_PAGE_BLOCKS) << map->block_shift;
}

/**
 * qcow_map_block_sectors() - the size of a block
 * @map: the map
 *
 * Return: sectors, a power of two.
 */
static inline unsigned int qcow_map_block_sectors(const struct qcow_map *map)
{
	return 1U << map->block_shift;
}

#endif
