/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Guest data put into an image by a command, whole clusters at new places: leases,
 * data, DATA, commit, a batch at a time. A crash leaves of each batch all or nothing of
 * what the guest sees, and leaks.
 *
 * What loses its place keeps its refcount until finish: somebody may read the image
 * beside us, with tables from before.
 */
#ifndef QCOW_LIB_FILL_H
#define QCOW_LIB_FILL_H

#include <stdint.h>

#include "lib/commit.h"
#include "lib/error.h"
#include "lib/writer.h"

struct qcow_fill;

/* @data: the external data file, or NULL. */
int qcow_fill_create(struct qcow_fill **f, struct qcow_writer *w, struct qcow_io *data,
		     struct qcow_error *err);
void qcow_fill_destroy(struct qcow_fill *f); /* NULL is fine */

/* By rising @guest_off, each cluster once. @buf: a cluster. */
int qcow_fill_data(struct qcow_fill *f, uint64_t guest_off, const void *buf,
		   struct qcow_error *err);
/* The cluster reads as zeros; by being written where a flag cannot say so or is not enough. */
int qcow_fill_zero(struct qcow_fill *f, uint64_t guest_off, struct qcow_error *err);
/* [guest_off, guest_off + len), whole clusters, show what lies below. */
int qcow_fill_empty(struct qcow_fill *f, uint64_t guest_off, uint64_t len, struct qcow_error *err);

/* All is durable; then what was lost is free. */
int qcow_fill_finish(struct qcow_fill *f, struct qcow_error *err);

#endif
