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

#include "lib/be.h"
#include "lib/chain-priv.h"

/* Entries of one L2 table, some at a time. */
struct l2_reader {
	struct qcow_chain *c;
	struct qcow_scratch *s;
	const struct chain_node *n;
	const struct qcow_header *h;
	uint64_t l2_off;
	uint64_t first, nr; /* entry indices that are in buf */
	uint8_t buf[512];
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int read_table(struct qcow_chain *c, const struct chain_node *n, uint64_t host_off,
		      void *buf, size_t len, struct qcow_scratch *s, struct qcow_error *err)
{
	return qcow_mcache_read(c->cache, n->layer, c->layers[n->layer].io, host_off, buf, len,
				s->page, err);
}

/* The table's entry @idx; what is read ahead ends with the table. */
static int l2_entry(struct l2_reader *l, uint64_t idx, uint64_t *entry, uint64_t *bitmap,
		    struct qcow_error *err)
{
	uint32_t bits = qcow_l2_entry_bits(l->h);
	uint64_t table = qcow_cluster_size(l->h) >> bits;
	uint8_t *p;
	int r;

	if (idx < l->first || idx >= l->first + l->nr) {
		l->nr = min_u64(table - idx, sizeof(l->buf) >> bits);
		r = read_table(l->c, l->n, l->l2_off + (idx << bits), l->buf, l->nr << bits, l->s,
			       err);
		if (r < 0)
			return r;
		l->first = idx;
	}
	p = l->buf + ((idx - l->first) << bits);
	*entry = qcow_be64(p);
	*bitmap = bits == 4 ? qcow_be64(p + 8) : 0;
	return 0;
}

static int l2_block(struct l2_reader *l, uint64_t guest_off, struct qcow_l2_block *b,
		    struct qcow_error *err)
{
	uint64_t idx = guest_off & ((1ull << qcow_l2_span_bits(l->h)) - 1);
	uint64_t entry, bitmap;
	int r;

	r = l2_entry(l, idx >> l->h->cluster_bits, &entry, &bitmap, err);
	if (r < 0)
		return r;
	qcow_l2_decode(l->h, guest_off, entry, bitmap, b, err);
	return 0;
}

/* Does @b, @dist bytes after the level's start, continue the level? */
static bool continues(const struct chain_level *lv, const struct qcow_l2_block *b, uint64_t dist)
{
	if (lv->b.type != b->type)
		return false;
	if (b->type == QCOW_L2_UNALLOCATED)
		return true;
	if (b->type == QCOW_L2_COMPRESSED_DATA || b->type == QCOW_L2_BROKEN)
		return false;
	return lv->b.has_host_off == b->has_host_off && lv->b.copied == b->copied &&
	       (!b->has_host_off || lv->b.host_off + dist == b->host_off);
}

/* [guest_off, end) lies under one L2 table. */
static int scan_l2(struct l2_reader *l, uint64_t guest_off, uint64_t end, struct chain_level *lv,
		   struct qcow_error *err)
{
	uint64_t block = 1ull << qcow_block_bits(l->h);
	uint64_t cluster = qcow_cluster_size(l->h);
	struct qcow_l2_block b;
	uint64_t off;
	int r;

	lv->start = guest_off & ~(block - 1);
	r = l2_block(l, lv->start, &lv->b, err);
	if (r < 0)
		return r;
	off = lv->start + block;
	if (lv->b.type == QCOW_L2_COMPRESSED_DATA) {
		/* All subclusters are one; its start is where the bytes count from. */
		lv->start = guest_off & ~(cluster - 1);
		off = lv->start + cluster;
	}
	for (; off < end; off += block) {
		r = l2_block(l, off, &b, err);
		if (r < 0)
			return r;
		if (!continues(lv, &b, off - lv->start))
			break;
	}
	lv->end = min_u64(off, end);
	return 0;
}

static int scan_qcow2(struct qcow_chain *c, const struct chain_node *n, uint64_t guest_off,
		      uint64_t end, struct chain_level *lv, struct qcow_scratch *s,
		      struct qcow_error *err)
{
	const struct qcow_image *img = c->layers[n->layer].img;
	struct l2_reader l = { .c = c, .s = s, .n = n, .h = qcow_image_header(img) };
	uint32_t span = qcow_l2_span_bits(l.h);
	uint64_t idx = guest_off >> span;
	uint8_t entry[8];
	int r;

	end = min_u64(end, (idx + 1) << span);
	lv->start = guest_off;
	lv->end = end;
	lv->b.type = QCOW_L2_UNALLOCATED;
	if (idx >= qcow_image_l1_size(img))
		return 0;
	r = read_table(c, n, qcow_image_l1_off(img) + idx * 8, entry, sizeof(entry), s, err);
	if (r < 0)
		return r;
	if (qcow_l1_decode(l.h, qcow_be64(entry), &l.l2_off, err) < 0) {
		lv->b.type = QCOW_L2_BROKEN;
		return 0;
	}
	return l.l2_off ? scan_l2(&l, guest_off, end, lv, err) : 0;
}

static int scan(struct qcow_chain *c, const struct chain_node *n, uint64_t guest_off, uint64_t len,
		struct chain_level *lv, struct qcow_scratch *s, struct qcow_error *err)
{
	uint64_t end = guest_off + len;
	int r;

	if (guest_off >= n->size) {
		*lv = (struct chain_level){ .start = guest_off, .end = end, .past_end = true };
		lv->b.type = QCOW_L2_UNALLOCATED;
		return 0;
	}
	end = min_u64(end, n->size);
	if (c->layers[n->layer].kind == QCOW_LAYER_RAW) {
		*lv = (struct chain_level){ .start = guest_off, .end = end };
		lv->b = (struct qcow_l2_block){ .type = QCOW_L2_DATA,
						.has_host_off = true,
						.host_off = guest_off };
		return 0;
	}
	*lv = (struct chain_level){ 0 };
	r = scan_qcow2(c, n, guest_off, end, lv, s, err);
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

void qcow_walk_begin(struct qcow_scratch *s)
{
	size_t i;

	for (i = 0; i < s->nr_levels; i++)
		s->level[i].start = s->level[i].end = 0;
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
			return 0;
		}
	}
	*e = (struct qcow_extent){
		.guest_off = guest_off,
		.len = len,
		.type = QCOW_EXTENT_UNALLOCATED,
		.depth = i ? i - 1 : 0,
	};
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
