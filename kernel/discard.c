// SPDX-License-Identifier: GPL-2.0-only
/*
 * Discard and write-zeroes: whole clusters become ZERO in the map, without any I/O.
 * What is left at the edges is nothing to a discard, and is written for write-zeroes.
 */

#include <linux/mm.h>
#include <linux/slab.h>

#include "cell.h"
#include "dm-qcow.h"
#include "io.h"
#include "write.h"

/* Sectors, relative to the target. */
struct sectors {
	sector_t start, end;
};

static struct sectors range_of(const struct qcow_cell *cell)
{
	struct bio *bio = cell->bio;

	return (struct sectors){ bio->bi_iter.bi_sector, bio_end_sector(bio) };
}

/* The whole clusters in it; what is behind the image's end belongs to the last. */
static struct sectors clusters_in(const struct qcow_cell *cell, struct sectors r)
{
	struct qcow_disk *disk = cell->disk;
	sector_t size = 1ULL << disk->alloc.cluster_shift;
	struct sectors c = { round_up(r.start, size), round_down(r.end, size) };

	if (r.end << SECTOR_SHIFT >= disk->size)
		c.end = round_up(r.end, size);
	if (c.end <= c.start)
		return (struct sectors){ r.end, r.end };
	return c;
}

static bool keeps(const struct qcow_cell *cell)
{
	const struct qcow_disk *disk = cell->disk;

	if (!disk->can_keep)
		return false;
	if (disk->alloc.identity)
		return true;
	if (bio_op(cell->bio) == REQ_OP_DISCARD)
		return disk->keep_discarded;
	return cell->bio->bi_opf & REQ_NOUNMAP;
}

static void zero_clusters(struct qcow_cell *cell, struct sectors c)
{
	struct qcow_disk *disk = cell->disk;
	sector_t size = 1ULL << disk->alloc.cluster_shift;
	struct qcow_spot spot = cell->spot;
	bool keep = keeps(cell);
	sector_t sector, own;

	spot.nr = size >> disk->map.block_shift;
	for (sector = c.start; sector < c.end; sector += size) {
		spot.first = qcow_map_index_of(&disk->map, sector);
		if (qcow_map_set_zero(&disk->map, &spot, keep, &own) && !keep)
			qcow_commit_freed(disk, own, 1);
	}
	qcow_commit_note(disk);
}

/* Has a part of a cluster written with zeros, on behalf of @parent. */
static void write_zeros(struct qcow_disk *disk, struct bio *parent, struct sectors r)
{
	unsigned int nr, i, len;
	struct bio *bio;

	while (r.start < r.end) {
		u64 left = (r.end - r.start) << SECTOR_SHIFT;

		nr = min_t(u64, DIV_ROUND_UP(left, PAGE_SIZE), BIO_MAX_VECS);
		bio = bio_alloc_bioset(NULL, nr, REQ_OP_WRITE | (parent->bi_opf & REQ_FUA),
				       GFP_NOIO, &disk->clones);
		qcow_disk_chain(disk, bio, parent);
		bio->bi_iter.bi_sector = r.start;
		for (i = 0; i < nr; i++, left -= len) {
			len = min_t(u64, left, PAGE_SIZE);
			__bio_add_page(bio, ZERO_PAGE(0), len, 0);
		}
		r.start = bio_end_sector(bio);
		/*
		 * At once: the worker for deferred bios may be who runs this, and would wait
		 * here for memory that those before give back when it has seen to them.
		 */
		qcow_disk_dispatch(disk, bio, NULL);
	}
}

/* Nothing there: nothing to write. The edge is part of one cluster. */
static bool is_zero(struct qcow_cell *cell, struct sectors r)
{
	struct qcow_disk *disk = cell->disk;
	struct qcow_spot spot = cell->spot;
	unsigned int nr;
	sector_t place;

	if (r.start >= r.end)
		return true;
	spot.first = qcow_map_index_of(&disk->map, r.start);
	nr = qcow_map_index_of(&disk->map, r.end - 1) - spot.first + 1;
	spot.nr = nr;
	return qcow_map_ground(&disk->map, &spot, &place) == QCOW_GROUND_ZERO && spot.nr == nr;
}

/**
 * qcow_discard_run() - carry a discard or write-zeroes out
 * @cell: with its page pinned; gone afterwards
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_discard_run(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;
	struct bio *bio = cell->bio;
	struct sectors r = range_of(cell), c = clusters_in(cell, r);
	struct sectors head = { r.start, min(c.start, r.end) }, tail = { c.end, r.end };
	bool write_head, write_tail;

	/* As many blocks as there are, whatever is zero already. */
	if (!qcow_commit_claim(disk, cell->spot.page, DM_QCOW_PAGE_BLOCKS)) {
		qcow_write_give_up(cell);
		qcow_cell_wait(cell);
		return;
	}
	cell->nr_claimed = DM_QCOW_PAGE_BLOCKS;
	if (keeps(cell))
		qcow_page_need_places(&disk->map, cell->spot.page);
	if (c.start < c.end)
		zero_clusters(cell, c);
	write_head = bio_op(bio) == REQ_OP_WRITE_ZEROES && !is_zero(cell, head);
	write_tail = bio_op(bio) == REQ_OP_WRITE_ZEROES && !is_zero(cell, tail);
	qcow_write_give_up(cell);
	qcow_cell_release(cell);
	if (write_head)
		write_zeros(disk, bio, head);
	if (write_tail)
		write_zeros(disk, bio, tail);
	qcow_commit_end(disk, bio);
}
