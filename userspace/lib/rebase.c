// SPDX-License-Identifier: GPL-2.0-only
#include "lib/rebase.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fill.h"
#include "lib/headmove.h"
#include "lib/writer-priv.h"
#include "lib/zeros.h"

struct rebase {
	struct qcow_writer *w;
	const struct qcow_rebase *p;
	struct qcow_fill *fill;
	struct qcow_scratch *so, *sn;
	uint8_t *a, *b; /* a cluster each */
	uint64_t size, cluster;
	struct qcow_error *err;
};

/* The image's own, whatever lies below. What it does not have and nobody has is not. */
static bool is_own(const struct qcow_extent *e)
{
	return e->type != QCOW_EXTENT_UNALLOCATED && !e->depth;
}

/* From @off on: how many bytes need no look, because they will read the same. */
static int skip(struct rebase *z, uint64_t off, uint64_t *len)
{
	struct qcow_extent old, new;
	bool equal;
	int r = qcow_chain_next(z->p->old, off, z->size - off, &old, z->so, z->err);

	*len = 0;
	if (r < 0)
		return r;
	if (is_own(&old)) {
		*len = old.len;
		return 0;
	}
	r = qcow_chain_next(z->p->new, off, old.len, &new, z->sn, z->err);
	if (r < 0)
		return r;
	equal = qcow_extent_is_zero(&old) && qcow_extent_is_zero(&new);
	if (!equal && old.type == QCOW_EXTENT_DATA && new.type == QCOW_EXTENT_DATA && z->p->same)
		equal = z->p->same(z->p->arg, &old, &new);
	*len = equal ? new.len : 0;
	return 0;
}

/* The parts of a cluster that are not its own must read as before. */
static int differs(struct rebase *z, uint64_t off, uint64_t len, bool *differ)
{
	struct qcow_extent e;
	uint64_t pos;
	int r = qcow_chain_read(z->p->old, off, z->a, len, z->so, z->err);

	memset(z->b, 0, len);
	if (!r && z->p->new)
		r = qcow_chain_read(z->p->new, off, z->b, len, z->sn, z->err);
	*differ = false;
	for (pos = 0; pos < len && !r; pos += e.len) {
		r = qcow_chain_next(z->p->old, off + pos, len - pos, &e, z->so, z->err);
		if (!r && !is_own(&e))
			*differ |= memcmp(z->a + pos, z->b + pos, e.len) != 0;
	}
	return r;
}

static int one_cluster(struct rebase *z, uint64_t off)
{
	uint64_t len = z->size - off < z->cluster ? z->size - off : z->cluster;
	bool differ;
	int r = differs(z, off, len, &differ);

	if (r < 0 || !differ)
		return r;
	memset(z->a + len, 0, z->cluster - len);
	if (qcow_is_zero(z->a, z->cluster))
		return qcow_fill_zero(z->fill, off, z->err);
	return qcow_fill_data(z->fill, off, z->a, z->err);
}

static int copy(struct rebase *z)
{
	uint64_t off, end, len = 0;
	int r = 0;

	for (off = 0; off < z->size && !r; off = end) {
		r = qcow_watch_cancelled(&z->p->watch, z->err);
		if (!r)
			r = skip(z, off, &len);
		if (r < 0)
			return r;
		end = off + len;
		if (end < z->size)
			end &= ~(z->cluster - 1);
		if (end <= off) {
			r = one_cluster(z, off);
			end = off + z->cluster;
		}
		if (!r)
			qcow_watch_at(&z->p->watch, end < z->size ? end : z->size, z->size);
	}
	return r;
}

static int setup(struct rebase *z)
{
	size_t room = z->cluster < 4096 ? 4096 : z->cluster;
	int r = qcow_fill_create(&z->fill, z->w, z->p->data, z->err);

	if (!r)
		r = qcow_scratch_create(&z->so, z->p->old, z->err);
	if (!r && z->p->new)
		r = qcow_scratch_create(&z->sn, z->p->new, z->err);
	z->a = aligned_alloc(4096, room);
	z->b = aligned_alloc(4096, room);
	if (!r && (!z->a || !z->b))
		r = qcow_fail(z->err, ENOMEM, QCOW_NO_OFF, "out of memory");
	return r;
}

static int make_independent(struct qcow_writer *w, const struct qcow_rebase *p,
			    struct qcow_error *err)
{
	struct rebase z = { .w = w,
			    .p = p,
			    .size = qcow_chain_size(p->old),
			    .cluster = qcow_cluster_size(&w->h),
			    .err = err };
	bool had = w->h.has_backing;
	int r = setup(&z);

	/* Zeros must be said even where there is nothing yet that they hide. */
	w->h.has_backing = true;
	if (!r)
		r = copy(&z);
	if (!r)
		r = qcow_fill_finish(z.fill, err);
	else if (z.fill)
		/* What was copied may stay: it reads the same. */
		qcow_fill_finish(z.fill, NULL);
	w->h.has_backing = had;
	qcow_fill_destroy(z.fill);
	qcow_scratch_destroy(z.so);
	qcow_scratch_destroy(z.sn);
	free(z.a);
	free(z.b);
	return r;
}

int qcow_rebase(struct qcow_writer *w, const struct qcow_rebase *p, struct qcow_error *err)
{
	int r = 0, r2;

	if (p->name && w->h.autoclear & QCOW_AUTOCLEAR_DATA_RAW)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "a backing file cannot be seen through a raw data file");
	if (!p->unsafe)
		r = make_independent(w, p, err);
	if (!r)
		r = qcow_head_set_backing(w, p->name, p->format, err);
	/* Tables in reserve go back, whatever happened. */
	r2 = qcow_writer_finish(w, r ? NULL : err);
	return r ? r : r2;
}
