// SPDX-License-Identifier: GPL-2.0-only
#include "lib/alloc.h"

#include <errno.h>
#include <inttypes.h>

#include "lib/refcount.h"
#include "lib/writer-priv.h"

static bool is_pending(const struct qcow_writer *w, uint64_t cluster)
{
	uint64_t off = cluster << w->h.cluster_bits;
	size_t i;

	for (i = 0; i < w->nr_pending; i++)
		if (off >= w->pending[i].host_off &&
		    off - w->pending[i].host_off < w->pending[i].len)
			return true;
	return false;
}

/*
 * What a refcount of 0 is not enough for. What was claimed as a table and given up stays
 * claimed: it is good for a table, and for nothing else.
 */
static bool is_takable(struct qcow_writer *w, uint64_t cluster, bool table)
{
	int kind = qcow_metaset_kind(&w->meta, cluster);

	if (!cluster || (kind && !(table && kind == QCOW_META_RESERVE)))
		return false;
	return !is_pending(w, cluster);
}

/* Covers @cluster and says whether it is free. */
static int probe(struct qcow_writer *w, uint64_t cluster, bool table, bool *is_free,
		 struct qcow_error *err)
{
	uint64_t refs;
	int r;

	r = qcow_ref_cover(w, cluster, err);
	if (r < 0)
		return r;
	r = qcow_ref_get(w, cluster << w->h.cluster_bits, &refs, err);
	*is_free = !r && !refs && is_takable(w, cluster, table);
	return r;
}

static int find_first(struct qcow_writer *w, uint64_t from, bool table, uint64_t *first,
		      struct qcow_error *err)
{
	uint64_t c = from;
	bool is_free;
	int r;

	while (c < w->host_end) {
		r = qcow_ref_skip(w, c, first, err);
		if (r < 0)
			return r;
		if (*first != c) {
			c = *first;
			continue;
		}
		r = probe(w, c, table, &is_free, err);
		if (r < 0 || is_free)
			return r;
		c++;
	}
	return qcow_fail(err, ENOSPC, c << w->h.cluster_bits,
			 "no free cluster is left up to %#" PRIx64, c << w->h.cluster_bits);
}

int qcow_alloc_find(struct qcow_writer *w, uint64_t from, uint64_t max, bool table, uint64_t *first,
		    uint64_t *nr, struct qcow_error *err)
{
	bool is_free;
	int r = find_first(w, from, table, first, err);

	if (r < 0)
		return r;
	for (*nr = 1; *nr < max && *first + *nr < w->host_end; ++*nr) {
		/* The run found so far is as good; whoever wants more meets the error. */
		r = probe(w, *first + *nr, table, &is_free, err);
		if (r < 0 || !is_free)
			break;
	}
	/* Nobody would say again what made writing fail for good. */
	if (r < 0 && w->failed)
		return r;
	qcow_error_clear(err);
	return 0;
}
