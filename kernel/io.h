/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way of a bio: look the map up, then send it to a layer, fill it with zeros, or
 * have it wait for an upcall and look again.
 *
 * In ->map a bio is only ever trimmed (dm_accept_partial_bio). What waited is split
 * later by a worker, with a bio set of its own and never under current->bio_list:
 * there, a split's child could wait for its parent.
 */
#ifndef DM_QCOW_IO_H
#define DM_QCOW_IO_H

#include <linux/bio.h>
#include <linux/llist.h>
#include <linux/percpu.h>
#include <linux/workqueue.h>

#include "cache.h"
#include "inflight.h"
#include "layer.h"
#include "map.h"
#include "upcall.h"

/* Per-CPU counters of the hot path. */
struct qcow_io_stats {
	unsigned long reads;		/* bios mapped, after trimming */
	unsigned long zero_fills;
};

/* With each bio: dm's per-bio data, or the front of a split's. */
struct qcow_io {
	struct qcow_layer_io layer_io;
	unsigned int epoch;		/* dm's bios only; a split lives within its parent's */
};

/* A bio of qcow_disk.splits. */
struct qcow_split {
	struct qcow_io io;
	struct bio bio;			/* last: its inline vectors follow */
};

/**
 * struct qcow_disk - what the I/O path needs of a target
 * @layers: changes only while no bio is in flight
 * @size: bytes of the image, as of the last PROBE or OPEN
 * @ready: upcalls whose bios can go on
 */
struct qcow_disk {
	struct qcow_io_stats __percpu *stats;
	struct qcow_inflight inflight;
	struct qcow_map map;
	struct qcow_layer *layers;
	unsigned int nr_layers;
	unsigned int logical_block_size;
	u64 size;
	struct qcow_file_queue __percpu *file_queues;
	struct qcow_cache cache;
	struct qcow_upcalls upcalls;
	struct bio_set splits;
	spinlock_t ready_lock;		/* protects ->ready */
	struct list_head ready;		/* ready_lock */
	struct work_struct ready_work;
};

int qcow_disk_init(struct qcow_disk *disk);
void qcow_disk_exit(struct qcow_disk *disk);

int qcow_disk_map(struct qcow_disk *disk, struct bio *bio);
void qcow_disk_reset(struct qcow_disk *disk);

void qcow_fetch(struct qcow_disk *disk, struct bio *bio);

/**
 * qcow_disk_end_io() - dm finished a bio that qcow_disk_map() took
 * @disk: the disk
 * @bio: the bio
 *
 * Context: any, interrupts included.
 */
static inline void qcow_disk_end_io(struct qcow_disk *disk, struct bio *bio)
{
	struct qcow_io *io = dm_per_bio_data(bio, sizeof(*io));

	qcow_inflight_leave(&disk->inflight, io->epoch);
}

#endif
