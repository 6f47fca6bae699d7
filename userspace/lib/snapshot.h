/* SPDX-License-Identifier: GPL-2.0-only */
/* The table of internal snapshots (qcow2.rst, "Snapshots"). */
#ifndef QCOW_LIB_SNAPSHOT_H
#define QCOW_LIB_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/header.h"
#include "lib/io.h"

#define QCOW_MAX_SNAP_EXTRA 1024u	  /* bytes of extra data; QEMU */
#define QCOW_MAX_SNAP_TABLE (64ull << 20) /* bytes; QEMU */

struct qcow_snapshot {
	uint64_t l1_off;  /* cluster aligned */
	uint32_t l1_size; /* entries, <= QCOW_MAX_L1_ENTRIES */
	char id[128];	  /* cut, as QEMU's listing does */
	char name[256];	  /* cut */
	uint32_t date_sec, date_nsec;
	uint64_t vm_clock_nsec;
	uint64_t vm_state_size; /* bytes */
	uint64_t disk_size;	/* bytes; the image's own if not recorded (v2, or damage) */
	bool has_disk_size;	/* it is recorded */
	uint64_t icount;	/* UINT64_MAX = not recorded */
	uint64_t entry_off;	/* of the entry in the table, bytes into the file */
	uint32_t entry_len;	/* bytes, padding to 8 included */
};

/*
 * Walks the table in order, one entry in memory at a time: nr_snapshots is
 * untrusted. @visit returns 0 to go on, > 0 to stop (then the walk returns 0),
 * < 0 to fail. What an entry points to is not checked: a listing must work.
 */
int qcow_snapshots_walk(struct qcow_io *io, const struct qcow_header *h,
			int (*visit)(const struct qcow_snapshot *snap, void *arg), void *arg,
			struct qcow_error *err);

enum qcow_snapshot_key {
	QCOW_SNAPSHOT_ID_FIRST,	  /* an id, or else a name */
	QCOW_SNAPSHOT_NAME_FIRST, /* the other way round */
};

/* -ENOENT: the image has none. */
int qcow_snapshot_find(struct qcow_io *io, const struct qcow_header *h, const char *id_or_name,
		       enum qcow_snapshot_key key, struct qcow_snapshot *s, struct qcow_error *err);

/* What must hold before the snapshot's L1 table is used, each time it is. */
int qcow_snapshot_check(const struct qcow_snapshot *s, const struct qcow_header *h,
			struct qcow_error *err);

#endif
