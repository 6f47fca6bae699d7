/* SPDX-License-Identifier: GPL-2.0-only */
/* The directory of persistent bitmaps (qcow2.rst, "Bitmaps"): read to show and to preserve. */
#ifndef QCOW_LIB_BITMAP_H
#define QCOW_LIB_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/header.h"
#include "lib/io.h"

#define QCOW_MAX_BITMAP_TABLE 0x8000000u /* entries; QEMU */
#define QCOW_MAX_BITMAP_NAME  1023	 /* bytes; QEMU */

struct qcow_bitmap {
	uint64_t table_off;	   /* cluster aligned */
	uint32_t table_size;	   /* entries */
	bool in_use;		   /* was not saved: its bits are void */
	bool enabled;		   /* "auto": records writes */
	uint32_t granularity_bits; /* 9..31 */
	char name[QCOW_MAX_BITMAP_NAME + 1];
};

/*
 * As qcow_snapshots_walk(). An image whose autoclear bit says that its bitmaps are
 * void has none.
 */
int qcow_bitmaps_walk(struct qcow_io *io, const struct qcow_header *h,
		      int (*visit)(const struct qcow_bitmap *bitmap, void *arg), void *arg,
		      struct qcow_error *err);

#endif
