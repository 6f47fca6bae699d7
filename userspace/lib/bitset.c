// SPDX-License-Identifier: GPL-2.0-only
#include "lib/bitset.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/be.h"
#include "lib/headmove.h"
#include "lib/l2.h"
#include "lib/writer-priv.h"

#define ENTRY_LEN   24u
#define MAX_BYTES   (512ull << 20) /* of one bitmap; QEMU */
#define ALL_ONES    1ull
#define FLAG_IN_USE 1u
#define FLAG_AUTO   2u

static int no_memory(struct qcow_error *err)
{
	return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for the bitmaps");
}

uint64_t bitset_bytes(uint64_t size, uint32_t granularity_bits)
{
	uint64_t bits = (size >> granularity_bits) + !!(size & ((1ull << granularity_bits) - 1));

	return (bits + 7) / 8;
}

/* ---- the directory ------------------------------------------------------------------- */

static int append(struct bitset *s, const struct qcow_bitmap *b)
{
	struct bitset_one *bigger = realloc(s->one, (s->nr + 1) * sizeof(*bigger));

	if (!bigger)
		return no_memory(s->err);
	s->one = bigger;
	s->one[s->nr++] =
		(struct bitset_one){ .b = *b, .old_off = b->table_off, .old_size = b->table_size };
	return 0;
}

static int visit(const struct qcow_bitmap *b, void *arg)
{
	return append(arg, b);
}

int bitset_load(struct bitset *s, struct qcow_txn *t, struct qcow_error *err)
{
	*s = (struct bitset){ .t = t, .size = t->w->h.size & ~511ull, .err = err };
	if (!t->w->h.nr_bitmaps)
		return 0;
	return qcow_bitmaps_walk(t->w->io, &t->w->h, visit, s, err);
}

void bitset_exit(struct bitset *s)
{
	size_t i;

	for (i = 0; i < s->nr; i++)
		free(s->one[i].table);
	free(s->one);
}

struct bitset_one *bitset_find(struct bitset *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->nr; i++)
		if (!strcmp(s->one[i].b.name, name))
			return &s->one[i];
	return NULL;
}

static size_t entry_len(const struct bitset_one *one)
{
	return (ENTRY_LEN + strlen(one->b.name) + 7) & ~7ul;
}

static void encode_entry(const struct bitset_one *one, uint8_t *p)
{
	size_t len = strlen(one->b.name);

	qcow_put_be64(p, one->b.table_off);
	qcow_put_be32(p + 8, one->b.table_size);
	qcow_put_be32(p + 12, (one->b.in_use ? FLAG_IN_USE : 0) | (one->b.enabled ? FLAG_AUTO : 0));
	p[16] = 1; /* a dirty tracking bitmap */
	p[17] = (uint8_t)one->b.granularity_bits;
	qcow_put_be16(p + 18, (uint16_t)len);
	memcpy(p + ENTRY_LEN, one->b.name, len);
}

static int write_directory(struct bitset *s, uint64_t len)
{
	struct qcow_txn *t = s->t;
	uint64_t room = qcow_txn_clusters(t, len) << t->h.cluster_bits, at = 0;
	uint8_t *bytes = aligned_alloc(META_PAGE, (room + META_PAGE - 1) & ~(META_PAGE - 1ull));
	size_t i;
	int r;

	if (!bytes)
		return no_memory(s->err);
	memset(bytes, 0, room);
	for (i = 0; i < s->nr; i++) {
		encode_entry(&s->one[i], bytes + at);
		at += entry_len(&s->one[i]);
	}
	r = qcow_txn_alloc(t, room >> t->h.cluster_bits, &t->h.bitmap_dir_off, s->err);
	if (!r)
		r = qcow_txn_write(t, t->h.bitmap_dir_off, bytes, room, s->err);
	free(bytes);
	return r;
}

/* ---- tables ---------------------------------------------------------------------------- */

static int read_table(struct qcow_io *io, const struct qcow_bitmap *b, uint64_t **table,
		      struct qcow_error *err)
{
	uint32_t i;
	int r;

	*table = calloc(b->table_size + 1ul, 8);
	if (!*table)
		return no_memory(err);
	r = qcow_io_pread(io, *table, b->table_size * 8ul, b->table_off, err);
	for (i = 0; i < b->table_size && !r; i++)
		(*table)[i] = qcow_be64(&(*table)[i]);
	if (r < 0) {
		free(*table);
		*table = NULL;
	}
	return r;
}

static int need_table(struct bitset *s, struct bitset_one *one)
{
	return one->table ? 0 : read_table(s->t->w->io, &one->b, &one->table, s->err);
}

/* The cluster of one entry goes. */
static int drop_bits(struct bitset *s, uint64_t *entry)
{
	uint64_t off = *entry & QCOW_ENTRY_OFF_MASK;

	*entry = 0;
	return off ? qcow_txn_ref(s->t, QCOW_REF_DOWN, off, 1, s->err) : 0;
}

static int drop_table(struct bitset *s, const struct bitset_one *one)
{
	if (one->fresh)
		return 0;
	return qcow_txn_ref(s->t, QCOW_REF_DOWN, one->old_off, one->old_size * 8ull, s->err);
}

int bitset_fill(struct bitset *s, struct bitset_one *one, uint64_t value)
{
	uint32_t i;
	int r = need_table(s, one);

	for (i = 0; i < one->b.table_size && !r; i++) {
		r = drop_bits(s, &one->table[i]);
		one->table[i] = value;
	}
	return r;
}

static int write_table(struct bitset *s, struct bitset_one *one)
{
	struct qcow_txn *t = s->t;
	uint64_t nr = qcow_txn_clusters(t, one->b.table_size * 8ull), per, c, i, entry;
	int r = drop_table(s, one);

	if (!r)
		r = qcow_txn_alloc(t, nr, &one->b.table_off, s->err);
	per = qcow_cluster_size(&t->h) / 8;
	for (c = 0; c < nr && !r; c++) {
		for (i = 0; i < per; i++) {
			entry = c * per + i < one->b.table_size ? one->table[c * per + i] : 0;
			qcow_put_be64(t->table + i * 8, entry);
		}
		r = qcow_txn_write(t, one->b.table_off + (c << t->h.cluster_bits), t->table,
				   per * 8, s->err);
	}
	return r;
}

int bitset_store(struct bitset *s)
{
	struct qcow_txn *t = s->t;
	uint64_t len = 0;
	size_t i;
	int r = qcow_txn_ref(t, QCOW_REF_DOWN, t->w->h.bitmap_dir_off,
			     t->w->h.nr_bitmaps ? t->w->h.bitmap_dir_size : 0, s->err);

	for (i = 0; i < s->nr && !r; i++) {
		len += entry_len(&s->one[i]);
		if (s->one[i].table)
			r = write_table(s, &s->one[i]);
	}
	if (!r && (s->nr > QCOW_MAX_BITMAPS || len > QCOW_MAX_BITMAP_DIR))
		r = qcow_fail(s->err, EFBIG, QCOW_NO_OFF, "too many bitmaps");
	t->h.nr_bitmaps = (uint32_t)s->nr;
	t->h.bitmap_dir_size = len;
	t->h.bitmap_dir_off = 0;
	if (!r && s->nr)
		r = write_directory(s, len);
	t->h.autoclear &= ~QCOW_AUTOCLEAR_BITMAPS;
	t->h.autoclear |= s->nr ? QCOW_AUTOCLEAR_BITMAPS : 0;
	if (!r)
		r = qcow_io_pread(t->w->io, t->table, qcow_cluster_size(&t->h), 0, s->err);
	t->has_sector = true;
	return r < 0 ? r : qcow_head_move(t->w, t->table, &t->h, t->sector, s->err);
}

/* ---- single bitmaps -------------------------------------------------------------------- */

int bitset_add(struct bitset *s, const char *name, uint32_t granularity_bits)
{
	struct qcow_bitmap b = { .enabled = true, .granularity_bits = granularity_bits };
	uint64_t bytes = bitset_bytes(s->size, granularity_bits);
	struct bitset_one *one;
	int r;

	if (!bytes || bytes > MAX_BYTES)
		return qcow_fail(s->err, EINVAL, QCOW_NO_OFF,
				 "a bitmap of this granularity would have %" PRIu64
				 " bytes; 1 to %llu are possible",
				 bytes, MAX_BYTES);
	memcpy(b.name, name, strlen(name));
	b.table_size = (uint32_t)qcow_txn_clusters(s->t, bytes);
	r = append(s, &b);
	if (r < 0)
		return r;
	one = &s->one[s->nr - 1];
	one->fresh = true;
	one->table = calloc(b.table_size + 1ul, 8);
	return one->table ? 0 : no_memory(s->err);
}

int bitset_remove(struct bitset *s, struct bitset_one *one)
{
	int r = bitset_fill(s, one, 0);

	if (!r)
		r = drop_table(s, one);
	if (r < 0)
		return r;
	free(one->table);
	memmove(one, one + 1, (size_t)(s->one + s->nr - one - 1) * sizeof(*one));
	s->nr--;
	return 0;
}

/* The bits behind the disk's end: they are 0. */
static int clear_rest(struct bitset *s, struct bitset_one *one, uint64_t size)
{
	uint32_t cluster_bits = s->t->h.cluster_bits, g = one->b.granularity_bits;
	uint64_t nr = (size >> g) + !!(size & ((1ull << g) - 1)), i;
	uint64_t last = nr >> (cluster_bits + 3), in = nr & ((8ull << cluster_bits) - 1), off;
	uint8_t *bits = s->t->table;
	int r;

	if (!in || !(one->table[last] & (QCOW_ENTRY_OFF_MASK | ALL_ONES)))
		return 0;
	off = one->table[last] & QCOW_ENTRY_OFF_MASK;
	memset(bits, 0xff, qcow_cluster_size(&s->t->h));
	r = off ? qcow_io_pread(s->t->w->io, bits, qcow_cluster_size(&s->t->h), off, s->err) : 0;
	for (i = in; i & 7; i++)
		bits[i / 8] &= (uint8_t) ~(1u << (i & 7));
	memset(bits + i / 8, 0, qcow_cluster_size(&s->t->h) - i / 8);
	if (!r)
		r = drop_bits(s, &one->table[last]);
	if (!r)
		r = qcow_txn_alloc(s->t, 1, &one->table[last], s->err);
	return r < 0 ? r
		     : qcow_txn_write(s->t, one->table[last], bits, qcow_cluster_size(&s->t->h),
				      s->err);
}

int bitset_resize(struct bitset *s, struct bitset_one *one, uint64_t size)
{
	uint64_t bytes = bitset_bytes(size, one->b.granularity_bits), *table;
	uint32_t nr = (uint32_t)qcow_txn_clusters(s->t, bytes), i;
	int r = need_table(s, one);

	if (!r && bytes > MAX_BYTES)
		r = qcow_fail(s->err, EFBIG, QCOW_NO_OFF,
			      "bitmap \"%s\" is too fine for a disk of this size; remove it",
			      one->b.name);
	for (i = nr; i < one->b.table_size && !r; i++)
		r = drop_bits(s, &one->table[i]);
	table = r < 0 ? NULL : calloc(nr + 1ul, 8);
	if (!table)
		return r < 0 ? r : no_memory(s->err);
	memcpy(table, one->table, (nr < one->b.table_size ? nr : one->b.table_size) * 8ul);
	free(one->table);
	one->table = table;
	one->b.table_size = nr;
	return size < s->size ? clear_rest(s, one, size) : 0;
}

/* ---- bits ------------------------------------------------------------------------------- */

static int read_bits(struct qcow_io *io, const struct qcow_header *h, uint64_t entry, uint8_t *out,
		     struct qcow_error *err)
{
	uint64_t off = entry & QCOW_ENTRY_OFF_MASK;

	if (off & (qcow_cluster_size(h) - 1))
		return qcow_fail(err, EIO, off,
				 "the bitmap's cluster at %#" PRIx64 " is not aligned", off);
	if (off)
		return qcow_io_pread(io, out, qcow_cluster_size(h), off, err);
	memset(out, entry & ALL_ONES ? 0xff : 0, qcow_cluster_size(h));
	return 0;
}

static int read_all(struct qcow_io *io, const struct qcow_header *h, const struct qcow_bitmap *b,
		    const uint64_t *table, uint8_t **bits, struct qcow_error *err)
{
	uint64_t len = (uint64_t)b->table_size << h->cluster_bits, i;
	int r = 0;

	if (len > MAX_BYTES + qcow_cluster_size(h))
		return qcow_fail(err, EFBIG, b->table_off, "bitmap \"%s\" is too big", b->name);
	*bits = aligned_alloc(META_PAGE, (len + META_PAGE - 1) & ~(META_PAGE - 1ull));
	if (!*bits)
		return no_memory(err);
	for (i = 0; i < b->table_size && !r; i++)
		r = read_bits(io, h, table[i], *bits + (i << h->cluster_bits), err);
	if (r < 0) {
		free(*bits);
		*bits = NULL;
	}
	return r;
}

int bitset_read(struct qcow_io *io, const struct qcow_header *h, const struct qcow_bitmap *b,
		uint8_t **bits, struct qcow_error *err)
{
	uint64_t *table;
	int r = read_table(io, b, &table, err);

	if (r < 0)
		return r;
	r = read_all(io, h, b, table, bits, err);
	free(table);
	return r;
}

int bitset_get(struct bitset *s, struct bitset_one *one, uint8_t **bits)
{
	int r = need_table(s, one);

	return r < 0 ? r : read_all(s->t->w->io, &s->t->h, &one->b, one->table, bits, s->err);
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

int bitset_write(struct bitset *s, struct bitset_one *one, const uint8_t *bits)
{
	size_t cluster = qcow_cluster_size(&s->t->h);
	uint32_t i;
	int r = bitset_fill(s, one, 0);

	for (i = 0; i < one->b.table_size && !r; i++, bits += cluster) {
		if (is_zero(bits, cluster))
			continue;
		r = qcow_txn_alloc(s->t, 1, &one->table[i], s->err);
		if (!r)
			r = qcow_txn_write(s->t, one->table[i], bits, cluster, s->err);
	}
	return r;
}
