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

	/* What follows only the write side calls; an io for reading leaves it NULL. */

	/*
	 * Writes exactly @len bytes; a regular file grows as needed. Not durable before
	 * flush. -ENOSPC past a fixed end; after an error any part may be written. Must
	 * not allocate.
	 */
	int (*pwrite)(struct qcow_io *io, const void *buf, size_t len, uint64_t host_off);
	/* Makes durable all that returned before the call, sizes and zeroed ranges too. */
	int (*flush)(struct qcow_io *io);
	/* Regular file: its size from now on; what is new reads as zeros. Else -EOPNOTSUPP. */
	int (*truncate)(struct qcow_io *io, uint64_t size);
	/*
	 * Makes the range read as zeros without writing it, with space behind it where the
	 * file system can. Believed: so never by a mere discard. -EOPNOTSUPP: cannot
	 * cheaply, nothing changed.
	 */
	int (*zero)(struct qcow_io *io, uint64_t host_off, uint64_t len);
	/*
	 * Puts space behind what is a hole, without a change to what is read there or to
	 * the size. -EOPNOTSUPP: cannot.
	 */
	int (*back)(struct qcow_io *io, uint64_t host_off, uint64_t len);
	/*
	 * *@len: how many bytes from @host_off on (at least one, at most what it was before)
	 * are all in a hole, or all are not. NULL: it has none that anybody knows of.
	 */
	int (*hole)(struct qcow_io *io, uint64_t host_off, uint64_t *len, bool *is_hole);
	/* Gives the space back; what is read there afterwards is anybody's guess. */
	int (*punch)(struct qcow_io *io, uint64_t host_off, uint64_t len);
	/* Regular file: bytes its file system has free for it. NULL: nobody knows. */
	int (*room)(struct qcow_io *io, uint64_t *bytes);
};

struct qcow_io {
	const struct qcow_io_ops *ops;
	uint32_t align;	    /* of offset and length for direct I/O; power of two, 1 = none */
	uint32_t mem_align; /* of the buffer's address; power of two */
	bool fixed_end;	    /* a block device: nobody can read past its end */
	bool exact_end;	    /* nobody else makes the file longer: it shall end where a write ended,
			       even if only whole blocks can be written */
	const char *name;   /* what messages about it begin with; NULL: the caller says it */
};

/* Largest host offset the library asks for: off_t is signed, and QEMU stops 1 GiB before its end.
 */
#define QCOW_HOST_OFF_MAX ((1ull << 63) - (1ull << 30))

/* Like ops->pread; refuses a range that wraps or passes QCOW_HOST_OFF_MAX. */
int qcow_io_pread(struct qcow_io *io, void *buf, size_t len, uint64_t host_off,
		  struct qcow_error *err);
int qcow_io_size(struct qcow_io *io, uint64_t *size, struct qcow_error *err);

/* As the ops; -EROFS from an io for reading, -EINVAL for a range pread would refuse. */
int qcow_io_pwrite(struct qcow_io *io, const void *buf, size_t len, uint64_t host_off,
		   struct qcow_error *err);
int qcow_io_flush(struct qcow_io *io, struct qcow_error *err);
int qcow_io_truncate(struct qcow_io *io, uint64_t size, struct qcow_error *err);
/* -EOPNOTSUPP is an answer, not an error: @err stays as it is. */
int qcow_io_zero(struct qcow_io *io, uint64_t host_off, uint64_t len, struct qcow_error *err);
int qcow_io_back(struct qcow_io *io, uint64_t host_off, uint64_t len, struct qcow_error *err);
int qcow_io_punch(struct qcow_io *io, uint64_t host_off, uint64_t len, struct qcow_error *err);
int qcow_io_room(struct qcow_io *io, uint64_t *bytes, struct qcow_error *err);

/* Writes zeros, @size bytes at a time from @buf, which becomes zeros. */
int qcow_io_write_zeros(struct qcow_io *io, uint64_t host_off, uint64_t len, void *buf, size_t size,
			struct qcow_error *err);
/* Makes the range read as zeros: by qcow_io_zero(), or else as qcow_io_write_zeros(). */
int qcow_io_clear(struct qcow_io *io, uint64_t host_off, uint64_t len, void *buf, size_t size,
		  struct qcow_error *err);

/* Never fails: what cannot be asked has no hole. */
void qcow_io_hole(struct qcow_io *io, uint64_t host_off, uint64_t *len, bool *is_hole);

/* NULL is fine. */
void qcow_io_destroy(struct qcow_io *io);

#endif
