// SPDX-License-Identifier: GPL-2.0-only
#include "lib/delta.h"

#include <errno.h>
#include <inttypes.h>

#include "lib/l2.h"

#define ALL_SUBS 0xffffffffu

static int invalid(uint64_t guest_off, const char *why, struct qcow_error *err)
{
	return qcow_fail(err, EINVAL, QCOW_NO_OFF, "change of guest offset %#" PRIx64 ": %s",
			 guest_off, why);
}

/* The part of the delta within the cluster, as subclusters; one bit without extended L2. */
static uint32_t sub_mask(const struct qcow_header *h, uint64_t cluster_off,
			 const struct qcow_delta *d)
{
	uint32_t bits = qcow_block_bits(h);
	uint64_t end = cluster_off + qcow_cluster_size(h), first = 0, last;

	if (!qcow_has_extl2(h))
		return ALL_SUBS;
	if (d->guest_off > cluster_off)
		first = (d->guest_off - cluster_off) >> bits;
	if (d->guest_off + d->len < end)
		end = d->guest_off + d->len;
	last = (end - cluster_off) >> bits;
	return (uint32_t)(((1ull << last) - 1) & ~((1ull << first) - 1));
}

static uint32_t alloc_of(const struct qcow_header *h, const struct delta_entry *e)
{
	if (e->entry & QCOW_L2_COMPRESSED)
		return ALL_SUBS;
	return qcow_has_extl2(h) ? (uint32_t)e->bitmap : 0;
}

/* Whatever data the entry has now is somewhere else from now on. */
static void leave(const struct qcow_header *h, struct delta_entry *e)
{
	e->stale |= alloc_of(h, e);
	e->bitmap = e->entry & QCOW_L2_COMPRESSED ? 0 : e->bitmap & ~(uint64_t)ALL_SUBS;
	e->entry = 0;
}

static void set_bits(const struct qcow_header *h, struct delta_entry *e, uint32_t alloc,
		     uint32_t zero)
{
	uint32_t both = alloc | zero;

	e->stale &= ~both;
	if (!qcow_has_extl2(h))
		return;
	e->bitmap &= ~((uint64_t)both << 32 | both);
	e->bitmap |= (uint64_t)zero << 32 | alloc;
}

/* The entry points to where the delta says. */
static int move_to(const struct qcow_header *h, uint64_t cluster_off, const struct qcow_delta *d,
		   struct delta_entry *e, struct qcow_error *err)
{
	/* Wraps and wraps back if the delta began in an earlier cluster. */
	uint64_t host = d->host_off + (cluster_off - d->guest_off);
	uint64_t want = host | QCOW_ENTRY_COPIED;
	uint64_t old = e->entry & (QCOW_ENTRY_OFF_MASK | QCOW_ENTRY_COPIED | QCOW_L2_COMPRESSED);

	if (old == host && host && !qcow_has_data_file(h))
		return invalid(cluster_off, "it would write to a shared cluster", err);
	if (old != want)
		leave(h, e);
	e->entry = want;
	return 0;
}

static int apply_data(const struct qcow_header *h, uint64_t cluster_off, const struct qcow_delta *d,
		      struct delta_entry *e, struct qcow_error *err)
{
	int r = move_to(h, cluster_off, d, e, err);

	if (!r)
		set_bits(h, e, sub_mask(h, cluster_off, d), 0);
	return r;
}

static int apply_keep(const struct qcow_header *h, uint64_t cluster_off, const struct qcow_delta *d,
		      struct delta_entry *e, struct qcow_error *err)
{
	int r = move_to(h, cluster_off, d, e, err);

	if (r < 0)
		return r;
	set_bits(h, e, 0, sub_mask(h, cluster_off, d));
	if (!qcow_has_extl2(h))
		e->entry |= QCOW_L2_ZERO;
	e->keep = true;
	return 0;
}

/* Version 2 has no zero flag: only where nothing shines through. */
static int zero_v2(const struct qcow_header *h, uint64_t cluster_off, struct delta_entry *e,
		   struct qcow_error *err)
{
	if (h->has_backing)
		return invalid(cluster_off, "version 2 cannot hide a backing file with zeros", err);
	leave(h, e);
	e->stale = 0;
	return 0;
}

static int apply_zero(const struct qcow_header *h, uint64_t cluster_off, const struct qcow_delta *d,
		      struct delta_entry *e, struct qcow_error *err)
{
	bool keep = d->type == QCOW_DELTA_ZERO_KEEP && e->entry & QCOW_ENTRY_COPIED;
	bool reads_zero = !h->has_backing && !e->entry && !e->bitmap;

	if (h->version >= 3 && d->type == QCOW_DELTA_ZERO_KEEP && d->host_off)
		return apply_keep(h, cluster_off, d, e, err);
	if (reads_zero)
		return 0;
	if (h->version < 3)
		return zero_v2(h, cluster_off, e, err);
	if (e->entry & QCOW_L2_COMPRESSED)
		leave(h, e);
	set_bits(h, e, 0, sub_mask(h, cluster_off, d));
	if (qcow_has_extl2(h)) {
		e->drop |= !keep;
		return 0;
	}
	e->entry = (keep ? e->entry & (QCOW_ENTRY_OFF_MASK | QCOW_ENTRY_COPIED) : 0) | QCOW_L2_ZERO;
	return 0;
}

int delta_apply(const struct qcow_header *h, uint64_t cluster_off, const struct qcow_delta *d,
		struct delta_entry *e, struct qcow_error *err)
{
	switch (d->type) {
	case QCOW_DELTA_DATA:
		return apply_data(h, cluster_off, d, e, err);
	case QCOW_DELTA_ZERO:
	case QCOW_DELTA_ZERO_KEEP:
		return apply_zero(h, cluster_off, d, e, err);
	case QCOW_DELTA_UNALLOCATED:
		if (sub_mask(h, cluster_off, d) != ALL_SUBS)
			return invalid(cluster_off, "part of a cluster cannot be deallocated", err);
		*e = (struct delta_entry){ 0 };
		return 0;
	}
	return invalid(cluster_off, "unknown kind", err);
}

int delta_finish(const struct qcow_header *h, uint64_t cluster_off, struct delta_entry *e,
		 struct qcow_error *err)
{
	if (e->stale && qcow_has_extl2(h))
		return invalid(cluster_off, "it moves a cluster but not all of its data", err);
	if (e->drop && !e->keep && !(uint32_t)e->bitmap && !(e->entry & QCOW_L2_COMPRESSED))
		e->entry = 0;
	return 0;
}

static int lost_compressed(const struct qcow_header *h, const struct qcow_l2_block *b,
			   struct qcow_lost lost[3])
{
	uint64_t cluster = qcow_cluster_size(h), off = b->host_off & ~(cluster - 1);
	uint64_t end = b->host_off + b->csize;
	int nr = 0;

	for (; off < end && nr < 3; off += cluster)
		lost[nr++] = (struct qcow_lost){ .host_off = off, .len = cluster };
	return nr;
}

int delta_lost(const struct qcow_header *h, uint64_t cluster_off, const struct delta_entry *old,
	       const struct delta_entry *new, struct qcow_lost lost[3])
{
	uint64_t off = old->entry & QCOW_ENTRY_OFF_MASK;
	struct qcow_l2_block b;

	if (old->entry == new->entry)
		return 0;
	if (old->entry & QCOW_L2_COMPRESSED) {
		qcow_l2_decode(h, cluster_off, old->entry, old->bitmap, &b, NULL);
		return b.type == QCOW_L2_COMPRESSED_DATA ? lost_compressed(h, &b, lost) : 0;
	}
	/* A place that is no cluster has no refcount to lower. */
	if (!off || off == (new->entry &QCOW_ENTRY_OFF_MASK) || qcow_has_data_file(h) ||
	    off & (qcow_cluster_size(h) - 1))
		return 0;
	lost[0] = (struct qcow_lost){ .host_off = off,
				      .len = qcow_cluster_size(h),
				      .exclusive = old->entry & QCOW_ENTRY_COPIED };
	return 1;
}
