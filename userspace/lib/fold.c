// SPDX-License-Identifier: GPL-2.0-only
#include "lib/fold.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/chain-priv.h"
#include "lib/fill.h"
#include "lib/zeros.h"

#define RAW_UNIT (64u << 10)

struct fold {
	const struct qcow_fold *p;
	struct qcow_scratch *st, *sb;
	struct qcow_fill *fill; /* NULL: raw */
	uint8_t *buf;		/* a unit */
	uint64_t size, unit;
	struct qcow_error *err;
};

static int next_extent(struct fold *f, uint64_t off, uint64_t len, struct qcow_extent *e)
{
	int r = qcow_chain_extent(f->p->top, off, len, e, f->st, f->err);

	return !r && e->type == QCOW_EXTENT_BROKEN ? -EIO : r;
}

/*
 * Does a layer above the base have it? So it is too where one is shorter than the base:
 * then the image shows zeros where the base need not.
 */
static bool is_above(const struct fold *f, const struct qcow_extent *e)
{
	if (e->type == QCOW_EXTENT_UNALLOCATED)
		return e->depth + 1 < f->p->depth;
	return e->depth < f->p->depth;
}

/* ---- one unit into the base -------------------------------------------------------- */

static int put_raw(struct fold *f, uint64_t off, uint64_t len)
{
	int r = -EOPNOTSUPP;

	if (qcow_is_zero(f->buf, len))
		r = qcow_io_zero(f->p->raw, off, len, f->err);
	return r == -EOPNOTSUPP ? qcow_io_pwrite(f->p->raw, f->buf, len, off, f->err) : r;
}

/* Where the base has the whole cluster for itself it is overwritten: no space is needed. */
static int put_in_place(struct fold *f, uint64_t off, bool *done)
{
	struct qcow_chain *base = f->p->base;
	uint64_t len = f->unit;
	struct qcow_extent e;
	int r;

	*done = false;
	if (off + len > qcow_chain_size(base))
		return 0;
	r = qcow_chain_extent(base, off, len, &e, f->sb, f->err);
	if (r < 0 || e.type != QCOW_EXTENT_DATA || e.depth || !e.copied || e.len < len)
		return r;
	*done = true;
	return qcow_io_pwrite(base->layers[e.layer].io, f->buf, len, e.host_off, f->err);
}

static int put_qcow2(struct fold *f, uint64_t off)
{
	bool done = false;
	int r = 0;

	if (qcow_is_zero(f->buf, f->unit))
		return qcow_fill_zero(f->fill, off, f->err);
	r = put_in_place(f, off, &done);
	return r < 0 || done ? r : qcow_fill_data(f->fill, off, f->buf, f->err);
}

static int one_unit(struct fold *f, uint64_t off)
{
	uint64_t len = f->size - off < f->unit ? f->size - off : f->unit, disk;
	int r = qcow_chain_read(f->p->top, off, f->buf, len, f->st, f->err);

	if (r < 0 || f->p->raw)
		return r < 0 ? r : put_raw(f, off, len);
	/* The base may be larger: the rest of the cluster is its own. */
	disk = qcow_chain_size(f->p->base) - off;
	memset(f->buf + len, 0, f->unit - len);
	if (len < f->unit && len < disk)
		r = qcow_chain_read(f->p->base, off + len, f->buf + len,
				    (disk < f->unit ? disk : f->unit) - len, f->sb, f->err);
	return r < 0 ? r : put_qcow2(f, off);
}

/* ---- all of it --------------------------------------------------------------------- */

static int any_above(struct fold *f, uint64_t off, bool *any)
{
	uint64_t end = f->size - off < f->unit ? f->size : off + f->unit;
	struct qcow_extent e;
	int r = 0;

	for (*any = false; off < end && !r && !*any; off += e.len) {
		r = next_extent(f, off, end - off, &e);
		*any = !r && is_above(f, &e);
	}
	return r;
}

static int copy(struct fold *f)
{
	struct qcow_extent e;
	uint64_t off, end;
	bool any;
	int r = 0;

	for (off = 0; off < f->size && !r; off = end) {
		if (f->p->cancelled && f->p->cancelled(f->p->arg))
			return qcow_fail(f->err, ECANCELED, QCOW_NO_OFF, "cancelled");
		r = next_extent(f, off, f->size - off, &e);
		if (r < 0)
			return r;
		end = off + e.len;
		if (end < f->size)
			end &= ~(f->unit - 1);
		if (is_above(f, &e) || end <= off) {
			r = any_above(f, off, &any);
			if (!r && any)
				r = one_unit(f, off);
			end = off + f->unit;
		}
		if (!r && f->p->progress)
			f->p->progress(f->p->arg, end < f->size ? end : f->size, f->size);
	}
	return r;
}

static int setup(struct fold *f)
{
	const struct qcow_fold *p = f->p;
	struct qcow_io *data = NULL;
	size_t room;
	int r = qcow_scratch_create(&f->st, p->top, f->err);

	f->unit = RAW_UNIT;
	if (!r && p->base) {
		f->unit = qcow_cluster_size(node_header(p->base, &p->base->nodes[0]));
		if (qcow_chain_data_layer(p->base))
			data = p->base->layers[qcow_chain_data_layer(p->base)].io;
		r = qcow_scratch_create(&f->sb, p->base, f->err);
		if (!r)
			r = qcow_fill_create(&f->fill, p->base->writer, data, f->err);
	}
	room = f->unit < 4096 ? 4096 : f->unit;
	f->buf = aligned_alloc(4096, room);
	if (!r && !f->buf)
		r = qcow_fail(f->err, ENOMEM, QCOW_NO_OFF, "out of memory");
	return r;
}

static int finish(struct fold *f, int r)
{
	int r2;

	if (f->p->raw)
		return r < 0 ? r : qcow_io_flush(f->p->raw, f->err);
	if (!f->fill)
		return r;
	r2 = qcow_fill_finish(f->fill, r ? NULL : f->err);
	r = r ? r : r2;
	if (!r)
		r = qcow_chain_flush_data_file(f->p->base, f->err);
	/* Tables in reserve go back, whatever happened. */
	r2 = qcow_writer_finish(f->p->base->writer, r ? NULL : f->err);
	return r ? r : r2;
}

int qcow_fold(const struct qcow_fold *p, struct qcow_error *err)
{
	struct fold f = { .p = p, .size = qcow_chain_size(p->top), .err = err };
	int r = setup(&f);

	if (!r)
		r = copy(&f);
	r = finish(&f, r);
	qcow_fill_destroy(f.fill);
	qcow_scratch_destroy(f.st);
	qcow_scratch_destroy(f.sb);
	free(f.buf);
	return r;
}

int qcow_fold_empty(struct qcow_writer *w, struct qcow_io *data, struct qcow_error *err)
{
	const struct qcow_header *h = qcow_writer_header(w);
	uint64_t mask = qcow_cluster_size(h) - 1;
	struct qcow_fill *f;
	int r = qcow_fill_create(&f, w, data, err), r2;

	if (r < 0)
		return r;
	r = qcow_fill_empty(f, 0, (h->size + mask) & ~mask, err);
	if (!r)
		r = qcow_fill_finish(f, err);
	qcow_fill_destroy(f);
	r2 = qcow_writer_finish(w, r ? NULL : err);
	return r ? r : r2;
}
