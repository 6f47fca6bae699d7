/* SPDX-License-Identifier: GPL-2.0-only */
/* qcow2 images in memory, built field by field: every field may then be broken. */
#ifndef MEMIMG_H
#define MEMIMG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/io.h"

/* What every cmocka test needs, in the order it needs it. */
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct memimg {
	struct qcow_io io;
	uint8_t *bytes;
	size_t size;
	uint32_t version, cluster_bits;
	uint64_t l1_off;
	size_t ext_off; /* where the next header extension goes */
	unsigned int nr_reads;
	uint64_t fail_from, fail_to; /* reads that touch this range give -EIO */
};

/* A sound, empty image. The L1 table has what @disk_size needs and 2 entries more. */
void memimg_init(struct memimg *m, uint32_t version, uint32_t cluster_bits, uint64_t disk_size);
/* A raw file of @size bytes, each 32-bit word holding its own index. */
void memimg_init_raw(struct memimg *m, size_t size);
void memimg_exit(struct memimg *m);

void memimg_be16(struct memimg *m, uint64_t off, uint16_t value);
void memimg_be32(struct memimg *m, uint64_t off, uint32_t value);
void memimg_be64(struct memimg *m, uint64_t off, uint64_t value);
void memimg_put(struct memimg *m, uint64_t off, const void *data, size_t len);

/* Whole clusters at the end of the file; their offset. */
uint64_t memimg_alloc(struct memimg *m, size_t nr);
/* The L2 entry of a guest cluster (its first word), making the table if need be. */
void memimg_map(struct memimg *m, uint64_t guest_cluster, uint64_t entry);
/* With extended L2: both words. */
void memimg_map2(struct memimg *m, uint64_t guest_cluster, uint64_t entry, uint64_t bitmap);
/* A data cluster filled with @fill, mapped COPIED; its host offset. */
uint64_t memimg_data(struct memimg *m, uint64_t guest_cluster, uint8_t fill);

void memimg_ext(struct memimg *m, uint32_t type, const void *data, uint32_t len);
void memimg_backing(struct memimg *m, const char *name, const char *format);

#define MEMIMG_COPIED (1ull << 63)

#endif
