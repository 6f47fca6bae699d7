// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>

#include "lib/chain-priv.h"

static void *alloc_pages(size_t bytes)
{
	return aligned_alloc(QCOW_MCACHE_PAGE,
			     (bytes + QCOW_MCACHE_PAGE - 1) & ~(size_t)(QCOW_MCACHE_PAGE - 1));
}

int qcow_scratch_create(struct qcow_scratch **out, const struct qcow_chain *c,
			struct qcow_error *err)
{
	struct qcow_scratch *s = calloc(1, sizeof(*s) + c->nr_nodes * sizeof(s->level[0]));

	if (!s)
		goto out_nomem;
	s->nr_levels = c->nr_nodes;
	s->page = alloc_pages(QCOW_MCACHE_PAGE);
	/* An entry claims at most two clusters; plus what direct I/O reads on both sides. */
	s->comp = alloc_pages(2ul * c->max_cluster + 2ul * c->max_align);
	s->cluster = alloc_pages(c->max_cluster + 1ul); /* 0 in a chain of raw alone */
	s->codec = qcow_codec_create();
	if (!s->page || !s->comp || !s->cluster || !s->codec)
		goto out_nomem;
	*out = s;
	return 0;

out_nomem:
	qcow_scratch_destroy(s);
	return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory for a thread's buffers");
}

void qcow_scratch_destroy(struct qcow_scratch *s)
{
	if (!s)
		return;
	qcow_codec_destroy(s->codec);
	free(s->cluster);
	free(s->comp);
	free(s->page);
	free(s);
}
