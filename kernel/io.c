// SPDX-License-Identifier: GPL-2.0-only
/* The way of a bio; see io.h. */

#include <linux/slab.h>

#include "dm-qcow.h"
#include "io.h"

#define SPLITS_MIN	16

static int load_done(struct qcow_upcall *uc, const struct qcow_answer *answer);

/* Our own splits carry their data in front of the bio, dm's clones carry it for dm. */
static struct qcow_io *io_of(struct qcow_disk *disk, struct bio *bio)
{
	if (bio->bi_pool == &disk->splits)
		return &container_of(bio, struct qcow_split, bio)->io;
	return dm_per_bio_data(bio, sizeof(struct qcow_io));
}

/*
 * Sends a bio that lies within one extent on its way. Returns true if it was
 * remapped to a block device and the caller has to submit it.
 */
static bool follow(struct qcow_disk *disk, struct bio *bio, struct qcow_io *io,
		   const struct qcow_extent *x)
{
	struct qcow_layer *layer;

	switch (x->type) {
	case DM_QCOW_RUN_DATA:
		layer = &disk->layers[x->layer];
		if (likely(layer->bdev)) {
			bio_set_dev(bio, layer->bdev);
			bio->bi_iter.bi_sector = x->host_sector;
			return true;
		}
		qcow_file_submit(disk->file_queues, layer, bio, &io->layer_io, x->host_sector);
		return false;
	case DM_QCOW_RUN_ZERO:
		this_cpu_inc(disk->stats->zero_fills);
		zero_fill_bio(bio);
		bio_endio(bio);
		return false;
	default:
		qcow_fetch(disk, bio);
		return false;
	}
}

static void park_load(struct qcow_disk *disk, struct bio *bio)
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

/* In ->map: the page is not loaded. */
static int miss(struct qcow_disk *disk, struct bio *bio)
{
	sector_t sector = bio->bi_iter.bi_sector;
	sector_t room = qcow_map_page_end(&disk->map, sector) - sector;

	if (bio->bi_opf & REQ_NOWAIT) {
		bio_wouldblock_error(bio);
		return DM_MAPIO_SUBMITTED;
	}
	if (room < bio_sectors(bio))
		dm_accept_partial_bio(bio, room);
	park_load(disk, bio);
	return DM_MAPIO_SUBMITTED;
}

/**
 * qcow_disk_map() - the data path of ->map, for reads
 * @disk: open
 * @bio: with data; its sector is relative to the target
 *
 * Context: ->map; sleeps only for upcalls' memory, never for REQ_NOWAIT.
 * Return: DM_MAPIO_REMAPPED or DM_MAPIO_SUBMITTED. Either way the bio ends with
 * bio_endio(), so that dm calls qcow_disk_end_io().
 */
int qcow_disk_map(struct qcow_disk *disk, struct bio *bio)
{
	struct qcow_io *io = dm_per_bio_data(bio, sizeof(*io));
	unsigned int nr_sectors = bio_sectors(bio);
	struct qcow_extent x;
	bool found;

	this_cpu_inc(disk->stats->reads);
	rcu_read_lock();
	io->epoch = qcow_inflight_enter(&disk->inflight);
	found = qcow_map_lookup(&disk->map, bio->bi_iter.bi_sector, nr_sectors, &x);
	rcu_read_unlock();
	if (unlikely(!found))
		return miss(disk, bio);
	if (x.nr_sectors < nr_sectors)
		dm_accept_partial_bio(bio, x.nr_sectors);
	return follow(disk, bio, io, &x) ? DM_MAPIO_REMAPPED : DM_MAPIO_SUBMITTED;
}

static bool look_up(struct qcow_disk *disk, struct bio *bio, const struct qcow_map_page *page,
		    struct qcow_extent *x)
{
	sector_t sector = bio->bi_iter.bi_sector;
	bool found = true;

	if (page) {
		qcow_map_page_lookup(&disk->map, page, sector, bio_sectors(bio), x);
	} else {
		rcu_read_lock();
		found = qcow_map_lookup(&disk->map, sector, bio_sectors(bio), x);
		rcu_read_unlock();
	}
	return found;
}

/*
 * Sends a bio that waited on its way, in pieces if need be. @page is where to look
 * if it could not be put into the map.
 */
static void dispatch(struct qcow_disk *disk, struct bio *bio, const struct qcow_map_page *page)
{
	struct qcow_extent x;
	struct bio *part;

	do {
		if (!look_up(disk, bio, page, &x)) {
			/* Evicted already; or what the LOAD said had gone stale. */
			park_load(disk, bio);
			return;
		}
		part = bio;
		if (x.nr_sectors < bio_sectors(bio)) {
			/* Cannot fail: the bio set has a reserve, and each piece is
			 * under way before the next is cut.
			 */
			part = bio_split(bio, x.nr_sectors, GFP_NOIO, &disk->splits);
			bio_chain(part, bio);
		}
		if (follow(disk, part, io_of(disk, part), &x))
			submit_bio_noacct(part);
	} while (part != bio);
}

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

static void dispatch_ready(struct work_struct *work)
{
	struct qcow_disk *disk = container_of(work, struct qcow_disk, ready_work);
	struct qcow_upcall *uc;
	struct blk_plug plug;
	struct bio *bio;

	blk_start_plug(&plug);
	while ((uc = pop_ready(disk))) {
		while ((bio = bio_list_pop(&uc->bios)))
			dispatch(disk, bio, uc->result);
		if (uc->result)
			qcow_map_page_destroy(&disk->map, uc->result);
		qcow_upcall_free(&disk->upcalls, uc);
	}
	blk_finish_plug(&plug);
}

/* Nothing the helper says about a layer is taken on trust. */
static bool run_ok(const struct qcow_disk *disk, const struct dm_qcow_run *run)
{
	const struct qcow_layer *layer;
	u64 length;

	if (run->type > DM_QCOW_RUN_FETCH || run->nr_blocks > DM_QCOW_PAGE_BLOCKS)
		return false;
	if (run->type != DM_QCOW_RUN_DATA)
		return !run->flags;
	if (run->layer >= disk->nr_layers || run->flags & ~DM_QCOW_RUN_WRITABLE)
		return false;
	layer = &disk->layers[run->layer];
	if ((run->flags & DM_QCOW_RUN_WRITABLE) && !(layer->flags & DM_QCOW_LAYER_WRITABLE))
		return false;
	length = (u64)run->nr_blocks * qcow_map_block_sectors(&disk->map) << SECTOR_SHIFT;
	return IS_ALIGNED(run->host_off, disk->logical_block_size) &&
	       qcow_layer_holds(layer, run->host_off, length);
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
		if (!run_ok(disk, &run))
			return -EINVAL;
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
	queue_work(qcow_wq, &disk->ready_work);
	return 0;
}

/**
 * qcow_disk_reset() - forget what the helper said about the image
 * @disk: with no bio in flight
 *
 * Context: process; may sleep.
 */
void qcow_disk_reset(struct qcow_disk *disk)
{
	qcow_map_reset(&disk->map);
	qcow_cache_reset(&disk->cache);
}

/**
 * qcow_disk_init() - set up what bios need
 * @disk: zeroed; ->map, ->cache and ->upcalls are the caller's to set up
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_disk_init(struct qcow_disk *disk)
{
	int r = -ENOMEM;

	spin_lock_init(&disk->ready_lock);
	INIT_LIST_HEAD(&disk->ready);
	INIT_WORK(&disk->ready_work, dispatch_ready);
	disk->stats = alloc_percpu(struct qcow_io_stats);
	if (!disk->stats)
		return r;
	disk->file_queues = qcow_file_queues_create();
	if (!disk->file_queues)
		goto out_stats;
	r = qcow_inflight_init(&disk->inflight);
	if (r)
		goto out_queues;
	r = bioset_init(&disk->splits, SPLITS_MIN, offsetof(struct qcow_split, bio), 0);
	if (r)
		goto out_inflight;
	return 0;

out_inflight:
	qcow_inflight_exit(&disk->inflight);
out_queues:
	qcow_file_queues_destroy(disk->file_queues);
out_stats:
	free_percpu(disk->stats);
	return r;
}

/**
 * qcow_disk_exit() - undo qcow_disk_init()
 * @disk: with no bio in flight
 *
 * Context: process; waits for workers that are just leaving.
 */
void qcow_disk_exit(struct qcow_disk *disk)
{
	flush_work(&disk->ready_work);
	bioset_exit(&disk->splits);
	qcow_inflight_exit(&disk->inflight);
	qcow_file_queues_destroy(disk->file_queues);
	free_percpu(disk->stats);
}
