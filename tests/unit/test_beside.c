// SPDX-License-Identifier: GPL-2.0-only
/* Who resolves a chain while its writer is at work. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/be.h"
#include "lib/chain.h"
#include "lib/commit.h"
#include "lib/lease.h"
#include "lib/writer.h"
#include "rw.h"

struct chain {
	struct memio *m;
	struct qcow_chain *c;
	struct qcow_scratch *s;
	struct qcow_error err;
	struct qcow_run run[8];
	size_t nr;
};

static void open_chain(struct chain *t, struct memio *m)
{
	*t = (struct chain){ .m = m };
	if (qcow_chain_create(&t->c, NULL, &t->err) < 0 ||
	    qcow_chain_add_qcow2(t->c, &m->io, NULL, &t->err) < 0 ||
	    qcow_chain_seal(t->c, &t->err) < 0 ||
	    qcow_chain_make_writable(t->c, false, &t->err) < 0 ||
	    qcow_scratch_create(&t->s, t->c, &t->err) < 0)
		fail_msg("%s", t->err.text);
}

static void close_chain(struct chain *t)
{
	qcow_scratch_destroy(t->s);
	qcow_chain_destroy(t->c);
	memio_destroy(t->m);
}

static const struct qcow_run *resolve(struct chain *t, uint64_t off)
{
	assert_int_equal(qcow_chain_resolve(t->c, off, CLUSTER, t->run, 8, &t->nr, t->s, &t->err),
			 0);
	assert_int_equal(t->nr, 1);
	return t->run;
}

static void test_readers_see_commits(void **state)
{
	struct qcow_lease_extent e[4];
	struct qcow_delta d = { .len = CLUSTER, .type = QCOW_DELTA_DATA };
	struct qcow_commit c = { .deltas = &d, .nr = 1 };
	struct qcow_writer *w;
	struct chain t;
	size_t nr;

	(void)state;
	open_chain(&t, work_create("compat=1.1", "64M", ""));
	w = qcow_chain_writer(t.c);
	assert_int_equal(resolve(&t, 0)->type, QCOW_RUN_ZERO);
	assert_int_equal(qcow_lease_propose(w, CLUSTER, 1, e, 4, &nr, &t.err), 0);
	assert_int_equal(qcow_lease_grant(w, e, nr, &t.err), 0);
	d.host_off = e[1].host_off;
	assert_int_equal(qcow_commit_step(w, &c, &t.err), 0);
	assert_true(resolve(&t, 0)->type == QCOW_RUN_DATA && t.run[0].writable);
	assert_true(t.run[0].host_off == e[1].host_off);
	d.type = QCOW_DELTA_ZERO;
	c = (struct qcow_commit){ .deltas = &d, .nr = 1 };
	assert_int_equal(qcow_commit_step(w, &c, &t.err), 0);
	assert_int_equal(resolve(&t, 0)->type, QCOW_RUN_ZERO);
	close_chain(&t);
}

static void test_shared_is_not_writable(void **state)
{
	struct chain t;

	(void)state;
	open_chain(&t,
		   work_create("compat=1.1", "64M",
			       "qemu-io -f qcow2 -c 'write 0 1M' $1; qemu-img snapshot -c a $1; "
			       "qemu-io -f qcow2 -c 'write 64k 64k' $1"));
	assert_true(resolve(&t, 0)->type == QCOW_RUN_DATA && !t.run[0].writable);
	assert_true(resolve(&t, CLUSTER)->type == QCOW_RUN_DATA && t.run[0].writable);
	close_chain(&t);
}

/* Entries a hostile image would like its guest to write through. */
static void test_hostile_entries(void **state)
{
	struct memio *m = work_create("compat=1.1", "64M", "qemu-io -f qcow2 -c 'write 0 1M' $1");
	uint64_t l1 = qcow_be64(m->data + 40), l2 = qcow_be64(m->data + l1) & ~(1ull << 63), i;
	const uint64_t targets[] = { l1, l2, 0x10000, 0x20000, 100 * CLUSTER };
	uint8_t byte[512];
	struct chain t;

	(void)state;
	for (i = 0; i < 5; i++)
		qcow_put_be64(m->data + l2 + i * 8, 1ull << 63 | targets[i]);
	open_chain(&t, m);
	for (i = 0; i < 5; i++) {
		assert_int_equal(resolve(&t, i * CLUSTER)->type, QCOW_RUN_FETCH);
		assert_int_equal(qcow_chain_read(t.c, i * CLUSTER, byte, 512, t.s, &t.err), -EIO);
	}
	assert_true(resolve(&t, 5 * CLUSTER)->writable);
	close_chain(&t);
}

/* ---- a table is leased while a reader asks for it -------------------------------- */

static struct {
	struct rw t;
	struct qcow_io_ops ops;
	const struct qcow_io_ops *mem;
	struct qcow_lease_extent e[4];
	size_t nr;
	bool armed;
} race;

static int pread_after_grant(struct qcow_io *io, void *buf, size_t len, uint64_t off)
{
	bool armed = race.armed;

	race.armed = false;
	if (armed)
		ok(&race.t, qcow_lease_grant(race.t.w, race.e, race.nr, &race.t.err));
	return race.mem->pread(io, buf, len, off);
}

/* A crafted entry to a free cluster: it must not be the guest's when it becomes a table. */
static void test_table_meets_reader(void **state)
{
	_Alignas(4096) uint8_t page[QCOW_MCACHE_PAGE];
	struct rw *t = &race.t;
	struct qcow_writer_params params = { .cache = qcow_mcache_create(1) };

	(void)state;
	t->m = work_create("compat=1.1", "64M", "");
	race.mem = t->m->io.ops;
	race.ops = *race.mem;
	race.ops.pread = pread_after_grant;
	t->m->io.ops = &race.ops;
	ok(t, qcow_image_open(&t->img, &t->m->io, &t->err));
	ok(t, qcow_writer_create(&t->w, t->img, &params, &t->err));
	ok(t, qcow_lease_propose(t->w, CLUSTER, 1, race.e, 4, &race.nr, &t->err));
	assert_true(race.e[0].table);
	qcow_mcache_drop(params.cache, 0, 0, t->m->size);
	race.armed = true;
	assert_int_equal(qcow_writer_may_write(t->w, race.e[0].host_off, CLUSTER, page, &t->err),
			 QCOW_MAY_WRITE_NEVER);
	assert_false(race.armed);
	/* As data it would be the guest's. */
	assert_int_equal(qcow_writer_may_write(t->w, race.e[1].host_off, CLUSTER, page, &t->err),
			 QCOW_MAY_WRITE);
	close_rw(t);
	qcow_mcache_destroy(params.cache);
}

/* ---- the refcount table is replaced ---------------------------------------------- */

static struct {
	struct rw t;
	struct qcow_io_ops ops;
	const struct qcow_io_ops *mem;
	uint64_t old, asked;
	bool replaced;
} grown;

static enum qcow_may_write ask(uint64_t host_off)
{
	_Alignas(4096) uint8_t page[QCOW_MCACHE_PAGE];

	return (enum qcow_may_write)qcow_writer_may_write(grown.t.w, host_off, 512, page,
							  &grown.t.err);
}

/* Entries to the old table and to the new one, followed at every write. */
static int pwrite_and_ask(struct qcow_io *io, const void *buf, size_t len, uint64_t off)
{
	uint64_t now = qcow_writer_header(grown.t.w)->reftable_off;

	grown.replaced = now != grown.old;
	grown.asked += grown.replaced;
	assert_int_equal(ask(grown.old), QCOW_MAY_WRITE_NEVER);
	assert_int_equal(ask(now), QCOW_MAY_WRITE_NEVER);
	return grown.mem->pwrite(io, buf, len, off);
}

static void test_replaced_table(void **state)
{
	struct qcow_lease_extent e[64];
	struct rw *t = &grown.t;
	size_t nr;

	(void)state;
	open_rw(t, work_create("cluster_size=512", "64M", ""));
	grown.old = qcow_writer_header(t->w)->reftable_off;
	grown.mem = t->m->io.ops;
	grown.ops = *grown.mem;
	grown.ops.pwrite = pwrite_and_ask;
	t->m->io.ops = &grown.ops;
	while (!grown.replaced) {
		ok(t, qcow_lease_propose(t->w, 1 << 20, 0, e, 64, &nr, &t->err));
		ok(t, qcow_lease_grant(t->w, e, nr, &t->err));
	}
	assert_true(grown.asked > 0 && ask(grown.old) == QCOW_MAY_WRITE_NEVER);
	close_rw(t);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers_see_commits),
		cmocka_unit_test(test_shared_is_not_writable),
		cmocka_unit_test(test_hostile_entries),
		cmocka_unit_test(test_table_meets_reader),
		cmocka_unit_test(test_replaced_table),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
