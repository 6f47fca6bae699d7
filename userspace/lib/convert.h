/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies a disk into a new image, a raw file or device, or a stream, on several threads.
 *
 * Each thread takes the next chunk, reads it, looks for zeros and compresses; then it
 * waits for its turn, so that places are given in guest order, and writes its data
 * while the next one is placed.
 */
#ifndef QCOW_LIB_CONVERT_H
#define QCOW_LIB_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/builder.h"
#include "lib/chain.h"
#include "lib/concat.h"
#include "lib/error.h"
#include "lib/into.h"
#include "lib/io.h"
#include "lib/watch.h"

struct qcow_convert {
	/* From: disks, or a stream: in *@len the room, out the bytes, 0 at its end. */
	struct qcow_concat src;
	int (*read)(void *arg, void *buf, size_t *len, struct qcow_error *err);

	/* To: a new image, its data to @io; one that is there; else @io is a raw disk; or a stream.
	 */
	struct qcow_builder *image;
	struct qcow_into *into;
	struct qcow_io *io;
	int (*write)(void *arg, const void *buf, size_t len, struct qcow_error *err);
	void *arg; /* of read, write and lost */

	bool blank; /* what is not written to the raw disk reads as zeros */
	bool compress;
	/* Bytes of zeros that are worth a hole in a raw disk; 0 = everything is written. */
	size_t min_sparse;

	/*
	 * The new image's backing file: what is equal in both is left to it. If it is a layer
	 * of @src, one disk, its depth there says what is equal; else @base, which is read.
	 */
	uint32_t base_depth;	 /* 0 = not in @src */
	struct qcow_chain *base; /* NULL = none, or in @src */
	uint64_t base_size;	 /* bytes; past it there is nothing to hide */

	/*
	 * NULL: what cannot be read is an error. Else it is copied as zeros, and said: by any
	 * thread, one at a time. Without a backing file.
	 */
	void (*lost)(void *arg, uint64_t off, uint64_t len, const struct qcow_error *err);
	uint64_t rate; /* bytes that are read in a second at most; 0 = no limit */

	unsigned int nr_threads;
	struct qcow_watch watch;

	uint64_t size; /* out: bytes of the disk, a multiple of 512 */
};

/* Nothing is flushed, and the image not finished. -ECANCELED if it was. */
int qcow_convert(struct qcow_convert *c, struct qcow_error *err);

#endif
