// SPDX-License-Identifier: GPL-2.0-only
/* What qcow_writer_create() reads: the tables it keeps, and where all metadata is. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lib/be.h"
#include "lib/bitmap.h"
#include "lib/l2.h"
#include "lib/writer-priv.h"

/* Of all snapshots together; an image that needs more is read-only here. */
#define MAX_SNAP_L1_BYTES (256ull << 20)
#define HOST_OFF_BITS	  56

struct loader {
	struct qcow_writer *w;
	uint64_t snap_l1_bytes, snap_end;
	struct qcow_error *err;
};

/* Into host order, in place. */
static int read_be64s(struct qcow_writer *w, uint64_t off, uint64_t *out, size_t nr,
		      struct qcow_error *err)
{
	size_t i;
	int r = qcow_io_pread(w->io, out, nr * 8, off, err);

	for (i = 0; !r && i < nr; i++)
		out[i] = qcow_be64(&out[i]);
	return r;
}

static int damaged(const char *what, uint64_t off, struct qcow_error *err)
{
	return qcow_fail(err, EIO, off, "%s at %#" PRIx64 " is %s; qcow check shows the damage",
			 what, off, "not where it could be");
}

static bool is_possible(const struct qcow_writer *w, uint64_t off)
{
	return !(off & (qcow_cluster_size(&w->h) - 1)) && !(off >> HOST_OFF_BITS);
}

/* Room to grow: twice what the disk and the file need now, more is met with ENOSPC. */
static uint64_t reftable_room(const struct qcow_writer *w)
{
	uint64_t clusters = (w->h.size >> w->h.cluster_bits) + cluster_of(w, w->first_size);
	uint64_t entries = 2 * ((2 * clusters) >> w->refblock_bits) + 4096;

	if (entries < w->nr_reftable)
		entries = w->nr_reftable;
	return entries < QCOW_MAX_REFTABLE / 8 ? entries : QCOW_MAX_REFTABLE / 8;
}

static int load_reftable(struct qcow_writer *w, struct qcow_error *err)
{
	uint64_t i;
	int r;

	w->refblock_bits = w->h.cluster_bits + 3 - w->h.refcount_order;
	w->nr_reftable = ((uint64_t)w->h.reftable_clusters << w->h.cluster_bits) / 8;
	w->max_reftable = reftable_room(w);
	w->reftable = calloc(w->max_reftable, 8);
	if (!w->reftable)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for the refcount table");
	r = read_be64s(w, w->h.reftable_off, w->reftable, w->nr_reftable, err);
	if (r < 0)
		return r;
	r = qcow_metaset_add_range(&w->meta, QCOW_META_REFTABLE, w->h.reftable_off,
				   w->nr_reftable * 8, err);
	for (i = 0; i < w->nr_reftable && !r; i++) {
		w->reftable[i] &= ~511ull;
		if (!w->reftable[i])
			continue;
		if (!is_possible(w, w->reftable[i]))
			return damaged("refcount block", w->reftable[i], err);
		r = qcow_metaset_add(&w->meta, QCOW_META_REFBLOCK, w->reftable[i], err);
	}
	return r;
}

static int add_l2_tables(struct qcow_writer *w, const uint64_t *l1, size_t nr,
			 struct qcow_error *err)
{
	uint64_t off;
	size_t i;
	int r = 0;

	for (i = 0; i < nr && !r; i++) {
		off = l1[i] & QCOW_ENTRY_OFF_MASK;
		if (!off)
			continue;
		if (!is_possible(w, off))
			return damaged("L2 table", off, err);
		r = qcow_metaset_add(&w->meta, QCOW_META_L2, off, err);
	}
	return r;
}

static int load_l1(struct qcow_writer *w, struct qcow_error *err)
{
	uint32_t i;
	int r;

	w->l1 = calloc(w->h.l1_size + 1ul, 8);
	if (!w->l1)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for the L1 table");
	r = read_be64s(w, w->h.l1_off, w->l1, w->h.l1_size, err);
	for (i = 0; !r && i < w->h.l1_size; i++)
		w->nr_bare += !(w->l1[i] & QCOW_ENTRY_COPIED);
	return r < 0 ? r : add_l2_tables(w, w->l1, w->h.l1_size, err);
}

/* Cluster by cluster: there may be many, and ranges are searched one after another. */
static int add_clusters(struct qcow_writer *w, enum qcow_meta_kind kind, uint64_t off, uint64_t len,
			struct qcow_error *err)
{
	uint64_t done;
	int r = 0;

	for (done = 0; done < len && !r; done += qcow_cluster_size(&w->h))
		r = qcow_metaset_add(&w->meta, kind, off + done, err);
	return r;
}

static int load_snapshot_l1(struct loader *l, const struct qcow_snapshot *s)
{
	struct qcow_writer *w = l->w;
	uint64_t done, n, *buf = (uint64_t *)w->cluster;
	int r = add_clusters(w, QCOW_META_L1, s->l1_off, s->l1_size * 8ull, l->err);

	for (done = 0; done < s->l1_size && !r; done += n) {
		n = qcow_cluster_size(&w->h) / 8;
		if (n > s->l1_size - done)
			n = s->l1_size - done;
		r = read_be64s(w, s->l1_off + done * 8, buf, n, l->err);
		if (!r)
			r = add_l2_tables(w, buf, n, l->err);
	}
	return r;
}

static int visit_snapshot(const struct qcow_snapshot *s, void *arg)
{
	struct loader *l = arg;
	int r = qcow_snapshot_check(s, &l->w->h, l->err);

	if (r < 0)
		return r;
	l->snap_end = s->entry_off + s->entry_len;
	l->snap_l1_bytes += s->l1_size * 8ull;
	if (l->snap_l1_bytes > MAX_SNAP_L1_BYTES)
		return qcow_fail(l->err, EFBIG, s->l1_off,
				 "the snapshots' L1 tables have more than %llu MiB together",
				 MAX_SNAP_L1_BYTES >> 20);
	return load_snapshot_l1(l, s);
}

static int load_snapshots(struct loader *l)
{
	struct qcow_writer *w = l->w;
	int r;

	if (!w->h.nr_snapshots)
		return 0;
	r = qcow_snapshots_walk(w->io, &w->h, visit_snapshot, l, l->err);
	if (r < 0)
		return r;
	return qcow_metaset_add_range(&w->meta, QCOW_META_SNAPSHOTS, w->h.snapshots_off,
				      l->snap_end - w->h.snapshots_off, l->err);
}

static int visit_bitmap(const struct qcow_bitmap *b, void *arg)
{
	struct loader *l = arg;

	return add_clusters(l->w, QCOW_META_BITMAPS, b->table_off, b->table_size * 8ull, l->err);
}

static int load_bitmaps(struct loader *l)
{
	struct qcow_writer *w = l->w;
	int r;

	if (!w->h.nr_bitmaps)
		return 0;
	r = add_clusters(w, QCOW_META_BITMAPS, w->h.bitmap_dir_off, w->h.bitmap_dir_size, l->err);
	return r < 0 ? r : qcow_bitmaps_walk(w->io, &w->h, visit_bitmap, l, l->err);
}

int writer_find_end(struct qcow_writer *w, struct qcow_error *err)
{
	uint64_t end = (QCOW_MAX_REFTABLE / 8ull) << w->refblock_bits;
	uint64_t format = 1ull << (HOST_OFF_BITS - w->h.cluster_bits), size;
	int r = qcow_io_size(w->io, &size, err);

	if (r < 0)
		return r;
	if (end > format)
		end = format;
	if (w->io->fixed_end && cluster_of(w, size) < end)
		end = cluster_of(w, size);
	if (w->host_end < end)
		w->host_end = end;
	return 0;
}

/* All that may still become metadata: nothing may be allocated when it does. */
static int reserve_room(struct qcow_writer *w, struct qcow_error *err)
{
	size_t nr = w->nr_bare + 2ul * MAX_RESERVE;
	uint64_t i;

	for (i = 0; i < w->max_reftable; i++)
		nr += !w->reftable[i];
	/* A bigger refcount table is half as big again at least, so all are thrice the last. */
	nr += 3 * cluster_of(w, w->max_reftable * 8) + 3;
	if (qcow_metaset_reserve(&w->meta, nr) < 0)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory to keep track of %zu tables",
				 nr);
	return 0;
}

int load_tables(struct qcow_writer *w, bool drop_bitmaps, struct qcow_error *err)
{
	struct loader l = { .w = w, .err = err };
	int r;

	r = qcow_io_size(w->io, &w->first_size, err);
	if (r < 0)
		return r;
	r = qcow_metaset_add_range(&w->meta, QCOW_META_HEADER, 0, 1, err);
	if (r < 0)
		return r;
	r = qcow_metaset_add_range(&w->meta, QCOW_META_L1, w->h.l1_off, w->h.l1_size * 8ull, err);
	if (r < 0)
		return r;
	r = load_reftable(w, err);
	if (r < 0)
		return r;
	r = load_l1(w, err);
	if (r < 0)
		return r;
	r = load_snapshots(&l);
	if (r < 0)
		return r;
	r = drop_bitmaps ? 0 : load_bitmaps(&l);
	if (r < 0)
		return r;
	r = writer_find_end(w, err);
	return r < 0 ? r : reserve_room(w, err);
}
