// SPDX-License-Identifier: GPL-2.0-only
#include "lib/writer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/headwrite.h"
#include "lib/refcount.h"
#include "lib/writer-priv.h"

#define OWN_CACHE (256u << 10)

const char *qcow_barrier_name(enum qcow_barrier barrier)
{
	static const char *const names[QCOW_NR_BARRIERS] = {
		"AUTOCLEAR", "REFBLOCK", "REFTABLE", "REFTABLE_USED", "GRANT", "DATA",
		"L2_TABLE",  "COMMIT",	 "ADOPT",    "CLOSE",	      "TABLE", "HEADER",
	};

	return names[barrier];
}

int qcow_barrier(struct qcow_writer *w, enum qcow_barrier barrier, struct qcow_error *err)
{
	int r = writer_check(w, err);

	if (r < 0)
		return r;
	if (w->test) {
		w->test->nr[barrier]++;
		if (w->test->drop >> barrier & 1)
			return 0;
	}
	r = qcow_io_flush(w->io, err);
	if (r < 0) {
		/* What a failed fsync left undone, a second one would not report. */
		w->failed = true;
		qcow_error_prefix(err, "barrier %s", qcow_barrier_name(barrier));
	}
	return r;
}

static int check_state(const struct qcow_header *h, bool bitmaps_ok, struct qcow_error *err)
{
	if (h->incompatible & QCOW_INCOMPAT_DIRTY)
		return qcow_fail(err, EROFS, 72,
				 "the image was not closed and its refcounts may be wrong; "
				 "repair it with: qcow check -r all");
	if (h->incompatible & QCOW_INCOMPAT_CORRUPT)
		return qcow_fail(
			err, EROFS, 72,
			"the image is marked as corrupt; repair it with: qcow check -r all");
	if (h->nr_bitmaps && !bitmaps_ok)
		return qcow_fail(
			err, EROFS, QCOW_NO_OFF,
			"writing would make the image's %u bitmaps wrong; remove them with: "
			"qcow bitmap --remove, or give them up with --drop-bitmaps",
			h->nr_bitmaps);
	return 0;
}

/* Bytes: the smallest write. */
static uint32_t unit_of(const struct qcow_io *io)
{
	return io->align > 512 ? io->align : 512;
}

static int check_io(const struct qcow_io *io, const struct qcow_header *h, struct qcow_error *err)
{
	uint32_t unit = unit_of(io);

	if (!io->ops->pwrite)
		return qcow_fail(err, EROFS, QCOW_NO_OFF, "the file is open for reading only");
	if (unit > qcow_cluster_size(h))
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "clusters of %u bytes cannot be written where the storage wants "
				 "%u at a time",
				 (unsigned int)qcow_cluster_size(h), unit);
	if (unit > META_PAGE)
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "the storage wants %u bytes at a time, at most %u are supported",
				 unit, META_PAGE);
	return 0;
}

int qcow_writer_check(const struct qcow_image *img, bool bitmaps_ok, struct qcow_error *err)
{
	const struct qcow_header *h = qcow_image_header(img);
	int r = qcow_image_check_readable(img, err);

	if (r < 0)
		return r;
	if (qcow_image_l1_off(img) != h->l1_off)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "a snapshot cannot be written to");
	r = check_state(h, bitmaps_ok, err);
	return r < 0 ? r : check_io(qcow_image_io(img), h, err);
}

static int alloc_buffers(struct qcow_writer *w)
{
	size_t cluster = qcow_cluster_size(&w->h);

	w->page = aligned_alloc(META_PAGE, META_PAGE);
	w->ref_edit.page = aligned_alloc(META_PAGE, META_PAGE);
	w->l2_edit.page = aligned_alloc(META_PAGE, META_PAGE);
	w->cluster = aligned_alloc(META_PAGE, cluster < META_PAGE ? META_PAGE : cluster);
	edit_forget(&w->ref_edit);
	edit_forget(&w->l2_edit);
	if (!w->cache)
		w->cache = w->own_cache = qcow_mcache_create(OWN_CACHE);
	return w->page && w->ref_edit.page && w->l2_edit.page && w->cluster && w->cache ? 0
											: -ENOMEM;
}

/* Before any other write: who ignores a feature must not leave its bit set. */
static int clear_autoclear(struct qcow_writer *w, bool drop_bitmaps, struct qcow_error *err)
{
	uint64_t keep = w->h.autoclear & QCOW_AUTOCLEAR_KNOWN;
	int r;

	if (drop_bitmaps)
		keep &= ~QCOW_AUTOCLEAR_BITMAPS;
	if (w->h.version < 3 || keep == w->h.autoclear)
		return 0;
	r = qcow_head_set_autoclear(w, keep, err);
	return r < 0 ? r : qcow_barrier(w, QCOW_BARRIER_AUTOCLEAR, err);
}

static int setup(struct qcow_writer *w, const struct qcow_writer_params *params,
		 struct qcow_error *err)
{
	int r;

	r = qcow_writer_check(w->img, params->drop_bitmaps || params->keep_bitmaps, err);
	if (r < 0)
		return r;
	w->unit = unit_of(w->io);
	if (alloc_buffers(w) < 0 || qcow_metaset_init(&w->meta, w->h.cluster_bits) < 0)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	r = load_tables(w, params->drop_bitmaps, err);
	return r < 0 ? r : clear_autoclear(w, params->drop_bitmaps, err);
}

int qcow_writer_create(struct qcow_writer **out, struct qcow_image *img,
		       const struct qcow_writer_params *params, struct qcow_error *err)
{
	struct qcow_writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	pthread_rwlock_init(&w->reftable_lock, NULL);
	w->img = img;
	w->io = qcow_image_io(img);
	w->h = *qcow_image_header(img);
	w->cache = params->cache;
	w->layer = params->layer;
	w->test = params->test;
	r = setup(w, params, err);
	if (r < 0) {
		qcow_writer_destroy(w);
		return r;
	}
	*out = w;
	return 0;
}

void qcow_writer_destroy(struct qcow_writer *w)
{
	if (!w)
		return;
	qcow_metaset_exit(&w->meta);
	pthread_rwlock_destroy(&w->reftable_lock);
	qcow_mcache_destroy(w->own_cache);
	free(w->l1);
	free(w->reftable);
	free(w->page);
	free(w->cluster);
	free(w->ref_edit.page);
	free(w->l2_edit.page);
	free(w);
}

void qcow_writer_keep_size(struct qcow_writer *w, uint64_t size)
{
	w->first_size = size;
}

bool qcow_writer_failed(const struct qcow_writer *w)
{
	return w->failed;
}

struct qcow_io *qcow_writer_io(const struct qcow_writer *w)
{
	return w->io;
}

const struct qcow_header *qcow_writer_header(const struct qcow_writer *w)
{
	return &w->h;
}

static int return_reserve(struct qcow_writer *w, struct qcow_error *err)
{
	int r;

	while (w->nr_reserve) {
		r = qcow_ref_update(w, QCOW_REF_RELEASE, w->reserve[w->nr_reserve - 1].off, 1, err);
		if (r < 0)
			return r;
		w->nr_reserve--;
	}
	return 0;
}

/* Free clusters at the file's end were leases that extended it. */
static int trim(struct qcow_writer *w, struct qcow_error *err)
{
	uint64_t cluster = qcow_cluster_size(&w->h), size, end, refs = 0;
	int r = qcow_io_size(w->io, &size, err);

	if (r < 0 || w->io->fixed_end)
		return r;
	for (end = round_up_cluster(w, size); end >= cluster; end -= cluster) {
		if (end - cluster < round_up_cluster(w, w->first_size))
			break;
		r = qcow_ref_get(w, end - cluster, &refs, err);
		if (r < 0)
			return r;
		if (refs)
			break;
	}
	return end < size ? qcow_io_truncate(w->io, end, err) : 0;
}

int qcow_writer_finish(struct qcow_writer *w, struct qcow_error *err)
{
	int r = writer_check(w, err);

	if (r < 0)
		return r;
	r = commit_leftover(w, err);
	if (!r)
		r = ref_free_old_table(w, err);
	if (!r)
		r = return_reserve(w, err);
	if (r < 0)
		return r;
	r = trim(w, err);
	if (r < 0)
		return r;
	r = qcow_barrier(w, QCOW_BARRIER_CLOSE, err);
	w->finished = true;
	return r;
}

/* No reftable: the refcount is 0. The table may move meanwhile; its blocks stay. */
static int read_refcount(struct qcow_writer *w, uint64_t cluster, void *page, uint64_t *value,
			 struct qcow_error *err)
{
	uint64_t block = 0, idx = cluster >> w->refblock_bits, bit;
	uint8_t raw[8];
	int r;

	pthread_rwlock_rdlock(&w->reftable_lock);
	if (idx < w->nr_reftable)
		block = w->reftable[idx];
	pthread_rwlock_unlock(&w->reftable_lock);
	*value = 0;
	if (!block)
		return 0;
	bit = (cluster & ((1ull << w->refblock_bits) - 1)) << w->h.refcount_order;
	/* The entry's byte, or its bytes if it is wider. */
	r = qcow_mcache_read(w->cache, w->layer, w->io, block + bit / 8, raw,
			     w->h.refcount_order > 3 ? 1u << (w->h.refcount_order - 3) : 1, page,
			     err);
	if (r < 0)
		return r;
	*value = qcow_ref_decode(raw, w->h.refcount_order, (bit % 8) >> w->h.refcount_order);
	return 0;
}

int qcow_writer_may_write(struct qcow_writer *w, uint64_t host_off, uint64_t len, void *page,
			  struct qcow_error *err)
{
	uint64_t c, last = cluster_of(w, host_off + len - 1), refs;
	int r, answer = QCOW_MAY_WRITE;

	if (qcow_has_data_file(&w->h))
		return QCOW_MAY_WRITE;
	for (c = cluster_of(w, host_off); c <= last; c++) {
		r = read_refcount(w, c, page, &refs, err);
		if (r < 0)
			return r;
		if (!refs)
			return QCOW_MAY_WRITE_NEVER;
		if (refs > 1)
			answer = QCOW_MAY_NOT;
	}
	/*
	 * Last: the writer claims a table before it raises its refcount, so whoever saw
	 * the refcount sees the claim.
	 */
	return qcow_metaset_has(&w->meta, host_off, len) ? QCOW_MAY_WRITE_NEVER : answer;
}
