// SPDX-License-Identifier: GPL-2.0-only
/*
 * An image that is open for writing: who may have it, what is refused, what happens
 * when the disk below is full or broken.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE 65536u /* of a cluster */

static struct rig *serve(const char *name, const char *word)
{
	struct rig *rig = rig_create_rw(name, word);

	rig_serve(rig);
	return rig;
}

static void expect_refused(const char *word, int error, const char *text)
{
	struct rig *rig = serve("w.qcow2", word);

	assert_answer_error(rig_call(rig, DM_QCOW_CMD_PROBE), error, text);
	assert_answer_error(rig_call(rig, DM_QCOW_CMD_OPEN), error, text);
	assert_answer_error(rig_load(rig, 0), EIO, "is not open");
	rig_destroy(rig);
}

/* ---- refusals ------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
	(void)state;
	guest_make("cluster_size=64k", "8M", "printf '\\001' | dd of=$1 bs=1 seek=79 conv=notrunc");
	expect_refused(NULL, EROFS, "qcow check -r all");
	guest_make("cluster_size=64k", "8M", "printf '\\002' | dd of=$1 bs=1 seek=79 conv=notrunc");
	expect_refused(NULL, EROFS, "qcow check -r all");
	guest_make("cluster_size=2k", "8M", "");
	expect_refused(NULL, ENOTSUP, "2048 bytes are too small");
	guest_make("cluster_size=64k", "8M", "qemu-img snapshot -c a $1");
	expect_refused("snapshot:a", EINVAL, "a snapshot cannot be written to");
	guest_make("cluster_size=64k", "8M", "qemu-img bitmap --add $1 b");
	expect_refused(NULL, EROFS, "--drop-bitmaps");
}

static void test_dropped_bitmaps(void **state)
{
	struct rig *rig;

	(void)state;
	guest_make("cluster_size=64k", "8M", "qemu-img bitmap --add $1 b");
	rig = serve("w.qcow2", "drop_bitmaps");
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_PROBE));
	/* Not yet: a table that is loaded may never be used. */
	assert_int_equal(guest_shell("qemu-img info -f qcow2 w.qcow2 | grep -q 'name: b'"), 0);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	rig_destroy(rig);
	assert_int_equal(guest_shell("qemu-img info -f qcow2 w.qcow2 | grep -q 'name: b'"), 1);
	/* And are not in the way again. */
	rig = serve("w.qcow2", NULL);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	rig_destroy(rig);
}

/* ---- locks ------------------------------------------------------------------------------ */

/* A qemu that has the image open until its input ends. */
static FILE *start_qemu(const char *options)
{
	char cmd[300], path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/ready", rig_dir);
	unlink(path);
	snprintf(cmd, sizeof(cmd), "cd %s && exec qemu-io %s w.qcow2 >ready 2>log", rig_dir,
		 options);
	f = popen(cmd, "w");
	assert_non_null(f);
	fputs("read 0 512\n", f);
	fflush(f);
	for (int i = 0; i < 200; i++) {
		struct stat st;

		if (!stat(path, &st) && st.st_size)
			return f;
		usleep(50000);
	}
	fail_msg("qemu-io does not start");
	return f;
}

static void test_locks(void **state)
{
	struct rig *rig, *other;
	FILE *qemu;

	(void)state;
	if (guest_shell("qemu-img create -q -f qcow2 under.qcow2 8M"))
		fail_msg("no base");
	guest_make("cluster_size=64k,backing_file=under.qcow2,backing_fmt=qcow2", "8M", "");
	qemu = start_qemu("-f qcow2");
	expect_refused(NULL, EBUSY, "w.qcow2");
	pclose(qemu);
	/* Who reads keeps a writer out too. */
	qemu = start_qemu("-r -f qcow2");
	expect_refused(NULL, EBUSY, "w.qcow2");
	pclose(qemu);

	rig = serve("w.qcow2", NULL);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_PROBE));
	assert_int_equal(guest_shell("qemu-io -f qcow2 -c 'write 0 64k' w.qcow2"), 0);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_int_equal(guest_shell("qemu-io -f qcow2 -c 'write 0 64k' w.qcow2"), 1);
	assert_int_equal(guest_shell("qemu-io -r -f qcow2 -c 'read 0 64k' w.qcow2"), 1);
	assert_int_equal(guest_shell("qemu-io -f qcow2 -c 'write 0 64k' under.qcow2"), 1);
	assert_int_equal(guest_shell("qemu-io -r -f qcow2 -c 'read 0 64k' under.qcow2"), 0);
	expect_refused(NULL, EBUSY, "w.qcow2");
	other = rig_create("w.qcow2", NULL);
	rig_serve(other);
	assert_answer_error(rig_call(other, DM_QCOW_CMD_OPEN), EBUSY, "w.qcow2");
	rig_destroy(other);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	assert_int_equal(guest_shell("qemu-io -f qcow2 -c 'write 0 64k' w.qcow2"), 0);
	rig_destroy(rig);
}

/* ---- trouble below ------------------------------------------------------------------------- */

static void get_proposal(struct guest *g, struct dm_qcow_lease *leases)
{
	assert_answer_ok(guest_ask_propose(g->rig, 3 * SIZE, 1));
	assert_int_equal(g->rig->reply.leases.nr, 2);
	for (uint32_t i = 0; i < 2; i++)
		qnl_array_get(&g->rig->reply.leases, i, &leases[i], sizeof(*leases));
}

/*
 * Says the same again and again while the disk gets room for one write more each time; a
 * GRANT of @leases, if not NULL, is proposed anew.
 */
static void until_there_is_space(struct guest *g, struct qnl_msg *up, struct dm_qcow_lease *leases)
{
	const struct qnl_msg *reply;
	unsigned int nr_full = 0;

	for (long n = 0;; n++) {
		g->fail_after = INT32_MAX;
		if (leases)
			get_proposal(g, leases);
		g->fail_errno = ENOSPC;
		g->fail_after = n;
		g->tripped = false;
		guest_break_io(g);
		reply = rig_ask(g->rig, up);
		if (!qnl_has(reply, QNL_BIT(ERROR)))
			break;
		assert_int_equal(reply->error, ENOSPC);
		assert_true(g->tripped && n < 50);
		nr_full++;
	}
	g->fail_after = INT32_MAX;
	assert_true(nr_full > 0);
}

static void test_full_disk(void **state)
{
	struct qnl_msg grant = { .cmd = DM_QCOW_CMD_GRANT }, commit = { .cmd = DM_QCOW_CMD_COMMIT };
	struct dm_qcow_delta delta = { .guest_off = 5 * SIZE, .nr_blocks = 2 };
	struct dm_qcow_lease leases[2], rest;
	static struct guest g;

	(void)state;
	guest_make("cluster_size=64k", "64M", "");
	guest_open(&g, "w.qcow2", NULL, 1);
	qnl_set(&grant, LEASES, leases, ((struct qnl_array){ leases, 2 }));
	until_there_is_space(&g, &grant, leases);
	assert_int_equal(g.rig->reply.tables, DM_QCOW_TABLES_ENOUGH);

	delta.host_off = leases[1].host_off;
	qnl_set(&commit, GENERATION, generation, 1);
	qnl_set(&commit, FLAGS, flags, DM_QCOW_COMMIT_UNFLUSHED);
	qnl_set(&commit, DELTAS, deltas, ((struct qnl_array){ &delta, 1 }));
	until_there_is_space(&g, &commit, NULL);
	rest = (struct dm_qcow_lease){ .host_off = leases[1].host_off + 2 * SIZE,
				       .nr_clusters = 1 };
	assert_answer_ok(guest_ask_leases(g.rig, DM_QCOW_CMD_FREE, &rest, 1));
	guest_suspend(&g);
	guest_judge(&g);
	guest_destroy(&g);
}

/* A failed flush leaves unknown what is on disk. It is not written to again. */
static void test_broken_disk(void **state)
{
	struct dm_qcow_delta delta = { .guest_off = 0, .nr_blocks = 1, .type = DM_QCOW_DELTA_ZERO };
	static struct guest g;

	(void)state;
	guest_make("cluster_size=64k", "64M", "qemu-io -f qcow2 -c 'write 0 64k' $1");
	guest_open(&g, "w.qcow2", NULL, 1);
	g.fail_after = 1;
	guest_break_io(&g);
	assert_answer_error(guest_ask_commit(g.rig, &delta, 1), EIO, "barrier COMMIT");
	assert_int_equal(g.tripped, 1);
	g.fail_after = INT32_MAX;
	assert_answer_error(guest_ask_commit(g.rig, &delta, 1), EIO, "read-only now");
	assert_answer_error(guest_ask_propose(g.rig, SIZE, 0), EIO, "read-only now");
	assert_answer_error(guest_ask_leases(g.rig, DM_QCOW_CMD_FREE, NULL, 0), EIO, "read-only");
	/* It can still be read; and not be called clean. */
	assert_answer_ok(rig_load(g.rig, 0));
	assert_answer_ok(rig_fetch(g.rig, SIZE, SIZE));
	assert_answer_error(rig_call(g.rig, DM_QCOW_CMD_CLOSE), EIO, "read-only now");
	assert_answer_ok(rig_fetch(g.rig, SIZE, SIZE));
	guest_destroy(&g);
	assert_int_equal(guest_shell("qemu-img check -f qcow2 w.qcow2 || [ $? = 3 ]"), 0);
}

/* ---- the file's length ------------------------------------------------------------------------
 */

static off_t file_size(void)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/w.qcow2", rig_dir);
	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* Leases make it long, CLOSE cuts it back; also if another worker made it long. */
static void test_file_is_cut_back(void **state)
{
	static struct guest g;
	off_t before;

	(void)state;
	guest_make("cluster_size=64k", "64M", "");
	before = (file_size() + SIZE - 1) / SIZE * SIZE;
	for (int kills = 0; kills < 2; kills++) {
		guest_open(&g, "w.qcow2", NULL, 1);
		g.nr_pool = 0;
		guest_write(&g, 0);
		assert_true(file_size() >= before + 8 * (off_t)SIZE);
		g.kill = kills ? GUEST_KILL_BEFORE : GUEST_LIVES;
		guest_zero(&g, 0, false);
		guest_flush(&g);
		guest_suspend(&g);
		assert_int_equal(g.nr_kills, kills);
		guest_judge(&g);
		guest_destroy(&g);
		assert_int_equal(file_size(), before);
	}
	/* What the admin set aside stays his. */
	assert_int_equal(guest_shell("truncate -s 32M w.qcow2"), 0);
	guest_open(&g, "w.qcow2", NULL, 1);
	guest_write(&g, 0);
	guest_suspend(&g);
	guest_destroy(&g);
	assert_int_equal(file_size(), 32 << 20);
}

/* ---- nonsense
 * ------------------------------------------------------------------------------------ */

static void test_malformed(void **state)
{
	struct dm_qcow_lease far = { .host_off = 1ULL << 60, .nr_clusters = 1 };
	struct dm_qcow_lease odd = { .host_off = 512, .nr_clusters = 1 };
	struct dm_qcow_lease none = { .host_off = 32 * SIZE };
	struct dm_qcow_lease never = { .host_off = 32 * SIZE, .nr_clusters = 2 };
	struct dm_qcow_delta type = { .nr_blocks = 1, .type = 77 };
	struct dm_qcow_delta empty = { .host_off = 32 * SIZE };
	struct dm_qcow_delta past = { .guest_off = 1ULL << 50, .nr_blocks = 1 };
	struct dm_qcow_delta skew = { .host_off = 32 * SIZE + 512, .nr_blocks = 1 };
	struct rig *rig;

	(void)state;
	guest_make("cluster_size=64k", "64M", "");
	rig = serve("w.qcow2", NULL);
	assert_answer_error(guest_ask_propose(rig, SIZE, 0), EIO, "not open for writing");
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_answer_error(rig_call(rig, DM_QCOW_CMD_PROPOSE), EPROTO, "malformed");
	assert_answer_error(rig_call(rig, DM_QCOW_CMD_GRANT), EPROTO, "malformed");
	assert_answer_error(rig_call(rig, DM_QCOW_CMD_COMMIT), EIO, "malformed");
	assert_answer_error(guest_ask_leases(rig, DM_QCOW_CMD_GRANT, &far, 1), EINVAL, "");
	assert_answer_error(guest_ask_leases(rig, DM_QCOW_CMD_GRANT, &odd, 1), EINVAL, "");
	assert_answer_error(guest_ask_leases(rig, DM_QCOW_CMD_GRANT, &none, 1), EINVAL, "");
	assert_answer_error(guest_ask_leases(rig, DM_QCOW_CMD_GRANT, &never, 1), ESTALE,
			    "not proposed");
	assert_answer_error(guest_ask_leases(rig, DM_QCOW_CMD_FREE, &far, 1), EINVAL, "");
	assert_answer_error(guest_ask_commit(rig, &type, 1), EIO, "malformed");
	assert_answer_error(guest_ask_commit(rig, &empty, 1), EIO, "not in blocks");
	assert_answer_error(guest_ask_commit(rig, &past, 1), EIO, "past the disk's end");
	assert_answer_error(guest_ask_commit(rig, &skew, 1), EIO, "impossible host offset");
	/* All that changed nothing. */
	assert_answer_ok(guest_ask_commit(rig, NULL, 0));
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	rig_destroy(rig);
	assert_int_equal(guest_shell("qemu-img check -f qcow2 w.qcow2"), 0);
	rig = rig_create("w.qcow2", NULL);
	rig_serve(rig);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_answer_error(guest_ask_propose(rig, SIZE, 0), EIO, "not open for writing");
	rig_destroy(rig);
}

/* A COMMIT or FREE that timed out, was said again, and is carried out long after. */
static void test_late(void **state)
{
	struct dm_qcow_delta old = { .guest_off = 0, .nr_blocks = 1, .type = DM_QCOW_DELTA_ZERO };
	struct dm_qcow_lease leases[4];
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_COMMIT };
	struct dm_qcow_delta new = { .nr_blocks = 1 };
	struct rig *rig;

	(void)state;
	guest_make("cluster_size=64k", "64M",
		   "qemu-io -f qcow2 -c 'write 0 128k' $1; qemu-img snapshot -c a $1");
	rig = serve("w.qcow2", NULL);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_answer_ok(guest_ask_propose(rig, SIZE, 1));
	for (uint32_t i = 0; i < 2; i++)
		qnl_array_get(&rig->reply.leases, i, &leases[i], sizeof(*leases));
	assert_answer_ok(guest_ask_leases(rig, DM_QCOW_CMD_GRANT, leases, 2));
	new.host_off = leases[1].host_off;
	qnl_set(&up, FLAGS, flags, 0);
	qnl_set(&up, GENERATION, generation, 8);
	qnl_set(&up, DELTAS, deltas, ((struct qnl_array){ &new, 1 }));
	assert_answer_ok(rig_ask(rig, &up));
	assert_true(rig->reply.lost == 2); /* the data and the table */
	qnl_set(&up, GENERATION, generation, 7);
	qnl_set(&up, DELTAS, deltas, ((struct qnl_array){ &old, 1 }));
	assert_answer_error(rig_ask(rig, &up), EIO, "late");
	assert_true(guest_run(rig_load(rig, 0), 0).host_off == new.host_off);
	up = (struct qnl_msg){ .cmd = DM_QCOW_CMD_FREE };
	qnl_set(&up, GENERATION, generation, 7);
	assert_answer_error(rig_ask(rig, &up), ESTALE, "late");
	qnl_set(&up, GENERATION, generation, 8);
	assert_answer_ok(rig_ask(rig, &up));
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	rig_destroy(rig);
	assert_int_equal(guest_shell("qemu-img check -f qcow2 w.qcow2"), 0);
}

static const struct qnl_msg *say(struct rig *rig, uint8_t cmd, uint64_t generation,
				 const struct dm_qcow_delta *delta)
{
	struct qnl_msg up = { .cmd = cmd };

	qnl_set(&up, FLAGS, flags, 0);
	qnl_set(&up, GENERATION, generation, generation);
	qnl_set(&up, DELTAS, deltas, ((struct qnl_array){ delta, delta ? 1 : 0 }));
	return rig_ask(rig, &up);
}

/* The same, but the thread that has it sleeps until the image was closed and is open again. */
static void test_late_from_before(void **state)
{
	const struct dm_qcow_delta old = { .nr_blocks = 1, .type = DM_QCOW_DELTA_ZERO };
	struct dm_qcow_run run;
	struct rig *rig;

	(void)state;
	guest_make("cluster_size=64k", "64M", "qemu-io -f qcow2 -c 'write 64k 64k' $1");
	rig = serve("w.qcow2", NULL);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_answer_ok(say(rig, DM_QCOW_CMD_COMMIT, 5, &old));
	/* Generations of nothing: sealed, and known to nobody but who sent a FREE. */
	assert_answer_ok(say(rig, DM_QCOW_CMD_CLOSE, 7, NULL));
	assert_int_equal(guest_shell("qemu-io -f qcow2 -c 'write 0 64k' w.qcow2"), 0);
	/* An OPEN that timed out is asked again. */
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	for (uint64_t i = 5; i <= 7; i++) {
		assert_answer_error(say(rig, DM_QCOW_CMD_COMMIT, i, &old), EIO, "late");
		assert_answer_error(say(rig, DM_QCOW_CMD_FREE, i, NULL), ESTALE, "late");
	}
	run = guest_run(rig_load(rig, 0), 0);
	assert_int_equal(run.type, DM_QCOW_RUN_DATA);
	assert_answer_ok(say(rig, DM_QCOW_CMD_COMMIT, 8, NULL));
	assert_answer_ok(say(rig, DM_QCOW_CMD_FREE, 8, NULL));
	assert_answer_ok(say(rig, DM_QCOW_CMD_CLOSE, 9, NULL));
	rig_destroy(rig);
	assert_int_equal(guest_shell("qemu-img check -f qcow2 w.qcow2"), 0);
}

/* Readers beside a writer, all at once; each gets its own answer. */
static void test_all_at_once(void **state)
{
	struct dm_qcow_delta delta = { .nr_blocks = 16, .type = DM_QCOW_DELTA_ZERO };
	unsigned int nr[256] = { 0 };
	struct rig *rig;

	(void)state;
	guest_make("cluster_size=64k", "64M", "qemu-io -f qcow2 -c 'write -P 5 0 32M' $1");
	rig = serve("w.qcow2", NULL);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	for (uint64_t i = 0; i < 64; i++) {
		static const uint8_t cmds[] = { DM_QCOW_CMD_LOAD, DM_QCOW_CMD_FETCH,
						DM_QCOW_CMD_COMMIT, DM_QCOW_CMD_PROPOSE };
		struct qnl_msg up = { .cmd = cmds[i % 4] };

		delta.guest_off = i / 4 * 16 * SIZE;
		qnl_set(&up, PAGE, page, i % 3);
		qnl_set(&up, SEQ, seq, i);
		qnl_set(&up, OFFSET, offset, (32 << 20) + i * SIZE);
		qnl_set(&up, LENGTH, length, SIZE);
		qnl_set(&up, BYTES, bytes, 10 * SIZE);
		qnl_set(&up, TABLES, tables, 0);
		qnl_set(&up, GENERATION, generation, 1);
		qnl_set(&up, FLAGS, flags, 0);
		qnl_set(&up, DELTAS, deltas, ((struct qnl_array){ &delta, 1 }));
		rig_upcall(rig, &up);
	}
	for (int i = 0; i < 64; i++) {
		rig_take_answer(rig);
		assert_answer_ok(&rig->reply);
		nr[rig->reply.cmd]++;
	}
	assert_int_equal(nr[DM_QCOW_CMD_COMMIT], 16);
	assert_int_equal(nr[DM_QCOW_CMD_PROPOSE], 16);
	assert_int_equal(guest_run(rig_load(rig, 0), 0).type, DM_QCOW_RUN_ZERO);
	assert_int_equal(guest_run(rig_load(rig, 0), 255).type, DM_QCOW_RUN_ZERO);
	rig_destroy(rig);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_dropped_bitmaps),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_broken_disk),
		cmocka_unit_test(test_file_is_cut_back),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_late_from_before),
		cmocka_unit_test(test_all_at_once),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
