// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes in a cell; see write.h.
 *
 *	run --> plan: what are the blocks made of, where do they go?
 *	    --> the data alone, if it covers whole blocks or what surrounds it reads as
 *	        zeros where it goes; else copy.c merges it with the old content
 *	    --> finish: set the map, end the bio, release the cell
 */

#include <linux/slab.h>

#include "cell.h"
#include "dm-qcow.h"
#include "io.h"
#include "write.h"

static unsigned int block_sectors(const struct qcow_cell *cell)
{
	return qcow_map_block_sectors(&cell->disk->map);
}

static unsigned int blocks_per_cluster(const struct qcow_cell *cell)
{
	return 1U << (cell->disk->alloc.cluster_shift - cell->disk->map.block_shift);
}

/* All blocks of the cluster that the spot begins in. */
static struct qcow_spot whole_cluster(const struct qcow_cell *cell)
{
	unsigned int nr = blocks_per_cluster(cell);

	return (struct qcow_spot){
		.page = cell->spot.page,
		.first = round_down(cell->spot.first, nr),
		.nr = nr,
	};
}

static sector_t spot_sector(const struct qcow_cell *cell)
{
	return qcow_spot_sector(&cell->disk->map, &cell->spot);
}

static sector_t spot_end(const struct qcow_cell *cell)
{
	return spot_sector(cell) + (sector_t)cell->spot.nr * block_sectors(cell);
}

/* Blocks from the spot's first on that the bio covers wholly. */
static unsigned int whole_blocks(const struct qcow_cell *cell)
{
	struct bio *bio = cell->bio;

	if (bio->bi_iter.bi_sector != spot_sector(cell))
		return 0;
	return bio_sectors(bio) / block_sectors(cell);
}

/* Cuts the spot to whole blocks; if there is none, to one block and its surroundings. */
static bool cut_to_whole(struct qcow_cell *cell)
{
	cell->spot.nr = min(cell->spot.nr, whole_blocks(cell));
	if (cell->spot.nr)
		return false;
	cell->spot.nr = 1;
	return true;
}

/**
 * qcow_write_give_up() - drop all a cell holds but its clusters of the guest
 * @cell: with nothing under way
 *
 * Context: process; does not sleep.
 */
void qcow_write_give_up(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;

	qcow_copy_destroy(cell);
	if (cell->nr_taken)
		qcow_alloc_put(&disk->alloc, cell->cluster_sector, cell->nr_taken, cell->zero);
	cell->nr_taken = 0;
	if (cell->spot.page)
		qcow_map_unpin(&disk->map, cell->spot.page);
	cell->spot.page = NULL;
	/* Last: who waits for room looks for all of the above again. */
	if (cell->nr_claimed)
		qcow_commit_unclaim(disk, cell->nr_claimed);
	cell->nr_claimed = 0;
}

/* The cell goes first: when the last bio has ended, dm may take the disk away. */
static void end_front(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;
	struct bio *front = cell->front;

	/* A part that was cut off it may have failed before. */
	if (cell->status && !front->bi_status)
		front->bi_status = cell->status;
	qcow_cell_release(cell);
	qcow_commit_end(disk, front);
}

static void wait_for_space(struct qcow_cell *cell)
{
	qcow_write_give_up(cell);
	cell->bio = cell->front;
	cell->front = NULL;
	cell->status = 0;
	qcow_alloc_no_space(&cell->disk->alloc);
	qcow_cell_wait(cell);
}

/* Its siblings go where the allocation put them. */
static void set_places(struct qcow_cell *cell)
{
	struct qcow_spot whole = whole_cluster(cell);

	if (whole.nr > 1 && cell->nr_taken)
		qcow_map_set_places(&cell->disk->map, &whole, cell->cluster_sector);
}

static void set_map(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;

	qcow_map_set_data(&disk->map, &cell->spot, cell->host_sector, cell->exposing);
	set_places(cell);
	cell->nr_taken = 0;
	qcow_commit_note(disk);
}

/* Was there none before? A write over data that has its space says nothing of it. */
static bool found_space(const struct qcow_cell *cell)
{
	return !cell->in_place || qcow_disk_is_starved(cell->disk, cell->front);
}

/**
 * qcow_write_finish() - the blocks are written, or not
 * @work: of the cell, which has its status
 *
 * Context: process; does not sleep.
 */
void qcow_write_finish(struct work_struct *work)
{
	struct qcow_cell *cell = container_of(work, struct qcow_cell, work);

	if (unlikely(cell->status == BLK_STS_NOSPC && cell->disk->alloc.shortage.timeout)) {
		wait_for_space(cell);
		return;
	}
	if (!cell->status && !cell->in_place)
		set_map(cell);
	if (!cell->status && found_space(cell))
		qcow_alloc_space_again(&cell->disk->alloc);
	qcow_write_give_up(cell);
	/* What it gave up may be what others wait for. */
	if (cell->status)
		qcow_cells_resume(cell->disk);
	end_front(cell);
}

static void front_written(struct bio *clone)
{
	struct qcow_cell *cell = clone->bi_private;

	cell->status = clone->bi_status;
	if (unlikely(cell->status))
		qcow_disk_failed(cell->disk, clone);
	bio_put(clone);
	INIT_WORK(&cell->work, qcow_write_finish);
	qcow_cell_go_on(cell);
}

static void write_front(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;
	struct bio *front = cell->front;
	sector_t skip = front->bi_iter.bi_sector - spot_sector(cell);
	struct bio *clone = bio_alloc_clone(front->bi_bdev, front, GFP_NOIO, &disk->clones);

	/* Whatever happens, the cluster is not known to be zeros any more. */
	cell->zero = false;
	clone->bi_opf &= ~REQ_FUA;
	clone->bi_end_io = front_written;
	clone->bi_private = cell;
	qcow_disk_write(disk, clone, cell->host_sector + skip);
}

/* Cuts off what the spot does not reach; that starts afresh. */
static void take_front(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;
	struct bio *bio = cell->bio;
	sector_t end = spot_end(cell);

	cell->front = bio;
	if (bio_end_sector(bio) <= end)
		return;
	cell->front = qcow_disk_cut(disk, bio, end - bio->bi_iter.bi_sector);
	cell->bio = cell->front;
	qcow_cell_shrink(cell, (end - 1) >> disk->alloc.cluster_shift);
	qcow_disk_defer(disk, bio);
}

static void begin(struct qcow_cell *cell, bool copy)
{
	take_front(cell);
	if (copy)
		qcow_copy_start(cell);
	else
		write_front(cell);
}

static void put_back(struct qcow_cell *cell, unsigned int keep)
{
	if (keep >= cell->nr_taken)
		return;
	qcow_alloc_put(&cell->disk->alloc,
		       cell->cluster_sector + ((sector_t)keep << cell->disk->alloc.cluster_shift),
		       cell->nr_taken - keep, cell->zero);
	cell->nr_taken = keep;
}

/* One block is one cluster. */
static void begin_clusters(struct qcow_cell *cell, enum qcow_ground ground)
{
	bool copy = false;

	cell->spot.nr = cell->nr_taken;
	cell->host_sector = cell->cluster_sector;
	cell->exposing = ground != QCOW_GROUND_ZERO || !cell->zero;
	if (cell->exposing)
		copy = cut_to_whole(cell);
	put_back(cell, cell->spot.nr);
	begin(cell, copy);
}

/* Is there anything in the cluster that has to move when its place changes? */
static bool has_own_data(struct qcow_cell *cell, struct qcow_spot whole)
{
	unsigned int end = whole.first + whole.nr;
	enum qcow_ground ground;
	sector_t place;

	while (whole.first < end) {
		whole.nr = end - whole.first;
		ground = qcow_map_ground(&cell->disk->map, &whole, &place);
		if (ground == QCOW_GROUND_SHARED || ground == QCOW_GROUND_FETCH)
			return true;
		whole.first += whole.nr;
	}
	return false;
}

/* The cluster moves, with all that is in it. */
static void begin_whole(struct qcow_cell *cell, const struct qcow_spot *whole)
{
	struct bio *bio = cell->bio;
	bool part;

	cell->spot = *whole;
	cell->host_sector = cell->cluster_sector;
	cell->exposing = true;
	part = bio->bi_iter.bi_sector != spot_sector(cell) || bio_end_sector(bio) < spot_end(cell);
	begin(cell, part);
}

/* A cluster is many blocks: only those written are allocated, if nothing has to move. */
static void begin_subclusters(struct qcow_cell *cell, enum qcow_ground ground)
{
	struct qcow_disk *disk = cell->disk;
	struct qcow_spot whole = whole_cluster(cell);
	unsigned int ahead = cell->spot.first - whole.first;
	bool copy = false;

	qcow_page_need_places(&disk->map, cell->spot.page);
	if (has_own_data(cell, whole)) {
		begin_whole(cell, &whole);
		return;
	}
	cell->spot.nr = min(cell->spot.nr, whole.nr - ahead);
	cell->host_sector = cell->cluster_sector + ((sector_t)ahead << disk->map.block_shift);
	cell->exposing = ground != QCOW_GROUND_ZERO || !cell->zero;
	if (cell->exposing)
		copy = cut_to_whole(cell);
	begin(cell, copy);
}

static void begin_in(struct qcow_cell *cell, sector_t place)
{
	cell->host_sector = place;
	cell->exposing = true;
	begin(cell, cut_to_whole(cell));
}

/* As many deltas as there can be: the whole cluster, if it has to move. */
static bool claim(struct qcow_cell *cell)
{
	unsigned int nr = max(cell->spot.nr, blocks_per_cluster(cell));

	if (!qcow_commit_claim(cell->disk, cell->spot.page, nr))
		return false;
	cell->nr_claimed = nr;
	return true;
}

static bool take(struct qcow_cell *cell)
{
	unsigned int want = blocks_per_cluster(cell) == 1 ? cell->spot.nr : 1;

	cell->nr_taken = qcow_alloc_take(&cell->disk->alloc, want, &cell->cluster_sector,
					 &cell->zero);
	return cell->nr_taken;
}

/* Somebody was faster, a FUA write has to wait for a commit, or there was no space. */
static void in_place(struct qcow_cell *cell, sector_t place)
{
	struct qcow_disk *disk = cell->disk;
	struct bio *bio = cell->bio;

	if (bio->bi_opf & REQ_FUA || qcow_disk_is_starved(disk, bio)) {
		cell->in_place = true;
		cell->host_sector = place;
		begin(cell, false);
		return;
	}
	qcow_write_give_up(cell);
	qcow_cell_release(cell);
	qcow_disk_defer(disk, bio);
}

/* With identity no cluster will ever come for it: the helper cannot say where it goes. */
static void refuse(struct qcow_cell *cell)
{
	struct bio *bio = cell->bio;

	qcow_write_give_up(cell);
	qcow_cell_release(cell);
	bio_io_error(bio);
}

static void plan(struct qcow_cell *cell)
{
	sector_t place;
	enum qcow_ground ground = qcow_map_ground(&cell->disk->map, &cell->spot, &place);

	if (ground == QCOW_GROUND_OWN) {
		in_place(cell, place);
		return;
	}
	if (ground != QCOW_GROUND_PLACED && cell->disk->alloc.identity) {
		refuse(cell);
		return;
	}
	if (!claim(cell) || (ground != QCOW_GROUND_PLACED && !take(cell))) {
		qcow_write_give_up(cell);
		qcow_cell_wait(cell);
		return;
	}
	if (ground == QCOW_GROUND_PLACED)
		begin_in(cell, place);
	else if (blocks_per_cluster(cell) == 1)
		begin_clusters(cell, ground);
	else
		begin_subclusters(cell, ground);
}

/**
 * qcow_write_run() - do what a cell's bio wants
 * @cell: with nothing held but its clusters of the guest
 *
 * Context: process; may sleep, without I/O. The cell may be gone afterwards.
 */
void qcow_write_run(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;
	struct bio *bio = cell->bio;
	sector_t sector = bio->bi_iter.bi_sector;
	struct qcow_map_page *page = qcow_map_pin(&disk->map, qcow_map_page_of(&disk->map, sector));

	if (!page) {
		/* Evicted already: by the long way round. */
		qcow_cell_release(cell);
		qcow_disk_defer(disk, bio);
		return;
	}
	cell->spot.page = page;
	cell->spot.first = qcow_map_index_of(&disk->map, sector);
	cell->spot.nr = qcow_map_index_of(&disk->map, bio_end_sector(bio) - 1) -
			cell->spot.first + 1;
	if (bio_op(bio) == REQ_OP_WRITE)
		plan(cell);
	else
		qcow_discard_run(cell);
}
