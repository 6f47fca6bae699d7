/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Map pages: DM_QCOW_PAGE_BLOCKS consecutive entries, and what is known of blocks that
 * have a place but no data yet. Only the map's own files look inside.
 */
#ifndef DM_QCOW_PAGE_H
#define DM_QCOW_PAGE_H

#include <linux/bitfield.h>
#include <linux/bits.h>
#include <linux/list.h>
#include <linux/rcupdate.h>
#include <linux/xarray.h>

#include "map.h"

#define ENTRY_SECTOR	GENMASK_ULL(46, 0)
#define ENTRY_LAYER	GENMASK_ULL(56, 47)
#define ENTRY_WRITABLE	BIT_ULL(57)
#define ENTRY_TYPE	GENMASK_ULL(59, 58)

#define ENTRY_ARRAY_BYTES	(DM_QCOW_PAGE_BLOCKS * sizeof(u64))
#define POOL_MIN		2	/* pages held back: one being filled, one being used */

/*
 * The entries are an allocation of their own: a header in front of 4096 bytes
 * would make the allocator round up to 8192, and double the map's memory.
 *
 * A published page changes only under the map's xa_lock, entry by entry, and only
 * while it is pinned; lookups see each entry old or new.
 */
struct qcow_map_page {
	struct rcu_head rcu;
	struct qcow_map *map;
	u64 *entries;
	u32 seq;		/* of the LOAD that brought it */
	u64 *places;		/* what an entry becomes when it is written; 0: unknown. Or NULL */
	bool used;		/* looked at since the clock hand passed; racy, a hint */
	/* once published, under the xa_lock of map->pages: */
	unsigned int pins;	/* cells at work, and generations with deltas here */
	bool credited;		/* a table for it is reserved; counted in map->nr_credited */
	u64 idx;
	DECLARE_BITMAP(dirty, DM_QCOW_PAGE_BLOCKS);	/* deltas of the open generation */
	struct list_head dirty_node;	/* map->dirty, if a bit is set */
	struct list_head sealed_node;	/* map->sealed */
};

/* The entry @n blocks behind the block of @e in a contiguous run. */
static inline u64 qcow_entry_ahead(const struct qcow_map *map, u64 e, u64 n)
{
	if (FIELD_GET(ENTRY_TYPE, e) != DM_QCOW_RUN_DATA)
		return e;
	return e + (n << map->block_shift);
}

/* The @i-th entry of what is in a slot of the xarray. */
static inline u64 qcow_slot_entry(const struct qcow_map *map, const void *slot, unsigned int i)
{
	if (xa_is_value(slot))
		return qcow_entry_ahead(map, xa_to_value(slot), i);
	return READ_ONCE(((const struct qcow_map_page *)slot)->entries[i]);
}

static inline void qcow_extent_of_entry(struct qcow_extent *x, u64 e)
{
	x->type = FIELD_GET(ENTRY_TYPE, e);
	x->layer = FIELD_GET(ENTRY_LAYER, e);
	x->writable = e & ENTRY_WRITABLE;
	x->host_sector = FIELD_GET(ENTRY_SECTOR, e);
}

/* Blocks that @nr_sectors from @sector on touch. */
static inline u64 qcow_blocks_touched(const struct qcow_map *map, sector_t sector,
				      unsigned int nr_sectors)
{
	return ((sector + nr_sectors - 1) >> map->block_shift) - (sector >> map->block_shift) + 1;
}

u64 qcow_map_entry(const struct qcow_map *map, sector_t host_sector);

u64 qcow_slot_count(const struct qcow_map *map, const void *slot, unsigned int i, u64 want,
		    u64 max);
u64 qcow_slot_first(const struct qcow_map *map, const void *slot, u64 block, u64 blocks, u64 *nr);
void *qcow_page_collapse(const struct qcow_map *map, const struct qcow_map_page *page);
void qcow_page_expand(struct qcow_map_page *page, void *value);
void qcow_page_free_rcu(struct qcow_map_page *page);
size_t qcow_slot_bytes(const void *slot);
void qcow_extent_finish(const struct qcow_map *map, struct qcow_extent *x, u64 e, sector_t sector,
			unsigned int nr_sectors, u64 nr_blocks);

int qcow_page_pool_init(struct qcow_map *map);
void qcow_page_pool_exit(struct qcow_map *map);
int qcow_page_module_init(void);
void qcow_page_module_exit(void);

#endif
