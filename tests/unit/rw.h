/* SPDX-License-Identifier: GPL-2.0-only */
/* An image in memory, open for writing, for tests that call the library themselves. */
#ifndef TESTS_RW_H
#define TESTS_RW_H

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "imgcheck.h"
#include "lib/commit.h"
#include "lib/lease.h"
#include "lib/writer.h"
#include "workdir.h"

#define CLUSTER 65536ull

struct rw {
	struct memio *m;
	struct qcow_image *img;
	struct qcow_writer *w;
	struct qcow_error err;
	struct qcow_write_test test;
};

static inline int try_open(struct rw *t, struct memio *m, bool drop_bitmaps)
{
	struct qcow_writer_params params = { .test = &t->test, .drop_bitmaps = drop_bitmaps };
	int r;

	*t = (struct rw){ .m = m };
	r = qcow_image_open(&t->img, &m->io, &t->err);
	return r < 0 ? r : qcow_writer_create(&t->w, t->img, &params, &t->err);
}

static inline void open_rw(struct rw *t, struct memio *m)
{
	if (try_open(t, m, false) < 0)
		fail_msg("%s", t->err.text);
}

static inline void close_rw(struct rw *t)
{
	qcow_writer_destroy(t->w);
	qcow_image_close(t->img);
	memio_destroy(t->m);
}

static inline void ok_at(struct rw *t, int r, int line)
{
	if (r < 0)
		fail_msg("line %d: %s (%d)", line, t->err.text, r);
}
#define ok(t, r) ok_at(t, r, __LINE__)

static inline uint64_t lease_one(struct rw *t, uint32_t tables)
{
	struct qcow_lease_extent e[4];
	size_t nr;

	ok(t, qcow_lease_propose(t->w, CLUSTER, tables, e, 4, &nr, &t->err));
	ok(t, qcow_lease_grant(t->w, e, nr, &t->err));
	return e[nr - 1].host_off;
}

static inline int commit_one(struct rw *t, uint64_t guest, uint64_t host, enum qcow_delta_type type,
			     struct qcow_commit *c)
{
	static struct qcow_delta d;
	int r = 0;

	d = (struct qcow_delta){
		.guest_off = guest, .len = CLUSTER, .host_off = host, .type = type
	};
	*c = (struct qcow_commit){ .deltas = &d, .nr = 1 };
	while (!r && c->next < 1)
		r = qcow_commit_step(t->w, c, &t->err);
	return r;
}

static inline void expect_sound(struct rw *t, uint64_t leaks)
{
	struct imgcheck c;

	imgcheck(t->m->data, t->m->size, &c);
	if (c.corruptions || c.leaks != leaks)
		fail_msg("%llu corruptions (%s), %llu leaks", (unsigned long long)c.corruptions,
			 c.first, (unsigned long long)c.leaks);
}

#endif
