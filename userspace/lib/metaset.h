/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where an image's metadata is: ranges for the few tables of any length, a hash
 * table of clusters for refcount blocks, L2 tables and what is new.
 *
 * A cluster in it is never leased and never writable by the guest, whatever its
 * refcount and the L2 entries say. Nothing leaves it, not even a refcount table that
 * was replaced: forgetting is what an attacker would wait for.
 *
 * qcow_metaset_has() is safe in any thread; the others are the writer's.
 */
#ifndef QCOW_LIB_METASET_H
#define QCOW_LIB_METASET_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"

enum qcow_meta_kind {
	QCOW_META_HEADER = 1,
	QCOW_META_L1,
	QCOW_META_REFTABLE,
	QCOW_META_REFBLOCK,
	QCOW_META_L2,	   /* of the active L1 or a snapshot's; may be in both */
	QCOW_META_RESERVE, /* leased to become an L2 table */
	QCOW_META_SNAPSHOTS,
	QCOW_META_BITMAPS,
};

struct qcow_meta_range {
	uint64_t first, end; /* cluster numbers */
	enum qcow_meta_kind kind;
};

struct qcow_metaset {
	pthread_rwlock_t lock; /* of all below */
	struct qcow_meta_range *ranges;
	size_t nr_ranges, max_ranges;
	uint64_t *slots;     /* cluster number << 8 | kind; 0 = empty */
	size_t nr, nr_slots; /* nr_slots: power of two, more than twice nr */
	uint32_t cluster_bits;
};

int qcow_metaset_init(struct qcow_metaset *s, uint32_t cluster_bits);
void qcow_metaset_exit(struct qcow_metaset *s);

/*
 * Adds [host_off, host_off + len), rounded to clusters. -EIO: it overlaps other
 * metadata (an L2 table may be added again). -ENOMEM only where it may allocate:
 * never for a cluster after a fitting qcow_metaset_reserve().
 */
int qcow_metaset_add_range(struct qcow_metaset *s, enum qcow_meta_kind kind, uint64_t host_off,
			   uint64_t len, struct qcow_error *err);
int qcow_metaset_add(struct qcow_metaset *s, enum qcow_meta_kind kind, uint64_t host_off,
		     struct qcow_error *err);
/* Room for @nr clusters more without allocation. */
int qcow_metaset_reserve(struct qcow_metaset *s, size_t nr);

/* Does any part of the range belong to metadata? */
bool qcow_metaset_has(struct qcow_metaset *s, uint64_t host_off, uint64_t len);
/* The kind of a single cluster; 0 = none. */
int qcow_metaset_kind(struct qcow_metaset *s, uint64_t cluster);

#endif
