// SPDX-License-Identifier: GPL-2.0-only
/* Deltas; see delta.h. */

#include <linux/sort.h>

#include "delta.h"
#include "dm-qcow.h"
#include "page.h"

/**
 * qcow_map_entry() - the entry of a block the guest may write in place
 * @map: the map
 * @host_sector: where it is in the data layer
 *
 * Context: any; does not sleep.
 * Return: the entry.
 */
u64 qcow_map_entry(const struct qcow_map *map, sector_t host_sector)
{
	return FIELD_PREP(ENTRY_TYPE, DM_QCOW_RUN_DATA) | ENTRY_WRITABLE |
	       FIELD_PREP(ENTRY_LAYER, map->data_layer) | FIELD_PREP(ENTRY_SECTOR, host_sector);
}

/**
 * qcow_spot_sector() - where blocks are on the guest's disk
 * @map: the map
 * @spot: the blocks
 *
 * Context: any; does not sleep.
 * Return: the first one's first sector.
 */
sector_t qcow_spot_sector(const struct qcow_map *map, const struct qcow_spot *spot)
{
	return (spot->page->idx * DM_QCOW_PAGE_BLOCKS + spot->first) << map->block_shift;
}

static u64 place_of(const struct qcow_map_page *page, unsigned int i)
{
	return page->places ? page->places[i] : 0;
}

static enum qcow_ground ground_of(const struct qcow_map *map, const struct qcow_map_page *page,
				  unsigned int i)
{
	u64 e = page->entries[i];

	if (e & ENTRY_WRITABLE)
		return QCOW_GROUND_OWN;
	if (place_of(page, i))
		return QCOW_GROUND_PLACED;
	switch (FIELD_GET(ENTRY_TYPE, e)) {
	case DM_QCOW_RUN_ZERO:
		return QCOW_GROUND_ZERO;
	case DM_QCOW_RUN_DATA:
		return FIELD_GET(ENTRY_LAYER, e) == map->data_layer ? QCOW_GROUND_SHARED :
								       QCOW_GROUND_BELOW;
	default:
		return QCOW_GROUND_FETCH;
	}
}

static u64 own_place(const struct qcow_map_page *page, unsigned int i)
{
	return page->entries[i] & ENTRY_WRITABLE ? page->entries[i] : place_of(page, i);
}

/**
 * qcow_map_ground() - what blocks are made of, before they are written
 * @map: the map
 * @spot: cut to the blocks that are like the first
 * @place: OWN, PLACED: where the first is or goes; the others follow
 *
 * Context: process; does not sleep. Holds as long as the caller has the blocks' cells.
 * Return: enum qcow_ground.
 */
enum qcow_ground qcow_map_ground(struct qcow_map *map, struct qcow_spot *spot, sector_t *place)
{
	const struct qcow_map_page *page = spot->page;
	enum qcow_ground ground;
	unsigned int n = 1;
	u64 first;

	xa_lock(&map->pages);
	ground = ground_of(map, page, spot->first);
	first = own_place(page, spot->first);
	for (; n < spot->nr; n++) {
		unsigned int i = spot->first + n;

		if (ground_of(map, page, i) != ground)
			break;
		if (first && own_place(page, i) != qcow_entry_ahead(map, first, n))
			break;
	}
	xa_unlock(&map->pages);
	spot->nr = n;
	*place = FIELD_GET(ENTRY_SECTOR, first);
	return ground;
}

/**
 * qcow_map_reads_zero() - is there nothing in the blocks?
 * @map: the map
 * @spot: the blocks
 *
 * Context: process; does not sleep. Holds as long as the caller has the blocks' cells.
 * Return: true if all of them read as zeros, whether they have a place or not.
 */
bool qcow_map_reads_zero(struct qcow_map *map, const struct qcow_spot *spot)
{
	unsigned int n = 0;

	xa_lock(&map->pages);
	while (n < spot->nr &&
	       FIELD_GET(ENTRY_TYPE, spot->page->entries[spot->first + n]) == DM_QCOW_RUN_ZERO)
		n++;
	xa_unlock(&map->pages);
	return n == spot->nr;
}

static void mark_locked(struct qcow_map *map, struct qcow_map_page *page, unsigned int i)
{
	if (__test_and_set_bit(i, page->dirty))
		return;
	map->nr_dirty++;
	if (!list_empty(&page->dirty_node))
		return;
	list_add_tail(&page->dirty_node, &map->dirty);
	page->pins++;
	/* Whatever a LOAD saw on disk is older than this. */
	WRITE_ONCE(map->seq[page->idx % QCOW_MAP_SEQS],
		   map->seq[page->idx % QCOW_MAP_SEQS] + 1);
}

/**
 * qcow_map_set_data() - blocks were written to a place of their own
 * @map: the map
 * @spot: the blocks
 * @host_sector: where the first is in the data layer; the others follow
 * @exposing: the data must be durable before an entry on disk points to it
 *
 * Context: process; does not sleep. The data has been written; lookups see it from
 * now on.
 */
void qcow_map_set_data(struct qcow_map *map, const struct qcow_spot *spot, sector_t host_sector,
		       bool exposing)
{
	u64 e = qcow_map_entry(map, host_sector);
	unsigned int n;

	xa_lock(&map->pages);
	map->exposing |= exposing;
	for (n = 0; n < spot->nr; n++) {
		unsigned int i = spot->first + n;

		WRITE_ONCE(spot->page->entries[i], qcow_entry_ahead(map, e, n));
		if (spot->page->places)
			spot->page->places[i] = 0;
		mark_locked(map, spot->page, i);
	}
	xa_unlock(&map->pages);
}

/**
 * qcow_map_set_places() - the other blocks of a cluster just allocated
 * @map: the map
 * @spot: the blocks; those that are written in place already are left alone
 * @host_sector: where the first goes when it is written; the others follow
 *
 * Context: process; does not sleep. The page has places.
 */
void qcow_map_set_places(struct qcow_map *map, const struct qcow_spot *spot,
			 sector_t host_sector)
{
	u64 e = qcow_map_entry(map, host_sector);
	unsigned int n;

	xa_lock(&map->pages);
	for (n = 0; n < spot->nr; n++) {
		unsigned int i = spot->first + n;

		if (!(spot->page->entries[i] & ENTRY_WRITABLE))
			spot->page->places[i] = qcow_entry_ahead(map, e, n);
	}
	xa_unlock(&map->pages);
}

/* Makes one block read as zeros; returns its own place, as an entry, or 0. */
static u64 zero_locked(struct qcow_map *map, struct qcow_map_page *page, unsigned int i, bool keep)
{
	u64 e = page->entries[i];
	u64 own = own_place(page, i);
	u64 zero = FIELD_PREP(ENTRY_TYPE, DM_QCOW_RUN_ZERO);

	/* Zero already, and where it stays is not new either. */
	if (e == zero && (keep || !own))
		return own;
	WRITE_ONCE(page->entries[i], zero);
	if (page->places)
		page->places[i] = keep ? own : 0;
	mark_locked(map, page, i);
	return own;
}

/**
 * qcow_map_set_zero() - a cluster reads as zeros from now on
 * @map: the map
 * @spot: all blocks of one cluster
 * @keep: its blocks keep their place, if they have one; then the page has places
 * @own: the cluster's place, if it was the guest's alone
 *
 * Context: process; does not sleep.
 * Return: true if @own is set. Without @keep the place is the caller's, to be used again
 * when the generation is durable and the fence has passed.
 */
bool qcow_map_set_zero(struct qcow_map *map, const struct qcow_spot *spot, bool keep,
		       sector_t *own)
{
	unsigned int n;
	bool found = false;
	u64 e;

	xa_lock(&map->pages);
	for (n = 0; n < spot->nr; n++) {
		e = zero_locked(map, spot->page, spot->first + n, keep);
		if (!e || found)
			continue;
		*own = FIELD_GET(ENTRY_SECTOR, e) - ((sector_t)n << map->block_shift);
		found = true;
	}
	xa_unlock(&map->pages);
	return found;
}

/**
 * qcow_map_credit() - count on a metadata table for a page's deltas
 * @map: the map
 * @page: pinned
 * @max: how many pages may
 *
 * Context: process; does not sleep. The credit lasts as long as the page is pinned.
 * Return: false if there are that many already.
 */
bool qcow_map_credit(struct qcow_map *map, struct qcow_map_page *page, unsigned long max)
{
	xa_lock(&map->pages);
	if (!page->credited && map->nr_credited < max) {
		page->credited = true;
		map->nr_credited++;
	}
	xa_unlock(&map->pages);
	return page->credited;
}

static struct dm_qcow_delta delta_of(const struct qcow_map *map, const struct qcow_map_page *page,
				     unsigned int i)
{
	u64 e = page->entries[i];
	u64 block = page->idx * DM_QCOW_PAGE_BLOCKS + i;
	struct dm_qcow_delta d = {
		.guest_off = block << map->block_shift << SECTOR_SHIFT,
		.nr_blocks = 1,
		.type = DM_QCOW_DELTA_ZERO,
	};

	if (e & ENTRY_WRITABLE) {
		d.type = DM_QCOW_DELTA_DATA;
		d.host_off = FIELD_GET(ENTRY_SECTOR, e) << SECTOR_SHIFT;
	} else if (place_of(page, i)) {
		d.type = DM_QCOW_DELTA_ZERO_KEEP;
		d.host_off = FIELD_GET(ENTRY_SECTOR, place_of(page, i)) << SECTOR_SHIFT;
	}
	return d;
}

/* Does @d go on where @last ends? */
static bool joins(const struct qcow_map *map, const struct dm_qcow_delta *last,
		  const struct dm_qcow_delta *d)
{
	u64 len = (u64)last->nr_blocks << map->block_shift << SECTOR_SHIFT;

	if (last->type != d->type || last->guest_off + len != d->guest_off)
		return false;
	return d->type == DM_QCOW_DELTA_ZERO || last->host_off + len == d->host_off;
}

static unsigned int seal_page_locked(struct qcow_map *map, struct qcow_map_page *page,
				     struct dm_qcow_delta *deltas, unsigned int nr)
{
	struct dm_qcow_delta d;
	unsigned int i, from = nr;

	for_each_set_bit(i, page->dirty, DM_QCOW_PAGE_BLOCKS) {
		d = delta_of(map, page, i);
		map->nr_dirty--;
		if (nr > from && joins(map, &deltas[nr - 1], &d))
			deltas[nr - 1].nr_blocks++;
		else
			deltas[nr++] = d;
	}
	bitmap_zero(page->dirty, DM_QCOW_PAGE_BLOCKS);
	/* The pin goes along. */
	list_del_init(&page->dirty_node);
	list_add_tail(&page->sealed_node, &map->sealed);
	return nr;
}

static int by_guest_off(const void *a, const void *b)
{
	const struct dm_qcow_delta *x = a, *y = b;

	return x->guest_off < y->guest_off ? -1 : x->guest_off > y->guest_off;
}

/**
 * qcow_map_seal() - end the open generation
 * @map: the map, with no sealed generation
 * @deltas: room for map->nr_dirty
 * @exposing: some of the data must be durable before its entry
 *
 * Context: process; does not sleep.
 * Return: the number of deltas, in guest order.
 */
unsigned int qcow_map_seal(struct qcow_map *map, struct dm_qcow_delta *deltas, bool *exposing)
{
	struct qcow_map_page *page, *next;
	unsigned int nr = 0;

	xa_lock(&map->pages);
	list_for_each_entry_safe(page, next, &map->dirty, dirty_node)
		nr = seal_page_locked(map, page, deltas, nr);
	*exposing = map->exposing;
	map->exposing = false;
	xa_unlock(&map->pages);
	sort(deltas, nr, sizeof(*deltas), by_guest_off, NULL);
	return nr;
}

/**
 * qcow_map_unseal() - the sealed generation is durable
 * @map: the map
 *
 * Context: process; does not sleep.
 */
void qcow_map_unseal(struct qcow_map *map)
{
	struct qcow_map_page *page, *next;

	xa_lock(&map->pages);
	list_for_each_entry_safe(page, next, &map->sealed, sealed_node) {
		list_del_init(&page->sealed_node);
		WRITE_ONCE(map->seq[page->idx % QCOW_MAP_SEQS],
			   map->seq[page->idx % QCOW_MAP_SEQS] + 1);
		qcow_map_unpin_locked(map, page);
	}
	xa_unlock(&map->pages);
}

/**
 * qcow_map_forget_deltas() - give up what was never made durable
 * @map: with no bio in flight
 *
 * Context: process; does not sleep.
 */
void qcow_map_forget_deltas(struct qcow_map *map)
{
	struct qcow_map_page *page, *next;

	qcow_map_unseal(map);
	xa_lock(&map->pages);
	list_for_each_entry_safe(page, next, &map->dirty, dirty_node) {
		list_del_init(&page->dirty_node);
		bitmap_zero(page->dirty, DM_QCOW_PAGE_BLOCKS);
		qcow_map_unpin_locked(map, page);
	}
	map->nr_dirty = 0;
	xa_unlock(&map->pages);
}
