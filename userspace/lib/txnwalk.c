// SPDX-License-Identifier: GPL-2.0-only
#include "lib/txnwalk.h"

#include <errno.h>
#include <inttypes.h>

#include "lib/be.h"
#include "lib/l2.h"
#include "lib/writer-priv.h"

int qcow_txn_read_l1(struct qcow_txn *t, uint64_t l1_off, uint32_t nr, uint64_t *l1,
		     struct qcow_error *err)
{
	uint32_t i;
	int r = qcow_io_pread(t->w->io, l1, nr * 8ul, l1_off, err);

	for (i = 0; i < nr && !r; i++)
		l1[i] = qcow_be64(&l1[i]);
	return r;
}

int qcow_txn_read_l2(struct qcow_txn *t, uint64_t l1_entry, uint64_t *l2_off,
		     struct qcow_error *err)
{
	int r = qcow_l1_decode(&t->h, l1_entry, l2_off, err);

	if (r < 0 || !*l2_off)
		return r;
	return qcow_io_pread(t->w->io, t->table, qcow_cluster_size(&t->h), *l2_off, err);
}

static int damaged(uint64_t entry, struct qcow_error *err)
{
	return qcow_fail(err, EIO, entry & QCOW_ENTRY_OFF_MASK,
			 "L2 entry %#" PRIx64 " is damaged; qcow check shows the damage", entry);
}

int qcow_txn_ref_entry(struct qcow_txn *t, enum qcow_ref_op op, uint64_t entry, uint64_t bitmap,
		       struct qcow_error *err)
{
	uint64_t off = entry & QCOW_ENTRY_OFF_MASK;
	struct qcow_l2_block b;

	if (entry & QCOW_L2_COMPRESSED) {
		qcow_l2_decode(&t->h, 0, entry, bitmap, &b, err);
		if (b.type != QCOW_L2_COMPRESSED_DATA)
			return -EIO;
		return qcow_txn_ref(t, op, b.host_off, b.csize, err);
	}
	if (!off || qcow_has_data_file(&t->h))
		return 0;
	if (off & (qcow_cluster_size(&t->h) - 1))
		return damaged(entry, err);
	return qcow_txn_ref(t, op, off, 1, err);
}

static int ref_table(struct qcow_txn *t, enum qcow_ref_op op, struct qcow_error *err)
{
	size_t size = qcow_cluster_size(&t->h), step = 1ul << qcow_l2_entry_bits(&t->h), at;
	int r = 0;

	for (at = 0; at < size && !r; at += step)
		r = qcow_txn_ref_entry(t, op, qcow_be64(t->table + at),
				       step == 16 ? qcow_be64(t->table + at + 8) : 0, err);
	return r;
}

int qcow_txn_ref_l1(struct qcow_txn *t, enum qcow_ref_op op, const uint64_t *l1, uint32_t nr,
		    struct qcow_error *err)
{
	uint64_t l2_off;
	uint32_t i;
	int r = 0;

	for (i = 0; i < nr && !r; i++) {
		r = qcow_txn_read_l2(t, l1[i], &l2_off, err);
		if (r < 0 || !l2_off)
			continue;
		r = ref_table(t, op, err);
		if (!r)
			r = qcow_txn_ref(t, op, l2_off, 1, err);
	}
	return r;
}

/* *@changed: the entry's flag was wrong, and is right now. */
static int fix_entry(struct qcow_txn *t, uint64_t *entry, bool *changed, struct qcow_error *err)
{
	uint64_t off = *entry & QCOW_ENTRY_OFF_MASK, refs;
	int r;

	if (!off || *entry & QCOW_L2_COMPRESSED || off & (qcow_cluster_size(&t->h) - 1))
		return 0;
	r = qcow_ref_get(t->w, off, &refs, err);
	if (r < 0 || (refs == 1) == !!(*entry & QCOW_ENTRY_COPIED))
		return r;
	*entry ^= QCOW_ENTRY_COPIED;
	*changed = true;
	return 0;
}

static int fix_table(struct qcow_txn *t, bool *changed, struct qcow_error *err)
{
	size_t size = qcow_cluster_size(&t->h), at;
	uint64_t entry;
	int r = 0;

	for (at = 0; at < size && !r; at += 1ul << qcow_l2_entry_bits(&t->h)) {
		entry = qcow_be64(t->table + at);
		r = fix_entry(t, &entry, changed, err);
		qcow_put_be64(t->table + at, entry);
	}
	return r;
}

int qcow_txn_put_table(struct qcow_txn *t, uint64_t *l1_entry, struct qcow_error *err)
{
	uint64_t old = *l1_entry & QCOW_ENTRY_OFF_MASK, off;
	int r = qcow_txn_alloc(t, 1, &off, err);

	if (!r)
		r = qcow_txn_write(t, off, t->table, qcow_cluster_size(&t->h), err);
	if (!r && old)
		r = qcow_txn_ref(t, QCOW_REF_DOWN, old, 1, err);
	*l1_entry = off | QCOW_ENTRY_COPIED;
	return r;
}

int qcow_txn_put_l2(struct qcow_txn *t, uint32_t slot, struct qcow_error *err)
{
	t->l1_changed = true;
	return qcow_txn_put_table(t, &t->l1[slot], err);
}

int qcow_txn_fix_copied(struct qcow_txn *t, struct qcow_error *err)
{
	uint64_t l2_off;
	bool changed;
	uint32_t i;
	int r = 0;

	for (i = 0; i < t->h.l1_size && !r; i++) {
		r = qcow_txn_read_l2(t, t->l1[i], &l2_off, err);
		if (r < 0 || !l2_off)
			continue;
		changed = false;
		if (!qcow_has_data_file(&t->h))
			r = fix_table(t, &changed, err);
		if (!r && changed)
			r = qcow_txn_put_l2(t, i, err);
		else if (!r)
			r = fix_entry(t, &t->l1[i], &t->l1_changed, err);
	}
	return r;
}
