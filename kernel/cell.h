/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cells: while a cell holds guest clusters nobody else changes what the map says of
 * them. One bio works in a cell; others that need its clusters wait there, and start
 * afresh when it is released: mostly they find a block to be written in place.
 *
 *	(deferred) --enter--> in a cell --run--> WRITING etc. --release--> (gone)
 *	                        ^          |
 *	                        +--resume--+ no cluster, no room for deltas
 */
#ifndef DM_QCOW_CELL_H
#define DM_QCOW_CELL_H

#include <linux/bio.h>
#include <linux/mempool.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "delta.h"

struct qcow_disk;
struct qcow_copy;

/**
 * struct qcow_cell - clusters being worked on
 * @first: guest cluster
 * @last: guest cluster, inclusive
 * @bio: whose work it is; what is left of it
 * @front: the part of @bio that is being written
 * @host_sector: where the blocks of @spot go
 * @nr_taken: clusters from the pool
 * @cluster_sector: the first of them
 * @nr_claimed: deltas the commit expects
 * @exposing: see qcow_map_set_data()
 * @copy: what the blocks of @spot will be, if @front does not cover them
 * @pending: parts under way
 */
struct qcow_cell {
	struct qcow_disk *disk;
	struct rb_node node;		/* cells->lock */
	struct list_head wait_node;	/* cells->lock */
	struct bio_list waiting;	/* cells->lock */
	u64 first, last;
	struct bio *bio;
	struct bio *front;
	unsigned long nr_resumes;	/* when its run began */
	struct qcow_spot spot;
	sector_t host_sector;
	sector_t cluster_sector;
	unsigned int nr_taken;
	unsigned int nr_claimed;
	bool zero;			/* they durably read as zeros */
	bool in_place;			/* the map says already what it has to */
	bool exposing;
	struct qcow_copy *copy;
	atomic_t pending;
	blk_status_t status;
	struct work_struct work;
};

struct qcow_cells {
	mempool_t pool;
	spinlock_t lock;		/* protects what follows */
	struct rb_root tree;
	struct list_head waiting;	/* cells that could not go on */
	int refuse;			/* errno for cells that would have to wait; 0: none */
	unsigned long nr_resumes;
	unsigned long nr_waits;
};

void qcow_cells_init(struct qcow_cells *cells);
int qcow_cells_reserve(struct qcow_cells *cells);
void qcow_cells_exit(struct qcow_cells *cells);
int qcow_cell_module_init(void);
void qcow_cell_module_exit(void);

void qcow_cell_enter(struct qcow_disk *disk, struct bio *bio);
void qcow_cell_go_on(struct qcow_cell *cell);
void qcow_cell_wait(struct qcow_cell *cell);
void qcow_cell_shrink(struct qcow_cell *cell, u64 last);
void qcow_cell_release(struct qcow_cell *cell);

void qcow_cells_resume(struct qcow_disk *disk);
void qcow_cells_fail(struct qcow_disk *disk, int error);
void qcow_cells_refuse(struct qcow_disk *disk, int error);

#endif
