// SPDX-License-Identifier: GPL-2.0-only
#include "lib/refcount.h"

#include <errno.h>
#include <inttypes.h>

#include "lib/be.h"
#include "lib/writer-priv.h"

uint64_t qcow_ref_max(uint32_t order)
{
	return order == 6 ? UINT64_MAX : (1ull << (1u << order)) - 1;
}

uint64_t qcow_ref_decode(const void *block, uint32_t order, uint64_t idx)
{
	const uint8_t *b = block;
	uint32_t per_byte;

	switch (order) {
	case 3:
		return b[idx];
	case 4:
		return qcow_be16(b + idx * 2);
	case 5:
		return qcow_be32(b + idx * 4);
	case 6:
		return qcow_be64(b + idx * 8);
	}
	per_byte = 8u >> order;
	return b[idx / per_byte] >> (idx % per_byte << order) & qcow_ref_max(order);
}

void qcow_ref_encode(void *block, uint32_t order, uint64_t idx, uint64_t value)
{
	uint8_t *b = block;
	uint32_t per_byte, shift;

	switch (order) {
	case 3:
		b[idx] = (uint8_t)value;
		return;
	case 4:
		qcow_put_be16(b + idx * 2, (uint16_t)value);
		return;
	case 5:
		qcow_put_be32(b + idx * 4, (uint32_t)value);
		return;
	case 6:
		qcow_put_be64(b + idx * 8, value);
		return;
	}
	per_byte = 8u >> order;
	shift = (uint32_t)(idx % per_byte) << order;
	b += idx / per_byte;
	*b = (uint8_t)((*b & ~(qcow_ref_max(order) << shift)) | value << shift);
}

/* Where the refcount of a cluster is: a page of its block, and the index within that page. */
static int entry_at(struct qcow_writer *w, uint64_t cluster, uint8_t **page, uint64_t *idx,
		    struct qcow_error *err)
{
	uint64_t block = cluster >> w->refblock_bits, bits;
	uint8_t *p;
	int r;

	if (block >= w->nr_reftable || !w->reftable[block])
		return qcow_fail(err, EIO, cluster << w->h.cluster_bits,
				 "no refcount block covers the cluster at %#" PRIx64
				 "; qcow check shows the damage",
				 cluster << w->h.cluster_bits);
	/* Bits from the block's start; sectors hold whole entries of every width. */
	bits = (cluster & ((1ull << w->refblock_bits) - 1)) << w->h.refcount_order;
	r = edit_at(w, &w->ref_edit, w->reftable[block] + (bits / 8 & ~511ull), &p, err);
	if (r < 0)
		return r;
	*page = p;
	*idx = (bits & (512 * 8 - 1)) >> w->h.refcount_order;
	return 0;
}

static bool is_covered(const struct qcow_writer *w, uint64_t cluster)
{
	uint64_t block = cluster >> w->refblock_bits;

	return block < w->nr_reftable && w->reftable[block];
}

int qcow_ref_get(struct qcow_writer *w, uint64_t host_off, uint64_t *value, struct qcow_error *err)
{
	uint64_t cluster = cluster_of(w, host_off), idx;
	uint8_t *p;
	int r;

	*value = 0;
	if (!is_covered(w, cluster))
		return 0;
	r = entry_at(w, cluster, &p, &idx, err);
	if (!r)
		*value = qcow_ref_decode(p, w->h.refcount_order, idx);
	return r;
}

int qcow_ref_skip(struct qcow_writer *w, uint64_t cluster, uint64_t *next, struct qcow_error *err)
{
	uint64_t idx, per_sector = (512 * 8) >> w->h.refcount_order;
	uint8_t *p;
	int r;

	*next = cluster;
	if (!is_covered(w, cluster))
		return 0;
	r = entry_at(w, cluster, &p, &idx, err);
	if (r < 0)
		return r;
	while (idx < per_sector && qcow_ref_decode(p, w->h.refcount_order, idx))
		idx++, ++*next;
	return 0;
}

static int next_value(const struct qcow_writer *w, enum qcow_ref_op op, uint64_t old, uint64_t *new)
{
	switch (op) {
	case QCOW_REF_TAKE:
		*new = 1;
		return old > 1 ? -EEXIST : 0;
	case QCOW_REF_RELEASE:
		*new = 0;
		return old > 1 ? -EEXIST : 0;
	case QCOW_REF_UP:
		*new = old + 1;
		return old == qcow_ref_max(w->h.refcount_order) ? -EOVERFLOW : 0;
	case QCOW_REF_DOWN:
		*new = old - 1;
		return old ? 0 : -EIO;
	}
	return -EINVAL;
}

static int fail_value(int r, uint64_t host_off, uint64_t old, struct qcow_error *err)
{
	return qcow_fail(err, -r, host_off,
			 "the cluster at %#" PRIx64 " has refcount %" PRIu64 ", which %s", host_off,
			 old, r == -EOVERFLOW ? "is the greatest possible" : "cannot be");
}

int ref_update_one(struct qcow_writer *w, enum qcow_ref_op op, uint64_t cluster,
		   struct qcow_error *err)
{
	uint64_t idx, old, new;
	uint8_t *p;
	int r;

	r = entry_at(w, cluster, &p, &idx, err);
	if (r < 0)
		return r;
	old = qcow_ref_decode(p, w->h.refcount_order, idx);
	r = next_value(w, op, old, &new);
	if (r < 0)
		return fail_value(r, cluster << w->h.cluster_bits, old, err);
	if (new != old) {
		qcow_ref_encode(p, w->h.refcount_order, idx, new);
		edit_touch(&w->ref_edit, p);
		w->nr_used += !old;
		w->nr_used -= !new;
	}
	if (!new &&cluster < w->free_from)
		w->free_from = cluster;
	if (op == QCOW_REF_DOWN && !new)
		writer_note_data(w, (cluster + 1) << w->h.cluster_bits);
	return 0;
}

int qcow_ref_update(struct qcow_writer *w, enum qcow_ref_op op, uint64_t host_off, uint64_t len,
		    struct qcow_error *err)
{
	uint64_t c, last = cluster_of(w, host_off + len - 1);
	int r = writer_check(w, err), r2;

	for (c = cluster_of(w, host_off); c <= last && !r; c++)
		r = ref_update_one(w, op, c, err);
	/* What did change must not stay behind in memory only. */
	r2 = edit_finish(w, &w->ref_edit, r ? NULL : err);
	return r ? r : r2;
}
