// SPDX-License-Identifier: GPL-2.0-only
/* A disk that is full in the middle of something: said again later, it works. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/fill.h"
#include "lib/writer-priv.h"
#include "rw.h"

#define SMALL	512ull	      /* a cluster, where refcounts have to grow */
#define BLOCK	(256 * SMALL) /* what a refcount block covers then */
#define TABLE	(64 * BLOCK)  /* ... and a table of one cluster */
#define CHUNK	(64 * SMALL)
#define MAX_EXT 512

struct leases {
	struct qcow_lease_extent ext[MAX_EXT];
	size_t nr;
	uint64_t bytes;
};

/* What was proposed is noted, granted or not. */
static int take(struct rw *t, struct leases *l, uint64_t bytes)
{
	struct qcow_lease_extent *ext = &l->ext[l->nr];
	size_t nr, i;
	int r = qcow_lease_propose(t->w, bytes, 0, ext, MAX_EXT - l->nr, &nr, &t->err);

	for (i = 0; i < nr; i++)
		l->bytes += ext[i].len;
	l->nr += nr;
	return r < 0 ? r : qcow_lease_grant(t->w, ext, nr, &t->err);
}

static void give_back(struct rw *t, struct leases *l)
{
	ok(t, qcow_lease_return(t->w, l->ext, l->nr, &t->err));
	*l = (struct leases){ 0 };
}

/* Takes a chunk across @boundary while only @n writes go well; false if that was enough. */
static bool grow_with_writes(uint64_t boundary, long n)
{
	static struct leases before, across;
	bool was_full;
	struct rw t;

	before = across = (struct leases){ 0 };
	open_rw(&t, work_create("cluster_size=512", "64M", ""));
	while (t.m->size + 2 * CHUNK < boundary)
		ok(&t, take(&t, &before, CHUNK));
	t.m->fail_errno = ENOSPC;
	t.m->fail_after = n;
	if (take(&t, &across, 4 * CHUNK) < 0 && qcow_writer_failed(t.w))
		fail_msg("after %ld writes: %s", n, t.err.text);
	was_full = !t.m->fail_after;
	t.m->fail_after = -1;
	give_back(&t, &across);
	ok(&t, take(&t, &across, 4 * CHUNK));
	if (across.bytes != 4 * CHUNK)
		fail_msg("after %ld writes: no more than %llu bytes", n,
			 (unsigned long long)across.bytes);
	assert_true(t.m->size > boundary);
	give_back(&t, &across);
	give_back(&t, &before);
	ok(&t, qcow_writer_finish(t.w, &t.err));
	expect_sound(&t, 0);
	close_rw(&t);
	return was_full;
}

static void test_new_block(void **state)
{
	long n = 0;

	(void)state;
	while (grow_with_writes(2 * BLOCK, n))
		n++;
	assert_true(n > 4);
}

static void test_bigger_table(void **state)
{
	long n = 0;

	(void)state;
	while (grow_with_writes(TABLE, n))
		n++;
	assert_true(n > 6);
}

/* No space behind the tables of a lease, which is asked for again and again. */
static void test_tables_again(void **state)
{
	struct qcow_lease_extent e[4];
	uint64_t first = 0, end;
	struct rw t;
	size_t nr, known = 0;
	int i;

	(void)state;
	open_rw(&t, work_create("compat=1.1", "8T", ""));
	end = t.m->space_end = t.m->size;
	for (i = 0; i < 100; i++) {
		ok(&t, qcow_lease_propose(t.w, CLUSTER, 64, e, 4, &nr, &t.err));
		assert_true(nr == 2 && e[0].table && e[0].len == 64 * CLUSTER);
		assert_int_equal(qcow_lease_grant(t.w, e, nr, &t.err), -ENOSPC);
		first = i ? first : e[0].host_off;
		known = i ? known : t.w->meta.nr;
		assert_true(e[0].host_off == first && t.w->meta.nr == known);
	}
	assert_true(first <= end);
	t.m->space_end = 0;
	ok(&t, qcow_lease_propose(t.w, CLUSTER, 64, e, 4, &nr, &t.err));
	ok(&t, qcow_lease_grant(t.w, e, nr, &t.err));
	assert_true(e[0].host_off == first && t.w->nr_reserve == 64);
	ok(&t, qcow_lease_return(t.w, e, nr, &t.err));
	ok(&t, qcow_writer_finish(t.w, &t.err));
	expect_sound(&t, 0);
	close_rw(&t);
}

/* ---- a command's data ----------------------------------------------------------- */

#define PIECE 4096ull /* a cluster */
#define HOLES 200ull  /* more than a lease has extents */
#define BATCH 512ull  /* clusters */

static int fill_batch(struct rw *t, uint64_t from)
{
	static const uint8_t bytes[PIECE] = { 1 };
	struct qcow_fill *f;
	int r = 0, r2;

	ok(t, qcow_fill_create(&f, t->w, NULL, &t->err));
	for (uint64_t i = 0; i < BATCH && !r; i++)
		r = qcow_fill_data(f, from + i * PIECE, bytes, &t->err);
	r2 = qcow_fill_finish(f, r ? NULL : &t->err);
	qcow_fill_destroy(f);
	return r ? r : r2;
}

/* Every other cluster of what the first lease has is free: a batch takes several leases. */
static void make_holes(struct rw *t, struct leases *rest)
{
	struct qcow_lease_extent hole = { .len = PIECE };
	static struct leases all;

	all = *rest = (struct leases){ 0 };
	ok(t, take(t, &all, 2 * HOLES * PIECE));
	assert_int_equal(all.nr, 1);
	for (uint64_t i = 0; i < 2 * HOLES; i++) {
		hole.host_off = all.ext[0].host_off + i * PIECE;
		if (i % 2)
			rest->ext[rest->nr++] = hole;
		else
			ok(t, qcow_lease_return(t->w, &hole, 1, &t->err));
	}
}

static void test_no_room_for_data(void **state)
{
	static struct leases rest;
	struct rw t;

	(void)state;
	open_rw(&t, work_create("cluster_size=4k", "64M", ""));
	make_holes(&t, &rest);
	t.m->space_end = t.m->size;
	assert_int_equal(fill_batch(&t, 0), -ENOSPC);
	assert_false(qcow_writer_failed(t.w));
	expect_sound(&t, HOLES);
	t.m->space_end = 0;
	ok(&t, fill_batch(&t, 0));
	give_back(&t, &rest);
	ok(&t, qcow_writer_finish(t.w, &t.err));
	expect_sound(&t, 0);
	close_rw(&t);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_block),
		cmocka_unit_test(test_bigger_table),
		cmocka_unit_test(test_tables_again),
		cmocka_unit_test(test_no_room_for_data),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
