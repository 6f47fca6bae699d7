// SPDX-License-Identifier: GPL-2.0-only
/* Repairs: single refcounts, the whole of them, the header's marks. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/be.h"
#include "lib/check-priv.h"
#include "lib/refcount.h"

#define AT_REFTABLE	48
#define AT_INCOMPATIBLE 72

int fix_write(struct check *c, uint64_t host_off, const void *buf, size_t len)
{
	int r = qcow_io_pwrite(c->io, buf, len, host_off, c->err);

	qcow_mcache_drop(c->cache, 0, host_off, len);
	c->page_off = QCOW_NO_OFF;
	return r;
}

int fix_patch(struct check *c, uint64_t host_off, const void *bytes, size_t len)
{
	uint8_t sector[512];
	uint64_t off = host_off & ~511ull;
	int r = qcow_io_pread(c->io, sector, sizeof(sector), off, c->err);

	if (r < 0)
		return r;
	memcpy(sector + (host_off - off), bytes, len);
	return fix_write(c, off, sector, sizeof(sector));
}

/* A sector at a time: repairs are few, or the image has worse troubles than speed. */
int fix_refcount(struct check *c, uint64_t cluster, uint64_t value)
{
	uint64_t bits = (cluster & ((1ull << c->refblock_bits) - 1)) << c->h.refcount_order;
	uint64_t off = c->reftable[cluster >> c->refblock_bits] + (bits / 8 & ~511ull);
	uint8_t sector[512];
	int r = qcow_io_pread(c->io, sector, sizeof(sector), off, c->err);

	if (r < 0)
		return r;
	qcow_ref_encode(sector, c->h.refcount_order, (bits & 4095) >> c->h.refcount_order, value);
	return fix_write(c, off, sector, sizeof(sector));
}

/* ---- rebuilding -------------------------------------------------------------------- */

/* New blocks for clusters 0 .. end-1 and a table for them, in one free run at @first. */
struct rebuild {
	uint64_t first, blocks, clusters, end;
};

static void size_rebuild(const struct check *c, struct rebuild *b, uint64_t end)
{
	uint64_t per = qcow_cluster_size(&c->h) / 8, block = 1ull << c->refblock_bits;

	b->end = end;
	b->blocks = (end + block - 1) / block;
	b->clusters = (b->blocks + per - 1) / per;
}

/* In the new counting the old table and blocks are free. */
static void forget_old(struct check *c)
{
	uint64_t i, old = c->h.reftable_off >> c->h.cluster_bits;

	for (i = 0; i < c->h.reftable_clusters; i++)
		refs_drop(&c->refs, old + i);
	for (i = 0; i < c->nr_reftable; i++)
		if (c->reftable[i])
			refs_drop(&c->refs, c->reftable[i] >> c->h.cluster_bits);
}

/* Nothing in use is written over, the old table and blocks included: a crash keeps them. */
static int place_rebuild(struct check *c, struct rebuild *b)
{
	uint64_t i, run = 0;

	size_rebuild(c, b, c->file_clusters);
	for (i = 1; i < c->file_clusters; i++) {
		run = refs_get(&c->refs, i) ? 0 : run + 1;
		if (run == b->blocks + b->clusters) {
			b->first = i + 1 - run;
			return 0;
		}
	}
	if (c->io->fixed_end)
		return qcow_fail(c->err, ENOSPC, QCOW_NO_OFF,
				 "no room for new refcounts on the device");
	b->first = c->file_clusters;
	do {
		i = b->blocks + b->clusters;
		size_rebuild(c, b, c->file_clusters + i);
	} while (b->blocks + b->clusters != i);
	if (b->clusters << c->h.cluster_bits > QCOW_MAX_REFTABLE)
		return qcow_fail(c->err, EFBIG, QCOW_NO_OFF, "the image is too big");
	return 0;
}

static uint64_t new_count(const struct check *c, const struct rebuild *b, uint64_t cluster)
{
	if (cluster >= b->first && cluster < b->first + b->blocks + b->clusters)
		return 1;
	return refs_get(&c->refs, cluster);
}

static int write_block(struct check *c, const struct rebuild *b, uint64_t idx)
{
	uint64_t i, n, cluster;

	memset(c->table, 0, qcow_cluster_size(&c->h));
	for (i = 0; i < 1ull << c->refblock_bits; i++) {
		cluster = (idx << c->refblock_bits) + i;
		if (cluster >= b->end)
			break;
		n = new_count(c, b, cluster);
		if (n > qcow_ref_max(c->h.refcount_order))
			return qcow_fail(c->err, EOVERFLOW, cluster << c->h.cluster_bits,
					 "%" PRIu64 " references are more than %u bits can count",
					 n, 1u << c->h.refcount_order);
		qcow_ref_encode(c->table, c->h.refcount_order, i, n);
	}
	return fix_write(c, (b->first + idx) << c->h.cluster_bits, c->table,
			 qcow_cluster_size(&c->h));
}

static int write_table(struct check *c, const struct rebuild *b)
{
	uint64_t per = qcow_cluster_size(&c->h) / 8, i, k;
	int r = 0;

	for (k = 0; k < b->clusters && !r; k++) {
		memset(c->table, 0, qcow_cluster_size(&c->h));
		for (i = 0; i < per && k * per + i < b->blocks; i++)
			qcow_put_be64(c->table + i * 8, (b->first + k * per + i)
								<< c->h.cluster_bits);
		r = fix_write(c, (b->first + b->blocks + k) << c->h.cluster_bits, c->table,
			      qcow_cluster_size(&c->h));
	}
	return r;
}

static int switch_table(struct check *c, const struct rebuild *b)
{
	uint64_t off = (b->first + b->blocks) << c->h.cluster_bits;
	uint8_t fields[12];
	int r = qcow_io_flush(c->io, c->err);

	if (r < 0)
		return r;
	qcow_put_be64(fields, off);
	qcow_put_be32(fields + 8, (uint32_t)b->clusters);
	r = fix_patch(c, AT_REFTABLE, fields, sizeof(fields));
	if (!r)
		r = qcow_io_flush(c->io, c->err);
	if (r < 0)
		return r;
	c->h.reftable_off = off;
	c->h.reftable_clusters = (uint32_t)b->clusters;
	c->nr_reftable = (b->clusters << c->h.cluster_bits) / 8;
	return qcow_io_size(c->io, &c->file_size, c->err);
}

int fix_rebuild(struct check *c)
{
	struct rebuild b = { 0 };
	uint64_t i;
	int r = place_rebuild(c, &b);

	forget_old(c);
	for (i = 0; i < b.blocks && !r; i++)
		r = write_block(c, &b, i);
	if (!r)
		r = write_table(c, &b);
	if (!r)
		r = switch_table(c, &b);
	c->file_clusters = (c->file_size + qcow_cluster_size(&c->h) - 1) >> c->h.cluster_bits;
	return r;
}

int fix_header(struct check *c)
{
	uint8_t be[8];
	int r;

	c->h.incompatible &= ~(QCOW_INCOMPAT_DIRTY | QCOW_INCOMPAT_CORRUPT);
	qcow_put_be64(be, c->h.incompatible);
	r = fix_patch(c, AT_INCOMPATIBLE, be, sizeof(be));
	return r < 0 ? r : qcow_io_flush(c->io, c->err);
}
