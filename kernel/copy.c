// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copy on write: the old content of whole blocks, merged with the new bytes, is
 * written once.
 *
 * Old content is read like any other: from layers or by FETCH. There is memory for one
 * copy in reserve, so that one always makes progress. Where it is all zeros, and one bio
 * holds it, there is nothing to read or to copy: one page of zeros serves for all.
 */

#include <linux/bitops.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "cell.h"
#include "dm-qcow.h"
#include "io.h"
#include "write.h"

#define COPY_PAGES_MAX	(DM_QCOW_MAX_BLOCK_SIZE / PAGE_SIZE)
#define COPY_GFP	(GFP_NOIO | __GFP_NOWARN | __GFP_NORETRY)

struct qcow_copy {
	bool reserve;		/* disk->copy_reserve */
	unsigned int nr_pages;
	struct page *pages[COPY_PAGES_MAX];
};

static void free_copy(struct qcow_copy *copy)
{
	unsigned int i;

	for (i = 0; i < copy->nr_pages; i++)
		__free_page(copy->pages[i]);
	kfree(copy);
}

static struct qcow_copy *alloc_copy(unsigned int nr_pages, gfp_t gfp)
{
	struct qcow_copy *copy = kmalloc(sizeof(*copy), gfp);

	if (!copy)
		return NULL;
	copy->reserve = false;
	for (copy->nr_pages = 0; copy->nr_pages < nr_pages; copy->nr_pages++) {
		struct page *page = alloc_page(gfp);

		if (!page) {
			free_copy(copy);
			return NULL;
		}
		copy->pages[copy->nr_pages] = page;
	}
	return copy;
}

static struct qcow_copy *get_copy(struct qcow_disk *disk, unsigned int nr_pages)
{
	struct qcow_copy *copy = alloc_copy(nr_pages, COPY_GFP);

	if (!copy && !test_and_set_bit(0, &disk->copy_reserved))
		copy = disk->copy_reserve;
	return copy;
}

/**
 * qcow_copy_destroy() - free a cell's copy
 * @cell: with none under way; it may have none
 *
 * Context: process; does not sleep.
 */
void qcow_copy_destroy(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;
	struct qcow_copy *copy = cell->copy;

	cell->copy = NULL;
	if (!copy)
		return;
	if (!copy->reserve) {
		free_copy(copy);
		return;
	}
	clear_bit_unlock(0, &disk->copy_reserved);
	qcow_cells_resume(disk);
}

/**
 * qcow_copy_init() - set memory aside for one copy
 * @disk: whose cluster size is known
 * @cluster_size: bytes
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_copy_init(struct qcow_disk *disk, unsigned int cluster_size)
{
	disk->copy_reserve = alloc_copy(DIV_ROUND_UP(cluster_size, PAGE_SIZE), GFP_KERNEL);
	if (!disk->copy_reserve)
		return -ENOMEM;
	disk->copy_reserve->reserve = true;
	return 0;
}

/**
 * qcow_copy_exit() - undo qcow_copy_init()
 * @disk: with no cells
 *
 * Context: process.
 */
void qcow_copy_exit(struct qcow_disk *disk)
{
	if (disk->copy_reserve)
		free_copy(disk->copy_reserve);
}

static unsigned int spot_bytes(const struct qcow_cell *cell)
{
	return cell->spot.nr * qcow_map_block_sectors(&cell->disk->map) << SECTOR_SHIFT;
}

/* Of the spot's bytes, those the image has: its last cluster may reach past its end. */
static unsigned int bytes_there(const struct qcow_cell *cell)
{
	u64 off = qcow_spot_sector(&cell->disk->map, &cell->spot) << SECTOR_SHIFT;

	return min_t(u64, spot_bytes(cell), cell->disk->size - off);
}

static void part_done(struct bio *bio)
{
	struct qcow_cell *cell = bio->bi_private;
	bool write = op_is_write(bio_op(bio));

	if (bio->bi_status) {
		cell->status = bio->bi_status;
		qcow_disk_failed(cell->disk, bio);
	}
	qcow_disk_leave(bio);
	bio_put(bio);
	if (!atomic_dec_and_test(&cell->pending))
		return;
	/* What comes after the read may wait for memory. */
	if (write)
		qcow_cell_go_on(cell);
	else
		queue_work(qcow_dispatch_wq, &cell->work);
}

static struct bio *alloc_part(struct qcow_cell *cell, blk_opf_t opf, unsigned int nr_vecs)
{
	struct bio *bio = bio_alloc_bioset(NULL, min_t(unsigned int, nr_vecs, BIO_MAX_VECS), opf,
					   GFP_NOIO, &cell->disk->clones);

	qcow_disk_own(cell->disk, bio);
	bio->bi_private = cell;
	bio->bi_end_io = part_done;
	return bio;
}

/* A bio over the copy's bytes from @off on; as far as one goes. */
static struct bio *part_of(struct qcow_cell *cell, blk_opf_t opf, unsigned int off,
			   unsigned int end)
{
	struct bio *bio = alloc_part(cell, opf, DIV_ROUND_UP(end - off, PAGE_SIZE));
	unsigned int i, len;

	for (i = 0; i < bio->bi_max_vecs && off < end; i++, off += len) {
		len = min_t(unsigned int, end - off, PAGE_SIZE);
		__bio_add_page(bio, cell->copy->pages[off / PAGE_SIZE], len, 0);
	}
	return bio;
}

static void transfer(struct qcow_cell *cell, blk_opf_t opf, unsigned int end)
{
	struct qcow_disk *disk = cell->disk;
	sector_t guest = qcow_spot_sector(&disk->map, &cell->spot);
	unsigned int off = 0;
	struct bio *bio;

	atomic_set(&cell->pending, DIV_ROUND_UP(end, BIO_MAX_VECS * PAGE_SIZE));
	while (off < end) {
		sector_t skip = off >> SECTOR_SHIFT;

		bio = part_of(cell, opf, off, end);
		off += bio->bi_iter.bi_size;
		if (op_is_write(opf)) {
			qcow_disk_write(disk, bio, cell->host_sector + skip);
		} else {
			bio->bi_iter.bi_sector = guest + skip;
			qcow_disk_read(disk, bio);
		}
	}
}

static void clear_from(struct qcow_copy *copy, unsigned int off, unsigned int end)
{
	while (off < end) {
		unsigned int at = offset_in_page(off);
		unsigned int len = min_t(unsigned int, end - off, PAGE_SIZE - at);

		memzero_page(copy->pages[off / PAGE_SIZE], at, len);
		off += len;
	}
}

static void merge(struct qcow_cell *cell)
{
	struct bio *front = cell->front;
	sector_t skip = front->bi_iter.bi_sector -
			qcow_spot_sector(&cell->disk->map, &cell->spot);
	unsigned int off = skip << SECTOR_SHIFT;
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, front, iter) {
		unsigned int done = 0;

		while (done < bv.bv_len) {
			unsigned int at = offset_in_page(off);
			unsigned int len = min_t(unsigned int, bv.bv_len - done, PAGE_SIZE - at);

			memcpy_page(cell->copy->pages[off / PAGE_SIZE], at, bv.bv_page,
				    bv.bv_offset + done, len);
			done += len;
			off += len;
		}
	}
}

/* What the layer should know of the write that this is done for. */
static blk_opf_t flags_of(const struct bio *front)
{
	return front->bi_opf & (REQ_SYNC | REQ_META | REQ_PRIO | REQ_IDLE);
}

static void old_read(struct work_struct *work)
{
	struct qcow_cell *cell = container_of(work, struct qcow_cell, work);

	if (cell->status) {
		qcow_write_finish(work);
		return;
	}
	clear_from(cell->copy, bytes_there(cell), spot_bytes(cell));
	merge(cell);
	cell->zero = false;
	INIT_WORK(&cell->work, qcow_write_finish);
	transfer(cell, REQ_OP_WRITE | flags_of(cell->front), spot_bytes(cell));
}

/* ---- zeros around the new bytes: nothing to read, and no memory for it ------------ */

static void add_zeros(struct bio *bio, unsigned int bytes)
{
	unsigned int len;

	for (; bytes; bytes -= len) {
		len = min_t(unsigned int, bytes, PAGE_SIZE);
		__bio_add_page(bio, ZERO_PAGE(0), len, 0);
	}
}

/*
 * One bio, or none: so that it does not matter whether each piece of the new bytes is in
 * whole sectors, which a border between two bios would have to respect.
 */
static bool write_around(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;
	struct bio *front = cell->front, *bio;
	sector_t skip = front->bi_iter.bi_sector - qcow_spot_sector(&disk->map, &cell->spot);
	unsigned int before = skip << SECTOR_SHIFT;
	unsigned int after = spot_bytes(cell) - before - front->bi_iter.bi_size;
	unsigned int nr_vecs = DIV_ROUND_UP(before, PAGE_SIZE) + bio_segments(front) +
			       DIV_ROUND_UP(after, PAGE_SIZE);
	struct bvec_iter iter;
	struct bio_vec bv;

	if (nr_vecs > BIO_MAX_VECS)
		return false;
	cell->zero = false;
	INIT_WORK(&cell->work, qcow_write_finish);
	atomic_set(&cell->pending, 1);
	bio = alloc_part(cell, REQ_OP_WRITE | flags_of(front), nr_vecs);
	add_zeros(bio, before);
	bio_for_each_segment(bv, front, iter)
		__bio_add_page(bio, bv.bv_page, bv.bv_len, bv.bv_offset);
	add_zeros(bio, after);
	qcow_disk_write(disk, bio, cell->host_sector);
	return true;
}

/**
 * qcow_copy_start() - bring along what surrounds the new bytes
 * @cell: planned; its front is given
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_copy_start(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;

	if (qcow_map_reads_zero(&disk->map, &cell->spot) && write_around(cell))
		return;
	cell->copy = get_copy(disk, DIV_ROUND_UP(spot_bytes(cell), PAGE_SIZE));
	if (!cell->copy) {
		/* Whoever has the reserve wakes us. */
		cell->bio = cell->front;
		cell->front = NULL;
		qcow_write_give_up(cell);
		qcow_cell_wait(cell);
		return;
	}
	INIT_WORK(&cell->work, old_read);
	transfer(cell, REQ_OP_READ, bytes_there(cell));
}
