// SPDX-License-Identifier: GPL-2.0-only
/* The way of a bio; see io.h. */

#include <linux/slab.h>

#include "dm-qcow.h"
#include "io.h"

#define SPLITS_MIN	16

/* Whoever carries it out may change the bio's own: should it fail, this says where. */
static void send_to(struct bio *bio, struct qcow_layer_io *io, struct qcow_layer *layer,
		    sector_t host_sector)
{
	io->layer = layer;
	io->pos = (loff_t)host_sector << SECTOR_SHIFT;
	bio_set_dev(bio, layer->bdev);
	bio->bi_iter.bi_sector = host_sector;
}

/**
 * qcow_disk_write() - write to the data layer, for a cell
 * @disk: open for writing
 * @bio: from disk->clones; perhaps it has ended when this returns
 * @host_sector: where to
 *
 * A file is written to here and now: to have another worker do it would only cost.
 *
 * Context: a worker of bios that waited, never under current->bio_list; may wait for the
 * file system.
 */
void qcow_disk_write(struct qcow_disk *disk, struct bio *bio, sector_t host_sector)
{
	struct qcow_layer *layer = &disk->layers[disk->map.data_layer];
	struct qcow_layer_io *io = &qcow_io_of(disk, bio)->layer_io;

	if (!layer->bdev) {
		/* Its cell waits for space, and sends it again. */
		io->starved = NULL;
		qcow_file_write(disk->file_queues, layer, bio, io, host_sector);
		return;
	}
	send_to(bio, io, layer, host_sector);
	submit_bio_noacct(bio);
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
			send_to(bio, &io->layer_io, layer, x->host_sector);
			return true;
		}
		io->layer_io.starved = disk->alloc.shortage.timeout ? &disk->starved : NULL;
		qcow_file_submit(disk->file_queues, layer, bio, &io->layer_io, x->host_sector);
		return false;
	case DM_QCOW_RUN_ZERO:
		this_cpu_inc(disk->stats->zero_fills);
		zero_fill_bio(bio);
		bio_endio(bio);
		return false;
	default:
		io->layer_io.layer = NULL;
		qcow_fetch(disk, bio);
		return false;
	}
}

/* A bio that waits for others must not keep a fence waiting, which they may need. */
static void leave(struct qcow_disk *disk, struct qcow_io *io)
{
	qcow_inflight_leave(&disk->inflight, io->epoch);
	io->epoch = QCOW_EPOCH_NONE;
	io->layer_io.layer = NULL;
}

/*
 * Polling is for the bios that ->map itself has sent on. What a worker sends later, in
 * pieces perhaps, nobody would look for, so it must not go to a queue without interrupts.
 */
static void let_interrupt(struct bio *bio)
{
	bio->bi_opf &= ~REQ_POLLED;
}

/* In ->map: what follows needs only what lies in the first map page. */
static void trim_to_page(struct qcow_disk *disk, struct bio *bio)
{
	sector_t sector = bio->bi_iter.bi_sector;
	sector_t room = qcow_map_page_end(&disk->map, sector) - sector;

	if (room < bio_sectors(bio))
		dm_accept_partial_bio(bio, room);
}

/*
 * In ->map: a worker has to take care of it. Nobody is kept waiting here, so REQ_NOWAIT
 * is met. BLK_STS_AGAIN would be wrong: if dm has sent a part of the same request on
 * already, that part may complete last, in a context in which io_uring cannot try
 * again, and the user would get EAGAIN.
 */
static int defer(struct qcow_disk *disk, struct bio *bio, struct qcow_io *io)
{
	leave(disk, io);
	bio->bi_opf &= ~REQ_NOWAIT;
	let_interrupt(bio);
	trim_to_page(disk, bio);
	qcow_disk_defer(disk, bio);
	return DM_MAPIO_SUBMITTED;
}

/* In ->map: the page is not loaded. */
static int miss(struct qcow_disk *disk, struct bio *bio, struct qcow_io *io)
{
	/* To park it may take waiting for memory. */
	if (bio->bi_opf & REQ_NOWAIT)
		return defer(disk, bio, io);
	leave(disk, io);
	let_interrupt(bio);
	trim_to_page(disk, bio);
	qcow_load(disk, bio);
	return DM_MAPIO_SUBMITTED;
}

/**
 * qcow_disk_map() - the data path of ->map, for reads
 * @disk: open
 * @bio: with data; its sector is relative to the target
 *
 * Context: ->map; sleeps only for upcalls' memory, never for REQ_NOWAIT: that is
 * deferred rather than refused.
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
		return miss(disk, bio, io);
	if (x.nr_sectors < nr_sectors)
		dm_accept_partial_bio(bio, x.nr_sectors);
	if (unlikely(x.type == DM_QCOW_RUN_FETCH && (bio->bi_opf & REQ_NOWAIT)))
		return defer(disk, bio, io);
	return follow(disk, bio, io, &x) ? DM_MAPIO_REMAPPED : DM_MAPIO_SUBMITTED;
}

/*
 * May a write go where the map says? One that has to be durable when it ends must not
 * pass by a delta of its own block; that one of its page would be enough to look at.
 */
static bool in_place(struct qcow_disk *disk, const struct bio *bio, const struct qcow_extent *x)
{
	/* A discard changes the map, wherever it is. */
	if (bio_op(bio) != REQ_OP_WRITE || x->type != DM_QCOW_RUN_DATA || !x->writable)
		return false;
	return !(bio->bi_opf & REQ_FUA) || !qcow_map_has_deltas(&disk->map, bio->bi_iter.bi_sector,
								 x->nr_sectors);
}

/**
 * qcow_disk_map_write() - the data path of ->map, for writes
 * @disk: open for writing
 * @bio: with data; its sector is relative to the target
 *
 * Context: ->map; sleeps only for upcalls' memory, never for REQ_NOWAIT: that is
 * deferred rather than refused.
 * Return: as qcow_disk_map().
 */
int qcow_disk_map_write(struct qcow_disk *disk, struct bio *bio)
{
	struct qcow_io *io = dm_per_bio_data(bio, sizeof(*io));
	unsigned int nr_sectors = bio_sectors(bio);
	struct qcow_extent x;
	bool found, straight = false;

	this_cpu_inc(disk->stats->writes);
	rcu_read_lock();
	io->epoch = qcow_inflight_enter(&disk->inflight);
	found = qcow_map_lookup(&disk->map, bio->bi_iter.bi_sector, nr_sectors, &x);
	if (found)
		straight = in_place(disk, bio, &x);
	rcu_read_unlock();
	if (unlikely(!found))
		return miss(disk, bio, io);
	if (unlikely(!straight)) {
		this_cpu_inc(disk->stats->deferred);
		return defer(disk, bio, io);
	}
	if (x.nr_sectors < nr_sectors)
		dm_accept_partial_bio(bio, x.nr_sectors);
	return follow(disk, bio, io, &x) ? DM_MAPIO_REMAPPED : DM_MAPIO_SUBMITTED;
}

/**
 * qcow_disk_map_discard() - ->map for discard and write-zeroes
 * @disk: open for writing
 * @bio: without data, in no epoch; its sector is relative to the target
 *
 * Context: ->map; does not sleep.
 * Return: as qcow_disk_map().
 */
int qcow_disk_map_discard(struct qcow_disk *disk, struct bio *bio)
{
	this_cpu_inc(disk->stats->deferred);
	return defer(disk, bio, dm_per_bio_data(bio, sizeof(struct qcow_io)));
}

/**
 * qcow_disk_map_flush() - ->map for a flush
 * @disk: open for writing
 * @bio: empty, in no epoch
 *
 * Context: ->map; does not sleep.
 * Return: as qcow_disk_map().
 */
int qcow_disk_map_flush(struct qcow_disk *disk, struct bio *bio)
{
	struct qcow_layer *layer = &disk->layers[disk->map.data_layer];

	if (layer->bdev && qcow_commit_idle(disk)) {
		send_to(bio, &qcow_io_of(disk, bio)->layer_io, layer, 0);
		return DM_MAPIO_REMAPPED;
	}
	qcow_commit_flush(disk, bio);
	return DM_MAPIO_SUBMITTED;
}

/*
 * Looks up where a bio that waited may go; true: in the epoch that @io says now.
 * @page is where to look if it could not be put into the map.
 */
static bool look_up(struct qcow_disk *disk, struct bio *bio, const struct qcow_map_page *page,
		    struct qcow_extent *x, unsigned int *epoch)
{
	sector_t sector = bio->bi_iter.bi_sector;
	bool found;

	rcu_read_lock();
	*epoch = qcow_inflight_enter(&disk->inflight);
	found = qcow_map_lookup(&disk->map, sector, bio_sectors(bio), x);
	/* What is in the map by now is at least as new. */
	if (!found && page)
		found = qcow_map_page_lookup(&disk->map, page, sector, bio_sectors(bio), x);
	if (found && op_is_write(bio_op(bio)))
		found = !qcow_disk_is_starved(disk, bio) && in_place(disk, bio, x);
	rcu_read_unlock();
	if (!found)
		qcow_inflight_leave(&disk->inflight, *epoch);
	return found;
}

static bool is_loaded(struct qcow_disk *disk, sector_t sector)
{
	struct qcow_extent x;
	bool loaded;

	rcu_read_lock();
	loaded = qcow_map_lookup(&disk->map, sector, 1, &x);
	rcu_read_unlock();
	return loaded;
}

/*
 * Whoever carries a bio out may set its status to what became of it, although a part
 * that was cut off it has failed. The rest of such a bio goes as one more part.
 */
static void submit(struct qcow_disk *disk, struct bio *bio)
{
	struct qcow_layer_io *io = &qcow_io_of(disk, bio)->layer_io;
	struct bio *part;

	if (likely(!bio_flagged(bio, BIO_CHAIN))) {
		submit_bio_noacct(bio);
		return;
	}
	part = bio_alloc_clone(bio->bi_bdev, bio, GFP_NOIO, &disk->splits);
	qcow_disk_chain(disk, part, bio);
	qcow_io_of(disk, part)->layer_io.layer = io->layer;
	qcow_io_of(disk, part)->layer_io.pos = io->pos;
	io->layer = NULL;
	submit_bio_noacct(part);
	bio_endio(bio);
}

/* A write whose way has to be made: what lies in its first map page enters a cell. */
static struct bio *enter_cell(struct qcow_disk *disk, struct bio *bio)
{
	sector_t sector = bio->bi_iter.bi_sector;
	sector_t room = qcow_map_page_end(&disk->map, sector) - sector;
	struct bio *part = room < bio_sectors(bio) ? qcow_disk_cut(disk, bio, room) : bio;

	qcow_cell_enter(disk, part);
	return part;
}

/**
 * qcow_disk_dispatch() - send a bio that waited on its way, in pieces if need be
 * @disk: open
 * @bio: in no epoch
 * @page: where to look if it could not be put into the map; or NULL
 *
 * Context: process, never under current->bio_list; may sleep, without I/O.
 */
void qcow_disk_dispatch(struct qcow_disk *disk, struct bio *bio, const struct qcow_map_page *page)
{
	struct qcow_extent x;
	struct bio *part;
	unsigned int epoch;

	do {
		part = bio;
		if (look_up(disk, bio, page, &x, &epoch)) {
			if (x.nr_sectors < bio_sectors(bio))
				part = qcow_disk_cut(disk, bio, x.nr_sectors);
			qcow_io_of(disk, part)->epoch = epoch;
			if (follow(disk, part, qcow_io_of(disk, part), &x))
				submit(disk, part);
		} else if (op_is_write(bio_op(bio)) && is_loaded(disk, bio->bi_iter.bi_sector)) {
			part = enter_cell(disk, bio);
		} else {
			/* Evicted already; or what the LOAD said had gone stale. */
			qcow_load(disk, bio);
		}
	} while (part != bio);
}

/**
 * qcow_disk_read() - read the guest's disk for our own purposes
 * @disk: open
 * @bio: from disk->clones; its sector is relative to the target
 *
 * Context: process, never under current->bio_list; may sleep, without I/O.
 */
void qcow_disk_read(struct qcow_disk *disk, struct bio *bio)
{
	qcow_disk_dispatch(disk, bio, NULL);
}

/**
 * qcow_disk_defer() - have a worker look at a bio afresh
 * @disk: open for writing
 * @bio: in no epoch
 *
 * Context: any but interrupts; does not sleep.
 */
void qcow_disk_defer(struct qcow_disk *disk, struct bio *bio)
{
	bool write = op_is_write(bio_op(bio));
	struct qcow_deferred *d = write ? &disk->deferred_writes : &disk->deferred_reads;
	bool first;

	spin_lock(&disk->ready_lock);
	first = bio_list_empty(&d->bios);
	bio_list_add(&d->bios, bio);
	spin_unlock(&disk->ready_lock);
	if (first)
		queue_work(write ? qcow_deferred_wq : qcow_dispatch_wq, &d->work);
}

static void dispatch_all(struct qcow_disk *disk, struct qcow_deferred *d)
{
	struct bio_list bios;
	struct blk_plug plug;
	struct bio *bio;
	bool alone;

	bio_list_init(&bios);
	spin_lock(&disk->ready_lock);
	bio_list_merge(&bios, &d->bios);
	bio_list_init(&d->bios);
	spin_unlock(&disk->ready_lock);
	/* A plug would have one alone wait, and then be completed by another worker. */
	alone = bios.head == bios.tail;
	if (!alone)
		blk_start_plug(&plug);
	while ((bio = bio_list_pop(&bios)))
		qcow_disk_dispatch(disk, bio, NULL);
	if (!alone)
		blk_finish_plug(&plug);
}

static void dispatch_reads(struct work_struct *work)
{
	struct qcow_disk *disk = container_of(work, struct qcow_disk, deferred_reads.work);

	dispatch_all(disk, &disk->deferred_reads);
}

static void dispatch_writes(struct work_struct *work)
{
	struct qcow_disk *disk = container_of(work, struct qcow_disk, deferred_writes.work);

	dispatch_all(disk, &disk->deferred_writes);
}

static void init_deferred(struct qcow_deferred *d, work_func_t fn)
{
	bio_list_init(&d->bios);
	INIT_WORK(&d->work, fn);
}

/*
 * Writes in place that found no room below: from now on they go by way of a cell, which
 * waits for space as it does when it allocates. Not in an epoch: what is freed meanwhile
 * may be the space they wait for, and is punched after a fence.
 */
static void take_starved(struct work_struct *work)
{
	struct qcow_disk *disk = container_of(work, struct qcow_disk, starved.work);
	struct llist_node *list = llist_reverse_order(llist_del_all(&disk->starved.bios));
	struct qcow_layer_io *layer_io, *next;

	llist_for_each_entry_safe(layer_io, next, list, node) {
		struct qcow_io *io = container_of(layer_io, struct qcow_io, layer_io);

		leave(disk, io);
		io->starved = true;
		qcow_disk_defer(disk, layer_io->bio);
	}
}

/**
 * qcow_disk_is_starved() - has a write in place found no room below?
 * @disk: open
 * @bio: a write
 *
 * Context: any.
 * Return: true if so: it is a cell's business, although the map says where it goes.
 */
bool qcow_disk_is_starved(struct qcow_disk *disk, struct bio *bio)
{
	return qcow_io_of(disk, bio)->starved;
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
	qcow_load_init(disk);
	qcow_room_init(&disk->room);
	init_deferred(&disk->deferred_reads, dispatch_reads);
	init_deferred(&disk->deferred_writes, dispatch_writes);
	init_llist_head(&disk->starved.bios);
	INIT_WORK(&disk->starved.work, take_starved);
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
	qcow_cells_init(&disk->cells);
	qcow_commit_init(disk);
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
 * qcow_disk_reserve() - set memory aside for writing
 * @disk: of a table that allows it
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM; qcow_disk_exit() frees what there is.
 */
int qcow_disk_reserve(struct qcow_disk *disk)
{
	return bioset_init(&disk->clones, SPLITS_MIN, offsetof(struct qcow_split, bio),
			   BIOSET_NEED_BVECS) ?:
	       qcow_cells_reserve(&disk->cells) ?: qcow_commit_reserve(disk);
}

/**
 * qcow_disk_exit() - undo qcow_disk_init() and qcow_disk_reserve()
 * @disk: with no bio in flight
 *
 * Context: process; waits for workers that are just leaving.
 */
void qcow_disk_exit(struct qcow_disk *disk)
{
	flush_work(&disk->starved.work);
	flush_work(&disk->ready_work);
	flush_work(&disk->deferred_reads.work);
	flush_work(&disk->deferred_writes.work);
	qcow_copy_exit(disk);
	qcow_commit_exit(disk);
	/* A read-only table has none of these: zeroed, they may be exited as well. */
	qcow_cells_exit(&disk->cells);
	bioset_exit(&disk->clones);
	bioset_exit(&disk->splits);
	qcow_inflight_exit(&disk->inflight);
	qcow_file_queues_destroy(disk->file_queues);
	free_percpu(disk->stats);
}
