// SPDX-License-Identifier: GPL-2.0-only
#include "lib/l2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int qcow_l1_decode(const struct qcow_header *h, uint64_t entry, uint64_t *l2_off,
		   struct qcow_error *err)
{
	*l2_off = entry & QCOW_ENTRY_OFF_MASK;
	if (*l2_off & (qcow_cluster_size(h) - 1))
		return qcow_fail(err, EIO, *l2_off,
				 "L2 table at %#" PRIx64 " is not cluster aligned; "
				 "qemu-img check shows the damage",
				 *l2_off);
	return 0;
}

__attribute__((format(printf, 4, 5))) static void
broken(struct qcow_l2_block *b, struct qcow_error *err, uint64_t host_off, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list ap;

	b->type = QCOW_L2_BROKEN;
	if (!err)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	qcow_fail(err, EIO, host_off, "%s; qemu-img check shows the damage", text);
}

static void decode_compressed(const struct qcow_header *h, uint64_t guest_off, uint64_t entry,
			      struct qcow_l2_block *b, struct qcow_error *err)
{
	/* The sector count takes cluster_bits - 8 bits below the two flags. */
	uint32_t shift = 62 - (h->cluster_bits - 8);
	uint64_t off = entry & ((1ull << shift) - 1);
	uint32_t sectors = (uint32_t)((entry & (QCOW_L2_COMPRESSED - 1)) >> shift) + 1;

	if (qcow_has_data_file(h)) {
		broken(b, err, off,
		       "guest offset %#" PRIx64 " is compressed in an image with a data file",
		       guest_off);
		return;
	}
	/* Spec: offset bits from 56 up are zero. */
	if (off >> 56) {
		broken(b, err, off,
		       "compressed cluster of guest offset %#" PRIx64 " at %#" PRIx64
		       " is past any possible end",
		       guest_off, off);
		return;
	}
	b->type = QCOW_L2_COMPRESSED_DATA;
	b->has_host_off = true;
	b->host_off = off;
	b->csize = sectors * 512 - (off & 511);
}

static enum qcow_l2_type standard_type(const struct qcow_header *h, uint64_t off, uint64_t entry)
{
	if (!qcow_has_extl2(h) && entry & QCOW_L2_ZERO)
		return QCOW_L2_ZERO_FLAG;
	if (off)
		return QCOW_L2_DATA;
	/* In a data file cluster 0 is as good as any; COPIED tells it from a hole. */
	if (qcow_has_data_file(h) && entry & QCOW_ENTRY_COPIED)
		return QCOW_L2_DATA;
	return QCOW_L2_UNALLOCATED;
}

/* @type is the whole cluster's; the bitmap refines it. */
static enum qcow_l2_type subcluster_type(enum qcow_l2_type type, uint64_t bitmap, uint32_t sub)
{
	uint32_t alloc = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);

	if (alloc & zero || (type == QCOW_L2_UNALLOCATED && alloc))
		return QCOW_L2_BROKEN;
	if (zero >> sub & 1)
		return QCOW_L2_ZERO_FLAG;
	return alloc >> sub & 1 ? QCOW_L2_DATA : QCOW_L2_UNALLOCATED;
}

static void check_standard(const struct qcow_header *h, uint64_t guest_off, uint64_t cluster_off,
			   struct qcow_l2_block *b, struct qcow_error *err)
{
	if (b->type == QCOW_L2_ZERO_FLAG && h->version < 3) {
		broken(b, err, cluster_off,
		       "guest offset %#" PRIx64 " has a zero flag, which version 2 does not know",
		       guest_off);
		return;
	}
	if (!b->has_host_off)
		return;
	if (cluster_off & (qcow_cluster_size(h) - 1))
		broken(b, err, cluster_off,
		       "cluster of guest offset %#" PRIx64 " at %#" PRIx64 " is not aligned",
		       guest_off, cluster_off);
	else if (qcow_has_data_file(h) && b->host_off != guest_off)
		broken(b, err, cluster_off,
		       "guest offset %#" PRIx64 " lies at %#" PRIx64
		       " of the data file; they must be equal",
		       guest_off, b->host_off);
}

void qcow_l2_decode(const struct qcow_header *h, uint64_t guest_off, uint64_t entry,
		    uint64_t bitmap, struct qcow_l2_block *b, struct qcow_error *err)
{
	uint64_t in_cluster = guest_off & (qcow_cluster_size(h) - 1);
	uint64_t off = entry & QCOW_ENTRY_OFF_MASK;

	memset(b, 0, sizeof(*b));
	if (entry & QCOW_L2_COMPRESSED) {
		decode_compressed(h, guest_off, entry, b, err);
		return;
	}
	b->type = standard_type(h, off, entry);
	b->has_host_off = off || b->type == QCOW_L2_DATA;
	b->host_off = b->has_host_off ? off + in_cluster : 0;
	b->copied = entry & QCOW_ENTRY_COPIED;
	if (qcow_has_extl2(h))
		b->type = subcluster_type(b->type, bitmap,
					  (uint32_t)(in_cluster >> qcow_block_bits(h)));
	if (b->type == QCOW_L2_BROKEN)
		broken(b, err, off,
		       "subclusters of guest offset %#" PRIx64 " contradict each other (%#" PRIx64
		       ")",
		       guest_off, bitmap);
	else
		check_standard(h, guest_off, off, b, err);
}
