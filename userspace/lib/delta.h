/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What deltas make of one L2 entry. Pure computation on decoded values; commit.c does
 * the reading and writing.
 */
#ifndef QCOW_LIB_DELTA_H
#define QCOW_LIB_DELTA_H

#include <stdint.h>

#include "lib/commit.h"
#include "lib/error.h"
#include "lib/header.h"

/* One L2 entry on its way. */
struct delta_entry {
	uint64_t entry, bitmap; /* host order; bitmap 0 without extended L2 */
	uint32_t stale;		/* subclusters whose data no longer is where entry says */
	bool drop;		/* a cluster without data may go */
	bool keep;		/* ... but it was said where it is to stay */
};

/* @cluster_off: guest offset of the cluster; the part of @d within it is applied. */
int delta_apply(const struct qcow_header *h, uint64_t cluster_off, const struct qcow_delta *d,
		struct delta_entry *e, struct qcow_error *err);
/* After all deltas of the cluster. */
int delta_finish(const struct qcow_header *h, uint64_t cluster_off, struct delta_entry *e,
		 struct qcow_error *err);

/*
 * The references that @old holds and @new does not, at most 3 (a compressed cluster
 * touches as many); their number is returned.
 */
int delta_lost(const struct qcow_header *h, uint64_t cluster_off, const struct delta_entry *old,
	       const struct delta_entry *new, struct qcow_lost lost[3]);

#endif
