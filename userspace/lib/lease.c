// SPDX-License-Identifier: GPL-2.0-only
#include "lib/lease.h"

#include <errno.h>
#include <inttypes.h>

#include "lib/alloc.h"
#include "lib/refcount.h"
#include "lib/writer-priv.h"

/* ---- proposals -------------------------------------------------------------------- */

struct picker {
	struct qcow_writer *w;
	struct qcow_lease_extent *ext;
	size_t nr, max;
};

static bool joins(const struct qcow_lease_extent *a, uint64_t host_off, bool table)
{
	return a->table == table && a->host_off + a->len == host_off;
}

/* False: no room for another extent. */
static bool add_extent(struct picker *p, uint64_t host_off, uint64_t len, bool table)
{
	struct qcow_lease_extent *last = p->nr ? &p->ext[p->nr - 1] : NULL;

	if (last && joins(last, host_off, table)) {
		last->len += len;
		return true;
	}
	if (p->nr == p->max)
		return false;
	p->ext[p->nr++] =
		(struct qcow_lease_extent){ .host_off = host_off, .len = len, .table = table };
	return true;
}

static bool add_pending(struct qcow_writer *w, uint64_t host_off, uint64_t len)
{
	if (w->nr_pending == MAX_PENDING)
		return false;
	w->pending[w->nr_pending++] =
		(struct qcow_lease_extent){ .host_off = host_off, .len = len };
	return true;
}

static void remove_pending(struct qcow_writer *w, const struct qcow_lease_extent *ext)
{
	const struct qcow_lease_extent *p;
	size_t i = 0;

	while (i < w->nr_pending) {
		p = &w->pending[i];
		if (p->host_off >= ext->host_off && p->host_off < ext->host_off + ext->len)
			w->pending[i] = w->pending[--w->nr_pending];
		else
			i++;
	}
}

static int pick(struct picker *p, uint64_t from, uint64_t clusters, bool table,
		struct qcow_error *err)
{
	struct qcow_writer *w = p->w;
	uint32_t bits = w->h.cluster_bits;
	uint64_t first, nr;
	int r;

	while (clusters) {
		r = qcow_alloc_find(w, from, clusters, table, &first, &nr, err);
		if (r < 0)
			return r;
		if (w->nr_pending == MAX_PENDING)
			return qcow_fail(err, EBUSY, QCOW_NO_OFF,
					 "too many proposals are not granted");
		if (!add_extent(p, first << bits, nr << bits, table))
			return 0;
		add_pending(w, first << bits, nr << bits);
		if (from == w->free_from)
			w->free_from = first + nr;
		from = first + nr;
		clusters -= nr;
	}
	return 0;
}

/*
 * Where no data was, if there is such space: the guest may still have a crafted entry
 * to a cluster that was its own when the entry was looked at.
 */
static int pick_tables(struct picker *p, uint32_t nr, struct qcow_error *err)
{
	struct qcow_writer *w = p->w;
	int r;

	if (w->data_end > w->free_from) {
		r = pick(p, w->data_end, nr, true, err);
		if (r != -ENOSPC || p->nr)
			return r;
	}
	return pick(p, w->free_from, nr, true, err);
}

/*
 * The refcounts of a lease are one write if they are in one page. Once one lease has been
 * cut at the end of a page, those behind it fit.
 */
static int cut_to_page(struct qcow_writer *w, uint64_t *clusters, struct qcow_error *err)
{
	uint64_t per_page = META_PAGE * 8ull >> w->h.refcount_order, first, nr, left;
	int r = qcow_alloc_find(w, w->free_from, 1, false, &first, &nr, err);

	if (r < 0)
		return r;
	left = per_page - first % per_page;
	if (left < *clusters && left >= *clusters / 2)
		*clusters = left;
	return 0;
}

static int pick_data(struct picker *p, uint64_t clusters, struct qcow_error *err)
{
	int r = clusters ? cut_to_page(p->w, &clusters, err) : 0;

	return r < 0 ? r : pick(p, p->w->free_from, clusters, false, err);
}

int qcow_lease_propose(struct qcow_writer *w, uint64_t bytes, uint32_t nr_tables,
		       struct qcow_lease_extent *ext, size_t max, size_t *nr,
		       struct qcow_error *err)
{
	struct picker p = { .w = w, .ext = ext, .max = max };
	int r = writer_check(w, err);

	*nr = 0;
	if (!r && w->io->fixed_end)
		r = writer_find_end(w, err);
	if (r < 0)
		return r;
	/* Data needs its tables, so they come first when space is short. */
	r = pick_tables(&p, nr_tables, err);
	if (!r && !qcow_has_data_file(&w->h))
		r = pick_data(&p, cluster_of(w, bytes), err);
	if (p.nr && !w->failed) {
		qcow_error_clear(err);
		r = 0;
	}
	*nr = p.nr;
	return r;
}

uint32_t qcow_lease_tables_for(const struct qcow_writer *w, uint64_t bytes)
{
	uint64_t want = cluster_of(w, bytes);

	if (want > w->nr_bare)
		want = w->nr_bare;
	if (want > MAX_RESERVE)
		want = MAX_RESERVE;
	return want > w->nr_reserve ? (uint32_t)(want - w->nr_reserve) : 0;
}

uint32_t qcow_lease_tables_wanted(const struct qcow_writer *w, uint32_t nr)
{
	uint64_t most = w->nr_bare < MAX_RESERVE ? w->nr_bare : MAX_RESERVE;

	if (most <= w->nr_reserve)
		return 0;
	return nr < most - w->nr_reserve ? nr : (uint32_t)(most - w->nr_reserve);
}

uint32_t qcow_lease_tables_left(const struct qcow_writer *w)
{
	return w->nr_reserve >= w->nr_bare ? UINT32_MAX : (uint32_t)w->nr_reserve;
}

void qcow_lease_forget_all(struct qcow_writer *w)
{
	uint64_t first;

	while (w->nr_pending) {
		first = cluster_of(w, w->pending[--w->nr_pending].host_off);
		if (first < w->free_from)
			w->free_from = first;
	}
}

void qcow_lease_forget(struct qcow_writer *w, const struct qcow_lease_extent *ext, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++) {
		remove_pending(w, &ext[i]);
		if (cluster_of(w, ext[i].host_off) < w->free_from)
			w->free_from = cluster_of(w, ext[i].host_off);
	}
}

/* ---- leases ----------------------------------------------------------------------- */

static struct reserve_table *find_reserve(struct qcow_writer *w, uint64_t off)
{
	size_t i;

	for (i = 0; i < w->nr_reserve; i++)
		if (w->reserve[i].off == off)
			return &w->reserve[i];
	return NULL;
}

/* An L2 table by now, or in reserve already: then it stays what it is. */
static int add_reserve(struct qcow_writer *w, uint64_t off, bool zeroed, struct qcow_error *err)
{
	struct reserve_table *t = find_reserve(w, off);

	if (t)
		t->zeroed |= zeroed;
	if (t || qcow_metaset_kind(&w->meta, cluster_of(w, off)) == QCOW_META_L2)
		return 0;
	if (w->nr_reserve == MAX_RESERVE)
		return qcow_fail(err, EBUSY, off, "more than %d L2 tables in reserve", MAX_RESERVE);
	w->reserve[w->nr_reserve++] = (struct reserve_table){ .off = off, .zeroed = zeroed };
	return 0;
}

static int not_ours(uint64_t host_off, struct qcow_error *err)
{
	return qcow_fail(err, EIO, host_off, "the lease at %#" PRIx64 " lies on metadata",
			 host_off);
}

static int check_extent(struct qcow_writer *w, const struct qcow_lease_extent *e,
			struct qcow_error *err)
{
	uint64_t c = cluster_of(w, e->host_off), end = c + cluster_of(w, e->len);
	int kind;

	if (!e->len || (e->host_off | e->len) & (qcow_cluster_size(&w->h) - 1) || end > w->host_end)
		return qcow_fail(err, EINVAL, e->host_off, "a lease of impossible clusters");
	for (; c < end; c++) {
		kind = qcow_metaset_kind(&w->meta, c);
		if (kind && !(e->table && (kind == QCOW_META_RESERVE || kind == QCOW_META_L2)))
			return not_ours(c << w->h.cluster_bits, err);
	}
	return 0;
}

/*
 * Before the refcount says that a guest may have it: a crafted entry that points there
 * already must not be taken for good in between.
 */
static int claim_tables(struct qcow_writer *w, const struct qcow_lease_extent *e,
			struct qcow_error *err)
{
	uint64_t off;
	int r = 0;

	for (off = e->host_off; off < e->host_off + e->len && !r; off += qcow_cluster_size(&w->h))
		if (!qcow_metaset_kind(&w->meta, cluster_of(w, off)))
			r = qcow_metaset_add(&w->meta, QCOW_META_RESERVE, off, err);
	return r;
}

/* A table is worth nothing without space for the L1 entry that is to name it. */
static int back_l1(struct qcow_writer *w, struct qcow_error *err)
{
	int r = 0;

	if (!w->l1_backed)
		r = qcow_io_back(w->io, w->h.l1_off, w->h.l1_size * 8ull, err);
	if (r == -EOPNOTSUPP)
		r = 0;
	w->l1_backed = !r;
	return r;
}

/* The refcounts of an extent that was granted are all 1; else it is still a proposal. */
static int is_granted(struct qcow_writer *w, const struct qcow_lease_extent *e, bool *granted,
		      struct qcow_error *err)
{
	uint64_t off, refs;
	int r;

	*granted = true;
	for (off = e->host_off; off < e->host_off + e->len; off += qcow_cluster_size(&w->h)) {
		r = qcow_ref_get(w, off, &refs, err);
		if (r < 0)
			return r;
		*granted &= refs != 0;
	}
	return 0;
}

static bool is_proposed(const struct qcow_writer *w, const struct qcow_lease_extent *e)
{
	const struct qcow_lease_extent *p;
	uint64_t known = 0;

	for (p = w->pending; p < w->pending + w->nr_pending; p++)
		if (p->host_off >= e->host_off && p->host_off - e->host_off < e->len)
			known += p->len;
	return known == e->len;
}

/*
 * Granted already. Whoever holds it may have written there: it is not zeroed, and its
 * tables are in reserve or in use.
 */
static int grant_again(struct qcow_writer *w, struct qcow_lease_extent *e, struct qcow_error *err)
{
	bool granted;
	int r = is_granted(w, e, &granted, err);

	e->zero = false;
	if (!r && !granted)
		r = qcow_fail(err, ESTALE, e->host_off,
			      "the lease at %#" PRIx64 " was not proposed", e->host_off);
	return r;
}

static int prepare_tables(struct qcow_writer *w, const struct qcow_lease_extent *ext, size_t nr,
			  struct qcow_error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; i < nr && !r; i++) {
		if (!ext[i].table || !is_proposed(w, &ext[i]))
			continue;
		r = back_l1(w, err);
		if (!r)
			r = claim_tables(w, &ext[i], err);
	}
	return r;
}

/* Takes refcounts and makes zeros; @size is the file's before this grant. */
static int grant_one(struct qcow_writer *w, struct qcow_lease_extent *e, uint64_t size,
		     struct qcow_error *err)
{
	uint64_t off = e->host_off, end = off + e->len;
	int r;

	if (!is_proposed(w, e))
		return grant_again(w, e, err);
	r = qcow_ref_update(w, QCOW_REF_TAKE, off, e->len, err);
	if (r < 0)
		return r;
	e->zero = true;
	if (e->table) {
		/* Space behind a table now, so that a full disk can still commit. */
		for (; off < end && !r; off += qcow_cluster_size(&w->h))
			if (qcow_metaset_kind(&w->meta, cluster_of(w, off)) != QCOW_META_L2)
				r = meta_zero(w, off, qcow_cluster_size(&w->h), err);
		return r;
	}
	/* A hole: reserving its space would have the file system split extents at every write. */
	if (off >= size)
		return 0;
	r = qcow_io_zero(w->io, off, e->len, err);
	e->zero = !r;
	return r == -EOPNOTSUPP ? 0 : r;
}

static int keep_tables(struct qcow_writer *w, const struct qcow_lease_extent *e,
		       struct qcow_error *err)
{
	uint64_t off;
	int r = 0;

	for (off = e->host_off; off < e->host_off + e->len && !r; off += qcow_cluster_size(&w->h))
		r = add_reserve(w, off, true, err);
	return r;
}

static int check_extents(struct qcow_writer *w, const struct qcow_lease_extent *ext, size_t nr,
			 uint64_t *end, struct qcow_error *err)
{
	size_t i;
	int r = writer_check(w, err);

	*end = 0;
	for (i = 0; i < nr && !r; i++) {
		r = check_extent(w, &ext[i], err);
		if (ext[i].host_off + ext[i].len > *end)
			*end = ext[i].host_off + ext[i].len;
	}
	return r;
}

/* No room for all of it. Who asked may ask for less, so nothing of it stays taken. */
static void give_up(struct qcow_writer *w, const struct qcow_lease_extent *ext, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++) {
		if (!is_proposed(w, &ext[i]))
			continue;
		if (qcow_ref_update(w, QCOW_REF_RELEASE, ext[i].host_off, ext[i].len, NULL) < 0)
			return;
		qcow_lease_forget(w, &ext[i], 1);
	}
}

int qcow_lease_grant(struct qcow_writer *w, struct qcow_lease_extent *ext, size_t nr,
		     struct qcow_error *err)
{
	uint64_t size, end;
	size_t i;
	int r = check_extents(w, ext, nr, &end, err);

	if (!r)
		r = qcow_io_size(w->io, &size, err);
	if (!r)
		r = writer_extend(w, end, err);
	if (!r)
		r = prepare_tables(w, ext, nr, err);
	for (i = 0; i < nr && !r; i++)
		r = grant_one(w, &ext[i], size, err);
	if (r == -ENOSPC)
		give_up(w, ext, nr);
	if (!r)
		r = qcow_barrier(w, QCOW_BARRIER_GRANT, err);
	for (i = 0; i < nr && !r; i++) {
		if (!is_proposed(w, &ext[i]))
			continue;
		remove_pending(w, &ext[i]);
		if (ext[i].table)
			r = keep_tables(w, &ext[i], err);
		else
			writer_note_data(w, ext[i].host_off + ext[i].len);
	}
	return r;
}

static int adopt_one(struct qcow_writer *w, const struct qcow_lease_extent *e,
		     struct qcow_error *err)
{
	uint64_t off;
	bool granted;
	int r = is_granted(w, e, &granted, err);

	if (r < 0)
		return r;
	if (!granted && !add_pending(w, e->host_off, e->len))
		return qcow_fail(err, EBUSY, QCOW_NO_OFF, "too many proposals are not granted");
	if (!granted || !e->table)
		return 0;
	r = claim_tables(w, e, err);
	/* A commit may have been at work on it when its worker died. */
	for (off = e->host_off; off < e->host_off + e->len && !r; off += qcow_cluster_size(&w->h))
		r = add_reserve(w, off, false, err);
	return r;
}

int qcow_lease_adopt(struct qcow_writer *w, const struct qcow_lease_extent *ext, size_t nr,
		     struct qcow_error *err)
{
	uint64_t end;
	size_t i;
	int r = check_extents(w, ext, nr, &end, err);

	if (!r)
		r = qcow_barrier(w, QCOW_BARRIER_ADOPT, err);
	/* What the guest had of the dead worker is not known. */
	if (!r && !w->io->fixed_end)
		r = qcow_io_size(w->io, &end, err);
	if (!r)
		writer_note_data(w, end);
	for (i = 0; i < nr && !r; i++)
		r = adopt_one(w, &ext[i], err);
	return r;
}

static bool drop_reserve(struct qcow_writer *w, uint64_t off)
{
	struct reserve_table *t = find_reserve(w, off);

	if (t)
		*t = w->reserve[--w->nr_reserve];
	return t != NULL;
}

static int return_tables(struct qcow_writer *w, const struct qcow_lease_extent *e,
			 struct qcow_error *err)
{
	uint64_t off;
	int r = 0;

	for (off = e->host_off; off < e->host_off + e->len && !r; off += qcow_cluster_size(&w->h))
		if (drop_reserve(w, off))
			r = qcow_ref_update(w, QCOW_REF_RELEASE, off, 1, err);
	return r;
}

int qcow_lease_return(struct qcow_writer *w, const struct qcow_lease_extent *ext, size_t nr,
		      struct qcow_error *err)
{
	uint64_t end;
	size_t i;
	int r = check_extents(w, ext, nr, &end, err);

	for (i = 0; i < nr && !r; i++) {
		remove_pending(w, &ext[i]);
		if (ext[i].table) {
			r = return_tables(w, &ext[i], err);
			continue;
		}
		writer_note_data(w, ext[i].host_off + ext[i].len);
		r = qcow_ref_update(w, QCOW_REF_RELEASE, ext[i].host_off, ext[i].len, err);
	}
	return r;
}
