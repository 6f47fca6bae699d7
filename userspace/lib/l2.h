/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * L1 and L2 entries (qcow2.rst, "Cluster mapping" and "Extended L2 Entries").
 * Reserved bits are ignored, as QEMU ignores them.
 */
#ifndef QCOW_LIB_L2_H
#define QCOW_LIB_L2_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/header.h"

#define QCOW_ENTRY_OFF_MASK 0x00fffffffffffe00ull
#define QCOW_ENTRY_COPIED   (1ull << 63)
#define QCOW_L2_COMPRESSED  (1ull << 62)
#define QCOW_L2_ZERO	    (1ull << 0)

enum qcow_l2_type {
	QCOW_L2_UNALLOCATED = 1,
	QCOW_L2_ZERO_FLAG,
	QCOW_L2_DATA,
	QCOW_L2_COMPRESSED_DATA,
	QCOW_L2_BROKEN,
};

/* One block: a cluster, or with extended L2 a subcluster. */
struct qcow_l2_block {
	enum qcow_l2_type type;
	bool has_host_off; /* always for DATA and COMPRESSED; ZERO and UNALLOCATED may reserve */
	bool copied;
	uint64_t host_off; /* of the block; COMPRESSED: of the first byte, not aligned */
	uint32_t csize;	   /* COMPRESSED: bytes up to the end of the last claimed sector */
	bool forbidden;	   /* BROKEN, found by a writer: it is metadata, or free */
};

/* log2 of an L2 entry's size in bytes. */
static inline uint32_t qcow_l2_entry_bits(const struct qcow_header *h)
{
	return qcow_has_extl2(h) ? 4 : 3;
}

static inline uint32_t qcow_block_bits(const struct qcow_header *h)
{
	return qcow_has_extl2(h) ? h->cluster_bits - 5 : h->cluster_bits;
}

/*
 * @guest_off: of the block. @entry, @bitmap in host order; @bitmap is ignored
 * without extended L2. BROKEN leaves the reason in @err (-EIO there).
 */
void qcow_l2_decode(const struct qcow_header *h, uint64_t guest_off, uint64_t entry,
		    uint64_t bitmap, struct qcow_l2_block *b, struct qcow_error *err);

/* *@l2_off 0 = no table. -EIO for an offset that is not cluster aligned. */
int qcow_l1_decode(const struct qcow_header *h, uint64_t entry, uint64_t *l2_off,
		   struct qcow_error *err);

#endif
