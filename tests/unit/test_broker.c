// SPDX-License-Identifier: GPL-2.0-only
/* The supervisor opens for a worker what the policy allows, whatever the worker asks. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a subverted worker might ask. */
static void test_broker_refuses(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	struct host_opener opener = broker_opener(&rig->client);
	char image[128], other[128];
	const struct {
		struct host_request req;
		int r;
	} cases[] = {
		/* before the image, nothing */
		{ { .role = HOST_ROLE_BACKING, .path = other }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = other }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = "/etc/passwd" }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = "a.qcow2" }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = "" }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = image, .write = true }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = image, .lock = HOST_LOCK_WRITER }, -EPERM },
		{ { .role = 0, .path = image }, -EPERM },
		{ { .role = 200, .path = image }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = image }, 0 },
		/* after it, what the policy says */
		{ { .role = HOST_ROLE_BACKING, .path = other }, 0 },
		{ { .role = HOST_ROLE_BACKING, .path = "/etc/passwd" }, -EACCES },
		{ { .role = HOST_ROLE_DATA_FILE, .path = "/etc/passwd" }, -EACCES },
		{ { .role = HOST_ROLE_PINNED, .path = "/etc/passwd" }, -EACCES },
		{ { .role = HOST_ROLE_BACKING, .path = other, .write = true }, -EPERM },
		{ { .role = HOST_ROLE_DATA_FILE, .path = other, .write = true }, -EPERM },
	};

	(void)state;
	rig_serve(rig);
	snprintf(image, sizeof(image), "%s/a.qcow2", rig_dir);
	snprintf(other, sizeof(other), "%s/overlay.qcow2", rig_dir);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qcow_error err = { 0 };
		int fd = -1;
		int r = opener.open(opener.arg, &cases[i].req, &fd, &err);

		if (r != cases[i].r)
			print_error("case %zu: %s\n", i, err.text);
		assert_int_equal(r, cases[i].r);
		if (!r)
			close(fd);
		else
			assert_true(err.text[0]);
	}
	rig_destroy(rig);
}

static void test_broker_bounds_one_walk(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	struct host_opener opener = broker_opener(&rig->client);
	char image[128], other[128];
	struct host_request req = { .role = HOST_ROLE_IMAGE, .path = image };
	int fd, nr = 0, r;

	(void)state;
	rig_serve(rig);
	snprintf(image, sizeof(image), "%s/a.qcow2", rig_dir);
	snprintf(other, sizeof(other), "%s/overlay.qcow2", rig_dir);
	while (!(r = opener.open(opener.arg, &req, &fd, NULL))) {
		close(fd);
		nr++;
		req = (struct host_request){ .role = HOST_ROLE_BACKING, .path = other };
	}
	assert_int_equal(r, -EPERM);
	assert_int_equal(nr, QCOW_MAX_LAYERS);
	rig_destroy(rig);
}

/* No answer, not even an error: the next worker can still do what this one was asked. */
static void test_worker_ends_with_its_service(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	struct host_opener opener = broker_opener(&rig->client);
	char image[128];
	struct host_request req = { .role = HOST_ROLE_IMAGE, .path = image };
	int fd, status;
	pid_t pid;

	(void)state;
	rig_serve(rig);
	snprintf(image, sizeof(image), "%s/a.qcow2", rig_dir);
	assert_int_equal(send(rig->client.fd, "short", 5, 0), 5); /* ends the service */
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(rig->broker_end); /* if the service has not come to it yet */
		opener.open(opener.arg, &req, &fd, NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), WORKER_EXIT_FAILED);
	rig_destroy(rig);
}

/* A broker's thread reads the table: change it only while no request is under way. */
static void test_lock_of_a_replaced_table(void **state)
{
	struct rig *first = rig_create_rw("a.qcow2", NULL),
		   *second = rig_create_rw("a.qcow2", NULL);

	(void)state;
	rig_serve(first);
	rig_serve(second);
	assert_answer_ok(rig_call(first, DM_QCOW_CMD_OPEN));
	assert_answer_error(rig_call(second, DM_QCOW_CMD_PROBE), EBUSY, "a.qcow2");
	second->table.replaces = true;
	assert_answer_ok(rig_call(second, DM_QCOW_CMD_PROBE));
	/* It can be loaded, but not be used beside the other. */
	assert_answer_error(rig_call(second, DM_QCOW_CMD_OPEN), EBUSY, "a.qcow2");
	assert_answer_ok(rig_call(first, DM_QCOW_CMD_CLOSE));
	assert_answer_ok(rig_call(second, DM_QCOW_CMD_OPEN));
	rig_destroy(first);
	rig_destroy(second);
}

/* The image's own data file is the second file of the walk, and no other is written to. */
static void test_only_the_own_data_file_is_written(void **state)
{
	struct rig *rig = rig_create_rw("a.qcow2", NULL);
	struct host_opener opener = broker_opener(&rig->client);
	char image[128], other[128];
	struct host_request req = { .role = HOST_ROLE_IMAGE, .path = image, .write = true };
	int fd;

	(void)state;
	rig_serve(rig);
	snprintf(image, sizeof(image), "%s/a.qcow2", rig_dir);
	snprintf(other, sizeof(other), "%s/overlay.qcow2", rig_dir);
	assert_int_equal(opener.open(opener.arg, &req, &fd, NULL), 0);
	close(fd);
	req = (struct host_request){ .role = HOST_ROLE_BACKING, .path = other, .write = true };
	assert_int_equal(opener.open(opener.arg, &req, &fd, NULL), -EPERM);
	req.role = HOST_ROLE_DATA_FILE;
	assert_int_equal(opener.open(opener.arg, &req, &fd, NULL), 0);
	close(fd);
	assert_int_equal(opener.open(opener.arg, &req, &fd, NULL), -EPERM);
	rig_destroy(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_broker_refuses),
		cmocka_unit_test(test_broker_bounds_one_walk),
		cmocka_unit_test(test_worker_ends_with_its_service),
		cmocka_unit_test(test_lock_of_a_replaced_table),
		cmocka_unit_test(test_only_the_own_data_file_is_written),
	};

	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
