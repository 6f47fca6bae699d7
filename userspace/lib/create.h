/* SPDX-License-Identifier: GPL-2.0-only */
/* Makes an empty image. */
#ifndef QCOW_LIB_CREATE_H
#define QCOW_LIB_CREATE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/header.h"
#include "lib/io.h"

enum qcow_prealloc {
	QCOW_PREALLOC_OFF = 0,
	QCOW_PREALLOC_METADATA, /* every guest cluster has a place; the file is sparse */
	QCOW_PREALLOC_FALLOC,	/* with space behind it, which reads as zeros */
	QCOW_PREALLOC_FULL,	/* written */
};

struct qcow_create_params {
	uint64_t size; /* bytes; rounded up to 512 */
	uint32_t version, cluster_bits, refcount_order;
	bool extl2, lazy_refcounts, data_raw;
	enum qcow_compression compression;
	enum qcow_prealloc prealloc;
	const char *backing_name, *backing_format; /* NULL = none */
	const char *data_file;			   /* NULL = none; the file is the caller's */
};

/*
 * -EINVAL: a combination the format does not have; the text names it. Asks no file,
 * so that a command can refuse before it makes one.
 */
int qcow_create_check(const struct qcow_create_params *p, struct qcow_error *err);

/* What the header says but for where the tables are; @p has been checked. */
void qcow_create_header(const struct qcow_create_params *p, struct qcow_header *h);

/*
 * Writes the image, durably; the header last, so that what is there before the end
 * is no image. A regular file must be empty. -ENOSPC if a device is too small.
 */
int qcow_create(struct qcow_io *io, const struct qcow_create_params *p, struct qcow_error *err);

/*
 * The first cluster of an image: header, extensions, backing file name (qcow2.rst,
 * "Header" and "Header extensions"). @out: one zeroed cluster. -ENOSPC: they do not fit.
 */
int qcow_header_encode(const struct qcow_header *h, void *out, struct qcow_error *err);

#endif
