/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Deltas: changes of the map that are not durable yet.
 *
 * A delta is a bit: the block's entry is newer than what is on disk. What it says is
 * read off the entry when the generation is sealed; later changes set the bit again, for
 * the next generation. So a block that changes often costs one delta, and the memory of
 * a delta is that bit and its page, which stays pinned until the commit is done.
 *
 *	set	the bit; its page goes onto map->dirty
 *	seal	into the array to be committed; the page goes onto map->sealed
 *	unseal	it was committed
 *
 * Everything here is under the xa_lock of map->pages.
 */
#ifndef DM_QCOW_DELTA_H
#define DM_QCOW_DELTA_H

#include "map.h"

/**
 * struct qcow_spot - consecutive blocks of a pinned page
 * @page: pinned by the caller
 * @first: index of the first block
 * @nr: blocks, all in @page
 */
struct qcow_spot {
	struct qcow_map_page *page;
	unsigned int first, nr;
};

/* What has to be known of blocks before they are written. */
enum qcow_ground {
	QCOW_GROUND_OWN,	/* may be written in place */
	QCOW_GROUND_PLACED,	/* have a place reserved, next to each other */
	QCOW_GROUND_ZERO,	/* read as zeros, no place */
	QCOW_GROUND_BELOW,	/* DATA of another layer, no place */
	QCOW_GROUND_SHARED,	/* DATA of the data layer that is not ours alone, no place */
	QCOW_GROUND_FETCH,	/* no place */
};

sector_t qcow_spot_sector(const struct qcow_map *map, const struct qcow_spot *spot);
enum qcow_ground qcow_map_ground(struct qcow_map *map, struct qcow_spot *spot, sector_t *place);
bool qcow_map_reads_zero(struct qcow_map *map, const struct qcow_spot *spot);

void qcow_map_set_data(struct qcow_map *map, const struct qcow_spot *spot, sector_t host_sector,
		       bool exposing);
bool qcow_map_set_zero(struct qcow_map *map, const struct qcow_spot *spot, bool keep,
		       sector_t *own);
void qcow_map_set_places(struct qcow_map *map, const struct qcow_spot *spot,
			 sector_t host_sector);
void qcow_page_need_places(struct qcow_map *map, struct qcow_map_page *page);
bool qcow_map_credit(struct qcow_map *map, struct qcow_map_page *page, unsigned long max);

unsigned int qcow_map_seal(struct qcow_map *map, struct dm_qcow_delta *deltas, bool *exposing);
void qcow_map_unseal(struct qcow_map *map);
void qcow_map_forget_deltas(struct qcow_map *map);

#endif
