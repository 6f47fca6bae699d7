// SPDX-License-Identifier: GPL-2.0-only
/* Every table of an image, and what it refers to. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/be.h"
#include "lib/bitmap.h"
#include "lib/check-priv.h"
#include "lib/l2.h"
#include "lib/snapshot.h"

#define L1_RESERVED 0x7f000000000001ffull
#define L2_RESERVED 0x3f000000000001feull
/* Entries of an L1 or bitmap table read at a time. */
#define BATCH 512

/* @off and @len in bytes; every cluster they touch is referred to once. */
static int refer(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	uint64_t cluster = qcow_cluster_size(&c->h), i, last;
	int r = 0;

	if (!len)
		return 0;
	/* The file may end inside its last cluster. */
	if (off >> 56 || (off + len > c->file_size && off + len - c->file_size >= cluster)) {
		found(c, &c->result->corruptions,
		      "ERROR %s at %#" PRIx64 " is past the end of the file", what, off);
		c->counted = false;
		return 0;
	}
	last = (off + len - 1) >> c->h.cluster_bits;
	for (i = off >> c->h.cluster_bits; i <= last && !r; i++)
		r = refs_add(&c->refs, i);
	return r < 0 ? qcow_fail(c->err, ENOMEM, off, "no memory to count references") : 0;
}

/* ---- L2 ---------------------------------------------------------------------------- */

struct l2_walk {
	struct check *c;
	uint64_t guest_off; /* of the entry */
	bool active;
};

static int check_data(struct l2_walk *w, const struct qcow_l2_block *b)
{
	struct check *c = w->c;
	int r;

	if (!c->params->data || !w->active || c->quiet || c->h.crypt_method)
		return 0;
	r = qcow_io_pread(c->io, c->comp, b->csize, b->host_off, c->err);
	if (r < 0)
		return r;
	if (qcow_codec_inflate(c->codec, c->h.compression, c->comp, b->csize, c->plain,
			       qcow_cluster_size(&c->h)) < 0)
		found(c, &c->result->corruptions,
		      "ERROR compressed cluster of guest offset %#" PRIx64 " at %#" PRIx64
		      " does not decompress",
		      w->guest_off, b->host_off);
	return 0;
}

static int walk_compressed(struct l2_walk *w, uint64_t entry, uint64_t bitmap)
{
	struct check *c = w->c;
	struct qcow_l2_block b;
	int r;

	qcow_l2_decode(&c->h, w->guest_off, entry, bitmap, &b, &c->why);
	if (b.type != QCOW_L2_COMPRESSED_DATA) {
		found(c, &c->result->corruptions, "ERROR %s", c->why.text);
		return 0;
	}
	if (entry & QCOW_ENTRY_COPIED)
		found(c, &c->result->corruptions,
		      "ERROR compressed cluster of guest offset %#" PRIx64
		      " is marked as not shared",
		      w->guest_off);
	if (bitmap)
		found(c, &c->result->corruptions,
		      "ERROR compressed cluster of guest offset %#" PRIx64 " has subclusters",
		      w->guest_off);
	if (w->active && !c->quiet) {
		c->result->allocated++;
		c->result->compressed++;
		c->result->fragmented++;
	}
	r = check_data(w, &b);
	return r < 0 ? r : refer(c, b.host_off, b.csize, "compressed cluster");
}

static void count_fragment(struct check *c, uint64_t off)
{
	c->result->allocated++;
	if (c->next_off && off != c->next_off)
		c->result->fragmented++;
	c->next_off = off + qcow_cluster_size(&c->h);
}

/* What is not a plain pointer to a cluster. */
static void judge_entry(struct l2_walk *w, uint64_t entry, uint64_t bitmap)
{
	struct check *c = w->c;
	struct qcow_l2_block b;

	if (entry & L2_RESERVED)
		found(c, &c->result->corruptions,
		      "ERROR L2 entry %#" PRIx64 " of guest offset %#" PRIx64
		      " has reserved bits set",
		      entry, w->guest_off);
	qcow_l2_decode(&c->h, w->guest_off, entry, bitmap, &b, &c->why);
	if (b.type == QCOW_L2_BROKEN)
		found(c, &c->result->corruptions, "ERROR %s", c->why.text);
}

static int walk_entry(struct l2_walk *w, uint64_t entry, uint64_t bitmap)
{
	struct check *c = w->c;
	uint64_t off = entry & QCOW_ENTRY_OFF_MASK;
	uint64_t odd = (qcow_cluster_size(&c->h) - 1) | L2_RESERVED | QCOW_L2_ZERO;
	bool data_file = qcow_has_data_file(&c->h);

	if (!entry && !bitmap)
		return 0;
	if (entry & QCOW_L2_COMPRESSED)
		return walk_compressed(w, entry, bitmap);
	if (entry & odd || bitmap || data_file)
		judge_entry(w, entry, bitmap);
	if (!off && !(data_file && entry & QCOW_ENTRY_COPIED))
		return 0;
	if (w->active && !c->quiet)
		count_fragment(c, off);
	c->all_copied &= !w->active || entry & QCOW_ENTRY_COPIED;
	if (data_file || off & (qcow_cluster_size(&c->h) - 1))
		return 0;
	return refer(c, off, qcow_cluster_size(&c->h), "data cluster");
}

static int read_l2(struct check *c, uint64_t l2_off)
{
	return qcow_io_pread(c->io, c->table, qcow_cluster_size(&c->h), l2_off, c->err);
}

static int walk_l2(struct check *c, uint64_t slot, uint64_t l2_off, bool active)
{
	uint32_t bits = qcow_l2_entry_bits(&c->h);
	uint64_t nr = qcow_cluster_size(&c->h) >> bits, i;
	struct l2_walk w = { .c = c, .active = active };
	const uint8_t *p;
	int r = read_l2(c, l2_off);

	c->next_off = 0;
	for (i = 0; i < nr && !r; i++) {
		p = c->table + (i << bits);
		w.guest_off = (slot << qcow_l2_span_bits(&c->h)) + (i << c->h.cluster_bits);
		r = walk_entry(&w, qcow_be64(p), bits == 4 ? qcow_be64(p + 8) : 0);
	}
	return r;
}

/* ---- L1 ---------------------------------------------------------------------------- */

static int walk_l1_entry(struct check *c, uint64_t slot, uint64_t entry, bool active)
{
	uint64_t off = entry & QCOW_ENTRY_OFF_MASK;
	int r;

	if (!entry)
		return 0;
	if (entry & L1_RESERVED)
		found(c, &c->result->corruptions,
		      "ERROR L1 entry %#" PRIx64 " at index %" PRIu64 " has reserved bits set",
		      entry, slot);
	if (off & (qcow_cluster_size(&c->h) - 1)) {
		found(c, &c->result->corruptions,
		      "ERROR L2 table at %#" PRIx64 " is not cluster aligned", off);
		return 0;
	}
	if (!off)
		return 0;
	c->all_copied &= !active || entry & QCOW_ENTRY_COPIED;
	r = refer(c, off, qcow_cluster_size(&c->h), "L2 table");
	return r < 0 ? r : walk_l2(c, slot, off, active);
}

/* Calls @visit for each entry of an L1 table, zeros included. */
static int each_l1(struct check *c, uint64_t l1_off, uint64_t l1_size, bool active,
		   int (*visit)(struct check *c, uint64_t slot, uint64_t entry, bool active))
{
	uint64_t done, i, n;
	uint8_t buf[BATCH * 8];
	int r = 0;

	for (done = 0; done < l1_size && !r; done += n) {
		n = l1_size - done < BATCH ? l1_size - done : BATCH;
		r = qcow_io_pread(c->io, buf, n * 8, l1_off + done * 8, c->err);
		for (i = 0; i < n && !r; i++)
			r = visit(c, done + i, qcow_be64(buf + i * 8), active);
		c->steps += n;
		if (c->params->progress)
			c->params->progress(c->params->arg, c->steps, c->nr_steps);
	}
	return r;
}

static int walk_l1(struct check *c, uint64_t l1_off, uint64_t l1_size, bool active)
{
	int r = refer(c, l1_off, l1_size * 8, "L1 table");

	return r < 0 ? r : each_l1(c, l1_off, l1_size, active, walk_l1_entry);
}

/* ---- the rest ---------------------------------------------------------------------- */

struct snap_walk {
	struct check *c;
	uint64_t end;
};

static int walk_snapshot(const struct qcow_snapshot *s, void *arg)
{
	struct snap_walk *w = arg;
	struct qcow_error why = { 0 };

	w->end = s->entry_off + s->entry_len;
	if (qcow_snapshot_check(s, &w->c->h, &why) < 0) {
		found(w->c, &w->c->result->corruptions, "ERROR %s", why.text);
		return 0;
	}
	return walk_l1(w->c, s->l1_off, s->l1_size, false);
}

static int walk_snapshots(struct check *c)
{
	struct snap_walk w = { .c = c, .end = c->h.snapshots_off };
	int r = qcow_snapshots_walk(c->io, &c->h, walk_snapshot, &w, c->err);

	return r < 0 ? r
		     : refer(c, c->h.snapshots_off, w.end - c->h.snapshots_off, "snapshot table");
}

static int walk_bitmap(const struct qcow_bitmap *b, void *arg)
{
	struct check *c = arg;
	uint64_t done, i, n, off;
	uint8_t buf[BATCH * 8];
	int r = refer(c, b->table_off, b->table_size * 8ull, "bitmap table");

	for (done = 0; done < b->table_size && !r; done += n) {
		n = b->table_size - done < BATCH ? b->table_size - done : BATCH;
		r = qcow_io_pread(c->io, buf, n * 8, b->table_off + done * 8, c->err);
		for (i = 0; i < n && !r; i++) {
			off = qcow_be64(buf + i * 8) & QCOW_ENTRY_OFF_MASK;
			if (off)
				r = refer(c, off, qcow_cluster_size(&c->h), "bitmap");
		}
	}
	return r;
}

static int walk_bitmaps(struct check *c)
{
	int r = c->h.nr_bitmaps
			? refer(c, c->h.bitmap_dir_off, c->h.bitmap_dir_size, "bitmap directory")
			: 0;

	return r < 0 ? r : qcow_bitmaps_walk(c->io, &c->h, walk_bitmap, c, c->err);
}

/*
 * Last of all: a block that something else refers to, too, may hold data, and is no place
 * to write refcounts to. Said in whichever window it lies.
 */
static int walk_refblock(struct check *c, uint64_t i)
{
	uint64_t refs;
	bool quiet = c->quiet;
	int r = refer(c, c->reftable[i], qcow_cluster_size(&c->h), "refcount block");

	refs = refs_get(&c->refs, c->reftable[i] >> c->h.cluster_bits);
	if (r < 0 || refs <= 1)
		return r;
	c->quiet = false;
	found(c, &c->result->corruptions, "ERROR refcount block %" PRIu64 " refcount=%" PRIu64, i,
	      refs);
	c->quiet = quiet;
	c->counted = false;
	c->rebuild = true;
	return 0;
}

static int walk_refcounts(struct check *c)
{
	uint64_t i;
	int r = refer(c, c->h.reftable_off, c->nr_reftable * 8, "refcount table");

	for (i = 0; i < c->nr_reftable && !r; i++)
		if (c->reftable[i])
			r = walk_refblock(c, i);
	return r;
}

int walk_all(struct check *c)
{
	int r = refer(c, 0, 1, "header");

	if (!r)
		r = walk_l1(c, c->h.l1_off, c->h.l1_size, true);
	if (!r)
		r = walk_snapshots(c);
	if (!r && c->h.crypto_len)
		r = refer(c, c->h.crypto_off, c->h.crypto_len, "encryption header");
	if (!r)
		r = walk_bitmaps(c);
	return r < 0 ? r : walk_refcounts(c);
}

/* ---- COPIED ------------------------------------------------------------------------ */

/* If the whole file was counted and agreed, memory knows what the blocks would say. */
static int known(struct check *c, uint64_t cluster, uint64_t *refs)
{
	if (!c->counted)
		return recorded(c, cluster, refs);
	*refs = refs_get(&c->refs, cluster);
	return 0;
}

/* *@entry: corrected if this scan repairs; *@changed says so. */
static int judge_copied(struct check *c, uint64_t *entry, const char *what, bool *changed)
{
	uint64_t off = *entry & QCOW_ENTRY_OFF_MASK, refs = 1;
	int r = 0;

	if (*entry & QCOW_L2_COMPRESSED || (!off && !(*entry & QCOW_ENTRY_COPIED)))
		return 0;
	if (!qcow_has_data_file(&c->h) || what[0] == 'L')
		r = known(c, off >> c->h.cluster_bits, &refs);
	if (r < 0 || (refs == 1) == !!(*entry & QCOW_ENTRY_COPIED))
		return r;
	found(c, &c->result->corruptions,
	      "ERROR %s at %#" PRIx64 ": refcount %" PRIu64 ", but its entry %#" PRIx64
	      " says otherwise",
	      what, off, refs, *entry);
	if (c->fix_copied) {
		*entry ^= QCOW_ENTRY_COPIED;
		*changed = true;
	}
	return 0;
}

static int copied_l2(struct check *c, uint64_t l2_off)
{
	uint32_t bits = qcow_l2_entry_bits(&c->h);
	uint64_t nr = qcow_cluster_size(&c->h) >> bits, i, entry;
	bool changed = false;
	int r = read_l2(c, l2_off);

	for (i = 0; i < nr && !r; i++) {
		entry = qcow_be64(c->table + (i << bits));
		if (!entry)
			continue;
		r = judge_copied(c, &entry, "data cluster", &changed);
		qcow_put_be64(c->table + (i << bits), entry);
	}
	if (r < 0 || !changed)
		return r;
	return fix_write(c, l2_off, c->table, qcow_cluster_size(&c->h));
}

static int copied_l1(struct check *c, uint64_t slot, uint64_t entry, bool active)
{
	uint64_t off = entry & QCOW_ENTRY_OFF_MASK;
	bool changed = false;
	uint8_t be[8];
	int r;

	(void)active;
	if (!off || off & (qcow_cluster_size(&c->h) - 1) || off >= c->file_size)
		return 0;
	r = judge_copied(c, &entry, "L2 table", &changed);
	if (!r && changed) {
		qcow_put_be64(be, entry);
		r = fix_patch(c, c->h.l1_off + slot * 8, be, sizeof(be));
	}
	return r < 0 ? r : copied_l2(c, off);
}

int walk_copied(struct check *c)
{
	/* No cluster has two references, and all say so: most images, and half the reading. */
	if (c->counted && c->all_copied && !c->refs.shared)
		return 0;
	/* Flags may be set by refcounts that are right. */
	c->fix_copied = c->fix == QCOW_REPAIR_ALL || (c->fix && !c->result->corruptions);
	return each_l1(c, c->h.l1_off, c->h.l1_size, true, copied_l1);
}
