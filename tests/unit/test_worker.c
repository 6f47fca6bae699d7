// SPDX-License-Identifier: GPL-2.0-only
/* The worker's loop, asked what the kernel asks. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct dm_qcow_run run_at(const struct qnl_msg *reply, uint32_t i)
{
	struct dm_qcow_run run;

	assert_true(i < reply->runs.nr);
	qnl_array_get(&reply->runs, i, &run, sizeof(run));
	return run;
}

static struct dm_qcow_layer layer_at(const struct qnl_msg *reply, uint32_t i)
{
	struct dm_qcow_layer layer;

	assert_true(i < reply->layers.nr);
	qnl_array_get(&reply->layers, i, &layer, sizeof(layer));
	return layer;
}

/* ---- tests --------------------------------------------------------------------------------- */

static void test_probe(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	const struct qnl_msg *reply;

	(void)state;
	rig_serve(rig);
	reply = rig_call(rig, DM_QCOW_CMD_PROBE);
	assert_answer_ok(reply);
	assert_true(qnl_has(reply, QNL_BIT(SHAPE)));
	assert_false(qnl_has(reply, QNL_BIT(DEVICES)));
	assert_int_equal(reply->shape.virtual_size, IMAGE_SIZE);
	assert_int_equal(reply->shape.cluster_size, CLUSTER);
	assert_int_equal(reply->shape.block_size, CLUSTER);
	assert_int_equal(reply->shape.nr_layers, 1);
	assert_true(reply->shape.logical_block_size >= 512);
	assert_true(reply->shape.identity[1] != 0);
	/* A probe leaves it closed. */
	assert_answer_error(rig_load(rig, 0), EIO, "is not open");
	rig_destroy(rig);
}

static void check_first_page(struct rig *rig)
{
	const struct qnl_msg *reply = rig_load(rig, 0);
	uint32_t nr = 0;

	assert_answer_ok(reply);
	assert_int_equal(reply->page, 0);
	assert_int_equal(reply->seq, 77);
	assert_int_equal(run_at(reply, 0).type, DM_QCOW_RUN_DATA);
	assert_int_equal(run_at(reply, 0).nr_blocks, COMPRESSED);
	assert_int_equal(run_at(reply, 0).host_off, 5 * CLUSTER);
	assert_int_equal(run_at(reply, 0).flags, 0);
	assert_int_equal(run_at(reply, 1).type, DM_QCOW_RUN_FETCH);
	assert_int_equal(run_at(reply, 1).nr_blocks, 1);
	assert_int_equal(run_at(reply, 2).type, DM_QCOW_RUN_ZERO);
	for (uint32_t i = 0; i < reply->runs.nr; i++)
		nr += run_at(reply, i).nr_blocks;
	assert_int_equal(nr, DM_QCOW_PAGE_BLOCKS);
}

static void check_fetches(struct rig *rig)
{
	const struct qnl_msg *reply;

	for (int i = 0; i < NR_MAPPED; i++) {
		const uint8_t *bytes;

		reply = rig_fetch(rig, (uint64_t)i * CLUSTER, CLUSTER);
		assert_answer_ok(reply);
		assert_true(reply->offset == (uint64_t)i * CLUSTER);
		assert_int_equal(reply->length, CLUSTER);
		bytes = (const uint8_t *)(uintptr_t)reply->addr;
		for (int j = 0; j < CLUSTER; j++)
			assert_int_equal(bytes[j], 'a' + i);
	}
}

static void test_open_load_fetch_close(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	const struct qnl_msg *reply;
	struct stat st;
	int fd;

	(void)state;
	rig_serve(rig);
	reply = rig_call(rig, DM_QCOW_CMD_OPEN);
	assert_answer_ok(reply);
	assert_true(qnl_has(reply, QNL_BIT(SHAPE) | QNL_BIT(LAYERS)));
	assert_int_equal(reply->layers.nr, 1);
	assert_int_equal(layer_at(reply, 0).flags, 0);
	fd = layer_at(reply, 0).fd;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(reply->shape.identity[1], st.st_ino);

	check_first_page(rig);
	check_fetches(rig);
	/* The end of the disk is inside its last block, the page's is far beyond. */
	reply = rig_load(rig, 2);
	assert_answer_ok(reply);
	assert_int_equal(run_at(reply, reply->runs.nr - 1).type, DM_QCOW_RUN_ZERO);
	assert_answer_ok(rig_fetch(rig, 2 * 512 * CLUSTER, 512));
	assert_answer_ok(rig_load(rig, 1000));
	assert_int_equal(run_at(&rig->reply, 0).nr_blocks, DM_QCOW_PAGE_BLOCKS);

	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	assert_int_equal(fstat(fd, &st), -1);
	assert_answer_error(rig_load(rig, 0), EIO, "is not open");
	assert_answer_error(rig_fetch(rig, 0, CLUSTER), EIO, "is not open");
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	check_fetches(rig);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN)); /* asked again after a timeout, say */
	check_fetches(rig);
	rig_destroy(rig);
}

static void test_one_broken_entry_spoils_one_block(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	const struct qnl_msg *reply;
	uint32_t block = 0, i;

	(void)state;
	rig_serve(rig);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	reply = rig_load(rig, 0);
	assert_answer_ok(reply);
	for (i = 0; block + run_at(reply, i).nr_blocks <= 100; i++)
		block += run_at(reply, i).nr_blocks;
	assert_int_equal(block, 100);
	assert_int_equal(run_at(reply, i).type, DM_QCOW_RUN_FETCH);
	assert_int_equal(run_at(reply, i).nr_blocks, 1);
	assert_answer_error(rig_fetch(rig, 100 * CLUSTER, CLUSTER), EIO, "");
	assert_answer_ok(rig_fetch(rig, 99 * CLUSTER, CLUSTER));
	rig_destroy(rig);
}

static void test_malformed_upcalls(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_FETCH };

	(void)state;
	rig_serve(rig);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_answer_error(rig_call(rig, DM_QCOW_CMD_LOAD), EPROTO, "malformed");
	assert_answer_error(rig_call(rig, DM_QCOW_CMD_FETCH), EPROTO, "malformed");
	assert_answer_error(rig_load(rig, UINT64_MAX), EPROTO, "malformed");
	assert_answer_error(rig_fetch(rig, 0, 2 * CLUSTER), EPROTO, "malformed");
	assert_answer_error(rig_fetch(rig, 0, 0), EPROTO, "malformed");
	assert_answer_error(rig_fetch(rig, UINT64_MAX - 511, 512), EPROTO, "malformed");
	assert_answer_error(rig_call(rig, 99), EOPNOTSUPP, "older than the module");
	/* For another target: no answer; the next call would get it. */
	qnl_set(&up, COOKIE, cookie, 5);
	qnl_set(&up, TARGET, target, RIG_TARGET + 1);
	rig_send(rig, &up);
	assert_int_equal(send(rig->kernel, "rubbish", 7, 0), 7);
	check_fetches(rig);
	rig_destroy(rig);
}

static void test_refusals(void **state)
{
	static const struct {
		const char *image, *word;
		int error;
		const char *text;
	} cases[] = {
		{ "missing.qcow2", NULL, ENOENT, "missing.qcow2" },
		{ "text", NULL, EINVAL, "" },
		{ "a.qcow2", "no_such_option", EINVAL, "no_such_option" },
		{ "overlay.qcow2", "no_backing", EACCES, "" },
		{ "astray.qcow2", NULL, EACCES, "backing-dir" },
		{ "dangling.qcow2", NULL, ENOENT, "nowhere.qcow2" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rig *rig = rig_create(cases[i].image, cases[i].word);

		rig_serve(rig);
		assert_answer_error(rig_call(rig, DM_QCOW_CMD_PROBE), cases[i].error,
				    cases[i].text);
		assert_answer_error(rig_call(rig, DM_QCOW_CMD_OPEN), cases[i].error, cases[i].text);
		assert_answer_error(rig_load(rig, 0), EIO, "is not open");
		rig_destroy(rig);
	}
}

static void test_chain(void **state)
{
	struct rig *rig = rig_create("overlay.qcow2", NULL);
	const struct qnl_msg *reply;

	(void)state;
	rig_serve(rig);
	assert_int_equal(rig_call(rig, DM_QCOW_CMD_PROBE)->shape.nr_layers, 2);
	reply = rig_call(rig, DM_QCOW_CMD_OPEN);
	assert_answer_ok(reply);
	assert_int_equal(reply->layers.nr, 2);
	assert_true(layer_at(reply, 0).fd != layer_at(reply, 1).fd);
	check_fetches(rig);
	rig_destroy(rig);
}

/* As QEMU's writer does: read locks on its bytes, by another open file description. */
static int lock_as_writer(const char *name)
{
	static const int bytes[] = { 100, 101, 103, 201, 203 };
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", rig_dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		struct flock lock = { .l_type = F_RDLCK, .l_start = bytes[i], .l_len = 1 };

		assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	}
	return fd;
}

static bool writer_would_conflict(const char *name)
{
	struct flock lock = { .l_type = F_WRLCK, .l_start = 201, .l_len = 1 };
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", rig_dir, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
	close(fd);
	return lock.l_type != F_UNLCK;
}

static void test_locks(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	int writer = lock_as_writer("a.qcow2");

	(void)state;
	rig_serve(rig);
	assert_answer_error(rig_call(rig, DM_QCOW_CMD_PROBE), EBUSY, "a.qcow2");
	assert_answer_error(rig_call(rig, DM_QCOW_CMD_OPEN), EBUSY, "a.qcow2");
	close(writer);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_PROBE));
	assert_false(writer_would_conflict("a.qcow2")); /* a probe holds nothing */
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_true(writer_would_conflict("a.qcow2"));
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	assert_false(writer_would_conflict("a.qcow2"));
	rig_destroy(rig);
}

/* Takes what the kernel takes of an OPEN answer: its own references. */
static uint32_t keep_layers(const struct qnl_msg *reply, struct dm_qcow_layer *layers)
{
	for (uint32_t i = 0; i < reply->layers.nr; i++) {
		layers[i] = layer_at(reply, i);
		layers[i].fd = fcntl(layers[i].fd, F_DUPFD_CLOEXEC, 0);
		assert_true(layers[i].fd >= 0);
	}
	return reply->layers.nr;
}

static void test_reattach_opens_nothing(void **state)
{
	struct dm_qcow_layer layers[2];
	struct qcow_error err = { 0 };
	struct rig *rig;
	char path[128];
	uint32_t nr;

	(void)state;
	rig_write_image("doomed.qcow2", "a.qcow2");
	rig = rig_create("doomed.qcow2", NULL);
	rig_serve(rig);
	nr = keep_layers(rig_call(rig, DM_QCOW_CMD_OPEN), layers);
	assert_int_equal(nr, 2);
	rig_destroy(rig);
	assert_true(writer_would_conflict("doomed.qcow2")); /* the kernel keeps the lock */
	snprintf(path, sizeof(path), "%s/doomed.qcow2", rig_dir);
	unlink(path);

	rig = rig_create("doomed.qcow2", NULL);
	assert_int_equal(image_adopt(&rig->worker.image, &(struct qnl_array){ layers, nr },
				     &(struct qnl_array){ 0 }, &err),
			 0);
	rig_serve(rig);
	check_first_page(rig);
	check_fetches(rig);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	assert_int_equal(fcntl(layers[0].fd, F_GETFD), -1); /* the descriptors were ours */
	rig_destroy(rig);
}

static void test_failed_adoption_answers(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	struct dm_qcow_layer layer = { .fd = open("/dev/null", O_RDONLY), .tag = ~0ULL };
	struct qcow_error err = { 0 };

	(void)state;
	assert_true(image_adopt(&rig->worker.image, &(struct qnl_array){ &layer, 1 },
				&(struct qnl_array){ 0 }, &err) < 0);
	assert_int_equal(fcntl(layer.fd, F_GETFD), -1);
	rig_serve(rig);
	assert_answer_error(rig_load(rig, 0), EIO, "suspend and resume");
	assert_answer_error(rig_fetch(rig, 0, CLUSTER), EIO, "suspend and resume");
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	check_fetches(rig);
	rig_destroy(rig);
}

static void test_when_the_worker_leaves(void **state)
{
	struct qnl_msg gone = { .cmd = DM_QCOW_CMD_GONE };
	struct rig *rig = rig_create("a.qcow2", NULL);

	(void)state;
	rig_serve(rig);
	rig_send_refusal(rig, -ENOENT);
	rig_send_refusal(rig, -EINVAL);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_PROBE));
	qnl_set(&gone, TARGET, target, RIG_TARGET);
	rig_send(rig, &gone);
	rig_send_refusal(rig, -ESTALE);
	rig_destroy(rig);
}

/* Threads at work at once, FETCH and LOAD mixed, each answer its own. */
static void test_many_at_once(void **state)
{
	struct rig *rig = rig_create("overlay.qcow2", NULL);
	bool seen[64] = { false };
	uint64_t first;

	(void)state;
	rig_serve(rig);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	first = rig->cookie + 1;
	for (int i = 0; i < 64; i++) {
		struct qnl_msg up = { .cmd = i % 2 ? DM_QCOW_CMD_LOAD : DM_QCOW_CMD_FETCH };

		qnl_set(&up, PAGE, page, (uint64_t)(i % 3));
		qnl_set(&up, SEQ, seq, (uint64_t)i);
		qnl_set(&up, OFFSET, offset, (uint64_t)(i % NR_MAPPED) * CLUSTER);
		qnl_set(&up, LENGTH, length, CLUSTER);
		rig_upcall(rig, &up);
	}
	for (int i = 0; i < 64; i++) {
		rig_take_answer(rig);
		assert_answer_ok(&rig->reply);
		assert_true(rig->reply.cookie >= first && rig->reply.cookie < first + 64);
		assert_false(seen[rig->reply.cookie - first]);
		seen[rig->reply.cookie - first] = true;
	}
	rig_destroy(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_open_load_fetch_close),
		cmocka_unit_test(test_one_broken_entry_spoils_one_block),
		cmocka_unit_test(test_malformed_upcalls),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_reattach_opens_nothing),
		cmocka_unit_test(test_failed_adoption_answers),
		cmocka_unit_test(test_when_the_worker_leaves),
		cmocka_unit_test(test_many_at_once),
	};

	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
