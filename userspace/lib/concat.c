// SPDX-License-Identifier: GPL-2.0-only
#include "lib/concat.h"

#include <errno.h>
#include <stdlib.h>

struct qcow_concat_scratch {
	size_t nr;
	struct qcow_scratch *s[];
};

uint64_t qcow_concat_size(const struct qcow_concat *c)
{
	uint64_t size = 0;
	size_t i;

	for (i = 0; i < c->nr; i++)
		size += qcow_chain_size(c->chains[i]);
	return size;
}

int qcow_concat_scratch_create(struct qcow_concat_scratch **out, const struct qcow_concat *c,
			       struct qcow_error *err)
{
	struct qcow_concat_scratch *s = calloc(1, sizeof(*s) + c->nr * sizeof(*s->s));
	size_t i;
	int r = 0;

	if (!s)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	s->nr = c->nr;
	for (i = 0; i < c->nr && !r; i++)
		r = qcow_scratch_create(&s->s[i], c->chains[i], err);
	if (r < 0)
		qcow_concat_scratch_destroy(s);
	else
		*out = s;
	return r;
}

void qcow_concat_scratch_destroy(struct qcow_concat_scratch *s)
{
	size_t i;

	for (i = 0; s && i < s->nr; i++)
		qcow_scratch_destroy(s->s[i]);
	free(s);
}

/* Which disk @*off is in; *@off: within it. The last one goes on for ever. */
static size_t find(const struct qcow_concat *c, uint64_t *off)
{
	size_t i;

	for (i = 0; i + 1 < c->nr && *off >= qcow_chain_size(c->chains[i]); i++)
		*off -= qcow_chain_size(c->chains[i]);
	return i;
}

/* How much of @len lies in disk @i. */
static uint64_t room(const struct qcow_concat *c, size_t i, uint64_t off, uint64_t len)
{
	uint64_t left = qcow_chain_size(c->chains[i]) - off;

	return i + 1 == c->nr || len < left ? len : left;
}

int qcow_concat_next(const struct qcow_concat *c, uint64_t off, uint64_t len,
		     struct qcow_extent *ext, struct qcow_concat_scratch *s, struct qcow_error *err)
{
	uint64_t in = off;
	size_t i = find(c, &in);
	int r = qcow_chain_next(c->chains[i], in, room(c, i, in, len), ext, s->s[i], err);

	ext->guest_off = off;
	return r;
}

int qcow_concat_read(const struct qcow_concat *c, uint64_t off, void *buf, size_t len,
		     struct qcow_concat_scratch *s, struct qcow_error *err)
{
	uint64_t in;
	size_t i, n;
	int r = 0;

	for (; len && !r; off += n, len -= n, buf = (char *)buf + n) {
		in = off;
		i = find(c, &in);
		n = room(c, i, in, len);
		r = qcow_chain_read(c->chains[i], in, buf, n, s->s[i], err);
	}
	return r;
}
