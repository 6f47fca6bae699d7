// SPDX-License-Identifier: GPL-2.0-only
/* The device-mapper target "qcow". */

#include <linux/module.h>
#include <linux/slab.h>

#include "dm-qcow.h"
#include "target.h"

#define NOFLUSH_PATIENCE	(10 * HZ)	/* for one upcall of a suspend without flush */

/*
 * The hooks, and what each does with the image:
 *
 *	ctr		PROBE; opens the block devices (only legal here)
 *	preresume	OPEN, unless it is open still
 *	presuspend	noflush: bios that wait go back to dm
 *	postsuspend	commits, CLOSE; noflush: only of an image being written, and with
 *			less patience
 *	dtr		drops what is open; never talks to the helper
 */

static void raise_event(struct work_struct *work)
{
	struct qcow_target *t = container_of(work, struct qcow_target, event_work);

	dm_table_event(t->ti->table);
}

/**
 * qcow_target_event() - raise a dm event
 * @t: the target
 *
 * Context: any; dm wants process context, so a worker does it.
 */
void qcow_target_event(struct qcow_target *t)
{
	queue_work(qcow_wq, &t->event_work);
}

/**
 * qcow_target_set_mode() - restrict what the device may do
 * @t: the target
 * @mode: the mode; going back is ignored
 *
 * Context: process; may sleep.
 */
void qcow_target_set_mode(struct qcow_target *t, enum qcow_mode mode)
{
	mutex_lock(&t->lock);
	if (mode > t->mode) {
		DMWARN("%s: mode %s -> %s", t->args.path, qcow_mode_name(t->mode),
		       qcow_mode_name(mode));
		WRITE_ONCE(t->mode, mode);
		qcow_target_event(t);
	}
	mutex_unlock(&t->lock);
}

static void init_upcalls(struct qcow_target *t)
{
	t->disk.upcalls.timeout = t->args.helper_timeout * HZ;
	if (t->mode == QCOW_MODE_RO)
		t->disk.upcalls.flags = DM_QCOW_FLAG_READ_ONLY;
}

/* Brings the helper in: from here on a worker may attach. */
static int find_helper(struct qcow_target *t)
{
	int r;

	if (!qcow_supervisor_attached()) {
		DMERR("no helper: start it with 'systemctl start qcowd' or 'qcowd --respawn'");
		t->ti->error = "No helper is running (qcowd)";
		return -ESRCH;
	}
	r = qcow_link_register(&t->link, &qcow_image_link_ops);
	if (r) {
		t->ti->error = "Out of memory";
		return r;
	}
	r = qcow_supervisor_notify(&t->link, DM_QCOW_CMD_START);
	if (r)
		DMWARN("%s: START was not delivered: %d", t->args.path, r);
	return 0;
}

static void init_limits(struct qcow_target *t)
{
	struct dm_target *ti = t->ti;

	if (t->mode == QCOW_MODE_RW && t->shape.flags & DM_QCOW_SHAPE_ZEROES) {
		ti->num_discard_bios = 1;
		ti->discards_supported = true;
		ti->num_write_zeroes_bios = 1;
	}

	ti->per_io_data_size = sizeof(struct qcow_io);
	ti->num_flush_bios = 1;
	/* Flushes must reach us whatever the layers' caches are like. */
	ti->flush_supported = true;
	ti->limit_swap_bios = true;
}

static int init_map(struct qcow_target *t)
{
	qcow_cache_init(&t->disk.cache, (size_t)t->args.cache_kib << 10);
	return qcow_map_init(&t->disk.map, t->shape.block_size, (size_t)t->args.map_kib << 10);
}

/*
 * Writing failed for good, or would be dangerous. What writes wait for, a commit or a
 * lease, will not come any more.
 */
static void degrade(struct qcow_disk *disk)
{
	qcow_target_set_mode(container_of(disk, struct qcow_target, disk), QCOW_MODE_RO);
	qcow_cells_refuse(disk, -EIO);
}

static void welcome(struct qcow_target *t)
{
	qcow_upcalls_welcome(&t->disk.upcalls);
	qcow_cells_refuse(&t->disk, 0);
	/* Looked at last: degrade() sets the mode, and then refuses, at any moment. */
	if (READ_ONCE(t->mode) != QCOW_MODE_RW)
		qcow_cells_refuse(&t->disk, -EIO);
}

static void low_space(struct qcow_room *room)
{
	struct qcow_disk *disk = container_of(room, struct qcow_disk, room);
	struct qcow_target *t = container_of(disk, struct qcow_target, disk);

	DMWARN("%s: less than %llu MiB are left below", t->args.path, room->mark >> 20);
	qcow_target_event(t);
}

static void tell_space(struct qcow_target *t, bool no_space, int error)
{
	const char *news = no_space ? "no space left below" : "space again";

	if (t->no_space == no_space)
		return;
	t->no_space = no_space;
	if (error == -ENOSPC)
		news = "no space left below for too long: writes fail";
	DMWARN("%s: %s", t->args.path, news);
	qcow_target_event(t);
}

/* Clusters came, or did not. */
static void pool_changed(struct qcow_alloc *alloc, int error)
{
	struct qcow_disk *disk = container_of(alloc, struct qcow_disk, alloc);
	struct qcow_target *t = container_of(disk, struct qcow_target, disk);

	tell_space(t, READ_ONCE(alloc->shortage.since), error);
	switch (error) {
	case 0:
		qcow_cells_resume(disk);
		break;
	case -ENOSPC:
	case -ETIMEDOUT:
	case -ERESTART:
		qcow_cells_fail(disk, error);
		break;
	default:
		qcow_errors_mode(&disk->errors, "lease", error, NULL);
		degrade(disk);
		qcow_cells_fail(disk, error);
	}
}

/* What writing needs. Its memory only where the table allows writing. */
static int init_writing(struct qcow_target *t)
{
	struct qcow_disk *disk = &t->disk;
	int r;

	disk->degrade = degrade;
	disk->can_keep = t->shape.flags & DM_QCOW_SHAPE_KEEP;
	disk->keep_discarded = t->args.keep_discarded;
	disk->commit.passdown = !t->args.no_discard_passdown;
	disk->room.low = low_space;
	disk->room.mark = (u64)t->args.low_water_mib << 20;
	disk->alloc.room = &disk->room;
	disk->alloc.changed = pool_changed;
	disk->alloc.cluster_shift = ilog2(t->shape.cluster_size) - SECTOR_SHIFT;
	disk->alloc.lease_clusters = max(QCOW_LEASE_BYTES / t->shape.cluster_size, 1U);
	disk->alloc.shortage.timeout = t->args.no_space_timeout * HZ;
	r = qcow_alloc_init(&disk->alloc, &disk->upcalls, t->mode == QCOW_MODE_RW);
	if (r || t->mode != QCOW_MODE_RW)
		return r;
	r = qcow_map_reserve(&disk->map) ?: qcow_disk_reserve(disk) ?:
	    qcow_copy_init(disk, t->shape.cluster_size);
	/* The exits of map and disk free what there is of theirs. */
	if (r)
		qcow_alloc_exit(&disk->alloc);
	return r;
}

static struct qcow_target *create(struct dm_target *ti)
{
	struct qcow_target *t = kzalloc(sizeof(*t), GFP_KERNEL);

	if (!t)
		return NULL;
	t->ti = ti;
	t->image = DM_QCOW_STATE_NEW;
	/* The table's mode; BLK_OPEN_WRITE of old and new kernels. */
	t->mode = dm_table_get_mode(ti->table) & BLK_OPEN_WRITE ? QCOW_MODE_RW : QCOW_MODE_RO;
	mutex_init(&t->lock);
	INIT_WORK(&t->event_work, raise_event);
	return t;
}

static int qcow_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct qcow_target *t = create(ti);
	int r;

	if (!t) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	r = qcow_args_parse(&t->args, ti, argc, argv);
	if (r)
		goto out_free;
	qcow_errors_init(&t->disk.errors, t->args.path);
	ti->error = "Out of memory";
	r = qcow_disk_init(&t->disk);
	if (r)
		goto out_args;
	r = qcow_upcalls_init(&t->disk.upcalls, &t->link);
	if (r)
		goto out_disk;
	init_upcalls(t);
	r = find_helper(t);
	if (r)
		goto out_upcalls;
	ti->error = "The helper refused the image (see the line above)";
	r = qcow_image_probe(t);
	if (r)
		goto out_link;
	ti->error = "Out of memory";
	r = init_map(t);
	if (r)
		goto out_link;
	r = init_writing(t);
	if (r)
		goto out_map;
	init_limits(t);
	ti->private = t;
	ti->error = NULL;
	return 0;

out_map:
	qcow_map_exit(&t->disk.map);
out_link:
	qcow_link_unregister(&t->link);
	qcow_image_put_devices(t);
out_upcalls:
	qcow_upcalls_exit(&t->disk.upcalls);
out_disk:
	qcow_disk_exit(&t->disk);
out_args:
	cancel_work_sync(&t->event_work);
	qcow_args_free(&t->args);
out_free:
	kfree(t);
	return r;
}

static void qcow_dtr(struct dm_target *ti)
{
	struct qcow_target *t = ti->private;

	/* No answer, ATTACH or loss of the worker is being worked on after this. */
	qcow_link_unregister(&t->link);
	qcow_upcalls_refuse(&t->disk.upcalls, -EIO);
	qcow_commit_stop(&t->disk);
	qcow_alloc_stop(&t->disk.alloc, HZ);
	qcow_image_drop(t);
	qcow_alloc_exit(&t->disk.alloc);
	cancel_work_sync(&t->event_work);
	/* The disk's worker may still be freeing its last upcall and page. */
	qcow_disk_exit(&t->disk);
	qcow_upcalls_exit(&t->disk.upcalls);
	qcow_map_exit(&t->disk.map);
	qcow_image_put_devices(t);
	qcow_args_free(&t->args);
	kfree(t);
}

static int map_flush(struct qcow_target *t, struct bio *bio)
{
	if (!t->disk.writable) {
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	/* What is dirty in mode RO can never be made durable; what was written in place can. */
	if (READ_ONCE(t->mode) != QCOW_MODE_RW &&
	    (!qcow_commit_idle(&t->disk) || READ_ONCE(t->disk.commit.broken)))
		return DM_MAPIO_KILL;
	return qcow_disk_map_flush(&t->disk, bio);
}

/* Until somebody enters one for it: end_io leaves whatever it finds. */
static void no_epoch(struct bio *bio)
{
	struct qcow_io *io = dm_per_bio_data(bio, sizeof(*io));

	io->epoch = QCOW_EPOCH_NONE;
	io->starved = false;
	io->layer_io.layer = NULL;
}

static int map_other(struct qcow_target *t, struct bio *bio)
{
	no_epoch(bio);
	if ((bio->bi_opf & REQ_PREFLUSH) && !bio_sectors(bio))
		return map_flush(t, bio);
	if (READ_ONCE(t->mode) != QCOW_MODE_RW || !t->disk.writable)
		return DM_MAPIO_KILL;
	bio->bi_iter.bi_sector = dm_target_offset(t->ti, bio->bi_iter.bi_sector);
	switch (bio_op(bio)) {
	case REQ_OP_WRITE:
		return qcow_disk_map_write(&t->disk, bio);
	case REQ_OP_DISCARD:
	case REQ_OP_WRITE_ZEROES:
		return qcow_disk_map_discard(&t->disk, bio);
	default:
		return DM_MAPIO_KILL;
	}
}

static int qcow_map(struct dm_target *ti, struct bio *bio)
{
	struct qcow_target *t = ti->private;

	if (unlikely(READ_ONCE(t->mode) == QCOW_MODE_FAIL)) {
		no_epoch(bio);
		return DM_MAPIO_KILL;
	}
	if (bio_op(bio) != REQ_OP_READ)
		return map_other(t, bio);
	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	return qcow_disk_map(&t->disk, bio);
}

static void note_error(struct qcow_target *t, struct bio *bio, blk_status_t error)
{
	atomic_long_inc(&t->nr_errors);
	qcow_disk_failed(&t->disk, bio);
	qcow_errors_seen(&t->disk.errors, bio, blk_status_to_errno(error));
}

static int qcow_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct qcow_target *t = ti->private;

	qcow_disk_end_io(&t->disk, bio);
	if (unlikely(*error) && *error != BLK_STS_DM_REQUEUE && *error != BLK_STS_AGAIN) {
		note_error(t, bio, *error);
		qcow_target_event(t);
	}
	return DM_ENDIO_DONE;
}

static void qcow_presuspend(struct dm_target *ti)
{
	struct qcow_target *t = ti->private;

	/* dm forgets it before postsuspend. */
	t->noflush = dm_noflush_suspending(ti);
	if (!t->noflush)
		return;
	qcow_upcalls_refuse(&t->disk.upcalls, -ERESTART);
	qcow_cells_refuse(&t->disk, -ERESTART);
}

/* The image is open to be written to: what a suspend held or left undone goes on. */
static void go_on(struct qcow_target *t)
{
	qcow_alloc_start(&t->disk.alloc);
	/* What an unclean suspend left. */
	if (!qcow_commit_idle(&t->disk))
		qcow_commit_note(&t->disk);
}

/* A suspend without a flush was interrupted. A GRANT that it cut short is held. */
static void qcow_presuspend_undo(struct dm_target *ti)
{
	struct qcow_target *t = ti->private;

	welcome(t);
	if (t->image == DM_QCOW_STATE_OPEN && t->disk.writable)
		go_on(t);
}

/*
 * No bio waits any more, so nothing is in the way of a commit, which saves what nobody
 * flushed from being lost if another table comes. But who suspends without a flush may do
 * so to get rid of a device whose helper is gone or hangs.
 */
static void close_soon(struct qcow_target *t)
{
	if (!qcow_link_attached(&t->link))
		return;
	qcow_upcalls_welcome(&t->disk.upcalls);
	qcow_image_close(t, min_t(unsigned long, t->disk.upcalls.timeout, NOFLUSH_PATIENCE));
}

static void qcow_postsuspend(struct dm_target *ti)
{
	struct qcow_target *t = ti->private;

	if (t->image != DM_QCOW_STATE_OPEN)
		return;
	/* A failure shows in the status: dm gives no way to fail here. */
	if (!t->noflush)
		qcow_image_close(t, t->disk.upcalls.timeout);
	else if (t->disk.writable)
		close_soon(t);
}

static int qcow_preresume(struct dm_target *ti)
{
	struct qcow_target *t = ti->private;
	int r = 0;

	welcome(t);
	if (t->image != DM_QCOW_STATE_OPEN)
		r = qcow_image_open(t);
	if (!r && t->disk.writable)
		go_on(t);
	return r;
}

static void qcow_status(struct dm_target *ti, status_type_t type, unsigned int flags,
			char *result, unsigned int maxlen)
{
	struct qcow_target *t = ti->private;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		qcow_status_print(t, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		qcow_args_print(&t->args, result, maxlen);
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",image=%s;", t->args.path);
		break;
	}
}

static void obey(struct qcow_target *t, enum qcow_mode mode)
{
	if (mode > READ_ONCE(t->mode))
		qcow_errors_mode(&t->disk.errors, "message", 0, "somebody said so");
	qcow_target_set_mode(t, mode);
}

/*
 * drop_caches	forget the map and the fetched blocks; they are asked for again
 * mode ro|fail	restrict the device, for good
 */
static int qcow_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
			unsigned int maxlen)
{
	struct qcow_target *t = ti->private;

	if (argc == 1 && !strcasecmp(argv[0], "drop_caches")) {
		qcow_disk_reset(&t->disk);
		return 0;
	}
	if (argc == 2 && !strcasecmp(argv[0], "mode")) {
		if (!strcasecmp(argv[1], "ro"))
			obey(t, QCOW_MODE_RO);
		else if (!strcasecmp(argv[1], "fail"))
			obey(t, QCOW_MODE_FAIL);
		else
			return -EINVAL;
		return 0;
	}
	DMERR("unknown message %s", argv[0]);
	return -EINVAL;
}

static int qcow_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct qcow_target *t = ti->private;
	unsigned int i;
	int r = 0;

	/* Each with its own length: the target's says nothing about the layers'. */
	for (i = 0; !r && i < t->nr_devs; i++)
		r = fn(ti, t->devs[i], 0, bdev_nr_sectors(t->devs[i]->bdev), data);
	return r;
}

static void qcow_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct qcow_target *t = ti->private;
	unsigned int sector_size = max(t->args.sector_size, t->shape.logical_block_size);

	limits->logical_block_size = max(limits->logical_block_size, sector_size);
	limits->physical_block_size = max(limits->physical_block_size,
					  limits->logical_block_size);
	limits->io_min = max(limits->io_min, limits->physical_block_size);
	limits->io_opt = t->shape.cluster_size;
	limits->dma_alignment |= t->shape.dma_alignment;
	if (!t->ti->num_discard_bios)
		return;
	limits->discard_granularity = t->shape.cluster_size;
	limits->discard_alignment = 0;
	limits->max_discard_sectors = UINT_MAX >> SECTOR_SHIFT;
	limits->max_hw_discard_sectors = UINT_MAX >> SECTOR_SHIFT;
}

static struct target_type qcow_target_type = {
	.name = "qcow",
	.version = { 1, 0, 0 },
	.features = DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = qcow_ctr,
	.dtr = qcow_dtr,
	.map = qcow_map,
	.end_io = qcow_end_io,
	.presuspend = qcow_presuspend,
	.presuspend_undo = qcow_presuspend_undo,
	.postsuspend = qcow_postsuspend,
	.preresume = qcow_preresume,
	.status = qcow_status,
	.message = qcow_message,
	.iterate_devices = qcow_iterate_devices,
	.io_hints = qcow_io_hints,
};

/**
 * qcow_target_init() - register the target with dm
 *
 * Context: module init.
 * Return: 0 or a negative errno.
 */
int qcow_target_init(void)
{
	return dm_register_target(&qcow_target_type);
}

/**
 * qcow_target_exit() - undo qcow_target_init()
 *
 * Context: module exit; there are no targets.
 */
void qcow_target_exit(void)
{
	dm_unregister_target(&qcow_target_type);
}
