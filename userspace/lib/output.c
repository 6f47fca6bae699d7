// SPDX-License-Identifier: GPL-2.0-only
/* What convert.c made ready goes where it belongs. */
#include <errno.h>
#include <string.h>

#include "lib/convert-priv.h"

/* ---- an image ---------------------------------------------------------------------- */

static int place_data(struct worker *w, size_t first, size_t end)
{
	struct job *j = w->j;
	uint32_t alloc[512];
	size_t u, n, i;
	uint64_t host;
	int r = 0;

	for (u = first; u < end && !r; u += n) {
		n = end - u < 512 ? end - u : 512;
		for (i = 0; i < n; i++)
			alloc[i] = w->units[u + i].alloc;
		r = qcow_builder_place(j->c->image, w->off + u * j->unit, n,
				       j->subclusters ? alloc : NULL, &host, w->err);
		for (i = 0; i < n; i++)
			w->units[u + i].host_off = host + i * j->unit;
	}
	return r;
}

static int place_packed(struct worker *w, size_t first, size_t end)
{
	size_t u, unit = w->j->unit;
	int r = 0;

	for (u = first; u < end && !r; u++)
		r = qcow_builder_pack(w->j->c->image, w->off + u * unit, w->packed + u * unit,
				      w->units[u].packed_len, w->err);
	return r;
}

static int place_run(struct worker *w, size_t first, size_t end, enum unit_kind kind)
{
	struct job *j = w->j;

	switch (kind) {
	case UNIT_DATA:
		return place_data(w, first, end);
	case UNIT_PACKED:
		return place_packed(w, first, end);
	case UNIT_ZERO:
		return qcow_builder_zero(j->c->image, w->off + first * j->unit, end - first,
					 w->err);
	case UNIT_SKIP:
		break;
	}
	return 0;
}

static int place_in_image(struct worker *w)
{
	enum unit_kind kind;
	size_t u, end;
	int r = 0;

	if (w->j->c->read)
		r = qcow_builder_resize(w->j->c->image, w->off + w->len, w->err);
	if (!r && w->whole != UNIT_DATA)
		return place_run(w, 0, w->nr_units, w->whole);
	for (u = 0; u < w->nr_units && !r; u = end) {
		end = unit_run(w, u, &kind);
		r = place_run(w, u, end, kind);
	}
	return r;
}

/* Units whose places follow each other are written at once. */
static int store_in_image(struct worker *w)
{
	struct job *j = w->j;
	/* A data file ends with the disk, an image with a whole cluster. */
	bool exact = qcow_has_data_file(qcow_builder_header(j->c->image));
	size_t u, end;
	uint64_t len;
	int r = 0;

	for (u = 0; u < w->nr_units && !r; u = end) {
		end = u + 1;
		if (w->units[u].kind != UNIT_DATA)
			continue;
		while (end < w->nr_units && w->units[end].kind == UNIT_DATA &&
		       w->units[end].host_off == w->units[end - 1].host_off + j->unit)
			end++;
		len = exact ? unit_pos(w, end) - unit_pos(w, u) : (end - u) * j->unit;
		r = qcow_io_pwrite(j->c->io, w->buf + u * j->unit, len, w->units[u].host_off,
				   w->err);
	}
	return r;
}

/* ---- an image that is there --------------------------------------------------------- */

/* Where a cluster may go only its metadata says: it is written when it is placed. */
static int put_into(struct worker *w)
{
	struct qcow_into *into = w->j->c->into;
	uint64_t pos;
	size_t u;
	int r = 0;

	if (w->whole != UNIT_DATA)
		return qcow_into_zero(into, w->off, w->len, w->err);
	for (u = 0; u < w->nr_units && !r; u++) {
		pos = unit_pos(w, u);
		if (w->units[u].kind == UNIT_ZERO)
			r = qcow_into_zero(into, w->off + pos, unit_pos(w, u + 1) - pos, w->err);
		else
			r = qcow_into_put(into, w->off + pos, w->buf + pos,
					  unit_pos(w, u + 1) - pos, w->err);
	}
	return r;
}

/* ---- a raw disk -------------------------------------------------------------------- */

/* Overwrites the buffer, if it has to write. */
static int clear_disk(struct worker *w, uint64_t off, uint64_t len)
{
	struct job *j = w->j;

	return j->c->blank ? 0 : qcow_io_clear(j->c->io, off, len, w->buf, j->chunk, w->err);
}

static int store_runs(struct worker *w, enum unit_kind which)
{
	enum unit_kind kind;
	uint64_t pos, len;
	size_t u, end;
	int r = 0;

	for (u = 0; u < w->nr_units && !r; u = end) {
		end = unit_run(w, u, &kind);
		pos = unit_pos(w, u);
		len = unit_pos(w, end) - pos;
		if (kind != which)
			continue;
		if (kind == UNIT_ZERO)
			r = clear_disk(w, w->off + pos, len);
		else
			r = qcow_io_pwrite(w->j->c->io, w->buf + pos, len, w->off + pos, w->err);
	}
	return r;
}

static int store_raw(struct worker *w)
{
	int r = store_runs(w, UNIT_DATA);

	return r < 0 || w->j->c->blank ? r : store_runs(w, UNIT_ZERO);
}

/* ---- a stream ---------------------------------------------------------------------- */

static int write_stream(struct worker *w)
{
	struct job *j = w->j;
	uint64_t done;
	size_t n;
	int r = 0;

	if (w->whole != UNIT_DATA)
		memset(w->buf, 0, j->chunk);
	for (done = 0; done < w->len && !r; done += n) {
		n = w->len - done < j->chunk ? w->len - done : j->chunk;
		r = j->c->write(j->c->arg, w->buf, n, w->err);
	}
	return r;
}

/* ------------------------------------------------------------------------------------ */

int job_place(struct worker *w)
{
	if (w->j->c->into)
		return put_into(w);
	return w->j->c->image ? place_in_image(w) : write_stream(w);
}

int job_store(struct worker *w)
{
	struct job *j = w->j;

	if (j->c->write || j->c->into)
		return 0;
	if (j->c->image)
		return w->whole == UNIT_DATA ? store_in_image(w) : 0;
	if (w->whole == UNIT_DATA)
		return store_raw(w);
	return w->whole == UNIT_ZERO ? clear_disk(w, w->off, w->len) : 0;
}
