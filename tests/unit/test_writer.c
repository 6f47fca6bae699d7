// SPDX-License-Identifier: GPL-2.0-only
/* The write side call by call: refusals, full disks, failed flushes, hostile tables. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/be.h"
#include "lib/refcount.h"
#include "rw.h"

/* ---- arithmetic -------------------------------------------------------------------- */

static void test_refcount_widths(void **state)
{
	uint64_t want[64], seed = 5, i, n;
	uint8_t block[64 * 8];
	uint32_t order;

	(void)state;
	for (order = 0; order <= 6; order++) {
		memset(block, 0, sizeof(block));
		memset(want, 0, sizeof(want));
		for (n = 0; n < 500; n++) {
			i = memio_random(&seed) % 64;
			want[i] = memio_random(&seed) & qcow_ref_max(order);
			qcow_ref_encode(block, order, i, want[i]);
		}
		for (i = 0; i < 64; i++)
			assert_true(qcow_ref_decode(block, order, i) == want[i]);
	}
	/* Lowest bits first, as the specification draws it. */
	memset(block, 0, sizeof(block));
	qcow_ref_encode(block, 1, 1, 3);
	assert_int_equal(block[0], 0x0c);
	qcow_ref_encode(block, 2, 1, 0xa);
	assert_int_equal(block[0], 0xac);
}

static void test_sort(void **state)
{
	struct qcow_delta d[100];
	uint64_t seed = 9;
	size_t i, nr;

	(void)state;
	for (nr = 0; nr < 100; nr++) {
		for (i = 0; i < nr; i++)
			d[i].guest_off = memio_random(&seed) % 50;
		qcow_deltas_sort(d, nr);
		for (i = 1; i < nr; i++)
			assert_true(d[i - 1].guest_off <= d[i].guest_off);
	}
}

/* ---- refusals at open -------------------------------------------------------------- */

static void refuse(struct memio *m, int code, const char *word)
{
	struct rw t;
	int r = try_open(&t, m, false);

	if (r != -code || !strstr(t.err.text, word))
		fail_msg("%d, not %d: %s", r, -code, t.err.text);
	assert_null(t.w);
	qcow_image_close(t.img);
	memio_destroy(m);
}

static void test_refusals(void **state)
{
	struct memio *m;

	(void)state;
	m = work_create("compat=1.1", "1M", "");
	m->data[79] = 1;
	refuse(m, EROFS, "qcow check -r");
	m = work_create("compat=1.1", "1M", "");
	m->data[79] = 2;
	refuse(m, EROFS, "corrupt");
	m = work_create("compat=1.1", "1M", "qemu-img bitmap --add $1 b");
	refuse(m, EROFS, "--drop-bitmaps");
	m = work_create("cluster_size=512", "1M", "");
	m->io.align = 4096;
	refuse(m, ENOTSUP, "512 bytes");
	/* An L2 table on the refcount block, on the header, unaligned. */
	m = work_create("compat=1.1", "1M", "qemu-io -f qcow2 -c 'write 0 64k' $1");
	qcow_put_be64(m->data + qcow_be64(m->data + 40), 1ull << 63 | 0x20000);
	refuse(m, EIO, "two tables");
	m = work_create("compat=1.1", "1M", "");
	qcow_put_be64(m->data + qcow_be64(m->data + 48), 0x10000);
	refuse(m, EIO, "two tables");
	m = work_create("compat=1.1", "1M", "");
	qcow_put_be64(m->data + qcow_be64(m->data + 48), 0x10200);
	refuse(m, EIO, "refcount block");
}

static void test_drop_bitmaps(void **state)
{
	struct rw t;

	(void)state;
	ok(&t, try_open(&t, work_create("compat=1.1", "1M", "qemu-img bitmap --add $1 b"), true));
	assert_int_equal(t.m->data[95], 0);
	assert_int_equal(t.test.nr[QCOW_BARRIER_AUTOCLEAR], 1);
	close_rw(&t);
}

/* ---- leases ------------------------------------------------------------------------ */

static void test_lease_cycle(void **state)
{
	struct qcow_lease_extent a[4], b[4];
	size_t na, nb;
	uint64_t refs;
	struct rw t;
	struct qcow_lease_extent never = { .host_off = 500 * CLUSTER, .len = CLUSTER };
	uint8_t page[512];

	(void)state;
	memset(page, 0x5a, sizeof(page));
	open_rw(&t, work_create("compat=1.1", "64M", ""));
	/* Two proposals never share a cluster, and write nothing. */
	ok(&t, qcow_lease_propose(t.w, 4 * CLUSTER, 2, a, 4, &na, &t.err));
	ok(&t, qcow_lease_propose(t.w, 4 * CLUSTER, 0, b, 4, &nb, &t.err));
	assert_int_equal(na, 2);
	assert_true(a[0].table && a[0].len == 2 * CLUSTER && !a[1].table);
	assert_true(b[0].host_off >= a[1].host_off + a[1].len);
	expect_sound(&t, 0);
	assert_int_equal(qcow_lease_grant(t.w, &never, 1, &t.err), -ESTALE);
	ok(&t, qcow_lease_grant(t.w, a, na, &t.err));
	assert_true(a[1].zero);
	/* By the time it is said again, somebody's data may be there. */
	ok(&t, qcow_io_pwrite(&t.m->io, page, sizeof(page), a[1].host_off, &t.err));
	ok(&t, qcow_lease_grant(t.w, a, na, &t.err));
	assert_false(a[1].zero);
	assert_memory_equal(t.m->data + a[1].host_off, page, sizeof(page));
	ok(&t, qcow_ref_get(t.w, a[1].host_off, &refs, &t.err));
	assert_int_equal(refs, 1);
	expect_sound(&t, 6);
	/* Forgotten, it is found again. */
	qcow_lease_forget(t.w, b, nb);
	ok(&t, qcow_lease_propose(t.w, 4 * CLUSTER, 0, b, 4, &nb, &t.err));
	assert_true(b[0].host_off == a[1].host_off + a[1].len);
	ok(&t, qcow_lease_return(t.w, &a[1], 1, &t.err));
	ok(&t, qcow_writer_finish(t.w, &t.err));
	expect_sound(&t, 0);
	assert_true(t.m->size <= 0x40000);
	close_rw(&t);
}

static void test_lease_on_metadata(void **state)
{
	struct qcow_lease_extent e = { .host_off = 0x10000, .len = CLUSTER };
	struct rw t;

	(void)state;
	open_rw(&t, work_create("compat=1.1", "64M", ""));
	assert_int_equal(qcow_lease_grant(t.w, &e, 1, &t.err), -EIO);
	e.host_off = 0;
	assert_int_equal(qcow_lease_grant(t.w, &e, 1, &t.err), -EIO);
	assert_false(qcow_writer_failed(t.w));
	close_rw(&t);
}

/*
 * A crafted entry may still lead the guest to what was its own when it was looked at: no
 * table goes there, unless there is no other place.
 */
static void test_tables_keep_away(void **state)
{
	struct qcow_lease_extent data[4], table[4];
	struct memio *m;
	size_t nr, i;
	struct rw t;

	(void)state;
	for (i = 0; i < 2; i++) {
		m = work_create("compat=1.1", "64M", "");
		if (i) {
			m->size = 12 * CLUSTER;
			m->io.fixed_end = true;
		}
		open_rw(&t, m);
		ok(&t, qcow_lease_propose(t.w, 100 * CLUSTER, 0, data, 4, &nr, &t.err));
		assert_int_equal(nr, 1);
		ok(&t, qcow_lease_grant(t.w, data, nr, &t.err));
		ok(&t, qcow_lease_return(t.w, data, nr, &t.err));
		ok(&t, qcow_lease_propose(t.w, CLUSTER, 1, table, 4, &nr, &t.err));
		assert_true(nr == 2 && table[0].table && !table[1].table);
		if (i)
			assert_true(table[0].host_off == data[0].host_off);
		else
			assert_true(table[0].host_off == data[0].host_off + data[0].len);
		/* Data may go where it was. */
		assert_true(table[1].host_off == data[0].host_off + i * CLUSTER);
		close_rw(&t);
	}
}

/* The same for what a commit freed: another entry, a crafted one, may name it too. */
static void test_tables_keep_away_from_freed(void **state)
{
	struct qcow_lost far = { .host_off = 4096 * CLUSTER, .len = CLUSTER };
	struct qcow_lease_extent e[4];
	struct qcow_commit c;
	uint64_t freed;
	struct rw t;
	size_t nr;

	(void)state;
	open_rw(&t, work_create("compat=1.1", "64M", "qemu-io -f qcow2 -c 'write 0 64k' $1"));
	ok(&t, commit_one(&t, 0, 0, QCOW_DELTA_ZERO, &c));
	assert_int_equal(c.nr_lost, 1);
	freed = c.lost[0].host_off;
	ok(&t, qcow_free(t.w, c.lost, c.nr_lost, &t.err));
	ok(&t, qcow_lease_propose(t.w, CLUSTER, 1, e, 4, &nr, &t.err));
	assert_true(nr == 2 && e[0].table && e[0].host_off > freed);
	assert_true(!e[1].table && e[1].host_off == freed);
	ok(&t, qcow_lease_grant(t.w, e, nr, &t.err));
	/* But what was free all the time pushes none to where it lies. */
	assert_int_equal(qcow_free(t.w, &far, 1, &t.err), -EIO);
	ok(&t, qcow_lease_propose(t.w, CLUSTER, 1, e, 4, &nr, &t.err));
	assert_true(nr == 2 && e[0].table && e[0].host_off < far.host_off);
	close_rw(&t);
}

/* Refcounts of 0 do not make metadata free, a snapshot's neither: nothing is copied onto it. */
static void test_zeroed_refcounts(void **state)
{
	struct memio *m = work_create("compat=1.1", "64M",
				      "qemu-io -f qcow2 -c 'write 0 64k' $1; qemu-img snapshot -c "
				      "a $1; qemu-io -f qcow2 -c 'write 0 64k' $1");
	uint64_t table = qcow_be64(m->data + 64), l1 = qcow_be64(m->data + table);
	uint64_t kept[] = { table, l1, qcow_be64(m->data + l1) & ~(1ull << 63),
			    qcow_be64(m->data + qcow_be64(m->data + 40)) & ~(1ull << 63) };
	struct qcow_lease_extent e[16];
	struct rw t;
	size_t nr, i, k;

	(void)state;
	memset(m->data + qcow_be64(m->data + qcow_be64(m->data + 48)), 0, CLUSTER);
	open_rw(&t, m);
	ok(&t, qcow_lease_propose(t.w, 12 * CLUSTER, 2, e, 16, &nr, &t.err));
	assert_true(nr > 0);
	for (i = 0; i < nr; i++) {
		assert_true(e[i].host_off >= 4 * CLUSTER);
		for (k = 0; k < sizeof(kept) / sizeof(*kept); k++)
			assert_true(kept[k] < e[i].host_off || kept[k] >= e[i].host_off + e[i].len);
	}
	close_rw(&t);
}

static void test_full_disk_commits(void **state)
{
	struct qcow_lease_extent e[4];
	struct qcow_commit c;
	struct rw t;
	uint64_t host;
	size_t nr;

	(void)state;
	open_rw(&t, work_create("compat=1.1", "2G", ""));
	host = lease_one(&t, 1);
	t.m->space_end = t.m->size;
	t.m->io.fixed_end = true;
	/* No more: but what was leased can be committed, its L2 table included. */
	assert_int_equal(commit_one(&t, 0, host, QCOW_DELTA_DATA, &c), 0);
	assert_int_equal(qcow_lease_propose(t.w, CLUSTER, 0, e, 4, &nr, &t.err), 0);
	assert_int_equal(qcow_lease_grant(t.w, e, nr, &t.err), -ENOSPC);
	assert_false(qcow_writer_failed(t.w));
	/* An L2 table there is none for; after an extension it goes on. */
	assert_int_equal(commit_one(&t, 1ull << 30, 0, QCOW_DELTA_ZERO, &c), 0);
	assert_int_equal(commit_one(&t, 1ull << 30, host, QCOW_DELTA_DATA, &c), -ENOSPC);
	t.m->io.fixed_end = false;
	t.m->space_end = 0;
	ok(&t, qcow_lease_propose(t.w, CLUSTER, 0, e, 4, &nr, &t.err));
	ok(&t, qcow_lease_grant(t.w, e, nr, &t.err));
	assert_int_equal(commit_one(&t, 1ull << 30, e[0].host_off, QCOW_DELTA_DATA, &c), 0);
	close_rw(&t);
}

/* ---- failures ---------------------------------------------------------------------- */

static void test_failed_flush_is_final(void **state)
{
	struct qcow_lease_extent e[4];
	struct rw t;
	size_t nr;

	(void)state;
	open_rw(&t, work_create("compat=1.1", "64M", ""));
	ok(&t, qcow_lease_propose(t.w, CLUSTER, 0, e, 4, &nr, &t.err));
	/* The extension and the refcount go well, the flush does not. */
	t.m->fail_after = 2;
	t.m->fail_errno = EIO;
	assert_int_equal(qcow_lease_grant(t.w, e, nr, &t.err), -EIO);
	assert_non_null(strstr(t.err.text, "GRANT"));
	assert_true(qcow_writer_failed(t.w));
	t.m->fail_after = -1;
	assert_int_equal(qcow_lease_grant(t.w, e, nr, &t.err), -EIO);
	assert_int_equal(qcow_barrier(t.w, QCOW_BARRIER_DATA, &t.err), -EIO);
	assert_int_equal(qcow_writer_finish(t.w, &t.err), -EIO);
	close_rw(&t);
}

/* ---- commits ----------------------------------------------------------------------- */

static void test_said_twice(void **state)
{
	struct qcow_commit c;
	struct rw t;
	uint64_t a, b;

	(void)state;
	open_rw(&t, work_create("compat=1.1", "64M", ""));
	a = lease_one(&t, 1);
	b = lease_one(&t, 0);
	ok(&t, commit_one(&t, CLUSTER, a, QCOW_DELTA_DATA, &c));
	assert_int_equal(c.nr_lost, 0);
	ok(&t, commit_one(&t, CLUSTER, b, QCOW_DELTA_DATA, &c));
	assert_int_equal(c.nr_lost, 1);
	assert_true(c.lost[0].host_off == a && c.lost[0].exclusive);
	ok(&t, commit_one(&t, CLUSTER, b, QCOW_DELTA_DATA, &c));
	assert_int_equal(c.nr_lost, 0);
	ok(&t, commit_one(&t, CLUSTER, 0, QCOW_DELTA_ZERO_KEEP, &c));
	assert_int_equal(c.nr_lost, 0);
	ok(&t, commit_one(&t, CLUSTER, 0, QCOW_DELTA_ZERO, &c));
	assert_int_equal(c.nr_lost, 1);
	expect_sound(&t, 2);
	close_rw(&t);
}

/* A lease that was written and zeroed before its first commit, where no L2 table is yet. */
static void test_zeros_keep_a_fresh_place(void **state)
{
	struct qcow_commit c;
	struct rw t;
	uint64_t a, l2;

	(void)state;
	open_rw(&t, work_create("compat=1.1", "64M", ""));
	a = lease_one(&t, 1);
	ok(&t, commit_one(&t, CLUSTER, a, QCOW_DELTA_ZERO_KEEP, &c));
	assert_int_equal(c.nr_lost, 0);
	l2 = qcow_be64(t.m->data + qcow_be64(t.m->data + 40)) & ~(1ull << 63);
	assert_true(l2 && qcow_be64(t.m->data + l2 + 8) == (a | 1ull << 63 | 1));
	ok(&t, qcow_writer_finish(t.w, &t.err));
	expect_sound(&t, 0);
	close_rw(&t);
}

static void test_bad_deltas(void **state)
{
	struct qcow_commit c;
	struct rw t;
	uint64_t host;

	(void)state;
	open_rw(&t, work_create("compat=1.1", "64M", ""));
	host = lease_one(&t, 1);
	assert_int_equal(commit_one(&t, 512, host, QCOW_DELTA_DATA, &c), -EINVAL);
	assert_int_equal(commit_one(&t, 0, host + 512, QCOW_DELTA_DATA, &c), -EINVAL);
	assert_int_equal(commit_one(&t, 1ull << 40, host, QCOW_DELTA_DATA, &c), -EINVAL);
	assert_int_equal(commit_one(&t, 0, 0x10000, QCOW_DELTA_DATA, &c), -EIO);
	assert_int_equal(commit_one(&t, 0, 0, QCOW_DELTA_DATA, &c), -EIO);
	assert_false(qcow_writer_failed(t.w));
	close_rw(&t);
}

/* A crafted entry at the refcount block: the guest loses it, the block stays. */
static void test_free_spares_metadata(void **state)
{
	uint64_t l1, l2, block;
	struct qcow_commit c;
	struct rw t;
	struct memio *m = work_create("compat=1.1", "64M", "qemu-io -f qcow2 -c 'write 0 64k' $1");

	(void)state;
	l1 = qcow_be64(m->data + 40);
	l2 = qcow_be64(m->data + l1) & ~(1ull << 63);
	block = qcow_be64(m->data + qcow_be64(m->data + 48));
	qcow_put_be64(m->data + l2, 1ull << 63 | block);
	open_rw(&t, m);
	ok(&t, commit_one(&t, 0, 0, QCOW_DELTA_ZERO, &c));
	assert_int_equal(c.nr_lost, 1);
	assert_int_equal(qcow_free(t.w, c.lost, c.nr_lost, &t.err), -EIO);
	assert_int_equal(qcow_be16(m->data + block + block / CLUSTER * 2), 1);
	close_rw(&t);
}

static void test_may_write(void **state)
{
	_Alignas(4096) uint8_t page[QCOW_MCACHE_PAGE];
	uint64_t l1, l2, data, free_off = 64 * CLUSTER;
	struct rw t;
	struct memio *m = work_create("compat=1.1", "64M", "qemu-io -f qcow2 -c 'write 0 64k' $1");

	(void)state;
	l1 = qcow_be64(m->data + 40);
	l2 = qcow_be64(m->data + l1) & ~(1ull << 63);
	data = qcow_be64(m->data + l2) & ~(1ull << 63);
	open_rw(&t, m);
	assert_int_equal(qcow_writer_may_write(t.w, data, CLUSTER, page, &t.err), QCOW_MAY_WRITE);
	assert_int_equal(qcow_writer_may_write(t.w, l2, 512, page, &t.err), QCOW_MAY_WRITE_NEVER);
	assert_int_equal(qcow_writer_may_write(t.w, l1, 512, page, &t.err), QCOW_MAY_WRITE_NEVER);
	assert_int_equal(qcow_writer_may_write(t.w, 0, 512, page, &t.err), QCOW_MAY_WRITE_NEVER);
	assert_int_equal(qcow_writer_may_write(t.w, free_off, CLUSTER, page, &t.err),
			 QCOW_MAY_WRITE_NEVER);
	ok(&t, qcow_ref_update(t.w, QCOW_REF_UP, data, 1, &t.err));
	assert_int_equal(qcow_writer_may_write(t.w, data, CLUSTER, page, &t.err), QCOW_MAY_NOT);
	close_rw(&t);
}

/*
 * A discard where the refcount block is not aligned, past the end, or missing: refused,
 * at the latest when the cluster is given back, and nothing is written by a wrong offset.
 */
static void test_discard_without_refblock(void **state)
{
	static const uint64_t blocks[] = { 0x20200, 1ull << 40, 0x00fffffffffffe00, 0 };
	struct qcow_commit c;
	struct memio *m;
	uint64_t size;
	struct rw t;
	size_t i;
	int r;

	(void)state;
	for (i = 0; i < sizeof(blocks) / sizeof(*blocks); i++) {
		m = work_create("compat=1.1", "64M", "qemu-io -f qcow2 -c 'write 0 64k' $1");
		qcow_put_be64(m->data + qcow_be64(m->data + 48), blocks[i]);
		size = m->size;
		r = try_open(&t, m, false);
		if (!r)
			r = commit_one(&t, 0, 0, QCOW_DELTA_ZERO, &c);
		if (!r)
			r = qcow_free(t.w, c.lost, c.nr_lost, &t.err);
		if (r != -EIO || m->size != size)
			fail_msg("%#llx: %d", (unsigned long long)blocks[i], r);
		close_rw(&t);
	}
}

/* A discard of everything, in as many steps as it takes. */
static void test_discard_all(void **state)
{
	struct qcow_delta d = { .len = 32 << 20, .type = QCOW_DELTA_ZERO };
	struct qcow_commit c = { .deltas = &d, .nr = 1 };
	unsigned int steps = 0;
	uint64_t bytes = 0;
	struct rw t;
	size_t i;

	(void)state;
	open_rw(&t, work_create("cluster_size=4k", "32M", "qemu-io -f qcow2 -c 'write 0 32M' $1"));
	for (; c.next < c.nr; steps++) {
		ok(&t, qcow_commit_step(t.w, &c, &t.err));
		for (i = 0; i < c.nr_lost; i++)
			bytes += c.lost[i].len;
		ok(&t, qcow_free(t.w, c.lost, c.nr_lost, &t.err));
	}
	assert_true(bytes == 32 << 20 && steps > 1);
	ok(&t, qcow_writer_finish(t.w, &t.err));
	expect_sound(&t, 0);
	close_rw(&t);
}

static void test_data_file(void **state)
{
	struct qcow_lease_extent e[4];
	struct qcow_commit c;
	size_t nr;
	struct rw t;

	(void)state;
	open_rw(&t, work_create("data_file=d.raw", "64M", ""));
	ok(&t, qcow_lease_propose(t.w, CLUSTER, 1, e, 4, &nr, &t.err));
	assert_true(nr == 1 && e[0].table);
	ok(&t, qcow_lease_grant(t.w, e, nr, &t.err));
	ok(&t, commit_one(&t, 0, 0, QCOW_DELTA_DATA, &c));
	ok(&t, commit_one(&t, 3 * CLUSTER, 3 * CLUSTER, QCOW_DELTA_DATA, &c));
	assert_int_equal(commit_one(&t, CLUSTER, 3 * CLUSTER, QCOW_DELTA_DATA, &c), -EINVAL);
	ok(&t, commit_one(&t, 3 * CLUSTER, 0, QCOW_DELTA_ZERO, &c));
	assert_int_equal(c.nr_lost, 0);
	ok(&t, qcow_writer_finish(t.w, &t.err));
	expect_sound(&t, 0);
	close_rw(&t);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refcount_widths),
		cmocka_unit_test(test_sort),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_drop_bitmaps),
		cmocka_unit_test(test_lease_cycle),
		cmocka_unit_test(test_lease_on_metadata),
		cmocka_unit_test(test_tables_keep_away),
		cmocka_unit_test(test_tables_keep_away_from_freed),
		cmocka_unit_test(test_zeroed_refcounts),
		cmocka_unit_test(test_full_disk_commits),
		cmocka_unit_test(test_failed_flush_is_final),
		cmocka_unit_test(test_said_twice),
		cmocka_unit_test(test_zeros_keep_a_fresh_place),
		cmocka_unit_test(test_bad_deltas),
		cmocka_unit_test(test_free_spares_metadata),
		cmocka_unit_test(test_may_write),
		cmocka_unit_test(test_discard_without_refblock),
		cmocka_unit_test(test_discard_all),
		cmocka_unit_test(test_data_file),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
