/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A change of an image's metadata that happens at once or not at all.
 *
 * Whatever changes is written to free clusters: tables, refcount blocks, a refcount
 * table. All the fixed fields of the header lie in its first sector, so a single write
 * of that puts the new state in the old one's place. Until then the old state is
 * untouched, COPIED flags and refcounts included, and what was written is free
 * space: a crash or a failure leaks nothing. Afterwards the new refcounts say already
 * that what was replaced is free.
 *
 *   barrier   durable before              what comes after
 *   TABLE     all of the new state        the header
 *   HEADER    the header                  punching what is free now, cutting the file
 *
 * For commands, not for a live device: it needs space for the refcount blocks and
 * tables that change, allocates memory, and the writer is only good for destroy
 * after it.
 */
#ifndef QCOW_LIB_TXN_H
#define QCOW_LIB_TXN_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/refcount.h"
#include "lib/writer.h"

struct txn_step {
	uint64_t cluster;
	enum qcow_ref_op op;
};

struct qcow_txn {
	struct qcow_writer *w;
	struct qcow_header h; /* as it is to be: fixed fields only */

	/* What the header's first sector becomes, but for the fixed fields; see headmove.h. */
	uint8_t sector[512];
	bool has_sector;

	/* The active L1 table as it is to be, h.l1_size entries, host order. */
	uint64_t *l1;
	bool l1_changed;
	bool l1_kept; /* the old table belongs to a snapshot from now on */

	uint8_t *table; /* one cluster, for the caller's L2 tables */

	/* The old refcounts. */
	uint64_t *old;
	uint64_t nr_old;
	uint32_t old_order, old_bits;
	uint8_t *old_block; /* the block old_idx */
	uint64_t old_idx;

	bool *fresh;	       /* of each block: it is a new one */
	uint64_t cursor, end;  /* clusters below were looked at; end of those taken */
	struct txn_step *todo; /* changes that changes brought about */
	size_t nr_todo, max_todo;
	bool looking; /* references are only looked at */
	bool done;
};

/*
 * @refcount_order: the writer's, or another to change the width of all refcounts.
 * -EOVERFLOW: they do not fit. -EIO: the active state uses what has refcount 0.
 * Always end what was begun.
 */
int qcow_txn_begin(struct qcow_txn *t, struct qcow_writer *w, uint32_t refcount_order,
		   struct qcow_error *err);
/* Not committed: the file is as long as before. */
void qcow_txn_end(struct qcow_txn *t);
int qcow_txn_commit(struct qcow_txn *t, struct qcow_error *err);

/* @nr free clusters in a row get refcount 1; -ENOSPC. */
int qcow_txn_alloc(struct qcow_txn *t, uint64_t nr, uint64_t *host_off, struct qcow_error *err);
/*
 * UP or DOWN, of each cluster the range touches. -EOVERFLOW past the greatest
 * refcount; -EIO for what is in use but has refcount 0.
 */
int qcow_txn_ref(struct qcow_txn *t, enum qcow_ref_op op, uint64_t host_off, uint64_t len,
		 struct qcow_error *err);
/* Whole clusters that qcow_txn_alloc() gave. */
int qcow_txn_write(struct qcow_txn *t, uint64_t host_off, const void *buf, size_t len,
		   struct qcow_error *err);

/* A table of @nr 64-bit entries in host order, L1 or refcount table, in clusters that
 * qcow_txn_alloc() gave. */
int qcow_txn_write_be64(struct qcow_txn *t, uint64_t host_off, const uint64_t *entries, uint64_t nr,
			struct qcow_error *err);

/* The active L1 table gets @nr entries; new ones are 0, lost ones must be 0. */
int qcow_txn_size_l1(struct qcow_txn *t, uint32_t nr, struct qcow_error *err);

/* Clusters that @bytes need. */
uint64_t qcow_txn_clusters(const struct qcow_txn *t, uint64_t bytes);

#endif
