// SPDX-License-Identifier: GPL-2.0-only
/*
 * One step of a commit:
 *
 *   for each guest cluster, in order: its L2 entry is computed (delta.c) and put into
 *   the page of the table it belongs to; a page is written when the next one is
 *   begun. An L1 entry without a table of its own gets a fresh one from the reserve,
 *   empty or a copy of the shared one; nothing points to it yet.
 *   barrier L2_TABLE, if fresh tables were not zeros; their L1 entries are written
 *   barrier COMMIT
 *
 * A step ends early when there is no room to note what it loses, or no table in
 * reserve and none to be had; what it did is then complete in itself.
 */
#include "lib/commit.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/be.h"
#include "lib/delta.h"
#include "lib/l2.h"
#include "lib/refcount.h"
#include "lib/writer-priv.h"

/* Tables taken at once when the reserve is empty: the command line has none ahead. */
#define REFILL 8
/* What one cluster can lose: three host clusters and an L2 table. */
#define LOST_PER_CLUSTER 4

struct step {
	struct qcow_writer *w;
	struct qcow_commit *c;
	struct qcow_error *err;
	uint64_t slot;	 /* L1 index of what follows; UINT64_MAX at first */
	uint64_t own;	 /* host offset of its own table, 0 = none */
	uint64_t shared; /* of one it must not change, 0 = none */
};

/* ---- checks ------------------------------------------------------------------------ */

static int bad_delta(const struct qcow_delta *d, const char *why, struct qcow_error *err)
{
	return qcow_fail(err, EINVAL, QCOW_NO_OFF,
			 "change of %" PRIu64 " bytes at guest offset %#" PRIx64 ": %s", d->len,
			 d->guest_off, why);
}

static int check_data(struct qcow_writer *w, const struct qcow_delta *d, struct qcow_error *err)
{
	uint64_t in_cluster = qcow_cluster_size(&w->h) - 1;

	if (qcow_has_data_file(&w->h))
		return d->host_off == d->guest_off
			       ? 0
			       : bad_delta(d, "not at the same offset of the data file", err);
	if ((d->host_off ^ d->guest_off) & in_cluster || d->host_off >> 56 ||
	    d->len > (1ull << 56) - d->host_off)
		return bad_delta(d, "at an impossible host offset", err);
	if (qcow_metaset_has(&w->meta, d->host_off, d->len))
		return qcow_fail(err, EIO, d->host_off,
				 "guest data would lie on metadata at %#" PRIx64, d->host_off);
	return 0;
}

static bool has_place(const struct qcow_delta *d)
{
	return d->type == QCOW_DELTA_DATA || (d->type == QCOW_DELTA_ZERO_KEEP && d->host_off);
}

static int check_deltas(struct qcow_writer *w, const struct qcow_commit *c, struct qcow_error *err)
{
	uint64_t block = (1ull << qcow_block_bits(&w->h)) - 1, from = 0;
	uint64_t end = (uint64_t)w->h.l1_size << qcow_l2_span_bits(&w->h);
	const struct qcow_delta *d;
	int r;

	for (d = c->deltas; d < c->deltas + c->nr; d++) {
		if (!d->len || (d->guest_off | d->len) & block)
			return bad_delta(d, "not in blocks", err);
		if (d->guest_off < from)
			return bad_delta(d, "out of order", err);
		if (d->guest_off > end || d->len > end - d->guest_off)
			return bad_delta(d, "past the disk's end", err);
		r = has_place(d) ? check_data(w, d, err) : 0;
		if (r < 0)
			return r;
		from = d->guest_off + d->len;
	}
	return 0;
}

/* ---- tables ------------------------------------------------------------------------ */

static void enter_slot(struct step *s, uint64_t guest_off)
{
	uint64_t slot = guest_off >> qcow_l2_span_bits(&s->w->h), entry;

	if (slot == s->slot)
		return;
	entry = s->w->l1[slot];
	s->slot = slot;
	s->own = entry & QCOW_ENTRY_COPIED ? entry & QCOW_ENTRY_OFF_MASK : 0;
	s->shared = s->own ? 0 : entry & QCOW_ENTRY_OFF_MASK;
}

static int refill_reserve(struct step *s)
{
	struct qcow_lease_extent ext[REFILL];
	size_t nr;
	int r;

	r = qcow_lease_propose(s->w, 0, REFILL, ext, REFILL, &nr, s->err);
	return r < 0 ? r : qcow_lease_grant(s->w, ext, nr, s->err);
}

/* COPIED in a table that was shared promises too much, unless the refcount agrees. */
static int unmark_shared(struct qcow_writer *w, uint8_t *p, struct qcow_error *err)
{
	uint64_t entry = qcow_be64(p), refs;
	int r;

	if (!(entry & QCOW_ENTRY_COPIED) || qcow_has_data_file(&w->h))
		return 0;
	r = qcow_ref_get(w, entry & QCOW_ENTRY_OFF_MASK, &refs, err);
	if (!r && refs != 1)
		qcow_put_be64(p, entry & ~QCOW_ENTRY_COPIED);
	return r;
}

static int copy_table(struct qcow_writer *w, uint64_t from, uint64_t to, struct qcow_error *err)
{
	size_t size = qcow_cluster_size(&w->h), i;
	int r = qcow_io_pread(w->io, w->cluster, size, from, err);

	for (i = 0; i < size && !r; i += 1ul << qcow_l2_entry_bits(&w->h))
		r = unmark_shared(w, w->cluster + i, err);
	return r < 0 ? r : meta_write(w, to, w->cluster, size, err);
}

static int fill_table(struct step *s, const struct reserve_table *t)
{
	struct qcow_writer *w = s->w;

	if (s->shared)
		return copy_table(w, s->shared, t->off, s->err);
	if (t->zeroed)
		return 0;
	memset(w->cluster, 0, qcow_cluster_size(&w->h));
	return meta_write(w, t->off, w->cluster, qcow_cluster_size(&w->h), s->err);
}

/* The slot gets a table of its own, which nothing points to before publish(). */
static int make_table(struct step *s)
{
	struct qcow_writer *w = s->w;
	struct reserve_table *t;
	struct fresh_table fresh;
	int r = w->nr_reserve ? 0 : refill_reserve(s);

	if (r < 0)
		return r;
	t = &w->reserve[w->nr_reserve - 1];
	fresh = (struct fresh_table){ .slot = (uint32_t)s->slot,
				      .off = t->off,
				      .was_zero = t->zeroed && !s->shared };
	r = fill_table(s, t);
	t->zeroed = false;
	if (r < 0)
		return r;
	if (s->shared)
		w->lost[w->nr_lost++] = (struct qcow_lost){ .host_off = s->shared,
							    .len = qcow_cluster_size(&w->h),
							    .table = true };
	w->fresh[w->nr_fresh++] = fresh;
	w->nr_reserve--;
	s->own = t->off;
	s->shared = 0;
	return 0;
}

/* ---- entries ----------------------------------------------------------------------- */

static uint64_t entry_off(const struct step *s, uint64_t table, uint64_t cluster_off)
{
	const struct qcow_header *h = &s->w->h;
	uint64_t in_table = cluster_off & ((1ull << qcow_l2_span_bits(h)) - 1);

	return table + (in_table >> h->cluster_bits << qcow_l2_entry_bits(h));
}

static int read_entry(struct step *s, uint64_t cluster_off, struct delta_entry *e)
{
	uint64_t table = s->own ? s->own : s->shared;
	uint8_t raw[16] = { 0 }, *p = raw;
	int r = 0;

	if (s->own)
		r = edit_at(s->w, &s->w->l2_edit, entry_off(s, table, cluster_off), &p, s->err);
	else if (s->shared)
		r = meta_read(s->w, entry_off(s, table, cluster_off), raw,
			      1ul << qcow_l2_entry_bits(&s->w->h), s->err);
	*e = (struct delta_entry){ 0 };
	if (r < 0)
		return r;
	e->entry = qcow_be64(p);
	if (qcow_has_extl2(&s->w->h))
		e->bitmap = qcow_be64(p + 8);
	return 0;
}

static int write_entry(struct step *s, uint64_t cluster_off, const struct delta_entry *e)
{
	uint8_t *p;
	int r;

	r = edit_at(s->w, &s->w->l2_edit, entry_off(s, s->own, cluster_off), &p, s->err);
	if (r < 0)
		return r;
	qcow_put_be64(p, e->entry);
	if (qcow_has_extl2(&s->w->h))
		qcow_put_be64(p + 8, e->bitmap);
	edit_touch(&s->w->l2_edit, p);
	return 0;
}

/* Applies all deltas of one cluster; @i: the first one. */
static int compute_entry(struct step *s, uint64_t cluster_off, size_t i, struct delta_entry *e)
{
	const struct qcow_header *h = &s->w->h;
	int r = 0;

	for (; i < s->c->nr && !r; i++) {
		if (s->c->deltas[i].guest_off >= cluster_off + qcow_cluster_size(h))
			break;
		r = delta_apply(h, cluster_off, &s->c->deltas[i], e, s->err);
	}
	return r < 0 ? r : delta_finish(h, cluster_off, e, s->err);
}

static void note_lost(struct step *s, uint64_t cluster_off, const struct delta_entry *old,
		      const struct delta_entry *new)
{
	struct qcow_writer *w = s->w;
	struct qcow_lost *lost = &w->lost[w->nr_lost];
	int nr = delta_lost(&w->h, cluster_off, old, new, lost);

	if (nr && !(lost->exclusive && s->c->keep_exclusive))
		w->nr_lost += (size_t)nr;
}

static int one_cluster(struct step *s, uint64_t cluster_off)
{
	struct delta_entry old, new;
	int r;

	enter_slot(s, cluster_off);
	r = read_entry(s, cluster_off, &old);
	if (r < 0)
		return r;
	new = old;
	r = compute_entry(s, cluster_off, s->c->next, &new);
	if (r < 0 || (new.entry == old.entry &&new.bitmap == old.bitmap))
		return r;
	if (!s->own) {
		r = make_table(s);
		/* The copy may know better what is exclusive. */
		if (!r)
			r = read_entry(s, cluster_off, &old);
		if (r < 0)
			return r;
	}
	r = write_entry(s, cluster_off, &new);
	if (!r)
		note_lost(s, cluster_off, &old, &new);
	return r;
}

/*
 * Nothing there, and nothing to become of it: on to the next table. Not if there are
 * zeros with a place of their own: nobody else would know of it.
 */
static bool skips_slot(struct step *s, const struct qcow_delta *d, uint64_t off)
{
	bool clears = d->type == QCOW_DELTA_UNALLOCATED || (!has_place(d) && !s->w->h.has_backing);

	enter_slot(s, off);
	return clears && !s->own && !s->shared;
}

static void advance(struct step *s, uint64_t off)
{
	struct qcow_commit *c = s->c;

	c->next_off = off;
	while (c->next < c->nr && c->deltas[c->next].guest_off + c->deltas[c->next].len <= off)
		c->next++;
}

static bool has_room(const struct qcow_writer *w)
{
	return w->nr_lost + LOST_PER_CLUSTER <= MAX_LOST && w->nr_fresh < MAX_FRESH;
}

static int next_cluster(struct step *s)
{
	const struct qcow_header *h = &s->w->h;
	const struct qcow_delta *d = &s->c->deltas[s->c->next];
	uint64_t off = d->guest_off > s->c->next_off ? d->guest_off : s->c->next_off;
	uint64_t cluster_off = off & ~(qcow_cluster_size(h) - 1);
	uint64_t end = d->guest_off + d->len;
	int r;

	if (skips_slot(s, d, off)) {
		off = (s->slot + 1) << qcow_l2_span_bits(h);
		advance(s, off < end ? off : end);
		return 0;
	}
	r = one_cluster(s, cluster_off);
	if (!r)
		advance(s, cluster_off + qcow_cluster_size(h));
	return r;
}

/* ---- the step ---------------------------------------------------------------------- */

static int write_l1(struct qcow_writer *w, struct qcow_error *err)
{
	size_t i;
	uint8_t *p;
	int r = 0;

	for (i = 0; i < w->nr_fresh && !r; i++) {
		r = edit_at(w, &w->l2_edit, w->h.l1_off + w->fresh[i].slot * 8ull, &p, err);
		if (r < 0)
			return r;
		qcow_put_be64(p, w->fresh[i].off | QCOW_ENTRY_COPIED);
		edit_touch(&w->l2_edit, p);
	}
	return edit_finish(w, &w->l2_edit, err);
}

/* A table that durably reads as zeros is what no table is: no barrier keeps them apart. */
static bool needs_barrier(const struct qcow_writer *w)
{
	size_t i;

	for (i = 0; i < w->nr_fresh; i++)
		if (!w->fresh[i].was_zero)
			return true;
	return false;
}

static int publish_fresh(struct qcow_writer *w, struct qcow_error *err)
{
	size_t i;
	int r = needs_barrier(w) ? qcow_barrier(w, QCOW_BARRIER_L2_TABLE, err) : 0;

	if (!r)
		r = write_l1(w, err);
	if (r < 0) {
		/*
		 * Whether anything points to the fresh tables is unknown from here on: they
		 * can be put there again, and be nothing else.
		 */
		w->unpublished = r == -ENOSPC;
		w->failed |= !w->unpublished;
		return r;
	}
	w->unpublished = false;
	for (i = 0; i < w->nr_fresh && !r; i++) {
		w->nr_bare -= !(w->l1[w->fresh[i].slot] & QCOW_ENTRY_COPIED);
		w->l1[w->fresh[i].slot] = w->fresh[i].off | QCOW_ENTRY_COPIED;
		r = qcow_metaset_add(&w->meta, QCOW_META_L2, w->fresh[i].off, err);
	}
	w->nr_fresh = 0;
	return r;
}

int commit_leftover(struct qcow_writer *w, struct qcow_error *err)
{
	return w->unpublished ? publish_fresh(w, err) : 0;
}

static int finish_step(struct qcow_writer *w, struct qcow_error *err)
{
	int r = edit_finish(w, &w->l2_edit, err);

	if (!r && w->nr_fresh)
		r = publish_fresh(w, err);
	return r < 0 ? r : qcow_barrier(w, QCOW_BARRIER_COMMIT, err);
}

/* Fresh tables that were not published are in reserve again. */
static void abandon(struct qcow_writer *w)
{
	edit_forget(&w->l2_edit);
	w->nr_lost = 0;
	if (w->unpublished)
		return;
	while (w->nr_fresh && w->nr_reserve < MAX_RESERVE)
		w->reserve[w->nr_reserve++] =
			(struct reserve_table){ .off = w->fresh[--w->nr_fresh].off };
	w->nr_fresh = 0;
}

int qcow_commit_step(struct qcow_writer *w, struct qcow_commit *c, struct qcow_error *err)
{
	struct step s = { .w = w, .c = c, .err = err, .slot = UINT64_MAX };
	size_t next = c->next;
	uint64_t next_off = c->next_off;
	int r = writer_check(w, err);

	if (!r && !c->next && !c->next_off)
		r = check_deltas(w, c, err);
	if (!r)
		r = commit_leftover(w, err);
	w->nr_lost = 0;
	w->l2_edit.lost = false;
	c->nr_lost = 0;
	while (!r && c->next < c->nr && has_room(w))
		r = next_cluster(&s);
	/* What came before the trouble is good; the next step meets it again, first. */
	if (r < 0 && !w->failed && !w->l2_edit.lost && c->next_off != next_off) {
		qcow_error_clear(err);
		r = 0;
	}
	if (!r)
		r = finish_step(w, err);
	if (r < 0) {
		c->next = next;
		c->next_off = next_off;
		abandon(w);
		return r;
	}
	c->lost = w->lost;
	c->nr_lost = w->nr_lost;
	return 0;
}

int qcow_free(struct qcow_writer *w, const struct qcow_lost *lost, size_t nr,
	      struct qcow_error *err)
{
	size_t i;
	int r = writer_check(w, err), first = 0;

	for (i = 0; i < nr && !r; i++) {
		if (!lost[i].table && qcow_metaset_has(&w->meta, lost[i].host_off, lost[i].len))
			r = qcow_fail(err, EIO, lost[i].host_off,
				      "guest data was on metadata at %#" PRIx64, lost[i].host_off);
		else
			r = qcow_ref_update(w, QCOW_REF_DOWN, lost[i].host_off, lost[i].len, err);
		if (!first)
			first = r;
		r = w->failed ? r : 0;
	}
	return first;
}

/* ---- order ------------------------------------------------------------------------- */

static void sift_down(struct qcow_delta *d, size_t root, size_t nr)
{
	struct qcow_delta tmp;
	size_t child;

	for (; (child = 2 * root + 1) < nr; root = child) {
		if (child + 1 < nr && d[child].guest_off < d[child + 1].guest_off)
			child++;
		if (d[root].guest_off >= d[child].guest_off)
			return;
		tmp = d[root];
		d[root] = d[child];
		d[child] = tmp;
	}
}

/* Heap sort: qsort() may allocate. */
void qcow_deltas_sort(struct qcow_delta *d, size_t nr)
{
	struct qcow_delta tmp;
	size_t i;

	for (i = nr / 2; i > 0; i--)
		sift_down(d, i - 1, nr);
	for (i = nr; i > 1; i--) {
		tmp = d[0];
		d[0] = d[i - 1];
		d[i - 1] = tmp;
		sift_down(d, 0, i - 1);
	}
}
