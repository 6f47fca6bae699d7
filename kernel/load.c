// SPDX-License-Identifier: GPL-2.0-only
/*
 * LOAD: a map page that is missing is asked for, checked, and put into the map; the
 * bios that wait for it go on.
 */

#include <linux/slab.h>

#include "dm-qcow.h"
#include "io.h"

static struct qcow_upcall *pop_ready(struct qcow_disk *disk)
{
	struct qcow_upcall *uc;

	spin_lock(&disk->ready_lock);
	uc = list_first_entry_or_null(&disk->ready, struct qcow_upcall, node);
	if (uc)
		list_del(&uc->node);
	spin_unlock(&disk->ready_lock);
	return uc;
}

/* Writes may wait for memory that reads give back: they have a worker of their own. */
static void go_on(struct qcow_disk *disk, struct bio *bio, const struct qcow_map_page *page)
{
	if (op_is_write(bio_op(bio)))
		qcow_disk_defer(disk, bio);
	else
		qcow_disk_dispatch(disk, bio, page);
}

static void dispatch_ready(struct work_struct *work)
{
	struct qcow_disk *disk = container_of(work, struct qcow_disk, ready_work);
	struct qcow_upcall *uc;
	struct blk_plug plug;
	struct bio *bio;

	blk_start_plug(&plug);
	while ((uc = pop_ready(disk))) {
		while ((bio = bio_list_pop(&uc->bios)))
			go_on(disk, bio, uc->result);
		if (uc->result)
			qcow_map_page_destroy(&disk->map, uc->result);
		qcow_upcall_free(&disk->upcalls, uc);
	}
	blk_finish_plug(&plug);
}

static bool place_ok(const struct qcow_disk *disk, const struct qcow_layer *layer, u64 off, u64 len)
{
	return IS_ALIGNED(off, disk->logical_block_size) && qcow_layer_holds(layer, off, len);
}

/* Which flags make sense together. */
static bool flags_ok(const struct qcow_disk *disk, const struct dm_qcow_run *run)
{
	bool data = run->type == DM_QCOW_RUN_DATA, fetch = run->type == DM_QCOW_RUN_FETCH;
	u32 allowed = 0;

	if (data)
		allowed |= DM_QCOW_RUN_WRITABLE;
	if (fetch)
		allowed |= DM_QCOW_RUN_BROKEN;
	if (disk->writable && !(run->flags & DM_QCOW_RUN_WRITABLE))
		allowed |= DM_QCOW_RUN_RESERVED;
	return !(run->flags & ~allowed);
}

/*
 * The guest's own: there it lies in its cluster as it does on the guest's disk, because
 * clusters go back to the pool as a whole.
 */
static bool own_place_ok(const struct qcow_disk *disk, unsigned int first, u64 off, u64 len)
{
	u64 guest_off = (u64)first * qcow_map_block_sectors(&disk->map) << SECTOR_SHIFT;
	u64 mask = BIT_ULL(disk->alloc.cluster_shift + SECTOR_SHIFT) - 1;

	return !((off ^ guest_off) & mask) &&
	       place_ok(disk, &disk->layers[disk->map.data_layer], off, len);
}

/* Nothing the helper says about a layer is taken on trust. @first: block of the page. */
static bool run_ok(const struct qcow_disk *disk, const struct dm_qcow_run *run, unsigned int first)
{
	const struct qcow_layer *layer;
	u64 length;

	if (run->type > DM_QCOW_RUN_FETCH || run->nr_blocks > DM_QCOW_PAGE_BLOCKS)
		return false;
	length = (u64)run->nr_blocks * qcow_map_block_sectors(&disk->map) << SECTOR_SHIFT;
	if (!flags_ok(disk, run))
		return false;
	if ((run->flags & DM_QCOW_RUN_RESERVED) &&
	    !own_place_ok(disk, first, run->reserved_off, length))
		return false;
	if (run->type != DM_QCOW_RUN_DATA)
		return true;
	if (run->layer >= disk->nr_layers)
		return false;
	layer = &disk->layers[run->layer];
	if (run->flags & DM_QCOW_RUN_WRITABLE)
		return layer->flags & DM_QCOW_LAYER_WRITABLE &&
		       own_place_ok(disk, first, run->host_off, length);
	return place_ok(disk, layer, run->host_off, length);
}

/* The image has guest data on its own metadata. */
static void refuse_writes(struct qcow_disk *disk, u64 page_idx)
{
	sector_t sector = page_idx * DM_QCOW_PAGE_BLOCKS * qcow_map_block_sectors(&disk->map);
	char why[80];

	snprintf(why, sizeof(why), "guest data lies on metadata or free space, behind byte %llu",
		 (u64)sector << SECTOR_SHIFT);
	qcow_errors_mode(&disk->errors, "LOAD", -EIO, why);
	disk->degrade(disk);
}

static int fill_page(struct qcow_disk *disk, struct qcow_map_page *page,
		     const struct qcow_answer *answer)
{
	struct qcow_map_fill fill = { .page = page };
	struct dm_qcow_run run;
	unsigned int i;
	int r;

	for (i = 0; i < answer->nr_runs; i++) {
		memcpy(&run, answer->runs + i * sizeof(run), sizeof(run));
		if (!run_ok(disk, &run, fill.nr_blocks))
			return -EINVAL;
		if ((run.flags & DM_QCOW_RUN_BROKEN) && disk->writable)
			refuse_writes(disk, answer->page);
		r = qcow_map_fill(&disk->map, &fill, &run);
		if (r)
			return r;
	}
	return fill.nr_blocks == DM_QCOW_PAGE_BLOCKS ? 0 : -EINVAL;
}

/* Puts what a LOAD brought into the map, or into @uc for the bios that wait. */
static int take_page(struct qcow_disk *disk, struct qcow_upcall *uc,
		     const struct qcow_answer *answer)
{
	struct qcow_map_page *page;
	int r;

	if (answer->page != uc->key || answer->seq != uc->seq)
		return -EINVAL;
	page = qcow_map_page_create(&disk->map);
	r = fill_page(disk, page, answer);
	if (!r)
		r = qcow_map_insert(&disk->map, uc->key, uc->seq, page);
	switch (r) {
	case 0:
		return 0;
	case -ENOMEM:
		uc->result = page;
		return 0;
	default:
		qcow_map_page_destroy(&disk->map, page);
		return r == -ESTALE ? 0 : r;
	}
}

static int load_done(struct qcow_upcall *uc, const struct qcow_answer *answer)
{
	struct qcow_disk *disk = uc->private;
	int r = 0;

	if (!answer->error)
		r = take_page(disk, uc, answer);
	if (answer->error || r) {
		qcow_bios_end(&uc->bios, answer->error ?: -EIO);
		qcow_upcall_free(&disk->upcalls, uc);
		return r;
	}
	spin_lock(&disk->ready_lock);
	list_add_tail(&uc->node, &disk->ready);
	spin_unlock(&disk->ready_lock);
	queue_work(qcow_dispatch_wq, &disk->ready_work);
	return 0;
}

/**
 * qcow_load() - have a bio wait for the map page it begins in
 * @disk: open
 * @bio: in no epoch
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_load(struct qcow_disk *disk, struct bio *bio)
{
	u64 page_idx = qcow_map_page_of(&disk->map, bio->bi_iter.bi_sector);
	struct qcow_upcall want = {
		.cmd = DM_QCOW_CMD_LOAD,
		.key = page_idx,
		.seq = qcow_map_seq(&disk->map, page_idx),
		.done = load_done,
		.private = disk,
	};

	qcow_upcall_park(&disk->upcalls, &want, bio);
}

/**
 * qcow_load_init() - nothing is ready
 * @disk: being set up
 *
 * Context: any.
 */
void qcow_load_init(struct qcow_disk *disk)
{
	INIT_LIST_HEAD(&disk->ready);
	INIT_WORK(&disk->ready_work, dispatch_ready);
}
