// SPDX-License-Identifier: GPL-2.0-only
#include "lib/txn.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/be.h"
#include "lib/headwrite.h"
#include "lib/txnwalk.h"
#include "lib/writer-priv.h"

#define MAX_BLOCKS (QCOW_MAX_REFTABLE / 8u)
/* Runs of clusters that are punched; what is beyond stays in the file, free. */
#define MAX_RUNS 65536u

uint64_t qcow_txn_clusters(const struct qcow_txn *t, uint64_t bytes)
{
	return (bytes >> t->h.cluster_bits) + !!(bytes & (qcow_cluster_size(&t->h) - 1));
}

/* ---- the old refcounts --------------------------------------------------------------- */

static int old_load(struct qcow_txn *t, uint64_t idx, struct qcow_error *err)
{
	int r;

	if (t->old_idx == idx)
		return 0;
	t->old_idx = UINT64_MAX;
	r = qcow_io_pread(t->w->io, t->old_block, qcow_cluster_size(&t->h), t->old[idx], err);
	if (!r)
		t->old_idx = idx;
	return r;
}

static int old_count(struct qcow_txn *t, uint64_t cluster, uint64_t *value, struct qcow_error *err)
{
	uint64_t idx = cluster >> t->old_bits;
	int r;

	*value = 0;
	if (idx >= t->nr_old || !t->old[idx])
		return 0;
	r = old_load(t, idx, err);
	if (!r)
		*value = qcow_ref_decode(t->old_block, t->old_order,
					 cluster & ((1ull << t->old_bits) - 1));
	return r;
}

/*
 * Free means free before: the cursor only goes up, so nothing behind it was taken,
 * and what this change frees is still needed until the header is written.
 */
static int find(struct qcow_txn *t, uint64_t nr, uint64_t *first, struct qcow_error *err)
{
	uint64_t run = 0, refs;
	int r;

	while (run < nr) {
		if (t->cursor >= t->w->host_end)
			return qcow_fail(err, ENOSPC, QCOW_NO_OFF,
					 "there is no room for %" PRIu64 " clusters in a row", nr);
		r = old_count(t, t->cursor, &refs, err);
		if (r < 0)
			return r;
		run = refs || qcow_metaset_kind(&t->w->meta, t->cursor) ? 0 : run + 1;
		t->cursor++;
	}
	*first = t->cursor - nr;
	t->end = t->cursor;
	return 0;
}

/* ---- new refcount blocks ------------------------------------------------------------- */

static int push(struct qcow_txn *t, enum qcow_ref_op op, uint64_t host_off, struct qcow_error *err)
{
	struct txn_step *bigger;

	if (t->nr_todo == t->max_todo) {
		bigger = realloc(t->todo, (t->max_todo * 2 + 64) * sizeof(*bigger));
		if (!bigger)
			return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
		t->todo = bigger;
		t->max_todo = t->max_todo * 2 + 64;
	}
	t->todo[t->nr_todo++] =
		(struct txn_step){ .cluster = host_off >> t->h.cluster_bits, .op = op };
	return 0;
}

/* The old refcounts of the clusters that block @idx covers, in w->cluster. */
static int fill_block(struct qcow_txn *t, uint64_t idx, struct qcow_error *err)
{
	uint64_t first = idx << t->w->refblock_bits, i, refs;
	uint32_t order = t->h.refcount_order;
	int r;

	memset(t->w->cluster, 0, qcow_cluster_size(&t->h));
	for (i = 0; i < 1ull << t->w->refblock_bits; i++) {
		r = old_count(t, first + i, &refs, err);
		if (r < 0)
			return r;
		if (refs > qcow_ref_max(order))
			return qcow_fail(err, EOVERFLOW, (first + i) << t->h.cluster_bits,
					 "the cluster at %#" PRIx64 " has %" PRIu64
					 " users, more than %u bits can count",
					 (first + i) << t->h.cluster_bits, refs, 1u << order);
		if (refs)
			qcow_ref_encode(t->w->cluster, order, i, refs);
	}
	return 0;
}

/* Block @idx becomes one that nobody but the new state knows. */
static int freshen(struct qcow_txn *t, uint64_t idx, struct qcow_error *err)
{
	struct qcow_writer *w = t->w;
	uint64_t cluster, old;
	int r;

	if (idx >= MAX_BLOCKS)
		return qcow_fail(err, ENOSPC, QCOW_NO_OFF, "the refcount table cannot grow more");
	if (t->fresh[idx])
		return 0;
	old = w->reftable[idx];
	r = find(t, 1, &cluster, err);
	if (!r)
		r = fill_block(t, idx, err);
	if (!r)
		r = meta_write(w, cluster << t->h.cluster_bits, w->cluster,
			       qcow_cluster_size(&t->h), err);
	if (r < 0)
		return r;
	w->reftable[idx] = cluster << t->h.cluster_bits;
	t->fresh[idx] = true;
	r = push(t, QCOW_REF_TAKE, cluster << t->h.cluster_bits, err);
	return !r && old ? push(t, QCOW_REF_DOWN, old, err) : r;
}

/* Counted right it would seem to be a newcomer's alone, or free. */
static int must_be_used(struct qcow_txn *t, uint64_t cluster, struct qcow_error *err)
{
	uint64_t off = cluster << t->h.cluster_bits, refs;
	int r = qcow_ref_get(t->w, off, &refs, err);

	if (r < 0 || refs)
		return r;
	return qcow_fail(err, EIO, off,
			 "the cluster at %#" PRIx64
			 " is in use but has refcount 0; repair it with: qcow check -r all",
			 off);
}

static int change(struct qcow_txn *t, enum qcow_ref_op op, uint64_t cluster, struct qcow_error *err)
{
	int r = op == QCOW_REF_UP ? must_be_used(t, cluster, err) : 0;

	if (r < 0 || t->looking)
		return r;
	r = freshen(t, cluster >> t->w->refblock_bits, err);
	return r < 0 ? r : ref_update_one(t->w, op, cluster, err);
}

/* Each block is made fresh once, so this ends. */
static int drain(struct qcow_txn *t, struct qcow_error *err)
{
	struct txn_step s;
	int r = 0;

	while (t->nr_todo && !r) {
		s = t->todo[--t->nr_todo];
		r = change(t, s.op, s.cluster, err);
	}
	return r;
}

static int change_range(struct qcow_txn *t, enum qcow_ref_op op, uint64_t first, uint64_t nr,
			struct qcow_error *err)
{
	uint64_t i;
	int r = 0;

	for (i = 0; i < nr && !r; i++)
		r = change(t, op, first + i, err);
	return r < 0 ? r : drain(t, err);
}

int qcow_txn_ref(struct qcow_txn *t, enum qcow_ref_op op, uint64_t host_off, uint64_t len,
		 struct qcow_error *err)
{
	uint64_t first = host_off >> t->h.cluster_bits;

	if (!len)
		return 0;
	return change_range(t, op, first, ((host_off + len - 1) >> t->h.cluster_bits) - first + 1,
			    err);
}

int qcow_txn_alloc(struct qcow_txn *t, uint64_t nr, uint64_t *host_off, struct qcow_error *err)
{
	uint64_t first;
	int r = find(t, nr, &first, err);

	if (r < 0)
		return r;
	*host_off = first << t->h.cluster_bits;
	return change_range(t, QCOW_REF_TAKE, first, nr, err);
}

int qcow_txn_write(struct qcow_txn *t, uint64_t host_off, const void *buf, size_t len,
		   struct qcow_error *err)
{
	return meta_write(t->w, host_off, buf, len, err);
}

int qcow_txn_write_be64(struct qcow_txn *t, uint64_t host_off, const uint64_t *entries, uint64_t nr,
			struct qcow_error *err)
{
	uint64_t per = qcow_cluster_size(&t->h) / 8, done, i;
	int r = 0;

	for (done = 0; done < nr && !r; done += per) {
		for (i = 0; i < per; i++)
			qcow_put_be64(t->table + i * 8, done + i < nr ? entries[done + i] : 0);
		r = meta_write(t->w, host_off + done * 8, t->table, per * 8, err);
	}
	return r;
}

int qcow_txn_size_l1(struct qcow_txn *t, uint32_t nr, struct qcow_error *err)
{
	uint64_t *l1 = calloc(nr + 1ul, 8);
	uint32_t keep = nr < t->h.l1_size ? nr : t->h.l1_size;

	if (!l1)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for the L1 table");
	memcpy(l1, t->l1, keep * 8ul);
	free(t->l1);
	t->l1 = l1;
	t->h.l1_size = nr;
	t->l1_changed = true;
	return 0;
}

/* ---- begin and end ------------------------------------------------------------------- */

static int alloc_txn(struct qcow_txn *t)
{
	struct qcow_writer *w = t->w;
	size_t cluster = qcow_cluster_size(&w->h), room = cluster < META_PAGE ? META_PAGE : cluster;

	t->l1 = calloc(w->h.l1_size + 1ul, 8);
	t->table = aligned_alloc(META_PAGE, room);
	t->old_block = aligned_alloc(META_PAGE, room);
	t->fresh = calloc(MAX_BLOCKS, sizeof(*t->fresh));
	return t->l1 && t->table && t->old_block && t->fresh ? 0 : -ENOMEM;
}

/* All blocks are new, and the old ones go. */
static int convert(struct qcow_txn *t, struct qcow_error *err)
{
	uint64_t end = t->nr_old, i;
	int r = 0;

	while (end && !t->old[end - 1])
		end--;
	for (i = 0; i < end && !r; i++)
		if (t->old[i])
			r = push(t, QCOW_REF_DOWN, t->old[i], err);
	end = (end << t->old_bits) + (1ull << t->w->refblock_bits) - 1;
	for (i = 0; i < end >> t->w->refblock_bits && !r; i++)
		r = freshen(t, i, err);
	return r < 0 ? r : drain(t, err);
}

/* From here on the writer's refcounts are the new ones. */
static int take_over(struct qcow_txn *t, uint32_t refcount_order, struct qcow_error *err)
{
	struct qcow_writer *w = t->w;

	t->old = w->reftable;
	t->nr_old = w->nr_reftable;
	w->reftable = calloc(MAX_BLOCKS, 8);
	if (!w->reftable)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	w->nr_reftable = w->max_reftable = MAX_BLOCKS;
	if (refcount_order == t->old_order) {
		memcpy(w->reftable, t->old, t->nr_old * 8);
		return 0;
	}
	t->h.refcount_order = w->h.refcount_order = refcount_order;
	w->refblock_bits = w->h.cluster_bits + 3 - refcount_order;
	return convert(t, err);
}

int qcow_txn_begin(struct qcow_txn *t, struct qcow_writer *w, uint32_t refcount_order,
		   struct qcow_error *err)
{
	int r = writer_check(w, err);

	*t = (struct qcow_txn){ .w = w, .h = w->h, .old_idx = UINT64_MAX };
	if (r < 0)
		return r;
	t->old_order = w->h.refcount_order;
	t->old_bits = w->refblock_bits;
	if (alloc_txn(t) < 0)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	memcpy(t->l1, w->l1, w->h.l1_size * 8ul);
	/* Before anything is written to what seems to be free. */
	t->looking = true;
	r = qcow_txn_ref_l1(t, QCOW_REF_UP, t->l1, t->h.l1_size, err);
	t->looking = false;
	return r < 0 ? r : take_over(t, refcount_order, err);
}
void qcow_txn_end(struct qcow_txn *t)
{
	uint64_t size;

	if (t->old && !t->done && !t->w->io->fixed_end && !qcow_io_size(t->w->io, &size, NULL) &&
	    size > t->w->first_size)
		(void)qcow_io_truncate(t->w->io, t->w->first_size, NULL);
	t->w->finished = true;
	free(t->l1);
	free(t->table);
	free(t->old);
	free(t->old_block);
	free(t->fresh);
	free(t->todo);
	*t = (struct qcow_txn){ .w = t->w };
}

/* ---- commit -------------------------------------------------------------------------- */

static int place_l1(struct qcow_txn *t, struct qcow_error *err)
{
	const struct qcow_header *old = &t->w->h;
	int r = 0;

	if (!t->l1_kept)
		r = qcow_txn_ref(t, QCOW_REF_DOWN, old->l1_off, old->l1_size * 8ull, err);
	if (r < 0 || !t->h.l1_size)
		return r;
	r = qcow_txn_alloc(t, qcow_txn_clusters(t, t->h.l1_size * 8ull), &t->h.l1_off, err);
	return r < 0 ? r : qcow_txn_write_be64(t, t->h.l1_off, t->l1, t->h.l1_size, err);
}

/* Clusters for a table that also names the blocks which placing it makes new. */
static uint64_t reftable_clusters(const struct qcow_txn *t)
{
	uint64_t used = 0, pending = 0, i, end, n = 0, before;

	for (i = 0; i < MAX_BLOCKS; i++) {
		if (!t->w->reftable[i])
			continue;
		used = i + 1;
		pending += !t->fresh[i];
	}
	do {
		before = n;
		end = t->cursor + 2 * (pending + n) + 2;
		if (end < used << t->w->refblock_bits)
			end = used << t->w->refblock_bits;
		n = qcow_txn_clusters(t, ((end >> t->w->refblock_bits) + 1) * 8);
	} while (n != before);
	return n;
}

static int place_reftable(struct qcow_txn *t, struct qcow_error *err)
{
	uint64_t old_len = (uint64_t)t->w->h.reftable_clusters << t->h.cluster_bits;
	uint64_t n = reftable_clusters(t), i, nr = (n << t->h.cluster_bits) / 8;
	int r;

	if (n << t->h.cluster_bits > QCOW_MAX_REFTABLE)
		return qcow_fail(err, ENOSPC, QCOW_NO_OFF, "the refcount table cannot grow more");
	r = qcow_txn_alloc(t, n, &t->h.reftable_off, err);
	if (!r)
		r = qcow_txn_ref(t, QCOW_REF_DOWN, t->w->h.reftable_off, old_len, err);
	if (!r)
		r = edit_finish(t->w, &t->w->ref_edit, err);
	for (i = nr; i < MAX_BLOCKS && !r; i++)
		if (t->w->reftable[i])
			r = qcow_fail(err, ENOSPC, QCOW_NO_OFF,
				      "the free space is too scattered for a refcount table");
	t->h.reftable_clusters = (uint32_t)n;
	return r < 0 ? r : qcow_txn_write_be64(t, t->h.reftable_off, t->w->reftable, nr, err);
}

/* A run that was in use and is free now. */
struct run {
	uint64_t off, len;
};

static bool add_run(struct run *runs, size_t *nr, uint64_t off, uint64_t len)
{
	if (*nr && runs[*nr - 1].off + runs[*nr - 1].len == off) {
		runs[*nr - 1].len += len;
		return true;
	}
	if (*nr == MAX_RUNS)
		return false;
	runs[(*nr)++] = (struct run){ .off = off, .len = len };
	return true;
}

/* Old blocks are free by now, too: first all are looked at, then the first is punched. */
static void find_freed(struct qcow_txn *t, struct run *runs, size_t *nr)
{
	uint64_t idx, c, end, was, is;

	for (idx = 0; idx < t->nr_old; idx++) {
		if (!t->old[idx])
			continue;
		c = idx << t->old_bits;
		for (end = c + (1ull << t->old_bits); c < end; c++) {
			if (t->old_order == t->h.refcount_order && !t->fresh[idx])
				break;
			if (old_count(t, c, &was, NULL) < 0 ||
			    qcow_ref_get(t->w, c << t->h.cluster_bits, &is, NULL) < 0)
				return;
			if (was && !is &&
			    !add_run(runs, nr, c << t->h.cluster_bits, qcow_cluster_size(&t->h)))
				return;
		}
	}
}

/* Free clusters at the file's end. */
static void cut(struct qcow_txn *t)
{
	uint64_t size, end, refs, cluster = qcow_cluster_size(&t->h);

	if (t->w->io->fixed_end || qcow_io_size(t->w->io, &size, NULL) < 0)
		return;
	for (end = round_up_cluster(t->w, size); end > cluster; end -= cluster)
		if (qcow_ref_get(t->w, end - cluster, &refs, NULL) < 0 || refs)
			break;
	if (end < size)
		(void)qcow_io_truncate(t->w->io, end, NULL);
}

/* The change is made; that space comes back is a courtesy which may fail. */
static void give_back(struct qcow_txn *t)
{
	struct run *runs = calloc(MAX_RUNS, sizeof(*runs));
	size_t nr = 0, i;

	if (!runs)
		return;
	find_freed(t, runs, &nr);
	for (i = 0; i < nr; i++)
		if (qcow_io_punch(t->w->io, runs[i].off, runs[i].len, NULL) < 0)
			break;
	free(runs);
	cut(t);
}

int qcow_txn_commit(struct qcow_txn *t, struct qcow_error *err)
{
	int r = t->l1_changed ? place_l1(t, err) : 0;

	if (!r)
		r = place_reftable(t, err);
	if (!r)
		r = writer_extend(t->w, t->end << t->h.cluster_bits, err);
	if (!r)
		r = qcow_barrier(t->w, QCOW_BARRIER_TABLE, err);
	if (r < 0)
		return r;
	/* Which of the two states is on disk is unknown from here until it is durable. */
	t->done = true;
	r = qcow_head_set_all(t->w, &t->h, t->has_sector ? t->sector : NULL, err);
	if (!r)
		r = qcow_barrier(t->w, QCOW_BARRIER_HEADER, err);
	if (!r)
		give_back(t);
	return r;
}
