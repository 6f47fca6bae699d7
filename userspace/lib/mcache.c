// SPDX-License-Identifier: GPL-2.0-only
#include "lib/mcache.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define WAYS	8
#define NO_PAGE UINT64_MAX

/* Everything in a set is guarded by its lock. */
struct set {
	pthread_mutex_t lock;
	uint64_t clock;			   /* counts uses */
	uint64_t writes;		   /* counts updates: a page read across one is stale */
	uint64_t key[WAYS];		   /* page number and layer, NO_PAGE = free */
	uint64_t used[WAYS];		   /* clock at the last use */
	uint8_t (*page)[QCOW_MCACHE_PAGE]; /* WAYS of them */
};

struct qcow_mcache {
	size_t nr_sets; /* power of two */
	struct set *sets;
	uint8_t (*pages)[QCOW_MCACHE_PAGE];
};

static size_t sets_for(size_t bytes)
{
	size_t n = 1;

	while (n * 2 * WAYS * QCOW_MCACHE_PAGE <= bytes)
		n *= 2;
	return n;
}

static void set_init(struct set *s, uint8_t (*page)[QCOW_MCACHE_PAGE])
{
	int i;

	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	s->page = page;
	for (i = 0; i < WAYS; i++)
		s->key[i] = NO_PAGE;
}

struct qcow_mcache *qcow_mcache_create(size_t bytes)
{
	struct qcow_mcache *c = calloc(1, sizeof(*c));
	size_t i;

	if (!c)
		return NULL;
	c->nr_sets = sets_for(bytes);
	c->sets = calloc(c->nr_sets, sizeof(*c->sets));
	c->pages = aligned_alloc(QCOW_MCACHE_PAGE, c->nr_sets * WAYS * QCOW_MCACHE_PAGE);
	if (!c->sets || !c->pages)
		goto out_free;
	for (i = 0; i < c->nr_sets; i++)
		set_init(&c->sets[i], c->pages + i * WAYS);
	return c;

out_free:
	free(c->pages);
	free(c->sets);
	free(c);
	return NULL;
}

void qcow_mcache_destroy(struct qcow_mcache *c)
{
	size_t i;

	if (!c)
		return;
	for (i = 0; i < c->nr_sets; i++)
		pthread_mutex_destroy(&c->sets[i].lock);
	free(c->pages);
	free(c->sets);
	free(c);
}

static struct set *set_of(struct qcow_mcache *c, uint64_t key)
{
	/* Fibonacci hashing: tables often lie a power of two apart. */
	return &c->sets[(key * 0x9e3779b97f4a7c15ull >> 32) & (c->nr_sets - 1)];
}

static int way_of_locked(const struct set *s, uint64_t key)
{
	int i;

	for (i = 0; i < WAYS; i++)
		if (s->key[i] == key)
			return i;
	return -1;
}

static int oldest_locked(const struct set *s)
{
	int i, best = 0;

	for (i = 1; i < WAYS; i++)
		if (s->used[i] < s->used[best])
			best = i;
	return best;
}

static bool lookup(struct set *s, uint64_t key, size_t in, void *buf, size_t len, uint64_t *writes)
{
	int way;

	pthread_mutex_lock(&s->lock);
	way = way_of_locked(s, key);
	if (way >= 0) {
		memcpy(buf, s->page[way] + in, len);
		s->used[way] = ++s->clock;
	}
	*writes = s->writes;
	pthread_mutex_unlock(&s->lock);
	return way >= 0;
}

/* Two threads may have read the same page; the second finds it there. */
static void insert_locked(struct set *s, uint64_t key, const void *page)
{
	int way = way_of_locked(s, key);

	if (way < 0) {
		way = oldest_locked(s);
		memcpy(s->page[way], page, QCOW_MCACHE_PAGE);
		s->key[way] = key;
	}
	s->used[way] = ++s->clock;
}

/* @writes: as lookup() gave it before the page was read from the file. */
static void insert(struct set *s, uint64_t key, const void *page, uint64_t writes)
{
	pthread_mutex_lock(&s->lock);
	if (s->writes == writes)
		insert_locked(s, key, page);
	pthread_mutex_unlock(&s->lock);
}

/* @buf NULL: forget. */
static void update_in_page(struct qcow_mcache *c, uint32_t layer, uint64_t host_off,
			   const void *buf, size_t len)
{
	uint64_t key = host_off / QCOW_MCACHE_PAGE << 8 | layer;
	struct set *s = set_of(c, key);
	int way;

	pthread_mutex_lock(&s->lock);
	s->writes++;
	way = way_of_locked(s, key);
	if (way >= 0 && buf)
		memcpy(s->page[way] + host_off % QCOW_MCACHE_PAGE, buf, len);
	else if (way >= 0)
		s->key[way] = NO_PAGE;
	pthread_mutex_unlock(&s->lock);
}

static uint64_t rest_of_page(uint64_t host_off, uint64_t len)
{
	uint64_t n = QCOW_MCACHE_PAGE - host_off % QCOW_MCACHE_PAGE;

	return n < len ? n : len;
}

void qcow_mcache_update(struct qcow_mcache *c, uint32_t layer, uint64_t host_off, const void *buf,
			size_t len)
{
	const uint8_t *in = buf;
	size_t n;

	for (; len; len -= n, in += n, host_off += n) {
		n = rest_of_page(host_off, len);
		update_in_page(c, layer, host_off, in, n);
	}
}

void qcow_mcache_drop(struct qcow_mcache *c, uint32_t layer, uint64_t host_off, uint64_t len)
{
	uint64_t n;

	for (; len; len -= n, host_off += n) {
		n = rest_of_page(host_off, len);
		update_in_page(c, layer, host_off, NULL, 0);
	}
}

/* Within one page. */
static int read_in_page(struct qcow_mcache *c, uint32_t layer, struct qcow_io *io,
			uint64_t host_off, void *buf, size_t len, void *page,
			struct qcow_error *err)
{
	uint64_t nr = host_off / QCOW_MCACHE_PAGE;
	size_t in = host_off % QCOW_MCACHE_PAGE;
	/* Page numbers have at most 51 bits: offsets are below 2^63. */
	uint64_t key = nr << 8 | layer;
	struct set *s = set_of(c, key);
	uint64_t writes;
	int r;

	if (lookup(s, key, in, buf, len, &writes))
		return 0;
	r = qcow_io_pread(io, page, QCOW_MCACHE_PAGE, nr * QCOW_MCACHE_PAGE, err);
	if (r < 0)
		return r;
	memcpy(buf, (uint8_t *)page + in, len);
	insert(s, key, page, writes);
	return 0;
}

int qcow_mcache_read(struct qcow_mcache *c, uint32_t layer, struct qcow_io *io, uint64_t host_off,
		     void *buf, size_t len, void *page, struct qcow_error *err)
{
	uint8_t *out = buf;
	size_t n;
	int r;

	while (len) {
		n = QCOW_MCACHE_PAGE - host_off % QCOW_MCACHE_PAGE;
		if (n > len)
			n = len;
		r = read_in_page(c, layer, io, host_off, out, n, page, err);
		if (r < 0)
			return r;
		out += n;
		host_off += n;
		len -= n;
	}
	return 0;
}
