// SPDX-License-Identifier: GPL-2.0-only
#include "lib/snapedit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/be.h"
#include "lib/bitedit.h"
#include "lib/snapshot.h"
#include "lib/txnwalk.h"
#include "lib/writer-priv.h"

#define ENTRY_LEN 40u
#define EXTRA_LEN 24u
#define MAX_NAME  255u

/* ---- the table ----------------------------------------------------------------------- */

/* The table as it is to be. What we do not know of an entry is kept. */
struct snap_table {
	struct qcow_txn *t;
	struct qcow_error *err;
	uint64_t drop; /* entry_off of the one that goes; 0 = none */
	uint8_t *bytes;
	size_t len, room;
	uint32_t nr;
	uint64_t max_id, old_len;
};

static int grow(struct snap_table *b, size_t more)
{
	size_t want = (b->len + more) * 2;
	uint8_t *bigger;

	if (b->len + more > QCOW_MAX_SNAP_TABLE)
		return qcow_fail(b->err, EFBIG, QCOW_NO_OFF,
				 "the snapshot table would be longer than 64 MiB");
	if (b->len + more <= b->room)
		return 0;
	bigger = realloc(b->bytes, want);
	if (!bigger)
		return qcow_fail(b->err, ENOMEM, QCOW_NO_OFF, "no memory for the snapshot table");
	memset(bigger + b->room, 0, want - b->room);
	b->bytes = bigger;
	b->room = want;
	return 0;
}

static int copy_entry(const struct qcow_snapshot *s, void *arg)
{
	struct snap_table *b = arg;
	uint64_t id = strtoull(s->id, NULL, 10);
	size_t len;
	uint8_t *p;
	int r;

	b->old_len = s->entry_off + s->entry_len - b->t->w->h.snapshots_off;
	if (id > b->max_id && id < UINT32_MAX)
		b->max_id = id;
	if (s->entry_off == b->drop)
		return 0;
	r = grow(b, s->entry_len);
	if (r < 0)
		return r;
	p = b->bytes + b->len;
	r = qcow_io_pread(b->t->w->io, p, s->entry_len, s->entry_off, b->err);
	if (r < 0)
		return r;
	/* Behind the last entry there may be anything. */
	len = ENTRY_LEN + qcow_be32(p + 36) + qcow_be16(p + 12) + qcow_be16(p + 14);
	if (len < s->entry_len)
		memset(p + len, 0, s->entry_len - len);
	b->len += s->entry_len;
	b->nr++;
	return 0;
}

static int load_table(struct snap_table *b, struct qcow_txn *t, uint64_t drop,
		      struct qcow_error *err)
{
	*b = (struct snap_table){ .t = t, .err = err, .drop = drop };
	return qcow_snapshots_walk(t->w->io, &t->w->h, copy_entry, b, err);
}

/* The active state becomes an entry; its L1 table is now the snapshot's. */
static int add_entry(struct snap_table *b, const char *name, uint32_t sec, uint32_t nsec)
{
	const struct qcow_header *h = &b->t->w->h;
	size_t name_len = strlen(name), id_len;
	char id[24];
	uint8_t *p;
	int r;

	id_len = (size_t)snprintf(id, sizeof(id), "%" PRIu64, b->max_id + 1);
	r = grow(b, ENTRY_LEN + EXTRA_LEN + id_len + name_len + 7);
	if (r < 0)
		return r;
	p = b->bytes + b->len;
	qcow_put_be64(p, h->l1_off);
	qcow_put_be32(p + 8, h->l1_size);
	qcow_put_be16(p + 12, (uint16_t)id_len);
	qcow_put_be16(p + 14, (uint16_t)name_len);
	qcow_put_be32(p + 16, sec);
	qcow_put_be32(p + 20, nsec);
	/* No virtual machine: its clock, state and instruction count are 0, as QEMU writes. */
	qcow_put_be32(p + 36, EXTRA_LEN);
	qcow_put_be64(p + ENTRY_LEN + 8, h->size);
	p += ENTRY_LEN + EXTRA_LEN;
	memcpy(p, id, id_len);
	memcpy(p + id_len, name, name_len);
	b->len += (ENTRY_LEN + EXTRA_LEN + id_len + name_len + 7) & ~7ul;
	b->nr++;
	return 0;
}

static int place_table(struct snap_table *b)
{
	struct qcow_txn *t = b->t;
	uint64_t room = qcow_txn_clusters(t, b->len) << t->h.cluster_bits;
	int r = qcow_txn_ref(t, QCOW_REF_DOWN, t->w->h.snapshots_off, b->old_len, b->err);

	t->h.nr_snapshots = b->nr;
	t->h.snapshots_off = 0;
	if (r < 0 || !b->nr)
		return r;
	r = grow(b, room - b->len);
	if (!r)
		r = qcow_txn_alloc(t, room >> t->h.cluster_bits, &t->h.snapshots_off, b->err);
	return r < 0 ? r : qcow_txn_write(t, t->h.snapshots_off, b->bytes, room, b->err);
}

/* ---- create -------------------------------------------------------------------------- */

static int check_create(const struct qcow_header *h, const char *name, struct qcow_error *err)
{
	if (qcow_has_data_file(h))
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "an image with an external data file cannot have snapshots");
	if (h->nr_snapshots >= QCOW_MAX_SNAPSHOTS)
		return qcow_fail(err, EFBIG, QCOW_NO_OFF,
				 "the image has %u snapshots, which is the most possible",
				 h->nr_snapshots);
	if (!name[0] || strlen(name) > MAX_NAME)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "a snapshot's name has 1 to %u bytes",
				 MAX_NAME);
	return 0;
}

static int create(struct qcow_txn *t, struct snap_table *b, const char *name, uint32_t sec,
		  uint32_t nsec, struct qcow_error *err)
{
	int r = load_table(b, t, 0, err);

	if (!r)
		r = add_entry(b, name, sec, nsec);
	if (!r)
		r = qcow_txn_ref_l1(t, QCOW_REF_UP, t->l1, t->h.l1_size, err);
	if (r == -EOVERFLOW)
		qcow_error_prefix(err, "refcounts of %u bits are too narrow for one snapshot more",
				  1u << t->h.refcount_order);
	t->l1_kept = t->l1_changed = true;
	if (!r)
		r = qcow_txn_fix_copied(t, err);
	if (!r)
		r = place_table(b);
	return r < 0 ? r : qcow_txn_commit(t, err);
}

int qcow_snapshot_create(struct qcow_writer *w, const char *name, uint32_t sec, uint32_t nsec,
			 struct qcow_error *err)
{
	struct snap_table b = { 0 };
	struct qcow_txn t;
	int r = check_create(&w->h, name, err);

	if (r < 0)
		return r;
	r = qcow_txn_begin(&t, w, w->h.refcount_order, err);
	if (!r)
		r = create(&t, &b, name, sec, nsec, err);
	qcow_txn_end(&t);
	free(b.bytes);
	return r;
}

/* ---- apply --------------------------------------------------------------------------- */

static int apply(struct qcow_txn *t, const struct qcow_snapshot *s, uint64_t *old_l1,
		 struct qcow_error *err)
{
	uint32_t old_size = t->h.l1_size;
	int r;

	memcpy(old_l1, t->l1, old_size * 8ul);
	r = qcow_txn_size_l1(t, s->l1_size, err);
	if (!r)
		r = qcow_txn_read_l1(t, s->l1_off, s->l1_size, t->l1, err);
	/* Up before down, or what both have would be free for a moment. */
	if (!r)
		r = qcow_txn_ref_l1(t, QCOW_REF_UP, t->l1, t->h.l1_size, err);
	if (!r)
		r = qcow_txn_ref_l1(t, QCOW_REF_DOWN, old_l1, old_size, err);
	if (!r)
		r = qcow_txn_fix_copied(t, err);
	t->h.size = s->disk_size;
	if (!r)
		r = qcow_txn_bitmaps(t, s->disk_size & ~511ull, true, err);
	return r < 0 ? r : qcow_txn_commit(t, err);
}

int qcow_snapshot_apply(struct qcow_writer *w, const char *id_or_name, struct qcow_error *err)
{
	struct qcow_snapshot s;
	struct qcow_txn t;
	uint64_t *old_l1;
	int r = qcow_snapshot_find(w->io, &w->h, id_or_name, QCOW_SNAPSHOT_ID_FIRST, &s, err);

	if (r < 0)
		return r;
	old_l1 = calloc(w->h.l1_size + 1ul, 8);
	if (!old_l1)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for the L1 table");
	r = qcow_txn_begin(&t, w, w->h.refcount_order, err);
	if (!r)
		r = apply(&t, &s, old_l1, err);
	qcow_txn_end(&t);
	free(old_l1);
	return r;
}

/* ---- delete -------------------------------------------------------------------------- */

static int drop(struct qcow_txn *t, struct snap_table *b, const struct qcow_snapshot *s,
		uint64_t *l1, struct qcow_error *err)
{
	int r = load_table(b, t, s->entry_off, err);

	if (!r)
		r = qcow_txn_read_l1(t, s->l1_off, s->l1_size, l1, err);
	if (!r)
		r = qcow_txn_ref_l1(t, QCOW_REF_DOWN, l1, s->l1_size, err);
	if (!r)
		r = qcow_txn_ref(t, QCOW_REF_DOWN, s->l1_off, s->l1_size * 8ull, err);
	if (!r)
		r = place_table(b);
	if (!r)
		r = qcow_txn_fix_copied(t, err);
	return r < 0 ? r : qcow_txn_commit(t, err);
}

int qcow_snapshot_delete(struct qcow_writer *w, const char *name_or_id, struct qcow_error *err)
{
	struct snap_table b = { 0 };
	struct qcow_snapshot s;
	struct qcow_txn t;
	uint64_t *l1;
	int r = qcow_snapshot_find(w->io, &w->h, name_or_id, QCOW_SNAPSHOT_NAME_FIRST, &s, err);

	if (r < 0)
		return r;
	l1 = calloc(s.l1_size + 1ul, 8);
	if (!l1)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for the L1 table");
	r = qcow_txn_begin(&t, w, w->h.refcount_order, err);
	if (!r)
		r = drop(&t, &b, &s, l1, err);
	qcow_txn_end(&t);
	free(b.bytes);
	free(l1);
	return r;
}

/* ---- change -------------------------------------------------------------------------- */

struct snap_change {
	struct snap_table table;
	int (*change)(const struct qcow_snapshot *s, uint64_t *l1, bool *changed, void *arg,
		      struct qcow_error *err);
	void *arg;
	bool changed;
};

static int put_l1(struct snap_table *b, const struct qcow_snapshot *s, const uint64_t *l1)
{
	struct qcow_txn *t = b->t;
	uint64_t off;
	int r = qcow_txn_alloc(t, qcow_txn_clusters(t, s->l1_size * 8ull), &off, b->err);

	if (!r)
		r = qcow_txn_write_be64(t, off, l1, s->l1_size, b->err);
	if (!r)
		r = qcow_txn_ref(t, QCOW_REF_DOWN, s->l1_off, s->l1_size * 8ull, b->err);
	/* The entries lie as they did, so that this one is as far from the first. */
	if (!r)
		qcow_put_be64(b->bytes + (s->entry_off - t->w->h.snapshots_off), off);
	return r;
}

static int change_one(const struct qcow_snapshot *s, void *arg)
{
	struct snap_change *c = arg;
	struct qcow_error *err = c->table.err;
	bool changed = false;
	uint64_t *l1;
	int r = qcow_snapshot_check(s, &c->table.t->w->h, err);

	if (r < 0)
		return r;
	l1 = calloc(s->l1_size + 1ul, 8);
	if (!l1)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for the L1 table");
	r = qcow_txn_read_l1(c->table.t, s->l1_off, s->l1_size, l1, err);
	if (!r)
		r = c->change(s, l1, &changed, c->arg, err);
	if (!r && changed)
		r = put_l1(&c->table, s, l1);
	c->changed |= changed;
	free(l1);
	return r;
}

int qcow_txn_snapshots(struct qcow_txn *t,
		       int (*change)(const struct qcow_snapshot *s, uint64_t *l1, bool *changed,
				     void *arg, struct qcow_error *err),
		       void *arg, struct qcow_error *err)
{
	struct snap_change c = { .change = change, .arg = arg };
	int r = load_table(&c.table, t, 0, err);

	if (!r)
		r = qcow_snapshots_walk(t->w->io, &t->w->h, change_one, &c, err);
	if (!r && c.changed)
		r = place_table(&c.table);
	free(c.table.bytes);
	return r;
}
