// SPDX-License-Identifier: GPL-2.0-only
#include "lib/amend.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/be.h"
#include "lib/headmove.h"
#include "lib/l2.h"
#include "lib/snapedit.h"
#include "lib/txnwalk.h"
#include "lib/writer-priv.h"

#define EXT_MUST_GO (QCOW_INCOMPAT_DATA_FILE | QCOW_INCOMPAT_EXTL2)

void qcow_amend_init(struct qcow_amend_params *p, const struct qcow_header *h)
{
	*p = (struct qcow_amend_params){
		.version = h->version,
		.refcount_order = h->refcount_order,
		.lazy_refcounts = h->compatible & QCOW_COMPAT_LAZY_REFCOUNTS,
		.data_raw = h->autoclear & QCOW_AUTOCLEAR_DATA_RAW,
	};
}

static int check(const struct qcow_header *h, const struct qcow_amend_params *p,
		 struct qcow_error *err)
{
	const char *why = NULL;

	if (p->version < 2 || p->version > 3)
		why = "there are versions 2 and 3";
	else if (p->refcount_order > 6)
		why = "refcounts have 1, 2, 4, 8, 16, 32 or 64 bits";
	else if (p->version < 3 && p->refcount_order != 4)
		why = "version 2 has refcounts of 16 bits only";
	else if (p->version < 3 && p->lazy_refcounts)
		why = "lazy refcounts need version 3";
	else if (p->data_raw && !(h->autoclear & QCOW_AUTOCLEAR_DATA_RAW))
		why = "what a data file has become cannot be declared raw";
	return why ? qcow_fail(err, EINVAL, QCOW_NO_OFF, "%s", why) : 0;
}

/* ---- to version 2 -------------------------------------------------------------------- */

struct downgrade {
	struct qcow_txn *t;
	uint8_t *zeros; /* a cluster */
	struct qcow_error *err;
};

static int impossible(struct downgrade *d, const char *what)
{
	return qcow_fail(d->err, ENOTSUP, QCOW_NO_OFF, "version 2 has no %s", what);
}

/* A zero flag becomes what version 2 has: nothing, or zeros that hide a backing file. */
static int expand_entry(struct downgrade *d, uint64_t *entry)
{
	struct qcow_txn *t = d->t;
	uint64_t old = *entry, off;
	int r = 0;

	if (old & QCOW_L2_COMPRESSED)
		return t->h.compression ? impossible(d, "clusters compressed with zstd") : 0;
	if (!(old & QCOW_L2_ZERO))
		return 0;
	*entry = 0;
	if (t->h.has_backing) {
		r = qcow_txn_alloc(t, 1, &off, d->err);
		if (!r)
			r = qcow_txn_write(t, off, d->zeros, qcow_cluster_size(&t->h), d->err);
		*entry = off | QCOW_ENTRY_COPIED;
	}
	return r < 0 ? r : qcow_txn_ref_entry(t, QCOW_REF_DOWN, old, 0, d->err);
}

/* *@changed: some entry of t->table had a zero flag. */
static int expand_table(struct downgrade *d, bool *changed)
{
	size_t size = qcow_cluster_size(&d->t->h), at;
	uint64_t entry, was;
	int r = 0;

	*changed = false;
	for (at = 0; at < size && !r; at += 8) {
		was = entry = qcow_be64(d->t->table + at);
		r = expand_entry(d, &entry);
		*changed |= entry != was;
		qcow_put_be64(d->t->table + at, entry);
	}
	return r;
}

/* *@changed: some table that @l1 names is another one now. */
static int expand_l1(struct downgrade *d, uint64_t *l1, uint32_t nr, bool *changed)
{
	uint64_t l2_off;
	bool one;
	uint32_t i;
	int r = 0;

	for (i = 0; i < nr && !r; i++) {
		r = qcow_txn_read_l2(d->t, l1[i], &l2_off, d->err);
		if (r < 0 || !l2_off)
			continue;
		r = expand_table(d, &one);
		if (!r && one)
			r = qcow_txn_put_table(d->t, &l1[i], d->err);
		*changed |= one;
	}
	return r;
}

/* What it shares with the active state, and that is expanded too, it shares no more. */
static int expand_snapshot(const struct qcow_snapshot *s, uint64_t *l1, bool *changed, void *arg,
			   struct qcow_error *err)
{
	struct downgrade *d = arg;

	(void)err;
	if (s->disk_size != d->t->h.size)
		return impossible(d, "snapshots of another size than the disk's");
	if (s->vm_state_size > UINT32_MAX)
		return impossible(d, "snapshots with more than 4 GiB of VM state");
	return expand_l1(d, l1, s->l1_size, changed);
}

static int downgrade(struct qcow_txn *t, struct qcow_error *err)
{
	struct downgrade d = { .t = t, .err = err };
	int r;

	if (t->h.incompatible & EXT_MUST_GO)
		return impossible(&d, "data files and no extended L2 entries");
	if (t->h.nr_bitmaps)
		return impossible(&d, "bitmaps; remove them with: qcow bitmap --remove");
	d.zeros = aligned_alloc(META_PAGE, qcow_cluster_size(&t->h) < META_PAGE
						   ? META_PAGE
						   : qcow_cluster_size(&t->h));
	if (!d.zeros)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	memset(d.zeros, 0, qcow_cluster_size(&t->h));
	r = qcow_txn_snapshots(t, expand_snapshot, &d, err);
	if (!r)
		r = expand_l1(&d, t->l1, t->h.l1_size, &t->l1_changed);
	/* What was shared with a snapshot may be the active state's alone now. */
	if (!r && t->h.nr_snapshots)
		r = qcow_txn_fix_copied(t, err);
	free(d.zeros);
	return r;
}

/* ---- all ------------------------------------------------------------------------------- */

static int change_version(struct qcow_txn *t, uint32_t version, struct qcow_error *err)
{
	int r = version < 3 ? downgrade(t, err) : 0;

	if (r < 0)
		return r;
	r = qcow_io_pread(t->w->io, t->table, qcow_cluster_size(&t->h), 0, err);
	t->h.version = version;
	if (!r)
		r = qcow_head_move(t->w, t->table, &t->h, t->sector, err);
	t->has_sector = true;
	t->h.incompatible = t->h.compatible = t->h.autoclear = 0;
	return r;
}

static int change(struct qcow_txn *t, const struct qcow_amend_params *p, struct qcow_error *err)
{
	int r = p->version != t->h.version ? change_version(t, p->version, err) : 0;

	t->h.compatible &= ~QCOW_COMPAT_LAZY_REFCOUNTS;
	if (p->lazy_refcounts)
		t->h.compatible |= QCOW_COMPAT_LAZY_REFCOUNTS;
	if (!p->data_raw)
		t->h.autoclear &= ~QCOW_AUTOCLEAR_DATA_RAW;
	return r < 0 ? r : qcow_txn_commit(t, err);
}

int qcow_amend(struct qcow_writer *w, const struct qcow_amend_params *p, struct qcow_error *err)
{
	struct qcow_amend_params now;
	struct qcow_txn t;
	int r = check(&w->h, p, err);

	qcow_amend_init(&now, &w->h);
	if (r < 0 || (p->version == now.version && p->refcount_order == now.refcount_order &&
		      p->lazy_refcounts == now.lazy_refcounts && p->data_raw == now.data_raw))
		return r;
	r = qcow_txn_begin(&t, w, p->refcount_order, err);
	if (!r)
		r = change(&t, p, err);
	qcow_txn_end(&t);
	return r;
}
