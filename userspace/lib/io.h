/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The library's only way to the outside: one struct qcow_io per layer file.
 *
 * Unit tests implement it on memory, host/direct.h on a descriptor with
 * O_DIRECT. All offsets and sizes are bytes, 64 bits, unsigned; an error is
 * never encoded in an offset. Thread safe: any number of threads call pread on
 * one qcow_io at the same time.
 */
#ifndef QCOW_LIB_IO_H
#define QCOW_LIB_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"

struct qcow_io;

struct qcow_io_ops {
	/*
	 * Reads exactly @len bytes at @host_off into @buf. Bytes past the end of
	 * the file read as zeros (qcow2 files are sparse at their end, and a
	 * table may reach past it). Any offset, length and address is legal;
	 * those that are multiples of io->align (address: io->mem_align) need no
	 * bounce copy. Must not allocate. 0 or negative errno.
	 */
	int (*pread)(struct qcow_io *io, void *buf, size_t len, uint64_t host_off);
	/* The present size in bytes: a regular file may grow while it is open. */
	int (*size)(struct qcow_io *io, uint64_t *size);
	void (*destroy)(struct qcow_io *io);
	/* The write side adds pwrite, zero, flush and punch here. */
};

struct qcow_io {
	const struct qcow_io_ops *ops;
	uint32_t align;	    /* of offset and length for direct I/O; power of two, 1 = none */
	uint32_t mem_align; /* of the buffer's address; power of two */
	bool fixed_end;	    /* a block device: nobody can read past its end */
};

/* Largest host offset the library asks for; off_t is signed. */
#define QCOW_HOST_OFF_MAX ((uint64_t)INT64_MAX)

/* Like ops->pread; refuses a range that wraps or passes QCOW_HOST_OFF_MAX. */
int qcow_io_pread(struct qcow_io *io, void *buf, size_t len, uint64_t host_off,
		  struct qcow_error *err);
int qcow_io_size(struct qcow_io *io, uint64_t *size, struct qcow_error *err);
/* NULL is fine. */
void qcow_io_destroy(struct qcow_io *io);

#endif
