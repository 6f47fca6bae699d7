// SPDX-License-Identifier: GPL-2.0-only
#include "lib/fold.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/chain-priv.h"
#include "lib/fill.h"
#include "lib/into.h"
#include "lib/zeros.h"

#define RAW_UNIT (64u << 10)

struct fold {
	const struct qcow_fold *p;
	struct qcow_scratch *st;
	struct qcow_into *into; /* NULL: raw */
	uint8_t *buf;		/* a unit */
	uint64_t size, unit;
	struct qcow_error *err;
};

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
	if (qcow_is_zero(f->buf, len))
		return qcow_io_clear(f->p->raw, off, len, f->buf, len, f->err);
	return qcow_io_pwrite(f->p->raw, f->buf, len, off, f->err);
}

static int one_unit(struct fold *f, uint64_t off)
{
	uint64_t len = f->size - off < f->unit ? f->size - off : f->unit;
	int r = qcow_chain_read(f->p->top, off, f->buf, len, f->st, f->err);

	if (r < 0)
		return r;
	return f->into ? qcow_into_put(f->into, off, f->buf, len, f->err) : put_raw(f, off, len);
}

/* ---- all of it --------------------------------------------------------------------- */

static int any_above(struct fold *f, uint64_t off, bool *any)
{
	uint64_t end = f->size - off < f->unit ? f->size : off + f->unit;
	struct qcow_extent e;
	int r = 0;

	for (*any = false; off < end && !r && !*any; off += e.len) {
		r = qcow_chain_next(f->p->top, off, end - off, &e, f->st, f->err);
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
		r = qcow_watch_cancelled(&f->p->watch, f->err);
		if (!r)
			r = qcow_chain_next(f->p->top, off, f->size - off, &e, f->st, f->err);
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
		if (!r)
			qcow_watch_at(&f->p->watch, end < f->size ? end : f->size, f->size);
	}
	return r;
}

static int setup(struct fold *f)
{
	int r = qcow_scratch_create(&f->st, f->p->top, f->err);

	f->unit = RAW_UNIT;
	if (!r && f->p->base) {
		r = qcow_into_create(&f->into, f->p->base, f->err);
		f->unit = r ? RAW_UNIT : qcow_into_unit(f->into);
	}
	f->buf = aligned_alloc(4096, f->unit < 4096 ? 4096 : f->unit);
	if (!r && !f->buf)
		r = qcow_fail(f->err, ENOMEM, QCOW_NO_OFF, "out of memory");
	return r;
}

static int finish(struct fold *f, int r)
{
	if (f->into)
		return qcow_into_finish(f->into, r, f->err);
	return r < 0 || !f->p->raw ? r : qcow_io_flush(f->p->raw, f->err);
}

int qcow_fold(const struct qcow_fold *p, struct qcow_error *err)
{
	struct fold f = { .p = p, .size = qcow_chain_size(p->top), .err = err };
	int r = setup(&f);

	if (!r)
		r = copy(&f);
	r = finish(&f, r);
	qcow_into_destroy(f.into);
	qcow_scratch_destroy(f.st);
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
