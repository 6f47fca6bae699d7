/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Internal snapshots made, applied and deleted. Each is one transaction (txn.h): the
 * image is as before, or as wanted. State of a virtual machine that a snapshot holds
 * (behind the disk's end, in its L1 table) goes with it and is not interpreted.
 *
 * The writer is only good for destroy afterwards.
 */
#ifndef QCOW_LIB_SNAPEDIT_H
#define QCOW_LIB_SNAPEDIT_H

#include <stdint.h>

#include "lib/error.h"
#include "lib/snapshot.h"
#include "lib/txn.h"
#include "lib/writer.h"

/*
 * -ENOTSUP with an external data file; -EOVERFLOW where refcounts are too narrow for
 * one more; -EINVAL for a name that is empty or longer than 255 bytes.
 */
int qcow_snapshot_create(struct qcow_writer *w, const char *name, uint32_t date_sec,
			 uint32_t date_nsec, struct qcow_error *err);
/*
 * The disk is again what it was, and as big. The snapshot stays, and so do those made
 * after it. @id_or_name: an id before a name, as QEMU has it. -ENOENT.
 */
int qcow_snapshot_apply(struct qcow_writer *w, const char *id_or_name, struct qcow_error *err);
/* Here a name goes before an id: QEMU knows names only, and this one destroys. */
int qcow_snapshot_delete(struct qcow_writer *w, const char *name_or_id, struct qcow_error *err);

/*
 * Part of another transaction: @change sees each snapshot and its L1 table, in host order, and
 * says in *@changed whether it has changed that; then the snapshot gets it as a new one.
 */
int qcow_txn_snapshots(struct qcow_txn *t,
		       int (*change)(const struct qcow_snapshot *s, uint64_t *l1, bool *changed,
				     void *arg, struct qcow_error *err),
		       void *arg, struct qcow_error *err);

#endif
