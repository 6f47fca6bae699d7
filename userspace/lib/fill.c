// SPDX-License-Identifier: GPL-2.0-only
#include "lib/fill.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lease.h"

#define BATCH_BYTES (4u << 20)
#define MAX_BATCH   512u
#define MAX_EXTENTS 64u

struct qcow_fill {
	struct qcow_writer *w;
	struct qcow_io *data;
	size_t cluster, max; /* clusters in a batch */
	uint8_t *buf;
	size_t nr_bytes; /* clusters in buf */
	struct qcow_delta deltas[MAX_BATCH];
	size_t nr;
	struct qcow_lost *lost;
	size_t nr_lost, max_lost;
};

int qcow_fill_create(struct qcow_fill **out, struct qcow_writer *w, struct qcow_io *data,
		     struct qcow_error *err)
{
	struct qcow_fill *f = calloc(1, sizeof(*f));
	size_t room;

	if (!f)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	f->w = w;
	f->data = data;
	f->cluster = qcow_cluster_size(qcow_writer_header(w));
	f->max = BATCH_BYTES / f->cluster < MAX_BATCH ? BATCH_BYTES / f->cluster : MAX_BATCH;
	room = (f->max * f->cluster + 4095) & ~(size_t)4095;
	f->buf = aligned_alloc(4096, room);
	if (!f->buf) {
		free(f);
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	}
	*out = f;
	return 0;
}

void qcow_fill_destroy(struct qcow_fill *f)
{
	if (!f)
		return;
	free(f->lost);
	free(f->buf);
	free(f);
}

/* ---- a batch ----------------------------------------------------------------------- */

static int keep_lost(struct qcow_fill *f, const struct qcow_lost *lost, size_t nr,
		     struct qcow_error *err)
{
	size_t max = f->max_lost ? f->max_lost : 1024;
	struct qcow_lost *bigger;

	while (max < f->nr_lost + nr)
		max *= 2;
	if (max != f->max_lost) {
		bigger = realloc(f->lost, max * sizeof(*lost));
		if (!bigger)
			return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
		f->lost = bigger;
		f->max_lost = max;
	}
	if (nr)
		memcpy(f->lost + f->nr_lost, lost, nr * sizeof(*lost));
	f->nr_lost += nr;
	return 0;
}

static int commit(struct qcow_fill *f, const struct qcow_delta *deltas, size_t nr,
		  struct qcow_error *err)
{
	struct qcow_commit c = { .deltas = deltas, .nr = nr };
	int r = 0;

	while (!r && c.next < c.nr) {
		r = qcow_commit_step(f->w, &c, err);
		if (!r)
			r = keep_lost(f, c.lost, c.nr_lost, err);
	}
	return r;
}

/* The next clusters of data get their places in the lease; how many. */
static size_t put_into(struct qcow_fill *f, const struct qcow_lease_extent *e, size_t *at)
{
	uint64_t off = e->host_off, end = e->host_off + e->len;
	size_t nr = 0;

	for (; *at < f->nr && off < end; ++*at) {
		if (f->deltas[*at].type != QCOW_DELTA_DATA)
			continue;
		f->deltas[*at].host_off = off;
		off += f->cluster;
		nr++;
	}
	return nr;
}

/* One lease for what has no place yet, and bytes there. */
static int place_some(struct qcow_fill *f, size_t *at, size_t *done, struct qcow_error *err)
{
	struct qcow_lease_extent ext[MAX_EXTENTS];
	size_t nr, i, n;
	int r = qcow_lease_propose(f->w, (f->nr_bytes - *done) * f->cluster, 0, ext, MAX_EXTENTS,
				   &nr, err);

	if (!r)
		r = qcow_lease_grant(f->w, ext, nr, err);
	if (r < 0)
		return r;
	for (i = 0; i < nr && !r; i++) {
		n = put_into(f, &ext[i], at);
		r = qcow_io_pwrite(qcow_writer_io(f->w), f->buf + *done * f->cluster,
				   n * f->cluster, ext[i].host_off, err);
		*done += n;
	}
	if (r < 0)
		qcow_lease_return(f->w, ext, nr, NULL);
	return r;
}

/* The first @nr clusters of the batch need no place: nothing points there yet. */
static void unplace(struct qcow_fill *f, size_t nr)
{
	struct qcow_lease_extent ext = { .len = f->cluster };
	size_t i;
	int r = 0;

	for (i = 0; i < nr && !r; i++) {
		if (f->deltas[i].type != QCOW_DELTA_DATA)
			continue;
		ext.host_off = f->deltas[i].host_off;
		r = qcow_lease_return(f->w, &ext, 1, NULL);
	}
}

/* Places for the batch, and its bytes there; or neither, so that nothing leaks. */
static int place(struct qcow_fill *f, struct qcow_error *err)
{
	size_t at = 0, done = 0, before;
	int r = 0;

	while (done < f->nr_bytes && !r) {
		before = at;
		r = place_some(f, &at, &done, err);
		if (r < 0)
			unplace(f, before);
	}
	return r;
}

/* A data file has a place for everything, but ends with the disk. */
static int write_data_file(struct qcow_fill *f, struct qcow_error *err)
{
	uint64_t size = qcow_writer_header(f->w)->size & ~511ull, off, len;
	size_t i, done = 0;
	int r = 0;

	for (i = 0; i < f->nr && !r; i++) {
		if (f->deltas[i].type != QCOW_DELTA_DATA)
			continue;
		off = f->deltas[i].host_off = f->deltas[i].guest_off;
		len = size - off < f->cluster ? size - off : f->cluster;
		r = qcow_io_pwrite(f->data, f->buf + done++ * f->cluster, len, off, err);
	}
	return r < 0 ? r : qcow_io_flush(f->data, err);
}

static int flush(struct qcow_fill *f, struct qcow_error *err)
{
	int r = 0;

	if (f->nr_bytes)
		r = f->data ? write_data_file(f, err) : place(f, err);
	if (!r && f->nr_bytes)
		r = qcow_barrier(f->w, QCOW_BARRIER_DATA, err);
	if (!r)
		r = commit(f, f->deltas, f->nr, err);
	f->nr = f->nr_bytes = 0;
	return r;
}

/* ---- clusters ---------------------------------------------------------------------- */

static int add(struct qcow_fill *f, uint64_t guest_off, enum qcow_delta_type type,
	       struct qcow_error *err)
{
	f->deltas[f->nr++] =
		(struct qcow_delta){ .guest_off = guest_off, .len = f->cluster, .type = type };
	return f->nr == MAX_BATCH || f->nr_bytes == f->max ? flush(f, err) : 0;
}

int qcow_fill_data(struct qcow_fill *f, uint64_t guest_off, const void *buf, struct qcow_error *err)
{
	if (buf)
		memcpy(f->buf + f->nr_bytes * f->cluster, buf, f->cluster);
	else
		memset(f->buf + f->nr_bytes * f->cluster, 0, f->cluster);
	f->nr_bytes++;
	return add(f, guest_off, QCOW_DELTA_DATA, err);
}

/* Version 2 has no zero flag, and who reads a raw data file by itself does not see one. */
int qcow_fill_zero(struct qcow_fill *f, uint64_t guest_off, struct qcow_error *err)
{
	const struct qcow_header *h = qcow_writer_header(f->w);

	if (h->version < 3 || h->autoclear & QCOW_AUTOCLEAR_DATA_RAW)
		return qcow_fill_data(f, guest_off, NULL, err);
	return add(f, guest_off, QCOW_DELTA_ZERO, err);
}

int qcow_fill_empty(struct qcow_fill *f, uint64_t guest_off, uint64_t len, struct qcow_error *err)
{
	struct qcow_delta d = { .guest_off = guest_off,
				.len = len,
				.type = QCOW_DELTA_UNALLOCATED };
	int r = flush(f, err);

	return r < 0 || !len ? r : commit(f, &d, 1, err);
}

int qcow_fill_finish(struct qcow_fill *f, struct qcow_error *err)
{
	int r = flush(f, err);

	if (!r)
		r = qcow_free(f->w, f->lost, f->nr_lost, err);
	f->nr_lost = 0;
	return r;
}
