/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Changes of single header fields (qcow2.rst, "Header"). Each is one write of one
 * sector, so a crash leaves the old or the new value; none is durable by itself.
 */
#ifndef QCOW_LIB_HEADWRITE_H
#define QCOW_LIB_HEADWRITE_H

#include <stdint.h>

#include "lib/error.h"
#include "lib/writer.h"

int qcow_head_set_autoclear(struct qcow_writer *w, uint64_t bits, struct qcow_error *err);
int qcow_head_set_incompatible(struct qcow_writer *w, uint64_t bits, struct qcow_error *err);
int qcow_head_set_size(struct qcow_writer *w, uint64_t size, struct qcow_error *err);
int qcow_head_set_l1(struct qcow_writer *w, uint64_t l1_off, uint32_t l1_size,
		     struct qcow_error *err);
int qcow_head_set_reftable(struct qcow_writer *w, uint64_t off, uint32_t clusters,
			   struct qcow_error *err);
int qcow_head_set_snapshots(struct qcow_writer *w, uint64_t off, uint32_t nr,
			    struct qcow_error *err);
/*
 * All fixed fields at once: sizes, tables, features, refcount width. @sector NULL: of
 * the header there is; else the first sector of one that replaces it.
 */
int qcow_head_set_all(struct qcow_writer *w, const struct qcow_header *h, uint8_t sector[512],
		      struct qcow_error *err);

#endif
