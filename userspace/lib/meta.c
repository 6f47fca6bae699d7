// SPDX-License-Identifier: GPL-2.0-only
/* The only place that writes metadata. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/writer-priv.h"

int writer_check(const struct qcow_writer *w, struct qcow_error *err)
{
	if (w->failed)
		return qcow_fail(err, EIO, QCOW_NO_OFF,
				 "a write of metadata has failed; the image is read-only now");
	if (w->finished)
		return qcow_fail(err, EIO, QCOW_NO_OFF, "the image is closed for writing");
	return 0;
}

/* ENOSPC wrote nothing that counts: all that can meet it may be said again. */
static int write_failed(struct qcow_writer *w, int r)
{
	if (r != -ENOSPC)
		w->failed = true;
	return r;
}

int meta_read(struct qcow_writer *w, uint64_t host_off, void *buf, size_t len,
	      struct qcow_error *err)
{
	return qcow_mcache_read(w->cache, w->layer, w->io, host_off, buf, len, w->page, err);
}

/* Small clusters share a page: what one edit writes, the other one holds. @buf NULL: zeros. */
static void sync_edit(struct qcow_edit *e, uint64_t host_off, const uint8_t *buf, uint64_t len)
{
	uint64_t from = host_off > e->off ? host_off : e->off;
	uint64_t end = host_off + len < e->off + META_PAGE ? host_off + len : e->off + META_PAGE;

	if (e->off == QCOW_NO_OFF || from >= end || buf == e->page + (host_off - e->off))
		return;
	if (buf)
		memcpy(e->page + (from - e->off), buf + (from - host_off), end - from);
	else
		memset(e->page + (from - e->off), 0, end - from);
}

static void sync_edits(struct qcow_writer *w, uint64_t host_off, const void *buf, uint64_t len)
{
	sync_edit(&w->ref_edit, host_off, buf, len);
	sync_edit(&w->l2_edit, host_off, buf, len);
}

int meta_write(struct qcow_writer *w, uint64_t host_off, const void *buf, size_t len,
	       struct qcow_error *err)
{
	int r = writer_check(w, err);

	if (r < 0)
		return r;
	r = qcow_io_pwrite(w->io, buf, len, host_off, err);
	if (r < 0) {
		qcow_mcache_drop(w->cache, w->layer, host_off, len);
		return write_failed(w, r);
	}
	qcow_mcache_update(w->cache, w->layer, host_off, buf, len);
	sync_edits(w, host_off, buf, len);
	return 0;
}

static int write_zeros(struct qcow_writer *w, uint64_t host_off, uint64_t len,
		       struct qcow_error *err)
{
	uint64_t cluster = qcow_cluster_size(&w->h), done;
	int r;

	memset(w->cluster, 0, cluster);
	for (done = 0; done < len; done += cluster) {
		r = meta_write(w, host_off + done, w->cluster, cluster, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int meta_zero(struct qcow_writer *w, uint64_t host_off, uint64_t len, struct qcow_error *err)
{
	int r = writer_check(w, err);

	if (r < 0)
		return r;
	/* A device may zero by giving its space back: then what is written later can fail. */
	r = w->io->fixed_end ? -EOPNOTSUPP : qcow_io_zero(w->io, host_off, len, err);
	qcow_mcache_drop(w->cache, w->layer, host_off, len);
	if (r == -EOPNOTSUPP)
		return write_zeros(w, host_off, len, err);
	if (r < 0)
		return write_failed(w, r);
	sync_edits(w, host_off, NULL, len);
	return 0;
}

void edit_forget(struct qcow_edit *e)
{
	e->off = QCOW_NO_OFF;
	e->dirty = 0;
}

/* Bits lo .. hi-1: the sectors of one run that begins at @from, in whole units. */
static bool next_run(const struct qcow_writer *w, uint8_t dirty, uint32_t from, uint32_t *lo,
		     uint32_t *hi)
{
	uint32_t per_unit = w->unit / 512;

	while (from < 8 && !(dirty >> from & 1))
		from++;
	if (from == 8)
		return false;
	*lo = from & ~(per_unit - 1);
	while (from < 8 && dirty >> from & 1)
		from++;
	*hi = (from + per_unit - 1) & ~(per_unit - 1);
	return true;
}

int edit_finish(struct qcow_writer *w, struct qcow_edit *e, struct qcow_error *err)
{
	uint8_t dirty = e->dirty;
	uint32_t lo, hi = 0;
	int r;

	e->dirty = 0;
	while (next_run(w, dirty, hi, &lo, &hi)) {
		r = meta_write(w, e->off + lo * 512, e->page + lo * 512, (hi - lo) * 512ul, err);
		if (r < 0) {
			edit_forget(e);
			e->lost = true;
			return r;
		}
	}
	return 0;
}

int edit_at(struct qcow_writer *w, struct qcow_edit *e, uint64_t host_off, uint8_t **p,
	    struct qcow_error *err)
{
	uint64_t off = host_off & ~(uint64_t)(META_PAGE - 1);
	int r;

	if (e->off != off) {
		r = edit_finish(w, e, err);
		if (r < 0)
			return r;
		edit_forget(e);
		r = meta_read(w, off, e->page, META_PAGE, err);
		if (r < 0)
			return r;
		e->off = off;
	}
	*p = e->page + (host_off - off);
	return 0;
}

void edit_touch(struct qcow_edit *e, const uint8_t *p)
{
	e->dirty |= (uint8_t)(1u << (p - e->page) / 512);
}

int meta_patch(struct qcow_writer *w, uint64_t host_off, const void *bytes, size_t len,
	       struct qcow_error *err)
{
	uint8_t *p;
	int r;

	r = edit_at(w, &w->l2_edit, host_off, &p, err);
	if (r < 0)
		return r;
	memcpy(p, bytes, len);
	edit_touch(&w->l2_edit, p);
	return edit_finish(w, &w->l2_edit, err);
}

int writer_extend(struct qcow_writer *w, uint64_t end, struct qcow_error *err)
{
	uint64_t size;
	int r = qcow_io_size(w->io, &size, err);

	if (r < 0 || end <= size)
		return r;
	if (w->io->fixed_end)
		return qcow_fail(err, ENOSPC, end, "the image has reached the end of its device");
	r = writer_check(w, err);
	return r < 0 ? r : qcow_io_truncate(w->io, end, err);
}
