/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The worker's image: what PROBE, OPEN, LOAD, FETCH and CLOSE do; for what writes to
 * it see writing.h.
 *
 *   closed --OPEN, adopt--> open --CLOSE--> closed
 *   closed --adopt failed--> lost: LOAD and FETCH answer EIO; OPEN and CLOSE leave it
 *
 * Threads each have a lane: everything LOAD and FETCH need, allocated by OPEN, so
 * that they allocate nothing while the disk below may be the swap device.
 *
 * Locking is the caller's, on image->lock: write for probe, open, adopt, free, close;
 * read for the others, until the answer, which points into the lane, the chain or
 * image->writing, has been sent. Whoever uses image->writing with the read lock holds
 * image->write_lock too, and takes it after the other.
 */
#ifndef QCOW_DAEMON_IMAGE_H
#define QCOW_DAEMON_IMAGE_H

#include "daemon/table.h"
#include "daemon/writing.h"
#include "host/chain.h"
#include "netlink/message.h"

#include <pthread.h>

struct lane {
	struct qcow_scratch *scratch; /* while the image is open */
	void *bytes;		      /* one block, page aligned; while the image is open */
	struct qcow_run runs[DM_QCOW_PAGE_BLOCKS];
	union {
		struct dm_qcow_run runs[DM_QCOW_PAGE_BLOCKS];
		struct dm_qcow_layer layers[DM_QCOW_MAX_LAYERS];
		struct dm_qcow_device devices[DM_QCOW_MAX_LAYERS];
	} out;
	char tx[QNL_SMALL_BUF_SIZE] __attribute__((aligned(8)));
	char rx[QNL_SMALL_BUF_SIZE] __attribute__((aligned(8)));
};

struct image {
	pthread_rwlock_t lock;
	struct table table;
	struct host_opener opener;
	struct lane *lanes;
	unsigned int nr_lanes;
	struct host_chain *chain; /* NULL: closed or lost */
	uint32_t block_size;
	bool lost;
	pthread_mutex_t write_lock;
	struct writing *writing; /* NULL: the table is read-only */
};

int image_init(struct image *image, const struct qnl_msg *attached,
	       const struct host_opener *opener, unsigned int nr_lanes);
void image_exit(struct image *image);

/*
 * Each answers the upcall @up: fills @answer, which may point into @lane, or
 * returns a negative errno with the reason in @err.
 */
int image_probe(struct image *image, struct lane *lane, struct qnl_msg *answer,
		struct qcow_error *err);
int image_open(struct image *image, struct lane *lane, struct qnl_msg *answer,
	       struct qcow_error *err);
int image_load(struct image *image, struct lane *lane, const struct qnl_msg *up,
	       struct qnl_msg *answer, struct qcow_error *err);
int image_fetch(struct image *image, struct lane *lane, const struct qnl_msg *up,
		struct qnl_msg *answer, struct qcow_error *err);
/* After an error it is open as before. */
int image_close(struct image *image, const struct qnl_msg *up, struct qcow_error *err);

/*
 * Goes on with the descriptors the kernel kept from an earlier worker, and the leases.
 * An image that can be read but not be written to any more is no error: PROPOSE and
 * COMMIT tell.
 */
int image_adopt(struct image *image, const struct qnl_array *layers, const struct qnl_array *leases,
		struct qcow_error *err);

#endif
