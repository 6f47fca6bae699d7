/* SPDX-License-Identifier: GPL-2.0-only */
/* Disks one behind the other, read as one. */
#ifndef QCOW_LIB_CONCAT_H
#define QCOW_LIB_CONCAT_H

#include <stddef.h>
#include <stdint.h>

#include "lib/chain.h"
#include "lib/error.h"

/* Filled in by the caller. */
struct qcow_concat {
	struct qcow_chain *const *chains; /* sealed */
	size_t nr;
};

/* One per thread. */
struct qcow_concat_scratch;

uint64_t qcow_concat_size(const struct qcow_concat *c);
int qcow_concat_scratch_create(struct qcow_concat_scratch **s, const struct qcow_concat *c,
			       struct qcow_error *err);
void qcow_concat_scratch_destroy(struct qcow_concat_scratch *s); /* NULL is fine */

/* As qcow_chain_next(): an extent ends with its disk at the latest. */
int qcow_concat_next(const struct qcow_concat *c, uint64_t off, uint64_t len,
		     struct qcow_extent *ext, struct qcow_concat_scratch *s,
		     struct qcow_error *err);
/* As qcow_chain_read(). */
int qcow_concat_read(const struct qcow_concat *c, uint64_t off, void *buf, size_t len,
		     struct qcow_concat_scratch *s, struct qcow_error *err);

#endif
