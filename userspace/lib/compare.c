// SPDX-License-Identifier: GPL-2.0-only
#include "lib/compare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/team.h"

#define CHUNK  (512u << 10)
#define SECTOR 512u

struct job {
	struct qcow_compare *c;
	uint64_t size;
	struct qcow_team team; /* its lock: of what follows */
	struct qcow_scratch *sa, *sb;
	uint64_t next, done;
};

struct worker {
	struct job *j;
	struct qcow_scratch *sa, *sb;
	uint8_t *a, *b;
	uint64_t off, len;
};

/* Before every earlier difference: chunks are looked at side by side. */
static void note(struct job *j, uint64_t at, bool only_kind)
{
	if (j->c->differ && j->c->at <= at)
		return;
	j->c->differ = true;
	j->c->at = at;
	j->c->only_kind = only_kind;
}

/* What need not be read is passed here; the rest becomes a chunk. */
static int take(struct job *j, struct worker *w, struct qcow_error *err)
{
	struct qcow_extent a, b;
	uint64_t left;
	int r;

	for (; !j->team.r && !j->c->differ && j->next < j->size; j->next += w->len) {
		left = j->size - j->next;
		r = qcow_watch_cancelled(&j->c->watch, err);
		if (!r)
			r = qcow_chain_next(j->c->a, j->next, left, &a, j->sa, err);
		if (!r)
			r = qcow_chain_next(j->c->b, j->next, a.len, &b, j->sb, err);
		if (r < 0)
			return r;
		if (j->c->strict && qcow_extent_is_zero(&a) != qcow_extent_is_zero(&b)) {
			note(j, j->next, true);
			return QCOW_TEAM_DONE;
		}
		w->off = j->next;
		w->len = b.len;
		if (qcow_extent_is_zero(&a) && qcow_extent_is_zero(&b)) {
			j->done += w->len;
			continue;
		}
		/* Without strictness what follows may be anything. */
		if (!j->c->strict || w->len > CHUNK)
			w->len = left < CHUNK ? left : CHUNK;
		if (j->c->strict && w->len > b.len)
			w->len = b.len;
		j->next += w->len;
		return 0;
	}
	return QCOW_TEAM_DONE;
}

static void find_difference(struct worker *w, uint64_t *at)
{
	uint64_t pos, n;

	for (pos = 0; pos < w->len; pos += n) {
		n = w->len - pos < SECTOR ? w->len - pos : SECTOR;
		if (memcmp(w->a + pos, w->b + pos, n))
			break;
	}
	*at = w->off + pos;
}

static int one_chunk(void *arg, struct qcow_error *err)
{
	struct worker *w = arg;
	struct job *j = w->j;
	bool differ;
	uint64_t at;
	int r;

	pthread_mutex_lock(&j->team.lock);
	r = take(j, w, err);
	pthread_mutex_unlock(&j->team.lock);
	if (!r)
		r = qcow_chain_read(j->c->a, w->off, w->a, w->len, w->sa, err);
	if (!r)
		r = qcow_chain_read(j->c->b, w->off, w->b, w->len, w->sb, err);
	if (r)
		return r;
	differ = memcmp(w->a, w->b, w->len);
	if (differ)
		find_difference(w, &at);
	pthread_mutex_lock(&j->team.lock);
	if (differ)
		note(j, at, false);
	j->done += w->len;
	qcow_watch_at(&j->c->watch, j->done, j->size);
	pthread_mutex_unlock(&j->team.lock);
	return 0;
}

static int scratches(struct job *j, struct qcow_scratch **a, struct qcow_scratch **b)
{
	int r = qcow_scratch_create(a, j->c->a, &j->team.err);

	return r < 0 ? r : qcow_scratch_create(b, j->c->b, &j->team.err);
}

static int worker_init(struct worker *w, struct job *j)
{
	w->j = j;
	w->a = aligned_alloc(4096, CHUNK);
	w->b = aligned_alloc(4096, CHUNK);
	if (!w->a || !w->b)
		return qcow_fail(&j->team.err, ENOMEM, QCOW_NO_OFF, "out of memory");
	return scratches(j, &w->sa, &w->sb);
}

static void worker_exit(struct worker *w)
{
	qcow_scratch_destroy(w->sa);
	qcow_scratch_destroy(w->sb);
	free(w->a);
	free(w->b);
}

int qcow_compare(struct qcow_compare *c, struct qcow_error *err)
{
	unsigned int nr = c->nr_threads < QCOW_TEAM_MAX ? c->nr_threads : QCOW_TEAM_MAX, i;
	struct worker workers[QCOW_TEAM_MAX] = { 0 };
	uint64_t sa = qcow_chain_size(c->a), sb = qcow_chain_size(c->b);
	struct job j = { .c = c, .size = sa > sb ? sa : sb };
	int r;

	c->differ = false;
	nr = nr ? nr : 1;
	qcow_team_init(&j.team);
	r = scratches(&j, &j.sa, &j.sb);
	for (i = 0; i < nr && !r; i++)
		r = worker_init(&workers[i], &j);
	if (!r)
		r = qcow_team_run(&j.team, workers, sizeof(*workers), nr, one_chunk);
	if (!r && !c->differ)
		qcow_watch_at(&c->watch, j.size, j.size);
	for (i = 0; i < nr; i++)
		worker_exit(&workers[i]);
	qcow_scratch_destroy(j.sa);
	qcow_scratch_destroy(j.sb);
	qcow_team_exit(&j.team);
	if (r < 0 && err)
		*err = j.team.err;
	return r;
}
