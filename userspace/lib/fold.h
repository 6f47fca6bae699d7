/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Commit as qemu-img means it: what an image has above one of its backing files goes
 * into that file. While it is on its way the image still has it all, so whoever looks
 * through the image sees the same at any moment; only then may the image be emptied.
 */
#ifndef QCOW_LIB_FOLD_H
#define QCOW_LIB_FOLD_H

#include "lib/chain.h"
#include "lib/error.h"
#include "lib/watch.h"
#include "lib/writer.h"

struct qcow_fold {
	struct qcow_chain *top; /* the image with all below it; its own qcow_io */
	uint32_t depth;		/* of the base in it; layers above are copied */
	/* The base: a raw disk, or a chain made writable (its io and data file can write). */
	struct qcow_io *raw;
	struct qcow_chain *base;
	struct qcow_watch watch;
};

/* The base must be at least as large as the image. Durable when it returns 0. */
int qcow_fold(const struct qcow_fold *p, struct qcow_error *err);

/* The image has nothing of its own any more; the writer is then only good for destroy. */
int qcow_fold_empty(struct qcow_writer *w, struct qcow_io *data, struct qcow_error *err);

#endif
