/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An image that is open for writing: what PROPOSE, GRANT, COMMIT and FREE do.
 *
 * One call at a time, the caller's business; the answer points in here until it is
 * sent. Memory is taken once, by create: when these are asked for, the disk below may
 * be the swap device.
 */
#ifndef QCOW_DAEMON_WRITING_H
#define QCOW_DAEMON_WRITING_H

#include "lib/chain.h"
#include "lib/commit.h"
#include "lib/lease.h"
#include "netlink/message.h"

#include <time.h>

/* Neighbouring clusters count as one; what does not fit is leaked. */
#define WRITING_MAX_LOST 16384

struct writing {
	struct qcow_chain *chain; /* NULL: not open for writing */
	struct qcow_writer *w;
	uint32_t block_size, cluster_size;
	struct qcow_error broken; /* code: nothing can be written any more, and why */
	/* Shared clusters and tables without a pointer, until FREE. */
	struct qcow_lost lost[WRITING_MAX_LOST];
	size_t nr_lost;
	uint64_t unsaid; /* clusters lost that no answer has counted yet */
	/*
	 * Of the last COMMIT, or the first that may follow a CLOSE. One that is older timed out
	 * and was said again: carried out now, it would put back what is somebody else's by
	 * this time.
	 */
	uint64_t generation;
	time_t room_said; /* by a COMMIT: the second, on some clock */
	/* Of the call at work. */
	struct qcow_lease_extent ext[DM_QCOW_MAX_LEASES];
	struct dm_qcow_lease leases[DM_QCOW_MAX_LEASES];
	struct qcow_delta deltas[DM_QCOW_MAX_DELTAS];
};

/* NULL without memory. */
struct writing *writing_create(void);
void writing_destroy(struct writing *wr); /* NULL is fine */

/*
 * Makes @chain writable and begins. After an error nothing has begun, and @chain may
 * still be read.
 */
int writing_begin(struct writing *wr, struct qcow_chain *chain, bool drop_bitmaps,
		  struct qcow_error *err);
/*
 * The same for an image that an earlier worker has written to, with what the kernel
 * holds of it. It begins in any case: after an error every call fails with it.
 * @first_size: bytes in the image's file when it was opened.
 */
int writing_adopt(struct writing *wr, struct qcow_chain *chain, bool drop_bitmaps,
		  uint64_t first_size, const struct qnl_array *leases, struct qcow_error *err);
/* CLOSE @up: completes the image on disk. After an error it is open as before. */
int writing_finish(struct writing *wr, const struct qnl_msg *up, struct qcow_error *err);
/* Lets go of the chain, whatever state it is in. */
void writing_end(struct writing *wr);

void writing_put_tables(const struct writing *wr, struct qnl_msg *answer);
void writing_put_room(struct writing *wr, struct qnl_msg *answer);

/* Each answers the upcall @up, or returns a negative errno with the reason. */
int writing_propose(struct writing *wr, const struct qnl_msg *up, struct qnl_msg *answer,
		    struct qcow_error *err);
int writing_grant(struct writing *wr, const struct qnl_msg *up, struct qnl_msg *answer,
		  struct qcow_error *err);
int writing_commit(struct writing *wr, const struct qnl_msg *up, struct qnl_msg *answer,
		   struct qcow_error *err);
/* Nobody may be resolving or reading meanwhile: it may be at a table that goes. */
int writing_free(struct writing *wr, const struct qnl_msg *up, struct qcow_error *err);

#endif
