/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fuzz targets: one function each, given to libFuzzer by main.c and to the unit
 * tests by tests/unit/test_regress.c, which replays what once crashed. A target
 * aborts where results contradict each other; sanitizers see to the rest.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "lib/chain.h"
#include "lib/io.h"

/* A file in memory, read-only; past its end it reads as zeros. */
struct fuzzio {
	struct qcow_io io;
	const uint8_t *bytes;
	size_t size;
};

void fuzzio_init(struct fuzzio *m, const uint8_t *bytes, size_t size);

/* @io becomes what the chain's image asks for: its data file or, raw or not, its backing file. */
int fuzz_add_base(struct qcow_chain *chain, struct qcow_io *io, bool raw);

/* Aborts, so that the input is kept. */
#define FUZZ_ASSERT(condition)            \
	do {                              \
		if (!(condition))         \
			__builtin_trap(); \
	} while (0)

int fuzz_header(const uint8_t *data, size_t size);
int fuzz_snapshots(const uint8_t *data, size_t size);
int fuzz_bitmaps(const uint8_t *data, size_t size);
int fuzz_chain(const uint8_t *data, size_t size);
int fuzz_codec(const uint8_t *data, size_t size);
int fuzz_netlink(const uint8_t *data, size_t size);
int fuzz_writer(const uint8_t *data, size_t size);
int fuzz_options(const uint8_t *data, size_t size);

#endif
