// SPDX-License-Identifier: GPL-2.0-only
/*
 * Down the chain, one extent at a time.
 *
 * Each node keeps what it last said in a chain_level: a stretch of one kind. The
 * walk asks the next node only about what the one above left unallocated, and
 * asks a node again only where its last answer ended, so a page of 512 blocks
 * under 32 layers decodes each entry once, not once per extent and layer.
 */
#include <errno.h>
#include <inttypes.h>

#include "lib/be.h"
#include "lib/chain-priv.h"

/* Asking one node about [guest_off, end). */
struct scan {
	struct qcow_chain *c;
	struct qcow_scratch *s;
	const struct chain_node *n;
	const struct qcow_image *img;
	const struct qcow_header *h;
	struct chain_level *lv; /* the answer */
	uint64_t guest_off, end;
	struct qcow_error *err;
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int read_table(struct scan *k, uint64_t host_off, void *buf, size_t len)
{
	return qcow_mcache_read(k->c->cache, k->n->layer, qcow_image_io(k->img), host_off, buf, len,
				k->s->page, k->err);
}

/* The table's entry @idx; what is read ahead ends with the table. */
static int l2_entry(struct scan *k, uint64_t idx, uint64_t *entry, uint64_t *bitmap)
{
	struct chain_table *t = &k->lv->table;
	uint32_t bits = qcow_l2_entry_bits(k->h);
	uint64_t table = qcow_cluster_size(k->h) >> bits;
	uint8_t *p;
	int r;

	if (idx < t->first || idx >= t->first + t->nr) {
		t->first = idx;
		t->nr = 0;
		r = read_table(k, t->l2_off + (idx << bits), t->buf,
			       min_u64(table - idx, sizeof(t->buf) >> bits) << bits);
		if (r < 0)
			return r;
		t->nr = min_u64(table - idx, sizeof(t->buf) >> bits);
	}
	p = t->buf + ((idx - t->first) << bits);
	*entry = qcow_be64(p);
	*bitmap = bits == 4 ? qcow_be64(p + 8) : 0;
	return 0;
}

static bool is_written_to(const struct scan *k)
{
	return k->c->writer && k->n == &k->c->nodes[0];
}

/*
 * May the guest write where its data is, or to what is reserved for it? Where the
 * image says so of metadata or of free clusters it is damaged, or an attack: then
 * nobody reads or writes there.
 */
static int guard_block(struct scan *k, uint64_t guest_off, struct qcow_l2_block *b)
{
	int r;

	/* A data file is nobody else's, and every block has its own place there. */
	if (qcow_has_data_file(k->h)) {
		b->copied = true;
		return 0;
	}
	b->copied &= !k->lv->table.shared;
	if (!b->copied || !b->has_host_off || b->type == QCOW_L2_BROKEN)
		return 0;
	r = qcow_writer_may_write(k->c->writer, b->host_off, 1ull << qcow_block_bits(k->h),
				  k->s->page, k->err);
	if (r < 0)
		return r;
	b->copied = r == QCOW_MAY_WRITE;
	if (r != QCOW_MAY_WRITE_NEVER)
		return 0;
	b->type = QCOW_L2_BROKEN;
	b->forbidden = true;
	qcow_fail(k->err, EIO, b->host_off,
		  "guest offset %#" PRIx64 " lies on metadata or free space at %#" PRIx64
		  "; qcow check shows the damage",
		  guest_off, b->host_off);
	return 0;
}

static int l2_block(struct scan *k, uint64_t guest_off, struct qcow_l2_block *b)
{
	uint64_t in_table = guest_off & ((1ull << qcow_l2_span_bits(k->h)) - 1);
	uint64_t entry, bitmap;
	int r;

	r = l2_entry(k, in_table >> k->h->cluster_bits, &entry, &bitmap);
	if (r < 0)
		return r;
	qcow_l2_decode(k->h, guest_off, entry, bitmap, b, k->err);
	if (is_written_to(k))
		return guard_block(k, guest_off, b);
	return 0;
}

/* Does @b, @dist bytes after the level's start, continue the level? */
static bool continues(const struct scan *k, const struct qcow_l2_block *b, uint64_t dist)
{
	const struct chain_level *lv = k->lv;

	if (lv->b.type != b->type)
		return false;
	/* What place is reserved for it interests only who may write. */
	if (b->type == QCOW_L2_UNALLOCATED && !is_written_to(k))
		return true;
	if (b->type == QCOW_L2_COMPRESSED_DATA || b->type == QCOW_L2_BROKEN)
		return false;
	return lv->b.has_host_off == b->has_host_off && lv->b.copied == b->copied &&
	       (!b->has_host_off || lv->b.host_off + dist == b->host_off);
}

/* All under one L2 table. */
static int scan_l2(struct scan *k)
{
	uint64_t block = 1ull << qcow_block_bits(k->h);
	uint64_t cluster = qcow_cluster_size(k->h);
	struct chain_level *lv = k->lv;
	struct qcow_l2_block b;
	uint64_t off;
	int r;

	lv->start = k->guest_off & ~(block - 1);
	r = l2_block(k, lv->start, &lv->b);
	if (r < 0)
		return r;
	off = lv->start + block;
	if (lv->b.type == QCOW_L2_COMPRESSED_DATA) {
		/* All subclusters are one; its start is where the bytes count from. */
		lv->start = k->guest_off & ~(cluster - 1);
		lv->end = min_u64(lv->start + cluster, k->end);
		return 0;
	}
	for (; off < k->end; off += block) {
		r = l2_block(k, off, &b);
		if (r < 0)
			return r;
		if (!continues(k, &b, off - lv->start))
			break;
	}
	lv->end = min_u64(off, k->end);
	return 0;
}

/* A broken entry is no error of the call, but an answer. */
static int find_table(struct scan *k, uint64_t idx, bool *broken)
{
	struct chain_table *t = &k->lv->table;
	uint8_t entry[8];
	int r;

	*broken = false;
	if (t->valid && t->l1_idx == idx)
		return 0;
	t->valid = false;
	t->nr = 0;
	r = read_table(k, qcow_image_l1_off(k->img) + idx * 8, entry, sizeof(entry));
	if (r < 0)
		return r;
	*broken = qcow_l1_decode(k->h, qcow_be64(entry), &t->l2_off, k->err) < 0;
	t->shared = !(qcow_be64(entry) & QCOW_ENTRY_COPIED);
	t->l1_idx = idx;
	t->valid = !*broken;
	return 0;
}

static int scan_qcow2(struct scan *k)
{
	uint32_t span = qcow_l2_span_bits(k->h);
	uint64_t idx = k->guest_off >> span;
	struct chain_level *lv = k->lv;
	bool broken;
	int r;

	k->end = min_u64(k->end, (idx + 1) << span);
	lv->start = k->guest_off;
	lv->end = k->end;
	lv->b = (struct qcow_l2_block){ .type = QCOW_L2_UNALLOCATED };
	if (idx >= qcow_image_l1_size(k->img))
		return 0;
	r = find_table(k, idx, &broken);
	if (r < 0)
		return r;
	if (broken)
		lv->b.type = QCOW_L2_BROKEN;
	return !broken && lv->table.l2_off ? scan_l2(k) : 0;
}

static int scan(struct qcow_chain *c, const struct chain_node *n, uint64_t guest_off, uint64_t len,
		struct chain_level *lv, struct qcow_scratch *s, struct qcow_error *err)
{
	struct scan k = {
		.c = c,
		.s = s,
		.n = n,
		.img = c->layers[n->layer].img,
		.lv = lv,
		.guest_off = guest_off,
		.end = guest_off + len,
		.err = err,
	};
	int r;

	lv->start = guest_off;
	lv->past_end = guest_off >= n->size;
	if (lv->past_end) {
		lv->end = k.end;
		return 0;
	}
	k.end = lv->end = min_u64(k.end, n->size);
	if (!k.img) {
		lv->b = (struct qcow_l2_block){ .type = QCOW_L2_DATA,
						.has_host_off = true,
						.host_off = guest_off };
		return 0;
	}
	k.h = qcow_image_header(k.img);
	r = scan_qcow2(&k);
	if (r < 0)
		lv->end = lv->start; /* nothing is known */
	return r;
}

static enum qcow_extent_type extent_type(enum qcow_l2_type type)
{
	switch (type) {
	case QCOW_L2_UNALLOCATED:
		return QCOW_EXTENT_UNALLOCATED;
	case QCOW_L2_ZERO_FLAG:
		return QCOW_EXTENT_ZERO;
	case QCOW_L2_DATA:
		return QCOW_EXTENT_DATA;
	case QCOW_L2_COMPRESSED_DATA:
		return QCOW_EXTENT_COMPRESSED;
	case QCOW_L2_BROKEN:
		break;
	}
	return QCOW_EXTENT_BROKEN;
}

static void fill(struct qcow_extent *e, const struct qcow_chain *c, uint32_t depth,
		 const struct chain_level *lv, uint64_t guest_off, uint64_t len)
{
	const struct chain_node *n = &c->nodes[depth];
	uint64_t dist = guest_off - lv->start;

	*e = (struct qcow_extent){
		.guest_off = guest_off,
		.len = len,
		.type = extent_type(lv->b.type),
		.depth = depth,
		.layer = n->data_layer,
		.has_host_off = lv->b.has_host_off,
		.copied = lv->b.copied,
		.forbidden = lv->b.forbidden,
		.host_off = lv->b.host_off,
	};
	if (e->type == QCOW_EXTENT_COMPRESSED) {
		e->layer = n->layer;
		e->csize = lv->b.csize;
		e->in_cluster = (uint32_t)dist;
	} else if (e->has_host_off) {
		e->host_off += dist;
	}
}

/* @lv: what layer 0 says. Wherever the bytes come from, this is where they would go to. */
static void put_place(struct qcow_extent *e, const struct qcow_chain *c,
		      const struct chain_level *lv)
{
	const struct qcow_l2_block *b = &lv->b;

	if (!c->writer || lv->past_end ||
	    (b->type != QCOW_L2_UNALLOCATED && b->type != QCOW_L2_ZERO_FLAG))
		return;
	if (qcow_has_data_file(node_header(c, &c->nodes[0]))) {
		e->reserved = true;
		e->reserved_off = e->guest_off;
	} else if (b->has_host_off && b->copied) {
		e->reserved = true;
		e->reserved_off = b->host_off + (e->guest_off - lv->start);
	}
}

void qcow_walk_begin(struct qcow_scratch *s)
{
	size_t i;

	for (i = 0; i < s->nr_levels; i++) {
		s->level[i].start = s->level[i].end = 0;
		s->level[i].table.valid = false;
	}
}

int qcow_walk(struct qcow_chain *c, uint64_t guest_off, uint64_t len, struct qcow_extent *e,
	      struct qcow_scratch *s, struct qcow_error *err)
{
	struct chain_level *lv;
	uint32_t i;
	int r;

	for (i = 0; i < c->nr_nodes; i++) {
		lv = &s->level[i];
		if (guest_off < lv->start || guest_off >= lv->end) {
			r = scan(c, &c->nodes[i], guest_off, len, lv, s, err);
			if (r < 0)
				return r;
		}
		len = min_u64(len, lv->end - guest_off);
		if (lv->past_end)
			break;
		if (lv->b.type != QCOW_L2_UNALLOCATED) {
			fill(e, c, i, lv, guest_off, len);
			put_place(e, c, &s->level[0]);
			return 0;
		}
	}
	*e = (struct qcow_extent){
		.guest_off = guest_off,
		.len = len,
		.type = QCOW_EXTENT_UNALLOCATED,
		.depth = i ? i - 1 : 0,
	};
	put_place(e, c, &s->level[0]);
	return 0;
}

int qcow_chain_extent(struct qcow_chain *c, uint64_t guest_off, uint64_t len,
		      struct qcow_extent *ext, struct qcow_scratch *s, struct qcow_error *err)
{
	if (!len || len > UINT64_MAX - guest_off)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "impossible guest range");
	qcow_walk_begin(s);
	return qcow_walk(c, guest_off, len, ext, s, err);
}

void qcow_chain_find_hole(const struct qcow_chain *c, struct qcow_extent *e)
{
	bool is_hole;

	if (e->type != QCOW_EXTENT_DATA || c->layers[e->layer].kind == QCOW_LAYER_QCOW2)
		return;
	qcow_io_hole(c->layers[e->layer].io, e->host_off, &e->len, &is_hole);
	if (is_hole)
		e->type = QCOW_EXTENT_ZERO;
}

int qcow_chain_next(struct qcow_chain *c, uint64_t guest_off, uint64_t len, struct qcow_extent *e,
		    struct qcow_scratch *s, struct qcow_error *err)
{
	int r;

	if (!c) {
		*e = (struct qcow_extent){ .guest_off = guest_off,
					   .len = len,
					   .type = QCOW_EXTENT_UNALLOCATED };
		return 0;
	}
	r = qcow_chain_extent(c, guest_off, len, e, s, err);
	if (!r && e->type == QCOW_EXTENT_BROKEN)
		return -EIO;
	if (!r)
		qcow_chain_find_hole(c, e);
	return r;
}
