// SPDX-License-Identifier: GPL-2.0-only
/* Which files an image may make us open, and how a chain of files is put together. */
#include "memimg.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "host/chain.h"
#include "host/sysfs.h"

#define BITS 16
#define DISK (1u << 20)

static char dir[PATH_MAX];

static char *at(const char *name)
{
	static char path[8][PATH_MAX + 64];
	static int next;

	next = (next + 1) % 8;
	snprintf(path[next], sizeof(path[next]), "%s/%s", dir, name);
	return path[next];
}

static void put_file(const char *name, const void *data, size_t len)
{
	FILE *f = fopen(at(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

static void put_image(const char *name, const char *backing, const char *format)
{
	struct memimg m;

	memimg_init(&m, 3, BITS, DISK);
	memimg_data(&m, 1, 0x11);
	if (backing)
		memimg_backing(&m, backing, format);
	put_file(name, m.bytes, m.size);
	memimg_exit(&m);
}

static void put_raw(const char *name)
{
	static uint8_t bytes[DISK];

	memset(bytes, 0x22, sizeof(bytes));
	put_file(name, bytes, sizeof(bytes));
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/test_host.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	mkdir(at("own"), 0755);
	mkdir(at("own/sub"), 0755);
	mkdir(at("other"), 0755);
	mkdir(at("other/deep"), 0755);
	put_raw("own/base.raw");
	put_raw("own/sub/base.raw");
	put_raw("other/base.raw");
	put_raw("other/deep/base.raw");
	return 0;
}

static int teardown(void **state)
{
	char command[PATH_MAX + 16];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

struct attempt {
	const char *image;
	const char *conf;
	dev_t own_device;
	unsigned int flags;
	char *words[4];
	size_t nr_words;
	struct host_chain *hc;
	struct qcow_error err;
};

static int try_open(struct attempt *a)
{
	struct host_options o;
	struct host_policy p = { 0 };
	struct host_chain_params params;
	struct host_opener opener = host_opener_local(&p);
	int r;

	a->hc = NULL;
	qcow_error_clear(&a->err);
	r = host_options_parse(&o, a->nr_words, a->words, &a->err);
	if (r < 0)
		return r;
	r = host_policy_init(&p, a->image, &o, a->conf ? a->conf : "/nonexistent", a->own_device,
			     &a->err);
	if (!r) {
		params = host_chain_params(&o, a->flags);
		r = host_chain_open(&a->hc, a->image, &params, &opener, &a->err);
		host_policy_exit(&p);
	}
	host_options_exit(&o);
	if (r < 0)
		assert_int_equal(a->err.code, -r);
	return r;
}

/* @want 0: opens, with 2 layers. Else: that errno, and @text in the message. */
static void expect_with(struct attempt a, int want, const char *text)
{
	int r = try_open(&a);

	if (r != -want)
		fail_msg("%s: %d, want %d (%s)", a.image, r, -want, a.err.text);
	if (!want)
		assert_int_equal(host_chain_nr_layers(a.hc), 2);
	if (text && !strstr(a.err.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, a.err.text);
	host_chain_close(a.hc);
}

static void expect(int want, const char *text)
{
	expect_with((struct attempt){ .image = at("own/top.qcow2") }, want, text);
}

static void expect_word(char *word, int want, const char *text)
{
	expect_with(
		(struct attempt){ .image = at("own/top.qcow2"), .words = { word }, .nr_words = 1 },
		want, text);
}

static char *word(const char *name, const char *path)
{
	static char text[PATH_MAX + 100];

	snprintf(text, sizeof(text), "%s:%s", name, at(path));
	return text;
}

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
	fd = open(at("own/base.raw"), O_RDONLY);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	put_image("own/top.qcow2", link, "raw");
	expect_word((char[]){ "backing_dir:/proc" }, ELOOP, NULL);
	close(fd);
	expect_with((struct attempt){ .image = at("own") }, ENOTSUP, "neither");
}

static void test_formats(void **state)
{
	(void)state;
	put_image("own/top.qcow2", "base.raw", NULL);
	expect(EINVAL, "--backing-format");
	expect_word((char[]){ "backing_format:raw" }, 0, NULL);
	expect_word((char[]){ "backing_format:qcow2" }, EINVAL, "not a qcow2 image");
	expect_word((char[]){ "backing_format:vmdk" }, EINVAL, "raw and qcow2");
	put_image("own/top.qcow2", "base.raw", "vmdk");
	expect(ENOTSUP, "qemu-img convert -f vmdk");
	put_image("own/top.qcow2", "base.raw", "host_device");
	expect(0, NULL);
	put_image("own/top.qcow2", "base.raw", "qcow2");
	expect(EINVAL, "not a qcow2 image");
	/* What is recorded wins over what is given for where nothing is. */
	expect_word((char[]){ "backing_format:raw" }, EINVAL, "not a qcow2 image");
	/* CVE-2008-2004: a qcow2 header in a raw layer decides nothing. */
	put_image("own/guest.raw", "/etc/shadow", "raw");
	put_image("own/top.qcow2", "guest.raw", "raw");
	expect(0, NULL);
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

static void test_loops(void **state)
{
	(void)state;
	put_image("own/a.qcow2", "b.qcow2", "qcow2");
	put_image("own/b.qcow2", "a.qcow2", "qcow2");
	expect_with((struct attempt){ .image = at("own/a.qcow2") }, ELOOP, "is a loop");
	put_image("own/a.qcow2", "a.qcow2", "qcow2");
	expect_with((struct attempt){ .image = at("own/a.qcow2") }, ELOOP, "is a loop");
	assert_int_equal(link(at("own/a.qcow2"), at("own/hard.qcow2")), 0);
	put_image("own/a.qcow2", "hard.qcow2", "qcow2");
	expect_with((struct attempt){ .image = at("own/a.qcow2") }, ELOOP, "is a loop");
}

static void test_own_device(void **state)
{
	struct attempt a = { .image = at("own/top.qcow2") };
	struct stat st;

	(void)state;
	put_image("own/top.qcow2", "base.raw", "raw");
	assert_int_equal(stat(dir, &st), 0);
	a.own_device = st.st_dev;
	expect_with(a, ELOOP, "very device");
	a.own_device = makedev(4000, 1);
	expect_with(a, 0, NULL);
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

static void test_write_refused(void **state)
{
	(void)state;
	put_image("own/top.qcow2", "base.raw", "raw");
	expect_with((struct attempt){ .image = at("own/top.qcow2"), .flags = HOST_CHAIN_WRITE },
		    EROFS, "not supported yet");
}

static void test_encrypted(void **state)
{
	struct attempt a = { .image = at("own/top.qcow2") };
	struct memimg m;

	(void)state;
	memimg_init(&m, 3, BITS, DISK);
	memimg_be32(&m, 32, 1);
	put_file("own/top.qcow2", m.bytes, m.size);
	memimg_exit(&m);
	expect(ENOTSUP, "qemu-img convert");
	a.flags = HOST_CHAIN_ONE;
	assert_int_equal(try_open(&a), 0);
	host_chain_close(a.hc);
}

static uint8_t first_byte(struct host_chain *hc, uint64_t off)
{
	struct qcow_scratch *s;
	struct qcow_error err;
	uint8_t byte;

	assert_int_equal(qcow_scratch_create(&s, host_chain_lib(hc), &err), 0);
	assert_int_equal(qcow_chain_read(host_chain_lib(hc), off, &byte, 1, s, &err), 0);
	qcow_scratch_destroy(s);
	return byte;
}

/* What the kernel kept comes back: same descriptors, same tags, same bytes, nothing opened. */
static void test_adopt(void **state)
{
	struct attempt a = { .image = at("own/top.qcow2") };
	struct host_chain_params params = { 0 };
	struct host_chain *hc;
	host_tag_t tags[2];
	int fds[2], i;

	(void)state;
	put_image("own/top.qcow2", "base.raw", "raw");
	assert_int_equal(try_open(&a), 0);
	for (i = 0; i < 2; i++) {
		fds[i] = dup(host_chain_layer(a.hc, (size_t)i)->fd);
		tags[i] = host_chain_layer(a.hc, (size_t)i)->tag;
	}
	host_chain_close(a.hc);
	unlink(at("own/top.qcow2"));
	assert_int_equal(host_chain_adopt(&hc, fds, tags, 2, &params, &a.err), 0);
	assert_int_equal(first_byte(hc, 0), 0x22);
	assert_int_equal(first_byte(hc, 1u << BITS), 0x11);
	assert_true(host_chain_sector_size(hc) >= 512);
	host_chain_close(hc);
	/* All taken over. */
	assert_int_equal(fcntl(fds[0], F_GETFD), -1);
	assert_int_equal(fcntl(fds[1], F_GETFD), -1);
}

static void test_adopt_nonsense(void **state)
{
	struct host_chain_params params = { 0 };
	host_tag_t tags[2] = { QCOW_LAYER_RAW, QCOW_LAYER_RAW };
	struct host_chain *hc;
	struct qcow_error err;
	int fds[2];

	(void)state;
	fds[0] = open(at("own/base.raw"), O_RDONLY);
	fds[1] = open(at("other/base.raw"), O_RDONLY);
	assert_int_equal(host_chain_adopt(&hc, fds, tags, 2, &params, &err), -EINVAL);
	assert_int_equal(fcntl(fds[1], F_GETFD), -1);
	fds[0] = open(at("own/base.raw"), O_RDONLY);
	tags[0] = 1ull << 40 | QCOW_LAYER_QCOW2;
	assert_int_equal(host_chain_adopt(&hc, fds, tags, 1, &params, &err), -EINVAL);
	assert_int_equal(fcntl(fds[0], F_GETFD), -1);
}

static void put_sys(const char *name, const char *text)
{
	char path[200];

	snprintf(path, sizeof(path), "sys/dev/block/%s", name);
	put_file(path, text, strlen(text));
}

static void make_sys(const char *name)
{
	char command[PATH_MAX + 100];

	snprintf(command, sizeof(command), "mkdir -p %s/sys/dev/block/%s", dir, name);
	assert_int_equal(system(command), 0);
}

static void test_sysfs(void **state)
{
	char vg[32], sys[PATH_MAX + 64];

	(void)state;
	snprintf(sys, sizeof(sys), "%s", at("sys"));
	make_sys("253:0/dm");
	make_sys("253:0/slaves/vda1");
	make_sys("253:0/queue");
	make_sys("8:0/queue");
	put_sys("253:0/dm/uuid", "LVM-abc\n");
	put_sys("253:0/dm/name", "my--vg-root--lv\n");
	put_sys("253:0/slaves/vda1/dev", "8:1\n");
	put_sys("253:0/queue/zoned", "none\n");
	put_sys("8:0/queue/zoned", "host-managed\n");
	assert_true(host_sysfs_vg(sys, makedev(253, 0), vg, sizeof(vg)));
	assert_string_equal(vg, "my-vg");
	assert_false(host_sysfs_vg(sys, makedev(8, 0), vg, sizeof(vg)));
	assert_false(host_sysfs_vg(sys, makedev(253, 0), vg, 4));
	put_sys("253:0/dm/uuid", "CRYPT-LVM-abc\n");
	assert_false(host_sysfs_vg(sys, makedev(253, 0), vg, sizeof(vg)));
	assert_false(host_sysfs_zoned(sys, makedev(253, 0)));
	assert_true(host_sysfs_zoned(sys, makedev(8, 0)));
	assert_true(host_sysfs_stands_on(sys, makedev(253, 0), makedev(8, 1)));
	assert_true(host_sysfs_stands_on(sys, makedev(253, 0), makedev(253, 0)));
	assert_false(host_sysfs_stands_on(sys, makedev(253, 0), makedev(8, 0)));
}

static void test_options(void **state)
{
	struct host_options o;
	struct qcow_error err;
	char *good[] = { "backing_dir:/a:b", "backing_dir:/c",	 "backing:/d",
			 "snapshot:s:1",     "helper_timeout:5", "map_budget:100",
			 "cache_budget:1",   "sector_size:4096", "backing_format:raw" };
	char *bad[] = { "backing_dir", "backing_dir:", "Backing:/x", "backing_dirs:/x", "",
			":",	       "no_backing:",  "map_budget" };
	char *twice[] = { "backing:/a", "backing:/b" };
	char *both[] = { "no_backing", "backing:/b" };
	size_t i;

	(void)state;
	assert_int_equal(host_options_parse(&o, 9, good, &err), 0);
	assert_int_equal(o.nr_backing_dirs, 2);
	assert_string_equal(o.backing_dirs[0], "/a:b");
	assert_string_equal(o.snapshot, "s:1");
	assert_int_equal(o.backing_format, HOST_FORMAT_RAW);
	host_options_exit(&o);
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(host_options_parse(&o, 1, &bad[i], &err), -EINVAL);
	assert_int_equal(host_options_parse(&o, 2, twice, &err), -EINVAL);
	assert_int_equal(host_options_parse(&o, 2, both, &err), -EINVAL);
	assert_int_equal(host_options_parse(&o, 0, NULL, &err), 0);
	host_options_exit(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_directory),
		cmocka_unit_test(test_other_directory),
		cmocka_unit_test(test_symlinks),
		cmocka_unit_test(test_image_is_symlink),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_odd_files),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_pin),
		cmocka_unit_test(test_pin_is_exact),
		cmocka_unit_test(test_no_backing),
		cmocka_unit_test(test_no_backing_at_opener),
		cmocka_unit_test(test_loops),
		cmocka_unit_test(test_own_device),
		cmocka_unit_test(test_conf),
		cmocka_unit_test(test_data_file),
		cmocka_unit_test(test_write_refused),
		cmocka_unit_test(test_encrypted),
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_adopt_nonsense),
		cmocka_unit_test(test_sysfs),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests_name("host", tests, setup, teardown);
}
