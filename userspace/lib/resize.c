// SPDX-License-Identifier: GPL-2.0-only
#include "lib/resize.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/be.h"
#include "lib/bitedit.h"
#include "lib/l2.h"
#include "lib/snapshot.h"
#include "lib/txnwalk.h"
#include "lib/writer-priv.h"

#define ALL_SUBS 0xffffffffull
#define MAX_SIZE ((1ull << 63) - (1ull << 30))

struct resize {
	struct qcow_txn t;
	const struct qcow_resize_params *p;
	uint64_t old;	      /* what the guest saw, bytes */
	uint8_t *buf, *zeros; /* a cluster each */
	uint64_t run, first;  /* preallocated: host offset of guest cluster @first */
	struct qcow_error *err;
};

/* One L2 entry of guest cluster @cluster, in host order. */
typedef int (*edit_fn)(struct resize *z, uint64_t cluster, uint64_t *entry, uint64_t *bitmap);

static uint64_t div_up(uint64_t bytes, uint32_t bits)
{
	return (bytes >> bits) + !!(bytes & ((1ull << bits) - 1));
}

static uint64_t l1_need(const struct qcow_header *h, uint64_t size)
{
	return div_up(size, qcow_l2_span_bits(h));
}

/* ---- entries ------------------------------------------------------------------------- */

/* The range lies in one table. */
static int edit_table(struct resize *z, uint32_t slot, uint64_t first, uint64_t end, edit_fn edit)
{
	uint32_t bits = qcow_l2_entry_bits(&z->t.h);
	uint64_t mask = (qcow_cluster_size(&z->t.h) >> bits) - 1, c, entry, bitmap, was[2];
	bool changed = false;
	uint8_t *p;
	int r = 0;

	for (c = first; c < end && !r; c++) {
		p = z->t.table + ((c & mask) << bits);
		was[0] = entry = qcow_be64(p);
		was[1] = bitmap = bits == 4 ? qcow_be64(p + 8) : 0;
		r = edit(z, c, &entry, &bitmap);
		changed |= entry != was[0] || bitmap != was[1];
		qcow_put_be64(p, entry);
		if (bits == 4)
			qcow_put_be64(p + 8, bitmap);
	}
	return r < 0 || !changed ? r : qcow_txn_put_l2(&z->t, slot, z->err);
}

/* @makes: what is not mapped yet is edited, too. */
static int edit_range(struct resize *z, uint64_t first, uint64_t end, edit_fn edit, bool makes)
{
	uint32_t per_bits = qcow_l2_span_bits(&z->t.h) - z->t.h.cluster_bits;
	uint64_t slot, stop, l2_off;
	int r = 0;

	for (; first < end && !r; first = stop) {
		slot = first >> per_bits;
		stop = (slot + 1) << per_bits < end ? (slot + 1) << per_bits : end;
		if (slot >= z->t.h.l1_size)
			break;
		r = qcow_txn_read_l2(&z->t, z->t.l1[slot], &l2_off, z->err);
		if (r < 0 || (!l2_off && !makes))
			continue;
		if (!l2_off)
			memset(z->t.table, 0, qcow_cluster_size(&z->t.h));
		r = edit_table(z, (uint32_t)slot, first, stop, edit);
	}
	return r;
}

static int drop_entry(struct resize *z, uint64_t cluster, uint64_t *entry, uint64_t *bitmap)
{
	int r = qcow_txn_ref_entry(&z->t, QCOW_REF_DOWN, *entry, *bitmap, z->err);

	(void)cluster;
	*entry = *bitmap = 0;
	return r;
}

static int new_cluster(struct resize *z, const uint8_t *content, uint64_t *entry)
{
	uint64_t off;
	int r = qcow_txn_alloc(&z->t, 1, &off, z->err);

	*entry = off | QCOW_ENTRY_COPIED;
	return r < 0 ? r : qcow_txn_write(&z->t, off, content, qcow_cluster_size(&z->t.h), z->err);
}

/* A backing file shines through here no more. */
static int hide_entry(struct resize *z, uint64_t cluster, uint64_t *entry, uint64_t *bitmap)
{
	(void)cluster;
	if (z->t.h.version < 3)
		return new_cluster(z, z->zeros, entry);
	if (qcow_has_extl2(&z->t.h))
		*bitmap = ALL_SUBS << 32;
	else
		*entry = QCOW_L2_ZERO;
	return 0;
}

static int place_entry(struct resize *z, uint64_t cluster, uint64_t *entry, uint64_t *bitmap)
{
	uint64_t off = z->run + ((cluster - z->first) << z->t.h.cluster_bits);

	if (qcow_has_data_file(&z->t.h))
		off = cluster << z->t.h.cluster_bits;
	*entry = off | QCOW_ENTRY_COPIED;
	/* Else a subcluster without data would show the backing file. */
	if (qcow_has_extl2(&z->t.h) && z->t.h.has_backing)
		*bitmap = ALL_SUBS << 32;
	return 0;
}

/* ---- the cluster in which the smaller disk ends ------------------------------------------ */

static int read_shown(struct resize *z, uint64_t off, size_t len)
{
	struct qcow_scratch *s;
	int r = qcow_scratch_create(&s, z->p->chain, z->err);

	if (r < 0)
		return r;
	memset(z->buf, 0, qcow_cluster_size(&z->t.h));
	r = qcow_chain_read(z->p->chain, off, z->buf, len, s, z->err);
	qcow_scratch_destroy(s);
	return r;
}

/* Would a bigger disk show more of the backing file in this cluster? */
static bool shines(const struct resize *z, uint64_t edge, uint64_t entry, uint64_t bitmap)
{
	bool open =
		qcow_has_extl2(&z->t.h) ? ((bitmap | bitmap >> 32) & ALL_SUBS) != ALL_SUBS : !entry;

	return open && z->p->backing_size > edge;
}

/* Is there anything behind @edge that a bigger disk must not show? */
static int has_rest(struct resize *z, uint64_t edge, uint64_t entry, uint64_t bitmap, bool *rest)
{
	uint64_t size = qcow_cluster_size(&z->t.h), in = edge & (size - 1);
	int r;

	*rest = entry & QCOW_L2_COMPRESSED || shines(z, edge, entry, bitmap);
	if (*rest || !(entry & QCOW_ENTRY_OFF_MASK))
		return 0;
	r = qcow_io_pread(z->t.w->io, z->buf, size, entry & QCOW_ENTRY_OFF_MASK, z->err);
	*rest = !r && memcmp(z->buf + in, z->zeros, size - in) != 0;
	return r;
}

/* The cluster is written anew, with zeros behind the disk's end. */
static int trim_entry(struct resize *z, uint64_t cluster, uint64_t *entry, uint64_t *bitmap)
{
	uint64_t edge = z->p->size < z->old ? z->p->size : z->old, old = *entry;
	uint64_t start = cluster << z->t.h.cluster_bits;
	bool rest;
	int r = has_rest(z, edge, *entry, *bitmap, &rest);

	if (r < 0 || !rest)
		return r;
	r = read_shown(z, start, edge - start);
	if (!r)
		r = new_cluster(z, z->buf, entry);
	if (!r)
		r = qcow_txn_ref_entry(&z->t, QCOW_REF_DOWN, old, *bitmap, z->err);
	if (qcow_has_extl2(&z->t.h))
		*bitmap = ALL_SUBS;
	return r;
}

/* The cluster becomes the data file's, which has only zeros behind the disk's end. */
static int own_entry(struct resize *z, uint64_t cluster, uint64_t *entry, uint64_t *bitmap)
{
	uint64_t start = cluster << z->t.h.cluster_bits;
	int r;

	if (!z->p->data || !shines(z, z->old, *entry, *bitmap))
		return 0;
	r = read_shown(z, start, z->old - start);
	if (!r)
		r = qcow_io_pwrite(z->p->data, z->buf, z->old - start, start, z->err);
	*entry = start | QCOW_ENTRY_COPIED;
	if (qcow_has_extl2(&z->t.h))
		*bitmap = ALL_SUBS;
	return r;
}

static int trim_edge(struct resize *z)
{
	uint64_t edge = z->p->size < z->old ? z->p->size : z->old;
	uint64_t cluster = edge >> z->t.h.cluster_bits;
	bool data = qcow_has_data_file(&z->t.h), behind = z->p->backing_size > edge;

	/* A data file itself ends there, or is cleared. */
	if (!(edge & (qcow_cluster_size(&z->t.h) - 1)) || (data && z->p->size < z->old))
		return 0;
	return edit_range(z, cluster, cluster + 1, data ? own_entry : trim_entry, behind);
}

/* ---- preallocation ----------------------------------------------------------------------- */

static int write_zeros(struct resize *z, uint64_t off, uint64_t len)
{
	uint64_t cluster = qcow_cluster_size(&z->t.h), done;
	int r = 0;

	for (done = 0; done < len && !r; done += cluster)
		r = qcow_txn_write(&z->t, off + done, z->zeros, cluster, z->err);
	return r;
}

/* What lies behind the file's end are zeros already. */
static int fill_run(struct resize *z, uint64_t len)
{
	int r = -EOPNOTSUPP;

	if (z->p->prealloc == QCOW_PREALLOC_METADATA && !z->t.w->io->fixed_end)
		return 0;
	if (z->p->prealloc != QCOW_PREALLOC_FULL)
		r = qcow_io_zero(z->t.w->io, z->run, len, z->err);
	return r == -EOPNOTSUPP ? write_zeros(z, z->run, len) : r;
}

static int preallocate(struct resize *z)
{
	uint64_t end = div_up(z->p->size, z->t.h.cluster_bits), behind;
	bool raw = z->t.h.autoclear & QCOW_AUTOCLEAR_DATA_RAW;
	int r = 0;

	z->first = div_up(z->old, z->t.h.cluster_bits);
	if ((!z->p->prealloc && !raw) || z->first >= end)
		return 0;
	if (!qcow_has_data_file(&z->t.h)) {
		behind = div_up(z->t.w->first_size, z->t.h.cluster_bits);
		if (!z->t.w->io->fixed_end && z->t.cursor < behind)
			z->t.cursor = behind;
		r = qcow_txn_alloc(&z->t, end - z->first, &z->run, z->err);
		if (!r)
			r = fill_run(z, (end - z->first) << z->t.h.cluster_bits);
	}
	return r < 0 ? r : edit_range(z, z->first, end, place_entry, true);
}

/* ---- the two ways -------------------------------------------------------------------------- */

/* L1 entries from @from on: none of them is the disk's. */
static int drop_l1(struct resize *z, uint64_t from)
{
	uint64_t size = z->t.h.l1_size;
	int r;

	if (from >= size)
		return 0;
	r = qcow_txn_ref_l1(&z->t, QCOW_REF_DOWN, z->t.l1 + from, (uint32_t)(size - from), z->err);
	memset(z->t.l1 + from, 0, (size - from) * 8);
	return r;
}

static int clear_behind(struct resize *z, uint64_t size)
{
	uint64_t from = l1_need(&z->t.h, size);
	int r = drop_l1(z, from);

	if (!r)
		r = edit_range(z, div_up(size, z->t.h.cluster_bits),
			       from << (qcow_l2_span_bits(&z->t.h) - z->t.h.cluster_bits),
			       drop_entry, false);
	return r;
}

static int hide_backing(struct resize *z)
{
	uint64_t size = z->p->backing_size < z->p->size ? z->p->backing_size : z->p->size;
	uint32_t bits = z->t.h.cluster_bits;

	if (size <= z->old || z->p->prealloc)
		return 0;
	return edit_range(z, div_up(z->old, bits), div_up(size, bits), hide_entry, true);
}

static int clear_data(struct resize *z, uint64_t off, uint64_t end)
{
	if (off >= end)
		return 0;
	return qcow_io_clear(z->p->data, off, end - off, z->zeros, qcow_cluster_size(&z->t.h),
			     z->err);
}

/* It keeps what was there; raw it shows that, else only in the cluster where the disk ended. */
static int grow_on_device(struct resize *z, uint64_t size)
{
	uint64_t end = div_up(z->old, z->t.h.cluster_bits) << z->t.h.cluster_bits;

	if (size < z->p->size)
		return qcow_fail(z->err, ENOSPC, QCOW_NO_OFF,
				 "the device of the data file has only %" PRIu64 " bytes", size);
	if (end > z->p->size || z->p->prealloc || z->t.h.autoclear & QCOW_AUTOCLEAR_DATA_RAW)
		end = z->p->size;
	return clear_data(z, z->old, end);
}

static int grow_file(struct resize *z, uint64_t size)
{
	struct qcow_io *io = z->p->data;
	int r;

	/* Whatever lies behind the disk's end, nobody has written through us. */
	r = qcow_io_truncate(io, z->old < size ? z->old : size, z->err);
	if (!r)
		r = qcow_io_truncate(io, z->p->size, z->err);
	if (!r && z->p->prealloc > QCOW_PREALLOC_METADATA)
		r = qcow_io_zero(io, z->old, z->p->size - z->old, z->err);
	return r == -EOPNOTSUPP ? 0 : r;
}

static int grow_data_file(struct resize *z)
{
	uint64_t size;
	int r;

	if (!z->p->data)
		return 0;
	r = qcow_io_size(z->p->data, &size, z->err);
	if (!r)
		r = z->p->data->fixed_end ? grow_on_device(z, size) : grow_file(z, size);
	return r < 0 ? r : qcow_io_flush(z->p->data, z->err);
}

/* After the commit: until then the disk has what is behind its new end. */
static int shrink_data_file(struct resize *z)
{
	struct qcow_io *io = z->p->data;

	if (!io)
		return 0;
	return io->fixed_end ? clear_data(z, z->p->size, z->old)
			     : qcow_io_truncate(io, z->p->size, z->err);
}

static int change(struct resize *z)
{
	uint64_t smaller = z->p->size < z->old ? z->p->size : z->old;
	int r = clear_behind(z, smaller);

	if (!r)
		r = trim_edge(z);
	if (!r)
		r = qcow_txn_size_l1(&z->t, (uint32_t)l1_need(&z->t.h, z->p->size), z->err);
	if (!r && z->p->size > z->old)
		r = hide_backing(z);
	if (!r && z->p->size > z->old)
		r = preallocate(z);
	if (!r && z->p->size > z->old)
		r = grow_data_file(z);
	z->t.h.size = z->p->size;
	if (!r)
		r = qcow_txn_bitmaps(&z->t, z->p->size, false, z->err);
	if (!r)
		r = qcow_txn_commit(&z->t, z->err);
	if (!r && z->p->size < z->old)
		r = shrink_data_file(z);
	return r;
}

static int check(const struct qcow_header *h, const struct qcow_resize_params *p,
		 struct qcow_error *err)
{
	if (!p->size || p->size & 511)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "a disk's size is a multiple of 512 bytes, and not 0");
	if (p->size > MAX_SIZE || l1_need(h, p->size) > QCOW_MAX_L1_ENTRIES)
		return qcow_fail(err, EFBIG, QCOW_NO_OFF,
				 "a disk with clusters of %" PRIu64 " bytes cannot be that big",
				 qcow_cluster_size(h));
	if (p->prealloc && p->size < h->size)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "only what is new can be preallocated, and this is less");
	if (h->version < 3 && h->nr_snapshots)
		return qcow_fail(
			err, ENOTSUP, QCOW_NO_OFF,
			"version 2 does not record the sizes of snapshots; delete them, or: "
			"qcow amend -o compat=1.1");
	return 0;
}

/* Snapshots of an image that was version 2 once may be of whatever size the disk has. */
static int check_snapshot(const struct qcow_snapshot *s, void *arg)
{
	if (s->has_disk_size)
		return 0;
	return qcow_fail(arg, ENOTSUP, QCOW_NO_OFF,
			 "snapshot \"%s\" does not record the size of its disk; delete it",
			 s->name);
}

int qcow_resize(struct qcow_writer *w, const struct qcow_resize_params *p, struct qcow_error *err)
{
	struct resize z = { .p = p, .old = w->h.size & ~511ull, .err = err };
	size_t cluster = qcow_cluster_size(&w->h), room = cluster < META_PAGE ? META_PAGE : cluster;
	int r = check(&w->h, p, err);

	if (r < 0 || p->size == w->h.size)
		return r;
	r = qcow_snapshots_walk(w->io, &w->h, check_snapshot, err, err);
	if (r < 0)
		return r;
	r = qcow_txn_begin(&z.t, w, w->h.refcount_order, err);
	z.buf = aligned_alloc(META_PAGE, room);
	z.zeros = aligned_alloc(META_PAGE, room);
	if (!r && (!z.buf || !z.zeros))
		r = qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	if (!r) {
		memset(z.zeros, 0, room);
		r = change(&z);
	}
	qcow_txn_end(&z.t);
	free(z.buf);
	free(z.zeros);
	return r;
}
