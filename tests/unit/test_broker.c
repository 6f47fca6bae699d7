// SPDX-License-Identifier: GPL-2.0-only
/* The supervisor opens for a worker what the policy allows, whatever the worker asks. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
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
	assert_int_equal(send(rig->client.fd, "short", 5, 0), 5); /* ends the service */
	req.path = image;
	assert_int_equal(opener.open(opener.arg, &req, &fd, NULL), -EIO);
	rig_destroy(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_broker_refuses),
		cmocka_unit_test(test_broker_bounds_one_walk),
	};

	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
