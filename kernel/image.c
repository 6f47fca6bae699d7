// SPDX-License-Identifier: GPL-2.0-only
/*
 * The image behind a target: PROBE, OPEN and CLOSE, and what the link to the worker
 * wants to know of them.
 *
 *	NEW    --PROBE answered, constructor done-->  CLOSED
 *	CLOSED --OPEN answered, preresume---------->  OPEN
 *	OPEN   --CLOSE answered, postsuspend------->  CLOSED
 *	OPEN   --CLOSE failed---------------------->  OPEN, unclean: resume goes on with it
 */

#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/slab.h>
#include <net/genetlink.h>

#include "dm-qcow.h"
#include "target.h"

static int call(struct qcow_target *t, u8 cmd, qcow_call_fn fn, void *private,
		unsigned long patience)
{
	struct qcow_upcall question = { .cmd = cmd };

	return qcow_upcall_call(&t->disk.upcalls, &question, fn, private, patience);
}

static bool wants_write(const struct qcow_target *t)
{
	return !(t->disk.upcalls.flags & DM_QCOW_FLAG_READ_ONLY);
}

static bool power_of_2_in(u32 n, u32 min, u32 max)
{
	return is_power_of_2(n) && n >= min && n <= max;
}

/* What no helper in its right mind would say. */
static int check_sanity(const struct qcow_target *t, const struct dm_qcow_shape *s)
{
	u64 max_cluster = min_t(u64, DM_QCOW_MAX_BLOCK_SIZE,
				(u64)s->block_size * DM_QCOW_SUBCLUSTERS);
	const char *what = NULL;

	if (!power_of_2_in(s->block_size, DM_QCOW_MIN_BLOCK_SIZE, DM_QCOW_MAX_BLOCK_SIZE))
		what = "block size";
	else if (!power_of_2_in(s->cluster_size, s->block_size, max_cluster))
		what = "cluster size";
	else if (!power_of_2_in(s->logical_block_size, SECTOR_SIZE, PAGE_SIZE))
		what = "logical block size";
	else if (!power_of_2_in(s->dma_alignment + 1, 1, PAGE_SIZE))
		what = "DMA alignment";
	else if (!s->nr_layers || s->nr_layers > DM_QCOW_MAX_LAYERS)
		what = "number of layers";
	else if (!IS_ALIGNED(s->virtual_size, SECTOR_SIZE) || s->virtual_size > LLONG_MAX)
		what = "virtual size";
	if (!what)
		return 0;
	DMERR("%s: the helper gave an impossible %s", t->args.path, what);
	return -EINVAL;
}

static int check_shape(const struct qcow_target *t, const struct dm_qcow_shape *s)
{
	u64 image_sectors = s->virtual_size >> SECTOR_SHIFT;
	unsigned int sector_size = t->args.sector_size;
	int r = check_sanity(t, s);

	if (r)
		return r;
	if (t->ti->len > image_sectors) {
		DMERR("%s: the table has %llu sectors, the image %llu", t->args.path,
		      (u64)t->ti->len, image_sectors);
		return -EINVAL;
	}
	/* A guest that was made for 512-byte sectors would misread its partitions. */
	if (s->logical_block_size > sector_size) {
		DMERR("%s: lies on %u-byte sectors; if they are fine, add sector_size:%u",
		      t->args.path, s->logical_block_size, s->logical_block_size);
		return -EINVAL;
	}
	if (s->block_size < sector_size || !IS_ALIGNED(t->ti->len, sector_size >> SECTOR_SHIFT)) {
		DMERR("%s: its clusters or its size do not fit %u-byte sectors", t->args.path,
		      sector_size);
		return -EINVAL;
	}
	return 0;
}

/* What OPEN must not have changed since PROBE, because dm took it for constant. */
static int check_same(const struct qcow_target *t, const struct dm_qcow_shape *s)
{
	const struct dm_qcow_shape *old = &t->shape;

	if (memcmp(s->identity, old->identity, sizeof(s->identity)) ||
	    s->block_size != old->block_size || s->cluster_size != old->cluster_size ||
	    s->logical_block_size > old->logical_block_size ||
	    s->dma_alignment > old->dma_alignment ||
	    (wants_write(t) && old->flags & ~s->flags)) {
		DMERR("%s: not the image that the table was loaded for: load a new table",
		      t->args.path);
		return -ESTALE;
	}
	return check_shape(t, s);
}

struct probe {
	struct dm_qcow_shape shape;
	struct dm_qcow_device *devices;
	unsigned int nr_devices;
};

static int take_probe(void *private, const struct qcow_answer *answer)
{
	struct probe *p = private;

	if (!qcow_answer_has(answer, DM_QCOW_ATTR_SHAPE) ||
	    answer->nr_devices > DM_QCOW_MAX_LAYERS)
		return -EPROTO;
	p->shape = answer->shape;
	if (!answer->nr_devices)
		return 0;
	p->devices = kmemdup(answer->devices, answer->nr_devices * sizeof(*p->devices),
			     GFP_KERNEL);
	p->nr_devices = answer->nr_devices;
	return p->devices ? 0 : -ENOMEM;
}

static int open_device(struct qcow_target *t, const struct dm_qcow_device *device)
{
	struct dm_dev **dev = &t->devs[t->nr_devs];
	char name[32];
	int r;

	snprintf(name, sizeof(name), "%u:%u", device->major, device->minor);
	r = -EROFS;
	if (wants_write(t))
		r = dm_get_device(t->ti, name, BLK_OPEN_READ | BLK_OPEN_WRITE, dev);
	/* Only one of them is written, and a base may well be read-only. */
	if (r == -EROFS || r == -EACCES)
		r = dm_get_device(t->ti, name, BLK_OPEN_READ, dev);
	if (r) {
		DMERR("%s: cannot use device %s: %d", t->args.path, name, r);
		return r;
	}
	t->nr_devs++;
	if (bdev_is_zoned((*dev)->bdev)) {
		DMERR("%s: device %s is zoned: images cannot lie there", t->args.path, name);
		return -EOPNOTSUPP;
	}
	return 0;
}

static int open_devices(struct qcow_target *t, const struct probe *p)
{
	unsigned int i;
	int r = 0;

	t->devs = kcalloc(p->nr_devices, sizeof(*t->devs), GFP_KERNEL);
	if (!t->devs)
		return -ENOMEM;
	for (i = 0; !r && i < p->nr_devices; i++)
		r = open_device(t, &p->devices[i]);
	return r;
}

/**
 * qcow_image_put_devices() - undo what qcow_image_probe() got
 * @t: the target, closed
 *
 * Context: constructor and destructor.
 */
void qcow_image_put_devices(struct qcow_target *t)
{
	while (t->nr_devs)
		dm_put_device(t->ti, t->devs[--t->nr_devs]);
	kfree(t->devs);
	t->devs = NULL;
}

/**
 * qcow_image_probe() - learn the image's shape and open its block devices
 * @t: the target, which a worker may attach to
 *
 * Context: constructor; waits for the helper, killable and bounded. Also on an error
 * the caller owes qcow_image_put_devices().
 * Return: 0 or a negative errno; the reason has been logged.
 */
int qcow_image_probe(struct qcow_target *t)
{
	struct probe p = { };
	int r;

	r = call(t, DM_QCOW_CMD_PROBE, take_probe, &p, t->disk.upcalls.timeout);
	if (r == -ETIMEDOUT)
		DMERR("%s: the helper did not answer within %u s", t->args.path,
		      t->args.helper_timeout);
	if (!r)
		r = check_shape(t, &p.shape);
	if (!r)
		r = open_devices(t, &p);
	if (!r) {
		mutex_lock(&t->lock);
		t->shape = p.shape;
		t->image = DM_QCOW_STATE_CLOSED;
		mutex_unlock(&t->lock);
	}
	kfree(p.devices);
	return r;
}

/* OPEN's answer, taken over in the helper's context, where its descriptors mean something. */
struct opened {
	struct qcow_target *t;
	struct dm_qcow_shape shape;
	struct qcow_layer *layers;
	unsigned int nr_layers;
	int data_layer;			/* -1: none is writable */
	u32 nr_tables;
};

struct closing {
	struct work_struct work;
	struct qcow_layer *layers;
	unsigned int nr_layers;
};

static void close_in_thread(struct work_struct *work)
{
	struct closing *c = container_of(work, struct closing, work);

	while (c->nr_layers)
		qcow_layer_close(&c->layers[--c->nr_layers]);
}

/*
 * A user's process drops files when it returns to user space: too late for another
 * table that is resumed by the same ioctl, and would find the image locked.
 */
static void close_layers(struct qcow_layer *layers, unsigned int nr_layers)
{
	struct closing c = { .layers = layers, .nr_layers = nr_layers };

	INIT_WORK_ONSTACK(&c.work, close_in_thread);
	queue_work(qcow_wq, &c.work);
	flush_work(&c.work);
	destroy_work_on_stack(&c.work);
	kvfree(layers);
}

static dev_t own_dev(const struct qcow_target *t)
{
	return disk_devt(dm_disk(dm_table_get_md(t->ti->table)));
}

static bool is_writable(const struct dm_dev *dev)
{
	return dev->mode & BLK_OPEN_WRITE && !bdev_read_only(dev->bdev);
}

/* A layer on a block device must be one that the constructor opened. */
static int match_device(struct qcow_target *t, struct qcow_layer *layer)
{
	struct inode *inode = file_inode(layer->file);
	unsigned int i;

	if (!S_ISBLK(inode->i_mode))
		return 0;
	for (i = 0; i < t->nr_devs; i++) {
		if (t->devs[i]->bdev->bd_dev != inode->i_rdev)
			continue;
		layer->bdev = t->devs[i]->bdev;
		layer->size = bdev_nr_bytes(layer->bdev);
		if (layer->flags & DM_QCOW_LAYER_WRITABLE && !is_writable(t->devs[i]))
			return -EROFS;
		return 0;
	}
	DMERR("%s: a layer moved to device %u:%u: load a new table", t->args.path,
	      MAJOR(inode->i_rdev), MINOR(inode->i_rdev));
	return -ENXIO;
}

static int open_layer(struct opened *o, const void *data, unsigned int i)
{
	struct dm_qcow_layer desc;
	int r;

	memcpy(&desc, data + i * sizeof(desc), sizeof(desc));
	o->layers[i].errors = &o->t->disk.errors;
	if (desc.flags & ~DM_QCOW_LAYER_WRITABLE)
		return -EINVAL;
	if (desc.flags & DM_QCOW_LAYER_WRITABLE) {
		if (!wants_write(o->t) || o->data_layer >= 0)
			return -EINVAL;
		o->data_layer = i;
	}
	r = qcow_layer_open(&o->layers[i], &desc, own_dev(o->t));
	if (r) {
		DMERR("%s: layer %u cannot be used: %d", o->t->args.path, i, r);
		return r;
	}
	o->nr_layers++;
	return match_device(o->t, &o->layers[i]);
}

/*
 * Before the worker's send is over, while only the one that answered can be attached: the
 * next one must not be told that the image is closed.
 */
static void become_open(struct opened *o)
{
	struct qcow_target *t = o->t;

	mutex_lock(&t->lock);
	t->disk.layers = o->layers;
	t->disk.nr_layers = o->nr_layers;
	t->disk.size = o->shape.virtual_size;
	t->disk.logical_block_size = o->shape.logical_block_size;
	/* What only the image of today can express, the constructor did not count on. */
	o->shape.flags = t->shape.flags;
	t->shape = o->shape;
	t->disk.writable = o->data_layer >= 0;
	if (t->disk.writable) {
		t->disk.map.data_layer = o->data_layer;
		qcow_alloc_open(&t->disk.alloc, &o->layers[o->data_layer], o->data_layer != 0,
				o->nr_tables);
	}
	t->image = DM_QCOW_STATE_OPEN;
	t->unclean = false;
	mutex_unlock(&t->lock);
}

static int take_open(void *private, const struct qcow_answer *answer)
{
	struct opened *o = private;
	unsigned int i;
	int r = 0;

	if (!qcow_answer_has(answer, DM_QCOW_ATTR_SHAPE) ||
	    !answer->nr_layers || answer->nr_layers > DM_QCOW_MAX_LAYERS)
		return -EPROTO;
	o->shape = answer->shape;
	o->layers = kvcalloc(answer->nr_layers, sizeof(*o->layers), GFP_KERNEL);
	if (!o->layers)
		return -ENOMEM;
	for (i = 0; !r && i < answer->nr_layers; i++)
		r = open_layer(o, answer->layers, i);
	if (!r && wants_write(o->t)) {
		r = o->data_layer >= 0 && qcow_answer_has(answer, DM_QCOW_ATTR_TABLES) ?
		    0 : -EPROTO;
		o->nr_tables = answer->tables;
	}
	r = r ?: check_same(o->t, &o->shape);
	if (!r) {
		qcow_room_open(&o->t->disk.room, o->layers[0].bdev);
		qcow_room_take(&o->t->disk.room, answer);
		become_open(o);
	}
	return r;
}

static void invalidate_devices(struct qcow_target *t)
{
	unsigned int i;

	/* Whatever was buffered is older, or newer, than what direct I/O sees. */
	for (i = 0; i < t->nr_devs; i++)
		invalidate_bdev(t->devs[i]->bdev);
}

/**
 * qcow_image_open() - have the helper open and lock the image
 * @t: the target, CLOSED
 *
 * Context: preresume; waits for the helper, killable and bounded.
 * Return: 0 or a negative errno; the reason has been logged.
 */
int qcow_image_open(struct qcow_target *t)
{
	struct opened o = { .t = t, .data_layer = -1 };
	int r;

	invalidate_devices(t);
	r = call(t, DM_QCOW_CMD_OPEN, take_open, &o, t->disk.upcalls.timeout);
	if (r)
		close_layers(o.layers, o.nr_layers);
	return r;
}

/**
 * qcow_image_drop() - forget an open image without a word to the helper
 * @t: the target, with no bio in flight
 *
 * Context: process; may sleep.
 */
void qcow_image_drop(struct qcow_target *t)
{
	struct qcow_layer *layers;
	unsigned int nr_layers;

	mutex_lock(&t->lock);
	layers = t->disk.layers;
	nr_layers = t->disk.nr_layers;
	t->disk.layers = NULL;
	t->disk.nr_layers = 0;
	t->image = DM_QCOW_STATE_CLOSED;
	mutex_unlock(&t->lock);
	close_layers(layers, nr_layers);
	qcow_room_open(&t->disk.room, NULL);
	invalidate_devices(t);
	qcow_disk_reset(&t->disk);
}

/* Everything durable, nothing leased. */
static int finish_writing(struct qcow_target *t, unsigned long patience)
{
	struct qcow_disk *disk = &t->disk;
	int r;

	qcow_commit_pause(disk);
	r = qcow_alloc_stop(&disk->alloc, patience);
	if (!r)
		r = qcow_commit_all(disk, patience);
	if (!r)
		r = qcow_commit_return_leases(disk, patience);
	/* What was queued meanwhile finds nothing to do, and must not find another image. */
	if (!r)
		qcow_commit_stop(disk);
	return r;
}

/* As become_open(): the next worker must not be given files that are not ours any more. */
static int take_close(void *private, const struct qcow_answer *answer)
{
	struct qcow_target *t = private;

	mutex_lock(&t->lock);
	t->image = DM_QCOW_STATE_CLOSED;
	mutex_unlock(&t->lock);
	return 0;
}

static int put_close(struct sk_buff *msg, const struct qcow_upcall *uc)
{
	const struct qcow_commit *c = uc->data;

	/* No commit is at work, so nobody changes it. */
	return nla_put_u64_64bit(msg, DM_QCOW_ATTR_GENERATION, c->generation, DM_QCOW_ATTR_PAD);
}

static int call_close(struct qcow_target *t, unsigned long patience)
{
	struct qcow_upcall question = {
		.cmd = DM_QCOW_CMD_CLOSE, .put = put_close, .room = 64, .data = &t->disk.commit,
	};

	return qcow_upcall_call(&t->disk.upcalls, &question, take_close, t, patience);
}

/**
 * qcow_image_close() - have the helper make the image clean and unlock it
 * @t: the target, OPEN, with no bio in flight
 * @patience: jiffies to wait at most for each upcall
 *
 * Context: postsuspend; waits for the helper, killable and bounded.
 * Return: 0, and the image is CLOSED; or a negative errno, and it stays OPEN, unclean.
 */
int qcow_image_close(struct qcow_target *t, unsigned long patience)
{
	int r = 0;

	if (t->disk.writable)
		r = finish_writing(t, patience);
	/* An image opened for reading is as it was: a dead helper left nothing undone. */
	if (!r && (t->disk.writable || qcow_link_attached(&t->link)))
		r = call_close(t, patience);
	if (!r) {
		qcow_image_drop(t);
		return 0;
	}
	DMERR("%s: not closed cleanly: %d; resume goes on with it", t->args.path, r);
	mutex_lock(&t->lock);
	t->unclean = true;
	mutex_unlock(&t->lock);
	return r;
}

static struct qcow_target *target_of(struct qcow_link *link)
{
	return container_of(link, struct qcow_target, link);
}

static int describe(struct qcow_link *link, struct sk_buff *msg)
{
	struct qcow_target *t = target_of(link);
	dev_t dev = own_dev(t);
	struct dm_qcow_device device = { .major = MAJOR(dev), .minor = MINOR(dev) };
	enum dm_qcow_state state;

	mutex_lock(&t->lock);
	state = t->image;
	mutex_unlock(&t->lock);
	return nla_put_string(msg, DM_QCOW_ATTR_PATH, t->args.path) ?:
	       nla_put(msg, DM_QCOW_ATTR_OPTIONS, t->args.options_size, t->args.options) ?:
	       nla_put_u32(msg, DM_QCOW_ATTR_FLAGS, t->disk.upcalls.flags) ?:
	       nla_put_u32(msg, DM_QCOW_ATTR_STATE, state) ?:
	       nla_put_u32(msg, DM_QCOW_ATTR_TIMEOUT, t->args.helper_timeout) ?:
	       nla_put(msg, DM_QCOW_ATTR_DEVICE, sizeof(device), &device);
}

static unsigned int get_layers(struct qcow_link *link, struct dm_qcow_layer *desc,
			       struct file **files)
{
	struct qcow_target *t = target_of(link);
	unsigned int i, nr;

	mutex_lock(&t->lock);
	nr = t->image == DM_QCOW_STATE_OPEN ? t->disk.nr_layers : 0;
	for (i = 0; i < nr; i++) {
		files[i] = get_file(t->disk.layers[i].file);
		desc[i].flags = t->disk.layers[i].flags;
		desc[i].tag = t->disk.layers[i].tag;
	}
	mutex_unlock(&t->lock);
	return nr;
}

static unsigned int get_leases(struct qcow_link *link, struct dm_qcow_lease *leases)
{
	struct qcow_target *t = target_of(link);
	unsigned int nr = 0;

	mutex_lock(&t->lock);
	if (t->image == DM_QCOW_STATE_OPEN && t->disk.writable)
		nr = qcow_alloc_list(&t->disk.alloc, leases);
	mutex_unlock(&t->lock);
	return nr;
}

static void attached(struct qcow_link *link)
{
	struct qcow_target *t = target_of(link);

	qcow_upcalls_attached(&t->disk.upcalls);
	qcow_target_event(t);
}

static void lost(struct qcow_link *link)
{
	struct qcow_target *t = target_of(link);

	DMWARN("%s: the helper died; mapped blocks go on being served", t->args.path);
	qcow_upcalls_lost(&t->disk.upcalls);
	qcow_supervisor_notify(link, DM_QCOW_CMD_START);
	qcow_target_event(t);
}

static int answer(struct qcow_link *link, const struct qcow_answer *a)
{
	struct qcow_target *t = target_of(link);

	/* Asked each second until there is some; that there is none is said once. */
	if (a->error && !(a->cmd == DM_QCOW_CMD_PROPOSE && a->error == -ENOSPC))
		qcow_errors_upcall(&t->disk.errors, a->cmd, a->error, a->text);
	return qcow_upcalls_answer(&t->disk.upcalls, a);
}

const struct qcow_link_ops qcow_image_link_ops = {
	.describe = describe,
	.get_layers = get_layers,
	.get_leases = get_leases,
	.attached = attached,
	.lost = lost,
	.answer = answer,
};
