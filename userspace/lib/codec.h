/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Decompression of one cluster (qcow2.rst, "compression_type").
 *
 * libdeflate does the work for deflate where it is built in (HAVE_LIBDEFLATE);
 * zlib is the fallback and the judge of odd streams. All memory is taken by
 * create. A codec belongs to one thread.
 */
#ifndef QCOW_LIB_CODEC_H
#define QCOW_LIB_CODEC_H

#include <stddef.h>

#include "lib/header.h"

struct qcow_codec;

/* NULL: no memory. */
struct qcow_codec *qcow_codec_create(void);
void qcow_codec_destroy(struct qcow_codec *c); /* NULL is fine */

/*
 * Exactly @out_len bytes must come out; what follows them in @in is ignored (the
 * compressed length is known in whole sectors only). 0 or -EIO.
 */
int qcow_codec_inflate(struct qcow_codec *c, enum qcow_compression type, const void *in,
		       size_t in_len, void *out, size_t out_len);

#endif
