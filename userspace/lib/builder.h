/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes a new image front to back, its data included: for convert.
 *
 * Clusters are given away in rising order and nothing is ever taken back, so each
 * refcount block, L2 table and cluster is written once, and no memory is needed for
 * them beyond one of each. The header is written by finish, after a barrier: until
 * then there is no image. Whoever writes the data that was placed does so before.
 *
 * Not thread safe.
 */
#ifndef QCOW_LIB_BUILDER_H
#define QCOW_LIB_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/create.h"
#include "lib/error.h"
#include "lib/io.h"

struct qcow_builder;

/*
 * @io: an empty file, or a device whose header is cleared now. @p is copied, its strings
 * are not. Errors as qcow_create_check().
 */
int qcow_builder_create(struct qcow_builder **b, struct qcow_io *io,
			const struct qcow_create_params *p, struct qcow_error *err);
void qcow_builder_destroy(struct qcow_builder *b); /* NULL is fine */

const struct qcow_header *qcow_builder_header(const struct qcow_builder *b);

/*
 * The next three come by rising @guest_off, in whole clusters; what is left out stays
 * unallocated.
 */

/*
 * A place for @nr clusters of data, contiguous from *@host_off on (the data file's offset,
 * if there is one). @alloc: with extended L2, which subclusters of each have data, the
 * others read as zeros; NULL = all.
 */
int qcow_builder_place(struct qcow_builder *b, uint64_t guest_off, uint64_t nr,
		       const uint32_t *alloc, uint64_t *host_off, struct qcow_error *err);

/* Writes the compressed bytes of one cluster; 0 < @len < cluster size. */
int qcow_builder_pack(struct qcow_builder *b, uint64_t guest_off, const void *bytes, size_t len,
		      struct qcow_error *err);

/*
 * @nr clusters read as zeros. Without backing file and preallocation that is nothing.
 * -ENOTSUP: version 2 cannot hide a backing file; place zeros as data.
 */
int qcow_builder_zero(struct qcow_builder *b, uint64_t guest_off, uint64_t nr,
		      struct qcow_error *err);

/* Of a stream whose end was not known at first: bytes, rounded up to 512. */
int qcow_builder_resize(struct qcow_builder *b, uint64_t size, struct qcow_error *err);

/*
 * Writes what is left, and the header; the builder is then only good for destroy.
 * @sync: durably, all that was written to @io before included.
 */
int qcow_builder_finish(struct qcow_builder *b, bool sync, struct qcow_error *err);

#endif
