/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What failed last, and what made the mode what it is: for the status line and the log.
 *
 * Whoever sees an error first says so here: the end of a bio that was sent to a layer,
 * the answer to an upcall, the flush of a layer. Who passes it on says nothing.
 */
#ifndef DM_QCOW_ERRORS_H
#define DM_QCOW_ERRORS_H

#include <linux/blk_types.h>
#include <linux/spinlock.h>
#include <linux/dm-qcow.h>

struct qcow_layer;

/**
 * struct qcow_failure - one thing that failed
 * @op: what was done; NULL: nothing has failed
 * @error: 0 or a negative errno, as users see it
 * @off: where in what @at names, bytes; QCOW_NO_OFF: no place in particular
 * @at: the layer's device or file; of an upcall, the helper's words
 */
struct qcow_failure {
	const char *op;
	int error;
	u64 off;
	char at[DM_QCOW_MAX_TEXT];
};

#define QCOW_NO_OFF	U64_MAX

/**
 * struct qcow_errors - of one target
 * @image: for the log; constant
 * @last: the last failure of any kind
 * @meta: the last of what makes metadata durable: then the mode may change
 * @mode: why the mode changed, the first time
 */
struct qcow_errors {
	const char *image;
	spinlock_t lock;		/* protects what follows; interrupts off */
	struct qcow_failure last;
	struct qcow_failure meta;
	struct qcow_failure mode;
};

void qcow_errors_init(struct qcow_errors *e, const char *image);
void qcow_errors_bio(struct qcow_errors *e, const struct qcow_layer *layer,
		     const struct bio *bio, u64 off, int error);
void qcow_errors_flush(struct qcow_errors *e, const struct qcow_layer *layer, int error);
void qcow_errors_upcall(struct qcow_errors *e, u8 cmd, int error, const char *text);
void qcow_errors_seen(struct qcow_errors *e, const struct bio *bio, int error);
void qcow_errors_mode(struct qcow_errors *e, const char *op, int error, const char *at);

#endif
