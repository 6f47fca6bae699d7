// SPDX-License-Identifier: GPL-2.0-only
#include "lib/compare.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK	    (512u << 10)
#define SECTOR	    512u
#define MAX_THREADS 64u
#define DONE	    1

struct job {
	struct qcow_compare *c;
	uint64_t size;
	pthread_mutex_t lock; /* of what follows */
	struct qcow_scratch *sa, *sb;
	uint64_t next, done;
	int r;
	struct qcow_error err;
};

struct worker {
	struct job *j;
	pthread_t thread;
	struct qcow_scratch *sa, *sb;
	uint8_t *a, *b;
	uint64_t off, len;
	struct qcow_error err;
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

static int next_extent(struct qcow_chain *c, uint64_t off, uint64_t len, struct qcow_extent *e,
		       struct qcow_scratch *s, struct qcow_error *err)
{
	int r = qcow_chain_extent(c, off, len, e, s, err);

	if (!r && e->type == QCOW_EXTENT_BROKEN)
		return -EIO;
	if (!r)
		qcow_chain_find_hole(c, e);
	return r;
}

static bool is_zero_extent(const struct qcow_extent *e)
{
	return e->type == QCOW_EXTENT_UNALLOCATED || e->type == QCOW_EXTENT_ZERO;
}

/* What need not be read is passed here; the rest becomes a chunk. */
static int take(struct job *j, struct worker *w)
{
	struct qcow_extent a, b;
	uint64_t left;
	int r;

	for (; !j->r && !j->c->differ && j->next < j->size; j->next += w->len) {
		if (j->c->cancelled && j->c->cancelled(j->c->arg))
			return qcow_fail(&w->err, ECANCELED, QCOW_NO_OFF, "cancelled");
		left = j->size - j->next;
		r = next_extent(j->c->a, j->next, left, &a, j->sa, &w->err);
		if (!r)
			r = next_extent(j->c->b, j->next, a.len, &b, j->sb, &w->err);
		if (r < 0)
			return r;
		if (j->c->strict && is_zero_extent(&a) != is_zero_extent(&b)) {
			note(j, j->next, true);
			return DONE;
		}
		w->off = j->next;
		w->len = b.len;
		if (is_zero_extent(&a) && is_zero_extent(&b)) {
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
	return DONE;
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

static int one_chunk(struct job *j, struct worker *w)
{
	bool differ;
	uint64_t at;
	int r;

	pthread_mutex_lock(&j->lock);
	r = take(j, w);
	pthread_mutex_unlock(&j->lock);
	if (!r)
		r = qcow_chain_read(j->c->a, w->off, w->a, w->len, w->sa, &w->err);
	if (!r)
		r = qcow_chain_read(j->c->b, w->off, w->b, w->len, w->sb, &w->err);
	if (r)
		return r;
	differ = memcmp(w->a, w->b, w->len);
	if (differ)
		find_difference(w, &at);
	pthread_mutex_lock(&j->lock);
	if (differ)
		note(j, at, false);
	j->done += w->len;
	if (j->c->progress)
		j->c->progress(j->c->arg, j->done, j->size);
	pthread_mutex_unlock(&j->lock);
	return 0;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct job *j = w->j;
	int r = 0;

	while (!r)
		r = one_chunk(j, w);
	if (r == DONE)
		return NULL;
	pthread_mutex_lock(&j->lock);
	if (!j->r) {
		j->r = r;
		j->err = w->err;
	}
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

static int scratches(struct job *j, struct qcow_scratch **a, struct qcow_scratch **b)
{
	int r = qcow_scratch_create(a, j->c->a, &j->err);

	return r < 0 ? r : qcow_scratch_create(b, j->c->b, &j->err);
}

static int worker_init(struct worker *w, struct job *j)
{
	w->j = j;
	w->a = aligned_alloc(4096, CHUNK);
	w->b = aligned_alloc(4096, CHUNK);
	if (!w->a || !w->b)
		return qcow_fail(&j->err, ENOMEM, QCOW_NO_OFF, "out of memory");
	return scratches(j, &w->sa, &w->sb);
}

static void run(struct job *j, struct worker *workers, unsigned int nr)
{
	unsigned int i, started;

	for (started = 0; started < nr; started++)
		if (pthread_create(&workers[started].thread, NULL, work, &workers[started]))
			break;
	if (!started)
		work(&workers[0]);
	for (i = 0; i < started; i++)
		pthread_join(workers[i].thread, NULL);
	if (!j->r && j->c->progress && !j->c->differ)
		j->c->progress(j->c->arg, j->size, j->size);
}

int qcow_compare(struct qcow_compare *c, struct qcow_error *err)
{
	unsigned int nr = c->nr_threads < MAX_THREADS ? c->nr_threads : MAX_THREADS, i;
	struct worker workers[MAX_THREADS] = { 0 };
	uint64_t sa = qcow_chain_size(c->a), sb = qcow_chain_size(c->b);
	struct job j = { .c = c, .size = sa > sb ? sa : sb };

	c->differ = false;
	nr = nr ? nr : 1;
	pthread_mutex_init(&j.lock, NULL);
	j.r = scratches(&j, &j.sa, &j.sb);
	for (i = 0; i < nr && !j.r; i++)
		j.r = worker_init(&workers[i], &j);
	if (!j.r)
		run(&j, workers, nr);
	for (i = 0; i < nr; i++) {
		qcow_scratch_destroy(workers[i].sa);
		qcow_scratch_destroy(workers[i].sb);
		free(workers[i].a);
		free(workers[i].b);
	}
	qcow_scratch_destroy(j.sa);
	qcow_scratch_destroy(j.sb);
	pthread_mutex_destroy(&j.lock);
	if (j.r < 0 && err)
		*err = j.err;
	return j.r;
}
