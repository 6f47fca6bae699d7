/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A qcow_io on memory that records what is written, and can then show what a power
 * cut at any moment may leave: all that was flushed, and of the rest any subset, torn
 * at 512 bytes.
 */
#ifndef TESTS_MEMIO_H
#define TESTS_MEMIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/io.h"

#define MEMIO_MAX (1ull << 30)

enum memio_type {
	MEMIO_WRITE = 1,
	MEMIO_ZERO,
	MEMIO_SIZE,
	MEMIO_FLUSH,
};

struct memio_op {
	enum memio_type type;
	uint64_t off, len; /* SIZE: len is the new size */
	uint8_t *bytes;	   /* WRITE */
};

struct memio {
	struct qcow_io io;
	uint8_t *data; /* MEMIO_MAX bytes of address space */
	uint64_t size;
	bool can_zero;
	bool recording;
	struct memio_op *log;
	size_t nr, max;
	/* Faults: after that many more writes or flushes, all of them fail with this errno. */
	long fail_after; /* < 0: never */
	int fail_errno;
	uint64_t space_end; /* writes past it: -ENOSPC; 0 = no end */
};

struct memio *memio_create(uint64_t size);
struct memio *memio_load(const char *path);
void memio_save(const struct memio *m, const char *path);
void memio_destroy(struct memio *m);

/* ---- crashes ---------------------------------------------------------------------- */

/* Walks the log of @m; @m->data is the disk after the crash while a visit lasts. */
struct memio_crash {
	struct memio *m;
	uint8_t *start; /* the disk when recording began */
	uint64_t start_size;
	uint64_t seed;
};

/* Call where recording begins. */
void memio_record(struct memio *m, struct memio_crash *c, uint64_t seed);
/*
 * For each moment k between two operations, @tries times: @visit(k) on a disk that
 * has what was flushed before k and some of the rest. Then @m is as before.
 */
void memio_crashes(struct memio_crash *c, unsigned int tries,
		   bool (*visit)(struct memio *m, size_t k, void *arg), void *arg);

uint64_t memio_random(uint64_t *seed);

#endif
