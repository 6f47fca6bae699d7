// SPDX-License-Identifier: GPL-2.0-only
#include "lib/headwrite.h"

#include "lib/be.h"
#include "lib/writer-priv.h"

/* Byte offsets; neighbouring fields that must change together do so in one write. */
enum {
	AT_SIZE = 24,
	AT_L1_SIZE = 36,      /* and offset, at 40 */
	AT_REFTABLE = 48,     /* and clusters, at 56 */
	AT_NR_SNAPSHOTS = 60, /* and offset, at 64 */
	AT_INCOMPATIBLE = 72,
	AT_COMPATIBLE = 80,
	AT_AUTOCLEAR = 88,
	AT_REFCOUNT_ORDER = 96,
};

static int set_u64(struct qcow_writer *w, uint64_t at, uint64_t value, struct qcow_error *err)
{
	uint8_t b[8];

	qcow_put_be64(b, value);
	return meta_patch(w, at, b, sizeof(b), err);
}

/* A 32 bit field right before a 64 bit one. */
static int set_u32_u64(struct qcow_writer *w, uint64_t at, uint32_t first, uint64_t second,
		       struct qcow_error *err)
{
	uint8_t b[12];

	qcow_put_be32(b, first);
	qcow_put_be64(b + 4, second);
	return meta_patch(w, at, b, sizeof(b), err);
}

int qcow_head_set_autoclear(struct qcow_writer *w, uint64_t bits, struct qcow_error *err)
{
	int r = set_u64(w, AT_AUTOCLEAR, bits, err);

	if (!r)
		w->h.autoclear = bits;
	return r;
}

int qcow_head_set_incompatible(struct qcow_writer *w, uint64_t bits, struct qcow_error *err)
{
	int r = set_u64(w, AT_INCOMPATIBLE, bits, err);

	if (!r)
		w->h.incompatible = bits;
	return r;
}

int qcow_head_set_size(struct qcow_writer *w, uint64_t size, struct qcow_error *err)
{
	int r = set_u64(w, AT_SIZE, size, err);

	if (!r)
		w->h.size = size;
	return r;
}

int qcow_head_set_l1(struct qcow_writer *w, uint64_t l1_off, uint32_t l1_size,
		     struct qcow_error *err)
{
	int r = set_u32_u64(w, AT_L1_SIZE, l1_size, l1_off, err);

	if (r)
		return r;
	w->h.l1_off = l1_off;
	w->h.l1_size = l1_size;
	return 0;
}

int qcow_head_set_reftable(struct qcow_writer *w, uint64_t off, uint32_t clusters,
			   struct qcow_error *err)
{
	uint8_t b[12];
	int r;

	qcow_put_be64(b, off);
	qcow_put_be32(b + 8, clusters);
	r = meta_patch(w, AT_REFTABLE, b, sizeof(b), err);
	if (r)
		return r;
	w->h.reftable_off = off;
	w->h.reftable_clusters = clusters;
	return 0;
}

int qcow_head_set_snapshots(struct qcow_writer *w, uint64_t off, uint32_t nr,
			    struct qcow_error *err)
{
	int r = set_u32_u64(w, AT_NR_SNAPSHOTS, nr, off, err);

	if (r)
		return r;
	w->h.snapshots_off = off;
	w->h.nr_snapshots = nr;
	return 0;
}

int qcow_head_set_all(struct qcow_writer *w, const struct qcow_header *h, uint8_t sector[512],
		      struct qcow_error *err)
{
	uint8_t buf[512], *at = sector ? sector : buf;
	int r = sector ? 0 : meta_read(w, 0, buf, sizeof(buf), err);

	if (r < 0)
		return r;
	qcow_put_be64(at + AT_SIZE, h->size);
	qcow_put_be32(at + AT_L1_SIZE, h->l1_size);
	qcow_put_be64(at + AT_L1_SIZE + 4, h->l1_off);
	qcow_put_be64(at + AT_REFTABLE, h->reftable_off);
	qcow_put_be32(at + AT_REFTABLE + 8, h->reftable_clusters);
	qcow_put_be32(at + AT_NR_SNAPSHOTS, h->nr_snapshots);
	qcow_put_be64(at + AT_NR_SNAPSHOTS + 4, h->snapshots_off);
	if (h->version >= 3) {
		qcow_put_be64(at + AT_INCOMPATIBLE, h->incompatible);
		qcow_put_be64(at + AT_COMPATIBLE, h->compatible);
		qcow_put_be64(at + AT_AUTOCLEAR, h->autoclear);
		qcow_put_be32(at + AT_REFCOUNT_ORDER, h->refcount_order);
	}
	r = meta_patch(w, 0, at, sizeof(buf), err);
	if (!r)
		w->h = *h;
	return r;
}
