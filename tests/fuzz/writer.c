// SPDX-License-Identifier: GPL-2.0-only
/*
 * The write side on an image of anybody's making: leases and commits must stay off the
 * metadata, and be seen by LOAD. The input is that of the chain target.
 */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "lib/chain.h"
#include "lib/commit.h"
#include "lib/lease.h"
#include "lib/writer.h"

#define ROOM	   (4u << 20) /* no file gets longer: then the disk is full */
#define NR_LEASES  8
#define NR_COMMITS 6
#define PAGE	   512

struct file {
	struct qcow_io io;
	uint8_t bytes[ROOM];
	uint64_t size, touched;
	bool can_zero;
};

struct subject {
	struct file top, base;
	struct qcow_chain *chain;
	struct qcow_scratch *scratch;
	struct qcow_writer *w;
	uint8_t head[48]; /* what no writer ever changes */
	uint64_t cluster, nr_clusters;
	struct qcow_error err;
};

/* ---- files ------------------------------------------------------------------------- */

static int file_pread(struct qcow_io *io, void *buf, size_t len, uint64_t off)
{
	const struct file *f = (const struct file *)io;
	size_t have = off < f->size ? f->size - off : 0;

	if (have > len)
		have = len;
	if (have)
		memcpy(buf, f->bytes + off, have);
	memset((uint8_t *)buf + have, 0, len - have);
	return 0;
}

static int file_size(struct qcow_io *io, uint64_t *size)
{
	*size = ((const struct file *)io)->size;
	return 0;
}

static int reach(struct file *f, uint64_t end)
{
	if (end > ROOM || (f->io.fixed_end && end > f->size))
		return -ENOSPC;
	if (end > f->touched)
		f->touched = end;
	if (end > f->size)
		f->size = end;
	return 0;
}

static int file_pwrite(struct qcow_io *io, const void *buf, size_t len, uint64_t off)
{
	struct file *f = (struct file *)io;
	int r = reach(f, off + len);

	if (!r)
		memcpy(f->bytes + off, buf, len);
	return r;
}

static int file_flush(struct qcow_io *io)
{
	(void)io;
	return 0;
}

static int file_truncate(struct qcow_io *io, uint64_t size)
{
	struct file *f = (struct file *)io;

	if (size < f->size)
		memset(f->bytes + size, 0, f->size - size);
	f->size = size < f->size ? size : f->size;
	return reach(f, size);
}

static int file_zero(struct qcow_io *io, uint64_t off, uint64_t len)
{
	struct file *f = (struct file *)io;
	int r = f->can_zero ? reach(f, off + len) : -EOPNOTSUPP;

	if (!r)
		memset(f->bytes + off, 0, len);
	return r;
}

static const struct qcow_io_ops ops = {
	.pread = file_pread,
	.size = file_size,
	.pwrite = file_pwrite,
	.flush = file_flush,
	.truncate = file_truncate,
	.zero = file_zero,
};

static void file_init(struct file *f, const uint8_t *bytes, size_t size, const uint8_t *choice)
{
	memset(f->bytes, 0, f->touched);
	memcpy(f->bytes, bytes, size);
	f->size = f->touched = size;
	f->io = (struct qcow_io){ .ops = &ops, .align = 512, .mem_align = 1 };
	f->io.fixed_end = choice[3] & 1;
	f->can_zero = choice[3] & 2;
}

/* ---- opening -------------------------------------------------------------------------- */

static int open_chain(struct subject *s, const uint8_t *data, size_t size)
{
	const struct qcow_chain_params params = { .cache_bytes = 64 << 10 };
	size_t split = (size - 4) / 16 * (data[0] % 17);

	if (split > ROOM || size > ROOM)
		return -1;
	file_init(&s->top, data + 4, split, data);
	file_init(&s->base, data + 4 + split, size - 4 - split, data);
	if (qcow_chain_create(&s->chain, &params, NULL))
		return -1;
	if (qcow_chain_add_qcow2(s->chain, &s->top.io, NULL, NULL) ||
	    fuzz_add_base(s->chain, &s->base.io, data[1] & 1) || qcow_chain_seal(s->chain, NULL) ||
	    qcow_chain_make_writable(s->chain, data[1] & 2, &s->err))
		return -1;
	s->w = qcow_chain_writer(s->chain);
	memcpy(s->head, s->top.bytes, sizeof(s->head));
	s->cluster = qcow_cluster_size(qcow_writer_header(s->w));
	s->nr_clusters = (qcow_chain_size(s->chain) + s->cluster - 1) / s->cluster;
	return qcow_scratch_create(&s->scratch, s->chain, NULL);
}

/* ---- what must never happen -------------------------------------------------------------- */

static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* The guest's data would be there: not on what the header itself names. */
static void check_place(const struct subject *s, uint64_t off, uint64_t len)
{
	const struct qcow_header *h = qcow_writer_header(s->w);

	if (qcow_chain_data_layer(s->chain))
		return;
	FUZZ_ASSERT(off >= s->cluster);
	FUZZ_ASSERT(!overlaps(off, len, h->l1_off, h->l1_size * 8ull));
	FUZZ_ASSERT(!overlaps(off, len, h->reftable_off, h->reftable_clusters * s->cluster));
}

static void check_page(struct subject *s)
{
	uint64_t block = 1ull << qcow_chain_block_bits(s->chain), next = 0;
	struct qcow_run runs[PAGE], *run;
	size_t nr;

	FUZZ_ASSERT(
		!qcow_chain_resolve(s->chain, 0, PAGE * block, runs, PAGE, &nr, s->scratch, NULL));
	for (run = runs; run < runs + nr; run++) {
		FUZZ_ASSERT(run->guest_off == next && run->len && !(run->len % block));
		FUZZ_ASSERT(!run->writable || run->type == QCOW_RUN_DATA);
		FUZZ_ASSERT(!run->forbidden || run->type == QCOW_RUN_FETCH);
		FUZZ_ASSERT(!run->writable || !run->reserved);
		if (run->writable)
			FUZZ_ASSERT(run->layer == qcow_chain_data_layer(s->chain));
		if (run->writable)
			check_place(s, run->host_off, run->len);
		if (run->reserved)
			check_place(s, run->reserved_off, run->len);
		next += run->len;
	}
	FUZZ_ASSERT(next == PAGE * block);
}

/* What was committed is what LOAD says. */
static void check_commit(struct subject *s, const struct qcow_delta *d)
{
	struct qcow_run runs[PAGE];
	size_t nr;

	if (qcow_chain_resolve(s->chain, d->guest_off, d->len, runs, PAGE, &nr, s->scratch, NULL))
		return;
	if (d->type == QCOW_DELTA_DATA)
		FUZZ_ASSERT(runs[0].type == QCOW_RUN_FETCH ||
			    (runs[0].type == QCOW_RUN_DATA && runs[0].writable &&
			     runs[0].host_off == d->host_off));
	else
		FUZZ_ASSERT(runs[0].type == QCOW_RUN_ZERO);
}

/* ---- a guest -------------------------------------------------------------------------------- */

static size_t get_leases(struct subject *s, struct qcow_lease_extent *ext)
{
	size_t nr, i, j;

	if (qcow_lease_propose(s->w, 4 * s->cluster, qcow_lease_tables_wanted(s->w, 3), ext,
			       NR_LEASES, &nr, &s->err))
		return 0;
	for (i = 0; i < nr; i++) {
		check_place(s, ext[i].host_off, ext[i].len);
		for (j = 0; j < i; j++)
			FUZZ_ASSERT(!overlaps(ext[i].host_off, ext[i].len, ext[j].host_off,
					      ext[j].len));
	}
	return qcow_lease_grant(s->w, ext, nr, &s->err) ? 0 : nr;
}

static int commit_one(struct subject *s, const struct qcow_delta *d)
{
	struct qcow_commit c = { .deltas = d, .nr = 1, .keep_exclusive = true };
	int r = 0, steps = 0;

	while (!r && c.next < 1) {
		FUZZ_ASSERT(steps++ < 100);
		r = qcow_commit_step(s->w, &c, &s->err);
		if (!r)
			qcow_free(s->w, c.lost, c.nr_lost, NULL);
	}
	return r;
}

/* Whole clusters of the disk's first half map page. */
static void write_some(struct subject *s, const struct qcow_lease_extent *ext,
		       const uint8_t *choice)
{
	uint64_t host = ext->host_off, end = ext->host_off + ext->len, guest;
	struct qcow_delta d = { .len = s->cluster };
	int i;

	for (i = 0; i < NR_COMMITS && s->nr_clusters; i++) {
		guest = (uint64_t)(choice[i % 4] >> i & 7) % s->nr_clusters;
		d.guest_off = guest * s->cluster;
		d.type = (enum qcow_delta_type)(1 + (choice[(i + 1) % 4] >> i & 3) % 3);
		d.host_off = 0;
		if (d.type == QCOW_DELTA_DATA) {
			if (host >= end)
				continue;
			d.host_off = qcow_chain_data_layer(s->chain) ? d.guest_off : host;
			host += s->cluster;
		}
		if (!commit_one(s, &d))
			check_commit(s, &d);
	}
}

static void play(struct subject *s, const uint8_t *choice)
{
	struct qcow_lease_extent ext[NR_LEASES];
	size_t nr, i;

	check_page(s);
	nr = get_leases(s, ext);
	for (i = 0; i < nr; i++)
		if (!ext[i].table)
			write_some(s, &ext[i], choice);
	check_page(s);
	qcow_writer_finish(s->w, &s->err);
	FUZZ_ASSERT(!memcmp(s->head, s->top.bytes, sizeof(s->head)));
}

int fuzz_writer(const uint8_t *data, size_t size)
{
	static struct subject s;

	if (size < 4)
		return 0;
	s.chain = NULL;
	s.scratch = NULL;
	if (!open_chain(&s, data, size))
		play(&s, data);
	qcow_scratch_destroy(s.scratch);
	qcow_chain_destroy(s.chain);
	return 0;
}
