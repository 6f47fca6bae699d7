/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way of a bio: look the map up, then send it to a layer, fill it with zeros, or
 * have it wait for an upcall and look again.
 *
 * A write goes straight where the map says if the block may be written in place; else
 * it is deferred to a worker, which enters a cell for it (cell.h, write.h).
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

#include "alloc.h"
#include "cache.h"
#include "cell.h"
#include "commit.h"
#include "errors.h"
#include "inflight.h"
#include "layer.h"
#include "map.h"
#include "room.h"
#include "upcall.h"

/* Per-CPU counters of the hot path. */
struct qcow_io_stats {
	unsigned long reads;		/* bios mapped, after trimming */
	unsigned long writes;
	unsigned long deferred;		/* writes, discards: not in place */
	unsigned long zero_fills;
};

/* With each bio: dm's per-bio data, or the front of a split's. */
struct qcow_io {
	struct qcow_layer_io layer_io;
	unsigned int epoch;		/* in flight in; QCOW_EPOCH_NONE while it waits */
	bool starved;			/* writes: found no room below, in place */
};

/* A bio of qcow_disk.splits or .clones. */
struct qcow_split {
	struct qcow_disk *disk;
	struct qcow_io io;
	struct bio bio;			/* last: its inline vectors follow */
};

/* Bios that a worker is to look at afresh. */
struct qcow_deferred {
	struct bio_list bios;		/* ready_lock */
	struct work_struct work;
};

/**
 * struct qcow_disk - what the I/O path needs of a target
 * @layers: changes only while no bio is in flight
 * @size: bytes of the image, as of the last PROBE or OPEN
 * @copy_reserve: memory for one copy; @copy_reserved bit 0: somebody uses it
 * @keep_discarded: the guest's clusters stay allocated; constant
 * @degrade: metadata cannot be written any more
 * @ready: upcalls whose bios can go on
 * @deferred_reads: those that may not wait where they came from
 * @deferred_writes: writes and discards; their worker may wait for a file system
 * @starved: writes in place that found no room in a layer's file system
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
	struct bio_set splits;		/* parts of bios that waited */
	struct bio_set clones;		/* what cells send */
	struct qcow_alloc alloc;
	struct qcow_cells cells;
	struct qcow_commit commit;
	struct qcow_room room;
	struct qcow_errors errors;
	struct qcow_copy *copy_reserve;
	unsigned long copy_reserved;
	bool writable;			/* was opened so; constant while open */
	bool can_keep;			/* the format can say: zeros, but allocated; constant */
	bool keep_discarded;
	void (*degrade)(struct qcow_disk *disk);
	spinlock_t ready_lock;		/* protects ->ready and what is deferred */
	struct list_head ready;		/* ready_lock */
	struct work_struct ready_work;
	struct qcow_deferred deferred_reads;
	struct qcow_deferred deferred_writes;
	struct qcow_starved starved;
};

/* Our own bios carry their data in front of them, dm's clones carry it for dm. */
static inline struct qcow_io *qcow_io_of(struct qcow_disk *disk, struct bio *bio)
{
	if (bio->bi_pool == &disk->splits || bio->bi_pool == &disk->clones)
		return &container_of(bio, struct qcow_split, bio)->io;
	return dm_per_bio_data(bio, sizeof(struct qcow_io));
}

int qcow_disk_init(struct qcow_disk *disk);
int qcow_disk_reserve(struct qcow_disk *disk);
void qcow_disk_exit(struct qcow_disk *disk);

int qcow_disk_map(struct qcow_disk *disk, struct bio *bio);
int qcow_disk_map_write(struct qcow_disk *disk, struct bio *bio);
int qcow_disk_map_discard(struct qcow_disk *disk, struct bio *bio);
int qcow_disk_map_flush(struct qcow_disk *disk, struct bio *bio);
void qcow_disk_reset(struct qcow_disk *disk);

void qcow_disk_write(struct qcow_disk *disk, struct bio *bio, sector_t host_sector);
void qcow_disk_dispatch(struct qcow_disk *disk, struct bio *bio,
			const struct qcow_map_page *page);
void qcow_disk_read(struct qcow_disk *disk, struct bio *bio);
void qcow_disk_defer(struct qcow_disk *disk, struct bio *bio);
bool qcow_disk_is_starved(struct qcow_disk *disk, struct bio *bio);
void qcow_disk_own(struct qcow_disk *disk, struct bio *bio);
void qcow_disk_leave(struct bio *bio);
void qcow_disk_failed(struct qcow_disk *disk, struct bio *bio);
void qcow_disk_chain(struct qcow_disk *disk, struct bio *part, struct bio *bio);
struct bio *qcow_disk_cut(struct qcow_disk *disk, struct bio *bio, unsigned int nr_sectors);

int qcow_copy_init(struct qcow_disk *disk, unsigned int cluster_size);
void qcow_copy_exit(struct qcow_disk *disk);

void qcow_fetch(struct qcow_disk *disk, struct bio *bio);
void qcow_load(struct qcow_disk *disk, struct bio *bio);
void qcow_load_init(struct qcow_disk *disk);

/**
 * qcow_disk_end_io() - dm finished a bio that one of the map functions took
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
