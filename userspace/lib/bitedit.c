// SPDX-License-Identifier: GPL-2.0-only
#include "lib/bitedit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bitset.h"
#include "lib/writer-priv.h"

#define MIN_GRANULARITY	    9u
#define MAX_GRANULARITY	    31u
#define DEFAULT_GRANULARITY 16u
#define LEAST_DEFAULT	    12u

static int fail(struct bitset *s, int code, const char *name, const char *why)
{
	return qcow_fail(s->err, code, QCOW_NO_OFF, "bitmap \"%s\" %s", name, why);
}

/* ---- merging --------------------------------------------------------------------------- */

static bool get_bit(const uint8_t *bits, uint64_t i)
{
	return bits[i / 8] >> (i & 7) & 1;
}

static void set_bit(uint8_t *bits, uint64_t i)
{
	bits[i / 8] |= (uint8_t)(1u << (i & 7));
}

/* Granularities may differ: each bit marks all that it touches. */
static void merge_bits(uint8_t *to, uint32_t to_bits, const uint8_t *from, uint32_t from_bits,
		       uint64_t size)
{
	uint64_t nr = (size >> from_bits) + !!(size & ((1ull << from_bits) - 1)), i, k, end;

	for (i = 0; i < nr; i++) {
		if (!get_bit(from, i))
			continue;
		end = (i + 1) << from_bits < size ? (i + 1) << from_bits : size;
		for (k = i << from_bits >> to_bits; k <= (end - 1) >> to_bits; k++)
			set_bit(to, k);
	}
}

struct source {
	const char *name;
	struct qcow_bitmap b;
	bool found;
};

static int visit_source(const struct qcow_bitmap *b, void *arg)
{
	struct source *q = arg;

	if (strcmp(b->name, q->name))
		return 0;
	q->b = *b;
	q->found = true;
	return 1;
}

static int find_source(struct bitset *s, const struct qcow_bitmap_step *step, struct source *q)
{
	const struct qcow_header *h = qcow_image_header(step->from);
	int r = qcow_bitmaps_walk(qcow_image_io(step->from), h, visit_source, q, s->err);

	if (r < 0)
		return r;
	if (!q->found)
		return fail(s, ENOENT, q->name, "is not in the source");
	if (q->b.in_use)
		return fail(s, EINVAL, q->name, "was not saved; its bits are void");
	if ((h->size & ~511ull) != s->size)
		return qcow_fail(s->err, EINVAL, QCOW_NO_OFF,
				 "the source's disk has another size: %" PRIu64, h->size);
	if (((uint64_t)q->b.table_size << h->cluster_bits) <
	    bitset_bytes(s->size, q->b.granularity_bits))
		return fail(s, EIO, q->name, "is shorter than its disk");
	return 0;
}

static int merge(struct bitset *s, struct bitset_one *one, const struct qcow_bitmap_step *step)
{
	struct source q = { .name = step->source };
	uint8_t *from = NULL, *to = NULL;
	int r = find_source(s, step, &q);

	if (!r)
		r = bitset_read(qcow_image_io(step->from), qcow_image_header(step->from), &q.b,
				&from, s->err);
	if (!r)
		r = bitset_get(s, one, &to);
	if (!r && ((uint64_t)one->b.table_size << s->t->h.cluster_bits) <
			  bitset_bytes(s->size, one->b.granularity_bits))
		r = fail(s, EIO, one->b.name, "is shorter than its disk");
	if (!r) {
		merge_bits(to, one->b.granularity_bits, from, q.b.granularity_bits, s->size);
		r = bitset_write(s, one, to);
	}
	free(from);
	free(to);
	return r;
}

/* ---- steps ------------------------------------------------------------------------------ */

static int add(struct bitset *s, const char *name, uint32_t bits)
{
	if (bitset_find(s, name))
		return fail(s, EEXIST, name, "exists already");
	if (!name[0] || strlen(name) > QCOW_MAX_BITMAP_NAME)
		return qcow_fail(s->err, EINVAL, QCOW_NO_OFF, "a bitmap's name has 1 to %u bytes",
				 QCOW_MAX_BITMAP_NAME);
	if (!bits) {
		bits = s->t->h.cluster_bits;
		bits = bits < LEAST_DEFAULT	    ? LEAST_DEFAULT
		       : bits > DEFAULT_GRANULARITY ? DEFAULT_GRANULARITY
						    : bits;
	}
	if (bits < MIN_GRANULARITY || bits > MAX_GRANULARITY)
		return qcow_fail(s->err, EINVAL, QCOW_NO_OFF,
				 "a granularity is a power of two from 512 to 2 GiB");
	return bitset_add(s, name, bits);
}

static int do_step(struct bitset *s, const char *name, const struct qcow_bitmap_step *step)
{
	struct bitset_one *one;

	if (step->what == QCOW_BITMAP_ADD)
		return add(s, name, step->granularity_bits);
	one = bitset_find(s, name);
	if (!one)
		return fail(s, ENOENT, name, "does not exist");
	if (step->what == QCOW_BITMAP_REMOVE)
		return bitset_remove(s, one);
	if (one->b.in_use)
		return fail(s, EINVAL, name, "was not saved; it can only be removed");
	switch (step->what) {
	case QCOW_BITMAP_CLEAR:
		return bitset_fill(s, one, 0);
	case QCOW_BITMAP_ENABLE:
	case QCOW_BITMAP_DISABLE:
		one->b.enabled = step->what == QCOW_BITMAP_ENABLE;
		return 0;
	default:
		return merge(s, one, step);
	}
}

int qcow_bitmap_edit(struct qcow_writer *w, const char *name, const struct qcow_bitmap_step *steps,
		     size_t nr, struct qcow_error *err)
{
	struct bitset s = { 0 };
	struct qcow_txn t;
	size_t i;
	int r;

	if (w->h.version < 3)
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "version 2 has no bitmaps; use: qcow amend -o compat=1.1");
	r = qcow_txn_begin(&t, w, w->h.refcount_order, err);
	if (!r)
		r = bitset_load(&s, &t, err);
	for (i = 0; i < nr && !r; i++)
		r = do_step(&s, name, &steps[i]);
	if (!r)
		r = bitset_store(&s);
	if (!r)
		r = qcow_txn_commit(&t, err);
	bitset_exit(&s);
	qcow_txn_end(&t);
	return r;
}

int qcow_txn_bitmaps(struct qcow_txn *t, uint64_t size, bool all, struct qcow_error *err)
{
	struct bitset s = { 0 };
	size_t i;
	int r = t->w->h.nr_bitmaps ? bitset_load(&s, t, err) : 0;

	if (r < 0 || !s.nr)
		goto out_exit;
	for (i = 0; i < s.nr && !r; i++) {
		if (s.one[i].b.in_use) {
			r = fail(&s, EINVAL, s.one[i].b.name,
				 "was not saved; remove it with: qcow bitmap --remove");
			break;
		}
		r = bitset_resize(&s, &s.one[i], size);
		if (!r && all && s.one[i].b.enabled)
			r = bitset_fill(&s, &s.one[i], 1);
	}
	if (!r)
		r = bitset_store(&s);
out_exit:
	bitset_exit(&s);
	return r;
}
