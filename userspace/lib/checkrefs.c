// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/check-priv.h"

int refs_init(struct ref_counts *r, uint64_t window)
{
	*r = (struct ref_counts){ .nr = window,
				  .nr_chunks = (window + REFS_CHUNK - 1) / REFS_CHUNK };
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
	if (r->max_big)
		memset(r->big, 0, r->max_big * sizeof(*r->big));
	r->first = first;
	r->nr_big = 0;
	r->shared = false;
}

/* Its entry, or the empty one where that would be. */
static struct ref_big *big_slot(const struct ref_counts *r, uint64_t cluster)
{
	size_t i = (size_t)(cluster * 0x9e3779b97f4a7c15ull >> 32);

	for (;; i++) {
		i &= r->max_big - 1;
		if (!r->big[i].count || r->big[i].cluster == cluster)
			return &r->big[i];
	}
}

static struct ref_big *find_big(const struct ref_counts *r, uint64_t cluster)
{
	struct ref_big *b = r->max_big ? big_slot(r, cluster) : NULL;

	return b && b->count ? b : NULL;
}

static int grow_big(struct ref_counts *r)
{
	struct ref_counts old = *r;
	size_t i;

	r->max_big = old.max_big ? old.max_big * 2 : 256;
	r->big = calloc(r->max_big, sizeof(*r->big));
	if (!r->big) {
		*r = old;
		return -ENOMEM;
	}
	for (i = 0; i < old.max_big; i++)
		if (old.big[i].count)
			*big_slot(r, old.big[i].cluster) = old.big[i];
	free(old.big);
	return 0;
}

static int add_big(struct ref_counts *r, uint64_t cluster)
{
	struct ref_big *b = find_big(r, cluster);

	if (b) {
		b->count++;
		return 0;
	}
	if (2 * (r->nr_big + 1) > r->max_big && grow_big(r) < 0)
		return -ENOMEM;
	r->nr_big++;
	*big_slot(r, cluster) = (struct ref_big){ .cluster = cluster, .count = REFS_FULL + 1 };
	return 0;
}

int refs_add_slow(struct ref_counts *r, uint64_t cluster)
{
	uint8_t **chunk = &r->chunk[(cluster - r->first) / REFS_CHUNK];

	if (!*chunk)
		*chunk = calloc(1, REFS_CHUNK);
	if (!*chunk)
		return -ENOMEM;
	if ((*chunk)[(cluster - r->first) % REFS_CHUNK] == REFS_FULL)
		return add_big(r, cluster);
	return refs_add(r, cluster);
}

const uint8_t *refs_run(const struct ref_counts *r, uint64_t cluster, uint64_t *nr)
{
	uint64_t i = cluster - r->first, left = REFS_CHUNK - i % REFS_CHUNK;
	const uint8_t *chunk = r->chunk[i / REFS_CHUNK];

	if (*nr > left)
		*nr = left;
	return chunk ? chunk + i % REFS_CHUNK : NULL;
}

uint64_t refs_get(const struct ref_counts *r, uint64_t cluster)
{
	uint64_t i = cluster - r->first;
	const struct ref_big *b;

	if (cluster < r->first || i >= r->nr || !r->chunk[i / REFS_CHUNK])
		return 0;
	if (r->chunk[i / REFS_CHUNK][i % REFS_CHUNK] < REFS_FULL)
		return r->chunk[i / REFS_CHUNK][i % REFS_CHUNK];
	b = find_big(r, cluster);
	return b ? b->count : REFS_FULL;
}

void refs_drop(struct ref_counts *r, uint64_t cluster)
{
	uint64_t i = cluster - r->first;
	struct ref_big *b = find_big(r, cluster);

	if (b && b->count > REFS_FULL)
		b->count--;
	else if (refs_get(r, cluster))
		r->chunk[i / REFS_CHUNK][i % REFS_CHUNK]--;
}
