// SPDX-License-Identifier: GPL-2.0-only
/* How a chain of files is put together, and what is asked of it. */
#include "hostrig.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include "host/sysfs.h"

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

/* The base is read, and read only; what the kernel could not write to is refused. */
static void test_write(void **state)
{
	struct attempt a = { .image = at("own/top.qcow2"), .flags = HOST_CHAIN_WRITE };
	char *words[] = { "snapshot:1", "drop_bitmaps" };
	struct memimg m;

	(void)state;
	put_image("own/top.qcow2", "base.raw", "raw");
	assert_int_equal(try_open(&a), 0);
	assert_false(host_chain_layer(a.hc, 0)->read_only);
	assert_true(host_chain_layer(a.hc, 1)->read_only);
	host_chain_close(a.hc);
	memimg_init(&m, 3, BITS, DISK);
	m.bytes[79] = 1;
	put_file("own/top.qcow2", m.bytes, m.size);
	expect_with(a, EROFS, "qcow check -r all");
	m.bytes[79] = 2;
	put_file("own/top.qcow2", m.bytes, m.size);
	expect_with(a, EROFS, "qcow check -r all");
	memimg_exit(&m);
	memimg_init(&m, 3, 11, DISK);
	put_file("own/top.qcow2", m.bytes, m.size);
	expect_with(a, ENOTSUP, "open it read-only");
	memimg_exit(&m);
	a.words[0] = words[0];
	a.nr_words = 1;
	expect_with(a, ENOENT, "snapshot");
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
	tags[0] = 1ull << 40 | 99;
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
		cmocka_unit_test(test_formats),	       cmocka_unit_test(test_loops),
		cmocka_unit_test(test_own_device),     cmocka_unit_test(test_write),
		cmocka_unit_test(test_encrypted),      cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_adopt_nonsense), cmocka_unit_test(test_sysfs),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests_name("host", tests, setup, teardown);
}
