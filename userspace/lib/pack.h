/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Compression of one cluster (qcow2.rst, "compression_type"): as QEMU's decoder wants
 * it, that is deflate with a window of 4 KiB, or one zstd frame. A packer belongs to
 * one thread.
 */
#ifndef QCOW_LIB_PACK_H
#define QCOW_LIB_PACK_H

#include <stddef.h>

#include "lib/header.h"

struct qcow_packer;

/* NULL: no memory. */
struct qcow_packer *qcow_packer_create(enum qcow_compression type);
void qcow_packer_destroy(struct qcow_packer *p); /* NULL is fine */

/* Bytes written to @out, at most @room; 0: it would not fit. */
size_t qcow_pack(struct qcow_packer *p, const void *in, size_t len, void *out, size_t room);

#endif
