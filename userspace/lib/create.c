// SPDX-License-Identifier: GPL-2.0-only
#include "lib/create.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/be.h"
#include "lib/l2.h"
#include "lib/refcount.h"

/* Guest sizes that loff_t arithmetic, ours and others', survives. */
#define MAX_SIZE ((1ull << 63) - (1ull << 30))

/*
 * Clusters in this order, all with refcount 1: header, refcount table, refcount
 * blocks, L1 table, and with preallocation L2 tables and data.
 */
struct layout {
	uint64_t reftable, blocks, l1, l2, data; /* how many */
	uint64_t blocks_at, l1_at, l2_at, data_at, end;
};

static int invalid(struct qcow_error *err, const char *why)
{
	return qcow_fail(err, EINVAL, QCOW_NO_OFF, "%s", why);
}

static int check_v2(const struct qcow_create_params *p, struct qcow_error *err)
{
	if (p->version >= 3)
		return 0;
	if (p->refcount_order != 4)
		return invalid(err, "version 2 has refcounts of 16 bits only");
	if (p->lazy_refcounts || p->extl2 || p->data_file ||
	    p->compression != QCOW_COMPRESSION_DEFLATE)
		return invalid(err,
			       "lazy refcounts, extended L2, zstd and data files need version 3");
	return 0;
}

static int check_files(const struct qcow_create_params *p, struct qcow_error *err)
{
	if (p->data_raw && !p->data_file)
		return invalid(err, "a raw data file needs a data file");
	if (p->data_raw && p->backing_name)
		return invalid(err, "a backing file cannot be seen through a raw data file");
	if (p->backing_name && p->prealloc && !p->extl2)
		return invalid(err, "preallocation would hide the backing file, but for "
				    "extended L2 entries");
	if (p->backing_name && strlen(p->backing_name) > QCOW_MAX_NAME)
		return invalid(err, "the backing file's name is longer than 1023 bytes");
	if (p->backing_name && (!p->backing_format || !p->backing_format[0] ||
				strlen(p->backing_format) > QCOW_MAX_FORMAT))
		return invalid(err, "a backing file needs its format");
	if (p->data_file && (!p->data_file[0] || strlen(p->data_file) > QCOW_MAX_DATA_NAME))
		return invalid(err, "the data file's name is empty or too long");
	return 0;
}

void qcow_create_header(const struct qcow_create_params *p, struct qcow_header *h)
{
	uint32_t span;

	*h = (struct qcow_header){ .version = p->version,
				   .cluster_bits = p->cluster_bits,
				   .size = (p->size + 511) & ~511ull,
				   .refcount_order = p->refcount_order,
				   .compression = p->compression };
	h->incompatible = (p->extl2 ? QCOW_INCOMPAT_EXTL2 : 0) |
			  (p->data_file ? QCOW_INCOMPAT_DATA_FILE : 0) |
			  (p->compression ? QCOW_INCOMPAT_COMPRESSION : 0);
	h->compatible = p->lazy_refcounts ? QCOW_COMPAT_LAZY_REFCOUNTS : 0;
	h->autoclear = p->data_raw ? QCOW_AUTOCLEAR_DATA_RAW : 0;
	span = qcow_l2_span_bits(h);
	h->l1_size = (uint32_t)((h->size >> span) + !!(h->size & ((1ull << span) - 1)));
	if (p->backing_name) {
		h->has_backing = true;
		snprintf(h->backing_name, sizeof(h->backing_name), "%s", p->backing_name);
		snprintf(h->backing_format, sizeof(h->backing_format), "%s", p->backing_format);
	}
	if (p->data_file)
		snprintf(h->data_file, sizeof(h->data_file), "%s", p->data_file);
}

static int check_size(const struct qcow_create_params *p, struct qcow_error *err)
{
	uint32_t span = 2 * p->cluster_bits - (p->extl2 ? 4 : 3);
	uint64_t max = span > 63 - 22 ? MAX_SIZE : (uint64_t)QCOW_MAX_L1_ENTRIES << span;

	if (max > MAX_SIZE)
		max = MAX_SIZE;
	if (p->size > max)
		return qcow_fail(err, EFBIG, QCOW_NO_OFF,
				 "a disk with clusters of %u bytes has at most %" PRIu64 " bytes",
				 1u << p->cluster_bits, max);
	return 0;
}

int qcow_create_check(const struct qcow_create_params *p, struct qcow_error *err)
{
	int r;

	if (p->version < 2 || p->version > 3)
		return invalid(err, "there are versions 2 and 3");
	if (p->cluster_bits < QCOW_MIN_CLUSTER_BITS || p->cluster_bits > QCOW_MAX_CLUSTER_BITS)
		return invalid(err, "a cluster has 512 bytes to 2 MiB, a power of two");
	if (p->extl2 && p->cluster_bits < QCOW_MIN_EXTL2_BITS)
		return invalid(err, "extended L2 entries need clusters of at least 16 KiB");
	if (p->refcount_order > 6)
		return invalid(err, "refcounts have 1, 2, 4, 8, 16, 32 or 64 bits");
	r = check_v2(p, err);
	if (!r)
		r = check_files(p, err);
	return r < 0 ? r : check_size(p, err);
}

static uint64_t clusters_for(const struct qcow_header *h, uint64_t bytes)
{
	return (bytes >> h->cluster_bits) + !!(bytes & (qcow_cluster_size(h) - 1));
}

static int plan(const struct qcow_create_params *p, const struct qcow_header *h, struct layout *l,
		struct qcow_error *err)
{
	uint32_t per_block_bits = h->cluster_bits + 3 - h->refcount_order;
	uint64_t fixed, blocks;

	*l = (struct layout){ .l1 = clusters_for(h, h->l1_size * 8ull), .reftable = 1 };
	/* A raw data file is found without looking into it only if all is mapped. */
	if (p->prealloc || p->data_raw)
		l->l2 = h->l1_size;
	if (p->prealloc && !p->data_file)
		l->data = clusters_for(h, h->size);
	fixed = 1 + l->l1 + l->l2 + l->data;
	do {
		blocks = l->blocks;
		l->blocks = ((fixed + l->reftable + blocks - 1) >> per_block_bits) + 1;
		l->reftable = clusters_for(h, l->blocks * 8);
	} while (l->blocks != blocks);
	if (l->reftable << h->cluster_bits > QCOW_MAX_REFTABLE)
		return qcow_fail(err, EFBIG, QCOW_NO_OFF, "too big for refcounts this wide");
	l->blocks_at = 1 + l->reftable;
	l->l1_at = l->blocks_at + l->blocks;
	l->l2_at = l->l1_at + l->l1;
	l->data_at = l->l2_at + l->l2;
	l->end = l->data_at + l->data;
	return 0;
}

struct maker {
	struct qcow_io *io;
	const struct qcow_create_params *p;
	struct qcow_header h;
	struct layout l;
	uint8_t *buf; /* one cluster */
	struct qcow_error *err;
};

static int write_cluster(struct maker *m, uint64_t cluster)
{
	return qcow_io_pwrite(m->io, m->buf, qcow_cluster_size(&m->h), cluster << m->h.cluster_bits,
			      m->err);
}

/* A table of @nr entries from cluster @at on; entry i is @first + i * @step. */
static int write_table(struct maker *m, uint64_t at, uint64_t nr, uint64_t first, uint64_t step)
{
	uint64_t per = qcow_cluster_size(&m->h) / 8, done, i;
	int r = 0;

	for (done = 0; done < nr && !r; done += per) {
		memset(m->buf, 0, qcow_cluster_size(&m->h));
		for (i = 0; i < per && done + i < nr; i++)
			qcow_put_be64(m->buf + i * 8, first ? first + (done + i) * step : 0);
		r = write_cluster(m, at + done / per);
	}
	return r;
}

static int write_blocks(struct maker *m)
{
	uint64_t per = (qcow_cluster_size(&m->h) * 8) >> m->h.refcount_order, b, i;
	int r = 0;

	for (b = 0; b < m->l.blocks && !r; b++) {
		memset(m->buf, 0, qcow_cluster_size(&m->h));
		for (i = 0; i < per && b * per + i < m->l.end; i++)
			qcow_ref_encode(m->buf, m->h.refcount_order, i, 1);
		r = write_cluster(m, m->l.blocks_at + b);
	}
	return r;
}

static void fill_l2(struct maker *m, uint64_t first_guest)
{
	uint32_t bits = qcow_l2_entry_bits(&m->h);
	uint64_t nr = qcow_cluster_size(&m->h) >> bits, clusters = clusters_for(&m->h, m->h.size),
		 i;
	uint64_t base = m->p->data_file ? 0 : m->l.data_at;

	memset(m->buf, 0, qcow_cluster_size(&m->h));
	for (i = 0; i < nr && first_guest + i < clusters; i++)
		qcow_put_be64(m->buf + (i << bits),
			      (base + first_guest + i) << m->h.cluster_bits | QCOW_ENTRY_COPIED);
}

static int write_l2(struct maker *m)
{
	uint64_t per = qcow_cluster_size(&m->h) >> qcow_l2_entry_bits(&m->h), i;
	int r = 0;

	for (i = 0; i < m->l.l2 && !r; i++) {
		fill_l2(m, i * per);
		r = write_cluster(m, m->l.l2_at + i);
	}
	return r;
}

static int write_data(struct maker *m)
{
	uint64_t off = m->l.data_at << m->h.cluster_bits, len = m->l.data << m->h.cluster_bits;
	bool cheap = m->p->prealloc == QCOW_PREALLOC_FALLOC;

	if (!len || m->p->prealloc < QCOW_PREALLOC_FALLOC)
		return 0;
	return (cheap ? qcow_io_clear : qcow_io_write_zeros)(m->io, off, len, m->buf,
							     qcow_cluster_size(&m->h), m->err);
}

/* A device may hold an old image, whose header must not meet our tables. */
static int clear_header(struct maker *m)
{
	int r;

	if (!m->io->fixed_end)
		return qcow_io_truncate(m->io, m->l.end << m->h.cluster_bits, m->err);
	memset(m->buf, 0, qcow_cluster_size(&m->h));
	r = write_cluster(m, 0);
	return r < 0 ? r : qcow_io_flush(m->io, m->err);
}

static int write_header(struct maker *m)
{
	int r;

	m->h.reftable_off = 1ull << m->h.cluster_bits;
	m->h.reftable_clusters = (uint32_t)m->l.reftable;
	m->h.l1_off = m->l.l1_at << m->h.cluster_bits;
	memset(m->buf, 0, qcow_cluster_size(&m->h));
	r = qcow_header_encode(&m->h, m->buf, m->err);
	if (!r)
		r = write_cluster(m, 0);
	return r < 0 ? r : qcow_io_flush(m->io, m->err);
}

static int make(struct maker *m)
{
	uint64_t cluster = qcow_cluster_size(&m->h);
	int r = clear_header(m);

	if (!r)
		r = write_table(m, 1, m->l.blocks, m->l.blocks_at * cluster, cluster);
	if (!r)
		r = write_blocks(m);
	/* A new file's hole is an empty L1 table. */
	if (!r && (m->l.l2 || m->io->fixed_end))
		r = write_table(m, m->l.l1_at, m->h.l1_size,
				m->l.l2 ? m->l.l2_at * cluster | QCOW_ENTRY_COPIED : 0, cluster);
	if (!r)
		r = write_l2(m);
	if (!r)
		r = write_data(m);
	/* Tables before the header that names them. */
	if (!r)
		r = qcow_io_flush(m->io, m->err);
	return r < 0 ? r : write_header(m);
}

static int check_room(struct maker *m)
{
	uint64_t size, need = m->l.end << m->h.cluster_bits;
	int r = qcow_io_size(m->io, &size, m->err);

	if (r < 0)
		return r;
	if (m->io->fixed_end && size < need)
		return qcow_fail(m->err, ENOSPC, QCOW_NO_OFF,
				 "the device has %" PRIu64 " bytes, %" PRIu64 " are needed", size,
				 need);
	if (!m->io->fixed_end && size)
		return qcow_fail(m->err, EEXIST, QCOW_NO_OFF, "the file is not empty");
	return 0;
}

int qcow_create(struct qcow_io *io, const struct qcow_create_params *p, struct qcow_error *err)
{
	struct maker m = { .io = io, .p = p, .err = err };
	int r = qcow_create_check(p, err);

	if (r < 0)
		return r;
	qcow_create_header(p, &m.h);
	r = plan(p, &m.h, &m.l, err);
	if (!r)
		r = check_room(&m);
	if (r < 0)
		return r;
	m.buf = aligned_alloc(4096, p->cluster_bits < 12 ? 4096 : 1ul << p->cluster_bits);
	if (!m.buf)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	r = make(&m);
	free(m.buf);
	return r;
}
