// SPDX-License-Identifier: GPL-2.0-only
/* Which files an image may make us open. */
#include "hostrig.h"

#include <fcntl.h>

static void test_own_directory(void **state)
{
	(void)state;
	put_image("own/top.qcow2", "base.raw", "raw");
	expect(0, NULL);
	put_image("own/top.qcow2", at("own/base.raw"), "raw");
	expect(0, NULL);
	put_image("own/top.qcow2", "../own/./base.raw", "raw");
	expect(0, NULL);
	/* Not what is below: an image in / would allow everything. */
	put_image("own/top.qcow2", "sub/base.raw", "raw");
	expect(EACCES, "--backing-dir ");
}

static void test_other_directory(void **state)
{
	(void)state;
	put_image("own/top.qcow2", at("other/base.raw"), "raw");
	expect(EACCES, at("other"));
	expect_word(word("backing_dir", "other"), 0, NULL);
	put_image("own/top.qcow2", "../other/base.raw", "raw");
	expect(EACCES, "--backing-dir ");
	expect_word(word("backing_dir", "other"), 0, NULL);
	put_image("own/top.qcow2", "../other/deep/base.raw", "raw");
	expect_word(word("backing_dir", "other"), 0, NULL);
	/* A prefix of the name is no prefix of the path. */
	expect_word(word("backing_dir", "other/deep/../../own"), EACCES, "--backing-dir ");
	expect_word(word("backing_dir", "missing"), ENOENT, "missing");
}

static void test_symlinks(void **state)
{
	(void)state;
	assert_int_equal(symlink(at("other/base.raw"), at("own/link.raw")), 0);
	put_image("own/top.qcow2", "link.raw", "raw");
	expect(EACCES, "leads to");
	expect_word(word("backing_dir", "other"), 0, NULL);
	/* A symlinked directory in the name. */
	assert_int_equal(symlink(at("other"), at("own/dirlink")), 0);
	put_image("own/top.qcow2", "dirlink/base.raw", "raw");
	expect(EACCES, at("other"));
	expect_word(word("backing_dir", "own/dirlink"), 0, NULL);
	/* Back into the own directory, but named through a foreign one. */
	assert_int_equal(symlink(at("own/base.raw"), at("other/back.raw")), 0);
	put_image("own/top.qcow2", at("other/back.raw"), "raw");
	expect(EACCES, "is in");
	unlink(at("own/dirlink"));
	unlink(at("own/link.raw"));
}

/* A farm of links, as oVirt keeps: names count as written, and both directories are own. */
static void test_image_is_symlink(void **state)
{
	(void)state;
	mkdir(at("farm"), 0755);
	put_image("other/real.qcow2", "base.raw", "raw");
	assert_int_equal(symlink(at("other/real.qcow2"), at("farm/vm")), 0);
	expect_with((struct attempt){ .image = at("farm/vm") }, ENOENT, at("farm/base.raw"));
	assert_int_equal(symlink(at("other/base.raw"), at("farm/base.raw")), 0);
	expect_with((struct attempt){ .image = at("farm/vm") }, 0, NULL);
}

static void test_names(void **state)
{
	static const char *const bad[] = { "json:{\"driver\":\"raw\"}",
					   "nbd://host/x",
					   "nbd:unix:/x",
					   "file:base.raw",
					   "http://a/b",
					   "x:y" };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		put_image("own/top.qcow2", bad[i], "raw");
		expect(EINVAL, "only plain paths are opened");
	}
	put_raw("own/x:y");
	put_image("own/top.qcow2", "./x:y", "raw");
	expect(0, NULL);
	put_image("own/top.qcow2", "missing.raw", "raw");
	expect(ENOENT, "missing.raw");
	put_image("own/top.qcow2", "base.raw/", "raw");
	expect(EINVAL, "is a directory");
	expect_with((struct attempt){ .image = at("own/missing.qcow2") }, ENOENT, "missing.qcow2");
}

/* None of these may be opened, let alone block. */
static void test_odd_files(void **state)
{
	char link[64];
	int fd;

	(void)state;
	assert_int_equal(mkfifo(at("own/fifo"), 0644), 0);
	put_image("own/top.qcow2", "fifo", "raw");
	expect(ENOTSUP, "neither a regular file nor a block device");
	put_image("own/top.qcow2", "sub", "raw");
	expect(ENOTSUP, "neither");
	put_image("own/top.qcow2", "/dev/null", "raw");
	expect_word((char[]){ "backing_dir:/dev" }, ENOTSUP, "neither");
	/* A file below /dev is a file. */
	put_image("own/top.qcow2", "/dev/null", "raw");
	expect(EACCES, "--backing-dir /dev");
	fd = open(at("own/base.raw"), O_RDONLY);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	put_image("own/top.qcow2", link, "raw");
	expect_word((char[]){ "backing_dir:/proc" }, ELOOP, NULL);
	close(fd);
	expect_with((struct attempt){ .image = at("own") }, ENOTSUP, "neither");
}

static void test_pin(void **state)
{
	char words[2][PATH_MAX + 100];
	struct attempt a = { .image = at("own/top.qcow2"),
			     .words = { words[0], words[1] },
			     .nr_words = 2 };

	(void)state;
	put_image("own/top.qcow2", "/nowhere/base", "raw");
	expect_word(word("backing", "other/base.raw"), 0, NULL);
	/* The pin is for the image's own backing file, not for what that names. */
	put_image("other/middle.qcow2", "base.raw", "raw");
	strcpy(words[0], word("backing", "other/middle.qcow2"));
	strcpy(words[1], "backing_format:qcow2");
	expect_with(a, EACCES, "--backing-dir ");
	put_image("own/alone.qcow2", NULL, NULL);
	a.image = at("own/alone.qcow2");
	expect_with(a, EINVAL, "no backing file");
}

static void test_pin_is_exact(void **state)
{
	struct host_options o = { .backing = at("other/base.raw") };
	struct host_request req = { .role = HOST_ROLE_PINNED, .path = at("other/deep/base.raw") };
	struct host_policy p;
	struct qcow_error err;
	int fd;

	(void)state;
	assert_int_equal(host_policy_init(&p, at("own/top.qcow2"), &o, "/nonexistent", 0, &err), 0);
	assert_int_equal(host_open_layer(&p, &req, &fd, &err), -EACCES);
	host_policy_exit(&p);
}

static void test_no_backing(void **state)
{
	(void)state;
	put_image("own/top.qcow2", "base.raw", "raw");
	expect_word((char[]){ "no_backing" }, EACCES, "--no-backing");
	expect_word((char[]){ "no_backing:1" }, EINVAL, "no value");
}

/* The supervisor does not believe the worker: its own policy says no as well. */
static void test_no_backing_at_opener(void **state)
{
	struct host_options o = { .no_backing = true };
	struct host_request req = { .role = HOST_ROLE_DATA_FILE, .path = at("own/base.raw") };
	struct host_policy p;
	struct qcow_error err;
	int fd;

	(void)state;
	assert_int_equal(host_policy_init(&p, at("own/top.qcow2"), &o, "/nonexistent", 0, &err), 0);
	assert_int_equal(host_open_layer(&p, &req, &fd, &err), -EACCES);
	host_policy_exit(&p);
}

static void put_conf(const char *text)
{
	put_file("qcow.conf", text, strlen(text));
}

static void test_conf(void **state)
{
	struct attempt a = { .image = at("own/top.qcow2"), .conf = at("qcow.conf") };
	char text[PATH_MAX + 100];

	(void)state;
	put_image("own/top.qcow2", "../other/deep/base.raw", "raw");
	snprintf(text, sizeof(text), "# bases\n\n  backing-dir \t %s  # here\nvolume-group vg0\n",
		 at("other"));
	put_conf(text);
	expect_with(a, 0, NULL);
	put_conf("backing-dir /nonexistent\nblock-device /dev/none\n");
	expect_with(a, EACCES, "--backing-dir ");
	put_conf("volume-group vg0\nbacking-dirs /\n");
	expect_with(a, EINVAL, "line 2");
	put_conf("backing-dir relative\n");
	expect_with(a, EINVAL, "line 1");
	put_conf("backing-dir");
	expect_with(a, EINVAL, "line 1");
}

static void put_data_file_image(const char *name)
{
	struct memimg m;

	memimg_init(&m, 3, BITS, DISK);
	memimg_be64(&m, 72, QCOW_INCOMPAT_DATA_FILE);
	if (name)
		memimg_ext(&m, 0x44415441, name, (uint32_t)strlen(name));
	put_file("own/top.qcow2", m.bytes, m.size);
	memimg_exit(&m);
}

/* CVE-2024-32498, CVE-2024-4467: a data file is as little trusted as a backing file. */
static void test_data_file(void **state)
{
	(void)state;
	put_data_file_image("base.raw");
	expect(0, NULL);
	put_data_file_image("/etc/hostname");
	expect(EACCES, "--backing-dir /etc");
	put_data_file_image("json:{\"driver\":\"file\"}");
	expect(EINVAL, "only plain paths");
	put_data_file_image(NULL);
	expect(EINVAL, "data_file=");
	put_data_file_image("base.raw");
	expect_word((char[]){ "no_backing" }, EACCES, "--no-backing");
}

/* Needs a loop device, so root. */
static void test_block_device(void **state)
{
	struct attempt a = { .image = at("own/top.qcow2"), .conf = at("qcow.conf") };
	char command[PATH_MAX + 300], loop[64] = "";
	FILE *p;

	(void)state;
	snprintf(command, sizeof(command), "losetup -f --show %s 2>/dev/null",
		 at("other/base.raw"));
	p = popen(command, "r");
	if (!p || !fgets(loop, sizeof(loop), p) || pclose(p))
		skip();
	loop[strcspn(loop, "\n")] = '\0';
	put_image("own/top.qcow2", loop, "raw");
	put_conf("");
	expect_with(a, EACCES, "\"block-device PATH\"");
	expect_word((char[]){ "backing_dir:/dev" }, EACCES, "not listed");
	snprintf(command, sizeof(command), "block-device %s\n", loop);
	put_conf(command);
	expect_with(a, 0, NULL);
	/* Also by a link in an allowed directory, but not by one elsewhere. */
	assert_int_equal(symlink(loop, at("own/disk")), 0);
	put_image("own/top.qcow2", "disk", "raw");
	expect_with(a, 0, NULL);
	assert_int_equal(symlink(loop, at("other/disk")), 0);
	put_image("own/top.qcow2", "../other/disk", "raw");
	expect_with(a, EACCES, "--backing-dir ");
	snprintf(command, sizeof(command), "losetup -d %s", loop);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_directory), cmocka_unit_test(test_other_directory),
		cmocka_unit_test(test_symlinks),      cmocka_unit_test(test_image_is_symlink),
		cmocka_unit_test(test_names),	      cmocka_unit_test(test_odd_files),
		cmocka_unit_test(test_pin),	      cmocka_unit_test(test_pin_is_exact),
		cmocka_unit_test(test_no_backing),    cmocka_unit_test(test_no_backing_at_opener),
		cmocka_unit_test(test_conf),	      cmocka_unit_test(test_data_file),
		cmocka_unit_test(test_block_device),
	};

	return cmocka_run_group_tests_name("trust", tests, setup, teardown);
}
