/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Refcounts of host clusters (qcow2.rst, "Host cluster management"): 2^order bits
 * each, order 0..6, in blocks of one cluster, which a table of at most 8 MiB names.
 * Entries narrower than a byte fill it from its lowest bit; wider ones are big
 * endian. What no block covers has refcount 0.
 *
 * A missing block is put into the first cluster of the range it covers, which is
 * free because nothing covers it, and so describes itself. No search, and whoever
 * does it again after a crash does the same.
 */
#ifndef QCOW_LIB_REFCOUNT_H
#define QCOW_LIB_REFCOUNT_H

#include <stdint.h>

#include "lib/error.h"
#include "lib/writer.h"

enum qcow_ref_op {
	QCOW_REF_TAKE,	  /* 0 or 1 becomes 1: may be said twice. -EEXIST if it is more */
	QCOW_REF_RELEASE, /* 1 or 0 becomes 0: may be said twice. -EEXIST if it is more */
	QCOW_REF_UP,	  /* -EOVERFLOW past the greatest value */
	QCOW_REF_DOWN,	  /* -EIO below 0 */
};

/* Plain arithmetic on a block in memory, for this and for check. */
uint64_t qcow_ref_decode(const void *block, uint32_t order, uint64_t idx);
void qcow_ref_encode(void *block, uint32_t order, uint64_t idx, uint64_t value);
uint64_t qcow_ref_max(uint32_t order);

/* Any host offset. 0 or negative errno. */
int qcow_ref_get(struct qcow_writer *w, uint64_t host_off, uint64_t *value, struct qcow_error *err);

/*
 * *@next: the first cluster from @cluster on that may have refcount 0; looks a few
 * hundred entries ahead. For searches: a full image has millions that have not.
 */
int qcow_ref_skip(struct qcow_writer *w, uint64_t cluster, uint64_t *next, struct qcow_error *err);

/*
 * Changes every cluster that [host_off, host_off + len) touches. Not durable. After
 * an error some may be changed. -EIO for a cluster no block covers.
 */
int qcow_ref_update(struct qcow_writer *w, enum qcow_ref_op op, uint64_t host_off, uint64_t len,
		    struct qcow_error *err);

/*
 * Makes sure that a block covers @cluster, growing the table if it ends before.
 * Durable as far as needed for qcow_ref_update() followed by a barrier.
 * -ENOSPC (file or format is full), others from I/O.
 */
int qcow_ref_cover(struct qcow_writer *w, uint64_t cluster, struct qcow_error *err);

#endif
