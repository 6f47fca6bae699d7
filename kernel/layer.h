/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Layers: what data comes from. Two back ends behind one small interface: a block
 * device, whose bios are remapped, and a regular file, used by direct kiocbs over
 * the bio's own pages. Neither caches where a file's blocks are on its disk:
 * image files are sparse and reflinkable, and such a cache would go stale.
 */
#ifndef DM_QCOW_LAYER_H
#define DM_QCOW_LAYER_H

#include <linux/blk_types.h>
#include <linux/device-mapper.h>
#include <linux/fs.h>
#include <linux/llist.h>
#include <linux/workqueue.h>
#include <linux/dm-qcow.h>

struct qcow_errors;

/**
 * struct qcow_layer - one opened layer
 * @file: our reference to the helper's open file description. Also for a block
 *	device: it holds the locks that keep other programs off the image
 * @errors: the target's
 * @bdev: the block device, as the constructor opened it; NULL for a regular file
 * @size: bytes when it was opened
 * @flags: DM_QCOW_LAYER_*
 * @tag: the helper's note, handed back on ATTACH
 */
struct qcow_layer {
	struct file *file;
	struct qcow_errors *errors;
	struct block_device *bdev;
	u64 size;
	u32 flags;
	u64 tag;
};

struct qcow_file_queue;

/**
 * struct qcow_starved - writes that found no room in their file system
 * @bios: of struct qcow_layer_io; lock-free
 * @work: the owner's: takes them away
 */
struct qcow_starved {
	struct llist_head bios;
	struct work_struct work;
};

/**
 * struct qcow_layer_io - what a layer needs while a bio is with it
 * @iocb: for a regular file
 * @node: on a queue of bios to submit
 * @layer: where the bio goes; NULL: nowhere, for now
 * @bio: whose data it is; its bi_iter is what is left to do
 * @pos: bytes into the layer; of a file, of what is left
 * @queues: where short reads and writes are continued
 * @starved: where a write goes that finds no room; NULL: it ends with BLK_STS_NOSPC
 */
struct qcow_layer_io {
	struct kiocb iocb;
	struct llist_node node;
	struct qcow_layer *layer;
	struct bio *bio;
	loff_t pos;
	struct qcow_file_queue __percpu *queues;
	struct qcow_starved *starved;
};

int qcow_layer_open(struct qcow_layer *layer, const struct dm_qcow_layer *desc, dev_t self);
void qcow_layer_close(struct qcow_layer *layer);
bool qcow_layer_holds(const struct qcow_layer *layer, u64 off, u64 len);

struct qcow_file_queue __percpu *qcow_file_queues_create(void);
void qcow_file_queues_destroy(struct qcow_file_queue __percpu *queues);
void qcow_file_submit(struct qcow_file_queue __percpu *queues, struct qcow_layer *layer,
		      struct bio *bio, struct qcow_layer_io *io, sector_t host_sector);
void qcow_file_write(struct qcow_file_queue __percpu *queues, struct qcow_layer *layer,
		     struct bio *bio, struct qcow_layer_io *io, sector_t host_sector);

#endif
