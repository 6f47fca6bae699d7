// SPDX-License-Identifier: GPL-2.0-only
#include "lib/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/convert-priv.h"
#include "lib/l2.h"
#include "lib/zeros.h"

/* Small enough for a processor's cache, large enough for few system calls. */
#define CHUNK (512u << 10)

/* ---- reading ----------------------------------------------------------------------- */

/* Does the new image's backing file show the same there? */
static bool in_base(const struct job *j, const struct qcow_extent *e)
{
	uint32_t base = j->c->base_depth;

	/* What no layer has is so there too, but for a layer above it that is shorter. */
	if (e->type == QCOW_EXTENT_UNALLOCATED)
		return base && e->depth + 1 >= base;
	return base && e->depth >= base;
}

/* From @off on, what the backing file would show through; whole units. */
static uint64_t hidden_len(const struct job *j, uint64_t off)
{
	uint64_t len = j->hide_end - off, over = len % j->unit;

	return over && len < UINT64_MAX - j->unit ? len + j->unit - over : len;
}

/* A long stretch of zeros, or of what is left out, is one chunk without bytes. */
static int take_extent(struct job *j, struct worker *w)
{
	uint64_t left = j->c->size - w->off, hide;
	struct qcow_extent e;
	int r = qcow_concat_next(&j->c->src, w->off, left, &e, j->scratch, w->err);

	w->whole = UNIT_DATA;
	/* What can be read of it is found piece by piece. */
	if (r == -EIO && j->c->lost)
		return 0;
	if (r < 0 || e.len < w->len)
		return r;
	if (in_base(j, &e))
		w->whole = UNIT_SKIP;
	else if (qcow_extent_is_zero(&e) && !j->c->base && !j->zeros_as_data)
		w->whole = w->off >= j->hide_end ? UNIT_SKIP : UNIT_ZERO;
	if (w->whole == UNIT_DATA)
		return 0;
	w->len = e.len;
	/* The unit that the backing file ends in may reach behind the zeros: then it is read. */
	hide = w->whole == UNIT_ZERO ? hidden_len(j, w->off) : w->len;
	if (hide < w->len)
		w->len = hide;
	if (w->len < left)
		w->len -= w->len % j->unit;
	else
		w->len = left;
	return 0;
}

static int take_stream(struct job *j, struct worker *w)
{
	size_t len = j->chunk, pad;
	int r = j->c->read(j->c->arg, w->buf, &len, w->err);

	if (r < 0 || !len)
		return r < 0 ? r : QCOW_TEAM_DONE;
	pad = -len & 511;
	memset(w->buf + len, 0, pad);
	w->len = len + pad;
	w->whole = UNIT_DATA;
	j->c->size = w->off + w->len;
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A chunk may be read when those before it have had their time. */
static void set_due(struct job *j, struct worker *w)
{
	uint64_t now = now_ns();

	w->due_ns = j->due_ns > now ? j->due_ns : now;
	j->due_ns = w->due_ns + (uint64_t)((double)w->len / (double)j->c->rate * 1e9);
}

/* In short pieces, so that a signal is seen soon. */
static int wait_until_due(struct worker *w)
{
	uint64_t now;
	int r = 0;

	while (!r && (now = now_ns()) < w->due_ns) {
		uint64_t ns = w->due_ns - now < 100000000 ? w->due_ns - now : 100000000;

		nanosleep(&(struct timespec){ .tv_nsec = (long)ns }, NULL);
		r = qcow_watch_cancelled(&w->j->c->watch, w->err);
	}
	return r;
}

/* QCOW_TEAM_DONE if nothing is left. */
static int take(struct job *j, struct worker *w)
{
	int r;

	if (j->team.r)
		return QCOW_TEAM_DONE;
	r = qcow_watch_cancelled(&j->c->watch, w->err);
	if (r < 0)
		return r;
	w->off = j->next;
	if (j->c->read) {
		r = take_stream(j, w);
	} else {
		if (j->next >= j->c->size)
			return QCOW_TEAM_DONE;
		w->len = j->chunk < j->c->size - w->off ? j->chunk : j->c->size - w->off;
		r = take_extent(j, w);
	}
	if (r)
		return r;
	w->nr_units = (size_t)((w->len + j->unit - 1) / j->unit);
	w->ticket = j->tickets++;
	j->next += w->len;
	if (j->c->rate && w->whole == UNIT_DATA)
		set_due(j, w);
	return 0;
}

/* Units of which anything is above the backing file are copied, the others are not. */
static int find_above(struct worker *w)
{
	struct job *j = w->j;
	struct qcow_extent e;
	uint64_t pos, u;
	int r = 0;

	for (u = 0; u < w->nr_units; u++)
		w->units[u].kind = j->c->base_depth ? UNIT_SKIP : UNIT_DATA;
	if (!j->c->base_depth)
		return 0;
	for (pos = 0; pos < w->len && !r; pos += e.len) {
		r = qcow_concat_next(&j->c->src, w->off + pos, w->len - pos, &e, w->scratch,
				     w->err);
		if (r < 0 || in_base(j, &e))
			continue;
		for (u = pos / j->unit; u * j->unit < pos + e.len; u++)
			w->units[u].kind = UNIT_DATA;
	}
	return r;
}

static int read_sound(struct worker *w, uint64_t pos, uint64_t end)
{
	const struct qcow_concat *src = &w->j->c->src;
	struct qcow_extent e;
	int r = 0;

	for (; pos < end && !r; pos += e.len) {
		r = qcow_concat_next(src, w->off + pos, end - pos, &e, w->scratch, w->err);
		if (r < 0)
			return r;
		if (qcow_extent_is_zero(&e))
			memset(w->buf + pos, 0, e.len);
		else
			r = qcow_concat_read(src, w->off + pos, w->buf + pos, e.len, w->scratch,
					     w->err);
	}
	return r;
}

static void say_lost(struct worker *w, uint64_t pos, uint64_t end)
{
	struct job *j = w->j;

	if (pos == end)
		return;
	pthread_mutex_lock(&j->team.lock);
	j->c->lost(j->c->arg, w->off + pos, end - pos, w->err);
	pthread_mutex_unlock(&j->team.lock);
}

/* Sector by sector; what cannot be read is zeros. */
static int salvage(struct worker *w, uint64_t pos, uint64_t end)
{
	uint64_t bad = pos, n; /* [bad, pos) is lost */
	int r;

	for (; pos < end; pos += n) {
		n = end - pos < 512 ? end - pos : 512;
		r = qcow_watch_cancelled(&w->j->c->watch, w->err);
		if (r < 0)
			return r;
		if (read_sound(w, pos, pos + n) < 0) {
			memset(w->buf + pos, 0, n);
			continue;
		}
		say_lost(w, bad, pos);
		bad = pos + n;
	}
	say_lost(w, bad, end);
	return 0;
}

static int read_range(struct worker *w, uint64_t pos, uint64_t end)
{
	int r = read_sound(w, pos, end);

	return r < 0 && w->j->c->lost ? salvage(w, pos, end) : r;
}

/* The end of the run of units that begins with @first; *@kind is theirs. */
size_t unit_run(const struct worker *w, size_t first, enum unit_kind *kind)
{
	size_t u = first + 1;

	*kind = w->units[first].kind;
	while (u < w->nr_units && w->units[u].kind == *kind)
		u++;
	return u;
}

uint64_t unit_pos(const struct worker *w, size_t u)
{
	uint64_t pos = u * w->j->unit;

	return pos < w->len ? pos : w->len;
}

static int load(struct worker *w)
{
	enum unit_kind kind;
	size_t u, end;
	int r = find_above(w);

	for (u = 0; u < w->nr_units && !r; u = end) {
		end = unit_run(w, u, &kind);
		if (kind == UNIT_DATA)
			r = read_range(w, unit_pos(w, u), unit_pos(w, end));
	}
	if (!r && w->j->c->base)
		r = qcow_chain_read(w->j->c->base, w->off, w->base, w->len, w->base_scratch,
				    w->err);
	return r;
}

/* ---- judging ----------------------------------------------------------------------- */

static uint32_t find_subclusters(const struct job *j, const uint8_t *cluster)
{
	size_t size = j->unit / 32;
	uint32_t alloc = 0, i;

	for (i = 0; i < 32; i++)
		if (!qcow_is_zero(cluster + i * size, size))
			alloc |= 1u << i;
	return alloc;
}

static void judge(struct worker *w, size_t u)
{
	struct job *j = w->j;
	uint64_t pos = unit_pos(w, u), len = unit_pos(w, u + 1) - pos;

	if (j->c->base && !memcmp(w->buf + pos, w->base + pos, len)) {
		w->units[u].kind = UNIT_SKIP;
	} else if (!j->zeros_as_data && qcow_is_zero(w->buf + pos, len)) {
		w->units[u].kind = w->off + pos >= j->hide_end ? UNIT_SKIP : UNIT_ZERO;
	} else {
		memset(w->buf + pos + len, 0, j->unit - len);
		w->units[u].alloc = j->subclusters ? find_subclusters(j, w->buf + pos) : 0;
	}
}

static void pack(struct worker *w, size_t u)
{
	struct unit *unit = &w->units[u];
	size_t size = w->j->unit, n;

	n = qcow_pack(w->packer, w->buf + u * size, size, w->packed + u * size, size - 1);
	if (!n)
		return;
	unit->kind = UNIT_PACKED;
	unit->packed_len = n;
}

static int prepare(struct worker *w)
{
	size_t u;
	int r = 0;

	if (w->whole != UNIT_DATA)
		return 0;
	if (w->j->c->read)
		for (u = 0; u < w->nr_units; u++)
			w->units[u].kind = UNIT_DATA;
	else
		r = load(w);
	for (u = 0; u < w->nr_units && !r; u++) {
		if (w->units[u].kind == UNIT_DATA)
			judge(w, u);
		if (w->units[u].kind == UNIT_DATA && w->packer)
			pack(w, u);
	}
	return r;
}

/* ---- threads ----------------------------------------------------------------------- */

static void wait_turn(struct job *j, const struct worker *w)
{
	while (j->turn != w->ticket && !j->team.r)
		pthread_cond_wait(&j->team.changed, &j->team.lock);
}

static int take_turn(struct job *j, struct worker *w)
{
	int r = 0;

	pthread_mutex_lock(&j->team.lock);
	if (j->ordered)
		wait_turn(j, w);
	if (j->team.r)
		r = QCOW_TEAM_DONE;
	else if (j->ordered)
		r = job_place(w);
	j->turn++;
	j->done += w->len;
	if (!r)
		qcow_watch_at(&j->c->watch, j->done, j->c->read ? 0 : j->c->size);
	pthread_cond_broadcast(&j->team.changed);
	pthread_mutex_unlock(&j->team.lock);
	return r;
}

static int one_chunk(void *arg, struct qcow_error *err)
{
	struct worker *w = arg;
	struct job *j = w->j;
	int r;

	w->err = err;
	pthread_mutex_lock(&j->team.lock);
	r = take(j, w);
	pthread_mutex_unlock(&j->team.lock);
	if (!r && j->c->rate)
		r = wait_until_due(w);
	if (!r)
		r = prepare(w);
	if (!r)
		r = take_turn(j, w);
	return r ? r : job_store(w);
}

/* ---- beginning and end ------------------------------------------------------------- */

static void worker_exit(struct worker *w)
{
	qcow_concat_scratch_destroy(w->scratch);
	qcow_scratch_destroy(w->base_scratch);
	qcow_packer_destroy(w->packer);
	free(w->buf);
	free(w->base);
	free(w->packed);
	free(w->units);
}

static int worker_init(struct worker *w, struct job *j)
{
	struct qcow_convert *c = j->c;
	int r = 0;

	w->j = j;
	w->err = &j->team.err;
	if (!c->read)
		r = qcow_concat_scratch_create(&w->scratch, &c->src, w->err);
	if (!r && c->base)
		r = qcow_scratch_create(&w->base_scratch, c->base, w->err);
	if (r < 0)
		return r;
	w->buf = aligned_alloc(4096, j->buf_size);
	w->units = calloc(j->chunk / j->unit + 1, sizeof(*w->units));
	w->base = c->base ? aligned_alloc(4096, j->buf_size) : NULL;
	if (c->compress) {
		w->packer = qcow_packer_create(qcow_builder_header(c->image)->compression);
		w->packed = malloc(j->buf_size);
	}
	if (!w->buf || !w->units || (c->base && !w->base) ||
	    (c->compress && (!w->packer || !w->packed)))
		return qcow_fail(w->err, ENOMEM, QCOW_NO_OFF, "no memory for a thread's buffers");
	return 0;
}

static void plan(struct job *j)
{
	struct qcow_convert *c = j->c;
	const struct qcow_header *h = c->image ? qcow_builder_header(c->image) : NULL;

	j->unit = c->min_sparse ? c->min_sparse : 4096;
	if (h)
		j->unit = qcow_cluster_size(h);
	else if (c->into)
		j->unit = qcow_into_unit(c->into);
	j->chunk = j->unit < CHUNK ? CHUNK / j->unit * j->unit : j->unit;
	j->buf_size = (j->chunk + 4095) & ~(size_t)4095;
	j->ordered = c->image || c->into || c->write;
	j->zeros_as_data = !c->min_sparse || (h && h->has_backing && h->version < 3);
	j->subclusters = h && qcow_has_extl2(h) && !j->zeros_as_data;
	j->hide_end = h && h->has_backing ? c->base_size : UINT64_MAX;
	j->nr_workers = c->nr_threads < QCOW_TEAM_MAX ? c->nr_threads : QCOW_TEAM_MAX;
	if (!j->nr_workers)
		j->nr_workers = 1;
}

static int setup(struct job *j)
{
	unsigned int i;
	int r = 0;

	if (!j->c->read) {
		j->c->size = qcow_concat_size(&j->c->src);
		r = qcow_concat_scratch_create(&j->scratch, &j->c->src, &j->team.err);
	}
	j->workers = calloc(j->nr_workers, sizeof(*j->workers));
	if (!r && !j->workers)
		r = qcow_fail(&j->team.err, ENOMEM, QCOW_NO_OFF, "out of memory");
	for (i = 0; i < j->nr_workers && !r; i++)
		r = worker_init(&j->workers[i], j);
	return r;
}

int qcow_convert(struct qcow_convert *c, struct qcow_error *err)
{
	struct job j = { .c = c };
	unsigned int i;
	int r;

	qcow_team_init(&j.team);
	plan(&j);
	r = setup(&j);
	if (!r)
		r = qcow_team_run(&j.team, j.workers, sizeof(*j.workers), j.nr_workers, one_chunk);
	for (i = 0; j.workers && i < j.nr_workers; i++)
		worker_exit(&j.workers[i]);
	free(j.workers);
	qcow_concat_scratch_destroy(j.scratch);
	if (r < 0 && err)
		*err = j.team.err;
	qcow_team_exit(&j.team);
	return r;
}
