// SPDX-License-Identifier: GPL-2.0-only
/* New refcount blocks and a bigger refcount table. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/be.h"
#include "lib/headwrite.h"
#include "lib/refcount.h"
#include "lib/writer-priv.h"

static int full(uint64_t host_off, struct qcow_error *err)
{
	return qcow_fail(err, ENOSPC, host_off, "no free cluster is left up to %#" PRIx64,
			 host_off);
}

/* Metadata where no refcount can be: nothing may be written over it. */
static int no_refcount(uint64_t host_off, struct qcow_error *err)
{
	return qcow_fail(err, EIO, host_off,
			 "the metadata at or behind %#" PRIx64
			 " has no refcount; repair it with: qcow check -r all",
			 host_off);
}

/* One refcount block of which the first @used clusters have refcount 1. */
static int write_block(struct qcow_writer *w, uint64_t host_off, uint64_t used,
		       struct qcow_error *err)
{
	uint64_t i;

	memset(w->cluster, 0, qcow_cluster_size(&w->h));
	for (i = 0; i < used && i < 1ull << w->refblock_bits; i++)
		qcow_ref_encode(w->cluster, w->h.refcount_order, i, 1);
	return meta_write(w, host_off, w->cluster, qcow_cluster_size(&w->h), err);
}

static void set_reftable(struct qcow_writer *w, uint64_t idx, uint64_t host_off)
{
	pthread_rwlock_wrlock(&w->reftable_lock);
	w->reftable[idx] = host_off;
	pthread_rwlock_unlock(&w->reftable_lock);
}

/*
 * The entry is durable no later than any refcount written to the block. Known as metadata
 * only once nothing can fail that may be said again, but before a refcount of it is seen.
 */
static int publish_block(struct qcow_writer *w, uint64_t idx, uint64_t host_off,
			 struct qcow_error *err)
{
	uint8_t be[8];
	int r;

	qcow_put_be64(be, host_off);
	r = meta_patch(w, w->h.reftable_off + idx * 8, be, sizeof(be), err);
	if (!r)
		r = qcow_metaset_add(&w->meta, QCOW_META_REFBLOCK, host_off, err);
	if (r < 0)
		return r;
	set_reftable(w, idx, host_off);
	w->nr_used++;
	return 0;
}

static int add_block(struct qcow_writer *w, uint64_t idx, struct qcow_error *err)
{
	uint64_t first = idx << w->refblock_bits, off = first << w->h.cluster_bits;
	int r;

	if (!first || qcow_metaset_has(&w->meta, off, 1))
		return no_refcount(off, err);
	if (first >= w->host_end)
		return full(off, err);
	r = writer_extend(w, off + qcow_cluster_size(&w->h), err);
	if (r < 0)
		return r;
	r = write_block(w, off, 1, err);
	if (r < 0)
		return r;
	r = qcow_barrier(w, QCOW_BARRIER_REFBLOCK, err);
	return r < 0 ? r : publish_block(w, idx, off, err);
}

/* A bigger table, right behind the blocks that cover both, where the old one's reach ends. */
struct growth {
	uint64_t entries;	   /* of the new table */
	uint64_t first;		   /* cluster: the blocks, then the table */
	uint64_t blocks, clusters; /* of the new table */
};

static int plan_growth(const struct qcow_writer *w, uint64_t min_entries, struct growth *g,
		       struct qcow_error *err)
{
	uint64_t per = qcow_cluster_size(&w->h) / 8, block = 1ull << w->refblock_bits;

	g->first = w->nr_reftable << w->refblock_bits;
	g->entries = w->nr_reftable + w->nr_reftable / 2;
	if (g->entries < min_entries)
		g->entries = min_entries;
	g->blocks = 0;
	do {
		g->blocks++;
		if (g->entries < w->nr_reftable + g->blocks)
			g->entries = w->nr_reftable + g->blocks;
		g->clusters = (g->entries + per - 1) / per;
	} while (g->blocks * block < g->blocks + g->clusters);
	g->entries = g->clusters * per;
	if (g->entries > w->max_reftable || g->first + g->blocks + g->clusters > w->host_end)
		return full(g->first << w->h.cluster_bits, err);
	return 0;
}

static int write_blocks(struct qcow_writer *w, const struct growth *g, struct qcow_error *err)
{
	uint64_t i, used = g->blocks + g->clusters;
	int r = 0;

	for (i = 0; i < g->blocks && !r; i++) {
		r = write_block(w, (g->first + i) << w->h.cluster_bits,
				used - (i << w->refblock_bits), err);
	}
	return r;
}

static int write_table(struct qcow_writer *w, const struct growth *g, struct qcow_error *err)
{
	uint64_t per = qcow_cluster_size(&w->h) / 8, i, c, entry;
	int r = 0;

	for (c = 0; c < g->clusters && !r; c++) {
		for (i = 0; i < per; i++) {
			entry = c * per + i;
			entry = entry < w->nr_reftable + g->blocks ? w->reftable[entry] : 0;
			qcow_put_be64(w->cluster + i * 8, entry);
		}
		r = meta_write(w, (g->first + g->blocks + c) << w->h.cluster_bits, w->cluster,
			       qcow_cluster_size(&w->h), err);
	}
	return r;
}

/* Nobody looks at entries from nr_reftable on, so a failure needs no undoing. */
static int write_growth(struct qcow_writer *w, const struct growth *g, struct qcow_error *err)
{
	uint64_t i;
	int r;

	for (i = 0; i < g->blocks; i++)
		w->reftable[w->nr_reftable + i] = (g->first + i) << w->h.cluster_bits;
	r = writer_extend(w, (g->first + g->blocks + g->clusters) << w->h.cluster_bits, err);
	if (r < 0)
		return r;
	r = write_blocks(w, g, err);
	if (r < 0)
		return r;
	r = write_table(w, g, err);
	return r < 0 ? r : qcow_barrier(w, QCOW_BARRIER_REFTABLE, err);
}

/* The header names the new table already: nothing here may be half done. */
static int add_growth(struct qcow_writer *w, const struct growth *g, struct qcow_error *err)
{
	uint64_t i;
	int r = 0;

	for (i = 0; i < g->blocks + g->clusters && !r; i++)
		r = qcow_metaset_add(&w->meta,
				     i < g->blocks ? QCOW_META_REFBLOCK : QCOW_META_REFTABLE,
				     (g->first + i) << w->h.cluster_bits, err);
	w->failed |= r < 0;
	return r;
}

/* All of it is known as metadata before a refcount of it is seen. */
static int use_growth(struct qcow_writer *w, const struct growth *g, struct qcow_error *err)
{
	uint64_t off = (g->first + g->blocks) << w->h.cluster_bits;
	int r = qcow_head_set_reftable(w, off, (uint32_t)g->clusters, err);

	if (!r)
		r = qcow_barrier(w, QCOW_BARRIER_REFTABLE_USED, err);
	if (!r)
		r = add_growth(w, g, err);
	if (r < 0)
		return r;
	pthread_rwlock_wrlock(&w->reftable_lock);
	w->nr_reftable = g->entries;
	pthread_rwlock_unlock(&w->reftable_lock);
	w->nr_used += g->blocks + g->clusters;
	return 0;
}

/* Said again if the disk was full: there is nothing else to show that it is free. */
int ref_free_old_table(struct qcow_writer *w, struct qcow_error *err)
{
	int r = 0;

	if (w->old_table_len)
		r = qcow_ref_update(w, QCOW_REF_RELEASE, w->old_table_off, w->old_table_len, err);
	if (r != -ENOSPC)
		w->old_table_len = 0;
	return r;
}

static int grow_table(struct qcow_writer *w, uint64_t min_entries, struct qcow_error *err)
{
	uint64_t old_off = w->h.reftable_off;
	uint64_t old_len = (uint64_t)w->h.reftable_clusters << w->h.cluster_bits;
	struct growth g;
	int r = ref_free_old_table(w, err);

	if (r < 0)
		return r;
	r = plan_growth(w, min_entries, &g, err);
	if (r < 0)
		return r;
	if (qcow_metaset_has(&w->meta, g.first << w->h.cluster_bits,
			     (g.blocks + g.clusters) << w->h.cluster_bits))
		return no_refcount(g.first << w->h.cluster_bits, err);
	r = write_growth(w, &g, err);
	if (!r)
		r = use_growth(w, &g, err);
	if (r < 0)
		return r;
	w->old_table_off = old_off;
	w->old_table_len = old_len;
	return ref_free_old_table(w, err);
}

int qcow_ref_cover(struct qcow_writer *w, uint64_t cluster, struct qcow_error *err)
{
	uint64_t idx = cluster >> w->refblock_bits;
	int r = 0;

	if (idx >= w->nr_reftable)
		r = grow_table(w, idx + 1, err);
	if (!r && !w->reftable[idx])
		r = add_block(w, idx, err);
	return r;
}
