/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Persistent bitmaps made, removed and changed (qcow2.rst, "Bitmaps"). The header's
 * extension moves into the first sector, for which the names of features make room, so
 * that this too is one transaction (txn.h).
 */
#ifndef QCOW_LIB_BITEDIT_H
#define QCOW_LIB_BITEDIT_H

#include <stdint.h>

#include "lib/bitmap.h"
#include "lib/error.h"
#include "lib/txn.h"
#include "lib/writer.h"

enum qcow_bitmap_do {
	QCOW_BITMAP_ADD,
	QCOW_BITMAP_REMOVE,
	QCOW_BITMAP_CLEAR,
	QCOW_BITMAP_ENABLE,
	QCOW_BITMAP_DISABLE,
	QCOW_BITMAP_MERGE,
};

struct qcow_bitmap_step {
	enum qcow_bitmap_do what;
	uint32_t granularity_bits; /* ADD: 9..31; 0 = QEMU's default */
	/* MERGE: bitmap @source of @from, as on disk; its disk has the same size. */
	const char *source;
	const struct qcow_image *from;
};

/*
 * All steps, in order, on the bitmap @name; or none. -ENOENT, -EEXIST; -EINVAL for a
 * name, granularity or source that cannot be, or a bitmap that was not saved (only
 * REMOVE takes that); -ENOTSUP in version 2.
 */
int qcow_bitmap_edit(struct qcow_writer *w, const char *name, const struct qcow_bitmap_step *steps,
		     size_t nr, struct qcow_error *err);

/*
 * For a transaction that changes the disk: bitmaps get the size @size; if @all, those
 * that record writes say that everything was written. Nothing if there are none.
 */
int qcow_txn_bitmaps(struct qcow_txn *t, uint64_t size, bool all, struct qcow_error *err);

#endif
