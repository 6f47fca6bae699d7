// SPDX-License-Identifier: GPL-2.0-only
#include "lib/builder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/be.h"
#include "lib/l2.h"
#include "lib/refcount.h"

#define ALL_SUBS  0xffffffffu
#define TAIL_SIZE (1u << 20)

/* The host cluster that compressed bytes go to; others may be given away meanwhile. */
struct open_cluster {
	uint8_t *buf;
	uint64_t cluster; /* 0 = none */
	size_t fill;
	uint64_t refs;
};

struct qcow_builder {
	struct qcow_io *io;
	struct qcow_create_params p;
	struct qcow_header h;
	uint32_t block_bits; /* log2 of the refcounts in a block */
	uint64_t next;	     /* the first cluster not given away */
	uint64_t counted;    /* clusters below have their refcount in a block */
	uint64_t *blocks;    /* where each refcount block goes */
	size_t nr_blocks, max_blocks;
	uint8_t *block; /* the block of the cluster counted last */
	uint64_t block_idx;
	uint64_t *l1;
	uint8_t *l2;
	uint64_t slot; /* of l2; UINT64_MAX = none */
	struct open_cluster open;
	/* Full compressed clusters that follow each other, to be written at once. */
	uint8_t *tail;
	uint64_t tail_at; /* cluster */
	size_t tail_len;
};

static size_t cluster_size(const struct qcow_builder *b)
{
	return qcow_cluster_size(&b->h);
}

static int write_at(struct qcow_builder *b, const void *buf, size_t len, uint64_t cluster,
		    struct qcow_error *err)
{
	return qcow_io_pwrite(b->io, buf, len, cluster << b->h.cluster_bits, err);
}

/* ---- compressed clusters ----------------------------------------------------------- */

static int write_tail(struct qcow_builder *b, struct qcow_error *err)
{
	size_t len = b->tail_len;

	b->tail_len = 0;
	return len ? write_at(b, b->tail, len, b->tail_at, err) : 0;
}

/* Its refcount is final: the block it belongs to must still be in memory. */
static int close_open(struct qcow_builder *b, struct qcow_error *err)
{
	struct open_cluster *o = &b->open;
	int r = 0;

	if (!o->cluster)
		return 0;
	qcow_ref_encode(b->block, b->h.refcount_order, o->cluster & ((1ull << b->block_bits) - 1),
			o->refs);
	if (b->tail_len && (b->tail_at + (b->tail_len >> b->h.cluster_bits) != o->cluster ||
			    b->tail_len + cluster_size(b) > TAIL_SIZE))
		r = write_tail(b, err);
	if (!b->tail_len)
		b->tail_at = o->cluster;
	if (cluster_size(b) > TAIL_SIZE) {
		r = r < 0 ? r : write_at(b, o->buf, cluster_size(b), o->cluster, err);
	} else {
		memcpy(b->tail + b->tail_len, o->buf, cluster_size(b));
		b->tail_len += cluster_size(b);
	}
	memset(o->buf, 0, cluster_size(b));
	o->cluster = 0;
	o->fill = 0;
	return r;
}

/* ---- host clusters ----------------------------------------------------------------- */

static int write_block(struct qcow_builder *b, struct qcow_error *err)
{
	int r = 0;

	if (b->open.cluster >> b->block_bits == b->block_idx)
		r = close_open(b, err);
	if (r < 0)
		return r;
	r = write_at(b, b->block, cluster_size(b), b->blocks[b->block_idx], err);
	memset(b->block, 0, cluster_size(b));
	return r;
}

static int add_block(struct qcow_builder *b, struct qcow_error *err)
{
	size_t max = b->max_blocks ? 2 * b->max_blocks : 64;
	uint64_t *blocks;

	if ((b->nr_blocks + 1) * 8 > QCOW_MAX_REFTABLE)
		return qcow_fail(err, EFBIG, QCOW_NO_OFF, "too big for refcounts this wide");
	if (b->nr_blocks == b->max_blocks) {
		blocks = realloc(b->blocks, max * 8);
		if (!blocks)
			return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for refcounts");
		b->blocks = blocks;
		b->max_blocks = max;
	}
	b->blocks[b->nr_blocks++] = b->next++;
	return 0;
}

/* Everything given away has refcount 1, until a compressed cluster is closed. */
static int count(struct qcow_builder *b, struct qcow_error *err)
{
	uint64_t mask = (1ull << b->block_bits) - 1;
	int r = 0;

	for (; b->counted < b->next && !r; b->counted++) {
		if (b->counted >> b->block_bits != b->block_idx) {
			r = write_block(b, err);
			b->block_idx = b->counted >> b->block_bits;
		}
		qcow_ref_encode(b->block, b->h.refcount_order, b->counted & mask, 1);
	}
	return r;
}

/*
 * @nr clusters in a row. The refcount blocks of what they are the first to need come
 * right after them, and may need another themselves.
 */
static int take(struct qcow_builder *b, uint64_t nr, uint64_t *first, struct qcow_error *err)
{
	int r = 0;

	*first = b->next;
	b->next += nr;
	while (b->nr_blocks <= (b->next - 1) >> b->block_bits && !r)
		r = add_block(b, err);
	return r < 0 ? r : count(b, err);
}

/* ---- L2 tables --------------------------------------------------------------------- */

static int close_table(struct qcow_builder *b, struct qcow_error *err)
{
	uint64_t at;
	int r;

	if (b->slot == UINT64_MAX)
		return 0;
	r = take(b, 1, &at, err);
	if (!r)
		r = write_at(b, b->l2, cluster_size(b), at, err);
	b->l1[b->slot] = at << b->h.cluster_bits | QCOW_ENTRY_COPIED;
	memset(b->l2, 0, cluster_size(b));
	b->slot = UINT64_MAX;
	return r;
}

static int set_entry(struct qcow_builder *b, uint64_t guest_off, uint64_t entry, uint64_t bitmap,
		     struct qcow_error *err)
{
	uint32_t span = qcow_l2_span_bits(&b->h), bits = qcow_l2_entry_bits(&b->h);
	uint64_t in_table = guest_off & ((1ull << span) - 1);
	uint8_t *p;
	int r = 0;

	if (guest_off >> span != b->slot)
		r = close_table(b, err);
	b->slot = guest_off >> span;
	p = b->l2 + (in_table >> b->h.cluster_bits << bits);
	qcow_put_be64(p, entry);
	if (bits == 4)
		qcow_put_be64(p + 8, bitmap);
	return r;
}

static int take_data(struct qcow_builder *b, uint64_t guest_off, uint64_t nr, uint64_t *host_off,
		     struct qcow_error *err)
{
	int r;

	*host_off = guest_off;
	if (b->p.data_file)
		return 0;
	r = take(b, nr, host_off, err);
	*host_off <<= b->h.cluster_bits;
	return r;
}

int qcow_builder_place(struct qcow_builder *b, uint64_t guest_off, uint64_t nr,
		       const uint32_t *alloc, uint64_t *host_off, struct qcow_error *err)
{
	uint64_t i, done, mask = ALL_SUBS;
	int r = take_data(b, guest_off, nr, host_off, err);

	for (i = 0; i < nr && !r; i++) {
		done = i << b->h.cluster_bits;
		if (alloc)
			mask = alloc[i] | (b->h.has_backing ? (uint64_t)~alloc[i] << 32 : 0);
		r = set_entry(b, guest_off + done, (*host_off + done) | QCOW_ENTRY_COPIED, mask,
			      err);
	}
	return r;
}

static int place_packed(struct qcow_builder *b, uint64_t guest_off, uint64_t off, size_t len,
			struct qcow_error *err)
{
	uint32_t shift = 62 - (b->h.cluster_bits - 8);
	uint64_t sectors = ((off + len - 1) >> 9) - (off >> 9);

	if (off >> shift || off >> 56)
		return qcow_fail(err, EFBIG, off,
				 "the image has become too large for compressed clusters of %zu "
				 "bytes",
				 cluster_size(b));
	return set_entry(b, guest_off, QCOW_L2_COMPRESSED | sectors << shift | off, 0, err);
}

/* A cluster for compressed bytes; it continues the open one if there is no gap. */
static int next_open(struct qcow_builder *b, struct qcow_error *err)
{
	uint64_t cluster;
	int r = close_open(b, err);

	if (!r)
		r = take(b, 1, &cluster, err);
	if (r < 0)
		return r;
	b->open.cluster = cluster;
	b->open.fill = 0;
	b->open.refs = 0;
	return 0;
}

static void fill_open(struct qcow_builder *b, const uint8_t *bytes, size_t len)
{
	memcpy(b->open.buf + b->open.fill, bytes, len);
	b->open.fill += len;
	b->open.refs++;
}

int qcow_builder_pack(struct qcow_builder *b, uint64_t guest_off, const void *bytes, size_t len,
		      struct qcow_error *err)
{
	struct open_cluster *o = &b->open;
	size_t room = o->cluster ? cluster_size(b) - o->fill : 0, first;
	bool fits = room >= len || (room && o->cluster + 1 == b->next);
	uint64_t off;
	int r = 0;

	if (b->p.prealloc || b->p.data_file)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "compressed clusters go with neither preallocation nor a data "
				 "file");
	if (!fits || o->refs == qcow_ref_max(b->h.refcount_order)) {
		r = next_open(b, err);
		room = cluster_size(b);
	}
	if (r < 0)
		return r;
	off = (o->cluster << b->h.cluster_bits) + o->fill;
	first = len < room ? len : room;
	fill_open(b, bytes, first);
	if (first < len) {
		r = next_open(b, err);
		if (!r)
			fill_open(b, (const uint8_t *)bytes + first, len - first);
	}
	return r < 0 ? r : place_packed(b, guest_off, off, len, err);
}

/* ---- zeros ------------------------------------------------------------------------- */

/* A device holds anything, and so does a data file on one: then nobody may read there. */
static int clear(struct qcow_builder *b, uint64_t host_off, uint64_t len, struct qcow_error *err)
{
	bool cheap = b->p.prealloc == QCOW_PREALLOC_FALLOC;

	/* Nothing is compressed beside preallocation: the tail is free. */
	return (cheap ? qcow_io_clear : qcow_io_write_zeros)(b->io, host_off, len, b->tail,
							     cluster_size(b), err);
}

static int preallocate(struct qcow_builder *b, uint64_t guest_off, uint64_t nr,
		       struct qcow_error *err)
{
	uint64_t host, i, off, len = nr << b->h.cluster_bits, flag = 0, bitmap = 0;
	int r = take_data(b, guest_off, nr, &host, err);

	if (!r && b->p.prealloc >= QCOW_PREALLOC_FALLOC && !b->p.data_file)
		r = clear(b, host, len, err);
	if (b->p.prealloc == QCOW_PREALLOC_METADATA && b->io->fixed_end && b->h.version >= 3 &&
	    !b->p.extl2)
		flag = QCOW_L2_ZERO;
	if (b->h.has_backing || (b->p.extl2 && b->io->fixed_end))
		bitmap = (uint64_t)ALL_SUBS << 32;
	for (i = 0; i < nr && !r; i++) {
		off = i << b->h.cluster_bits;
		r = set_entry(b, guest_off + off, (host + off) | QCOW_ENTRY_COPIED | flag, bitmap,
			      err);
	}
	return r;
}

/* Not more at once than keeps runs, and what is written for them, bounded. */
#define PREALLOC_RUN 1024

int qcow_builder_zero(struct qcow_builder *b, uint64_t guest_off, uint64_t nr,
		      struct qcow_error *err)
{
	bool ext = b->p.extl2;
	uint64_t n;
	int r = 0;

	if (b->p.prealloc || b->p.data_raw) {
		for (; nr && !r; nr -= n, guest_off += n << b->h.cluster_bits) {
			n = nr < PREALLOC_RUN ? nr : PREALLOC_RUN;
			r = preallocate(b, guest_off, n, err);
		}
		return r;
	}
	if (!b->h.has_backing)
		return 0;
	if (b->h.version < 3)
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "version 2 cannot hide a backing file with zeros");
	for (; nr && !r; nr--, guest_off += cluster_size(b))
		r = set_entry(b, guest_off, ext ? 0 : QCOW_L2_ZERO,
			      ext ? (uint64_t)ALL_SUBS << 32 : 0, err);
	return r;
}

/* ---- beginning and end ------------------------------------------------------------- */

const struct qcow_header *qcow_builder_header(const struct qcow_builder *b)
{
	return &b->h;
}

static uint64_t clusters_for(const struct qcow_builder *b, uint64_t bytes)
{
	return (bytes + cluster_size(b) - 1) >> b->h.cluster_bits;
}

int qcow_builder_resize(struct qcow_builder *b, uint64_t size, struct qcow_error *err)
{
	uint32_t old = b->h.l1_size;
	uint64_t *l1;
	int r;

	b->p.size = size;
	r = qcow_create_check(&b->p, err);
	if (r < 0)
		return r;
	qcow_create_header(&b->p, &b->h);
	/* What was set stays, should the disk be shorter than its tables. */
	if (b->h.l1_size <= old)
		return 0;
	l1 = realloc(b->l1, (b->h.l1_size + 1ul) * 8);
	if (!l1)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for the L1 table");
	memset(l1 + old, 0, (b->h.l1_size + 1ul - old) * 8);
	b->l1 = l1;
	return 0;
}

/* A device may hold an old image, whose header must not meet our tables. */
static int clear_header(struct qcow_builder *b, struct qcow_error *err)
{
	int r;

	if (!b->io->fixed_end)
		return 0;
	r = write_at(b, b->block, cluster_size(b), 0, err);
	return r < 0 ? r : qcow_io_flush(b->io, err);
}

static int setup(struct qcow_builder *b, struct qcow_error *err)
{
	size_t size = 1ul << b->p.cluster_bits, room = size < 4096 ? 4096 : size;
	size_t tail = size > TAIL_SIZE ? size : TAIL_SIZE;
	uint64_t header;
	int r;

	b->block = aligned_alloc(4096, room);
	b->l2 = aligned_alloc(4096, room);
	b->open.buf = aligned_alloc(4096, room);
	b->tail = aligned_alloc(4096, tail);
	b->l1 = calloc(1, 8);
	if (!b->block || !b->l2 || !b->open.buf || !b->tail || !b->l1)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	memset(b->block, 0, room);
	memset(b->l2, 0, room);
	memset(b->open.buf, 0, room);
	memset(b->tail, 0, tail);
	r = qcow_builder_resize(b, b->p.size, err);
	if (r < 0)
		return r;
	b->block_bits = b->h.cluster_bits + 3 - b->h.refcount_order;
	b->slot = UINT64_MAX;
	r = clear_header(b, err);
	return r < 0 ? r : take(b, 1, &header, err);
}

int qcow_builder_create(struct qcow_builder **out, struct qcow_io *io,
			const struct qcow_create_params *p, struct qcow_error *err)
{
	struct qcow_builder *b;
	int r = qcow_create_check(p, err);

	if (r < 0)
		return r;
	b = calloc(1, sizeof(*b));
	if (!b)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	b->io = io;
	b->p = *p;
	r = setup(b, err);
	if (r < 0) {
		qcow_builder_destroy(b);
		return r;
	}
	*out = b;
	return 0;
}

void qcow_builder_destroy(struct qcow_builder *b)
{
	if (!b)
		return;
	free(b->blocks);
	free(b->block);
	free(b->l1);
	free(b->l2);
	free(b->open.buf);
	free(b->tail);
	free(b);
}

/* @table: host order, put into big endian a cluster at a time. */
static int write_table(struct qcow_builder *b, const uint64_t *table, size_t nr, uint64_t shift,
		       uint64_t at, struct qcow_error *err)
{
	size_t per = cluster_size(b) / 8, done, i;
	int r = 0;

	for (done = 0; done < nr && !r; done += per) {
		memset(b->l2, 0, cluster_size(b));
		for (i = 0; i < per && done + i < nr; i++)
			qcow_put_be64(b->l2 + i * 8, table[done + i] << shift);
		r = write_at(b, b->l2, cluster_size(b), at + done / per, err);
	}
	return r;
}

static int write_l1(struct qcow_builder *b, struct qcow_error *err)
{
	uint64_t at = b->next;
	int r = 0;

	if (b->h.l1_size)
		r = take(b, clusters_for(b, b->h.l1_size * 8ull), &at, err);
	b->h.l1_off = at << b->h.cluster_bits;
	return r < 0 ? r : write_table(b, b->l1, b->h.l1_size, 0, at, err);
}

/* Clusters for a table that also names the blocks which its own clusters need. */
static uint64_t reftable_clusters(const struct qcow_builder *b)
{
	uint64_t n = 0, need = 1, end, blocks;

	while (n < need) {
		n = need;
		blocks = b->nr_blocks;
		for (end = b->next + n; blocks <= (end - 1) >> b->block_bits; end++)
			blocks++;
		need = clusters_for(b, blocks * 8);
	}
	return n;
}

static int write_refcounts(struct qcow_builder *b, struct qcow_error *err)
{
	uint64_t at, nr = reftable_clusters(b);
	int r;

	if (nr << b->h.cluster_bits > QCOW_MAX_REFTABLE)
		return qcow_fail(err, EFBIG, QCOW_NO_OFF, "too big for refcounts this wide");
	r = take(b, nr, &at, err);
	if (!r)
		r = write_block(b, err);
	if (!r)
		r = write_tail(b, err);
	b->h.reftable_off = at << b->h.cluster_bits;
	b->h.reftable_clusters = (uint32_t)nr;
	return r < 0 ? r : write_table(b, b->blocks, b->nr_blocks, b->h.cluster_bits, at, err);
}

static int write_header(struct qcow_builder *b, struct qcow_error *err)
{
	int r;

	memset(b->l2, 0, cluster_size(b));
	r = qcow_header_encode(&b->h, b->l2, err);
	return r < 0 ? r : write_at(b, b->l2, cluster_size(b), 0, err);
}

int qcow_builder_finish(struct qcow_builder *b, bool sync, struct qcow_error *err)
{
	int r = close_table(b, err);

	if (!r)
		r = write_l1(b, err);
	if (!r)
		r = write_refcounts(b, err);
	if (!r && !b->io->fixed_end)
		r = qcow_io_truncate(b->io, b->next << b->h.cluster_bits, err);
	/* A device keeps what it had: there the header must not come before its tables. */
	if (!r && (sync || b->io->fixed_end))
		r = qcow_io_flush(b->io, err);
	if (!r)
		r = write_header(b, err);
	return r < 0 || !sync ? r : qcow_io_flush(b->io, err);
}
