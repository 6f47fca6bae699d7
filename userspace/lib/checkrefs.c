// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/check-priv.h"

#define CHUNK (1ull << 16)
#define FULL  255

int refs_init(struct ref_counts *r, uint64_t window)
{
	*r = (struct ref_counts){ .nr = window, .nr_chunks = (window + CHUNK - 1) / CHUNK };
	r->chunk = calloc(r->nr_chunks, sizeof(*r->chunk));
	return r->chunk ? 0 : -ENOMEM;
}

void refs_exit(struct ref_counts *r)
{
	size_t i;

	for (i = 0; r->chunk && i < r->nr_chunks; i++)
		free(r->chunk[i]);
	free(r->chunk);
	free(r->big);
	*r = (struct ref_counts){ 0 };
}

void refs_begin(struct ref_counts *r, uint64_t first)
{
	size_t i;

	for (i = 0; i < r->nr_chunks; i++) {
		free(r->chunk[i]);
		r->chunk[i] = NULL;
	}
	r->first = first;
	r->nr_big = 0;
	r->shared = false;
}

static struct ref_big *find_big(const struct ref_counts *r, uint64_t cluster)
{
	size_t i;

	for (i = 0; i < r->nr_big; i++)
		if (r->big[i].cluster == cluster)
			return &r->big[i];
	return NULL;
}

static int add_big(struct ref_counts *r, uint64_t cluster)
{
	struct ref_big *b = find_big(r, cluster);

	if (b) {
		b->count++;
		return 0;
	}
	if (r->nr_big == r->max_big) {
		b = realloc(r->big, (r->max_big * 2 + 64) * sizeof(*b));
		if (!b)
			return -ENOMEM;
		r->big = b;
		r->max_big = r->max_big * 2 + 64;
	}
	r->big[r->nr_big++] = (struct ref_big){ .cluster = cluster, .count = FULL + 1 };
	return 0;
}

int refs_add(struct ref_counts *r, uint64_t cluster)
{
	uint64_t i = cluster - r->first;
	uint8_t **chunk;

	if (cluster < r->first || i >= r->nr)
		return 0;
	chunk = &r->chunk[i / CHUNK];
	if (!*chunk)
		*chunk = calloc(1, CHUNK);
	if (!*chunk)
		return -ENOMEM;
	if ((*chunk)[i % CHUNK] == FULL)
		return add_big(r, cluster);
	r->shared |= ++(*chunk)[i % CHUNK] > 1;
	return 0;
}

uint64_t refs_get(const struct ref_counts *r, uint64_t cluster)
{
	uint64_t i = cluster - r->first;
	const struct ref_big *b;

	if (cluster < r->first || i >= r->nr || !r->chunk[i / CHUNK])
		return 0;
	if (r->chunk[i / CHUNK][i % CHUNK] < FULL)
		return r->chunk[i / CHUNK][i % CHUNK];
	b = find_big(r, cluster);
	return b ? b->count : FULL;
}

void refs_drop(struct ref_counts *r, uint64_t cluster)
{
	uint64_t i = cluster - r->first;
	struct ref_big *b = find_big(r, cluster);

	if (b && b->count > FULL)
		b->count--;
	else if (refs_get(r, cluster))
		r->chunk[i / CHUNK][i % CHUNK]--;
}
