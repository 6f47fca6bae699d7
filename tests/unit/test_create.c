// SPDX-License-Identifier: GPL-2.0-only
/* qcow create beside qemu-img create: the same images made or refused. */
#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "imgcheck.h"
#include "lib/create.h"
#include "memio.h"
#include "tools/cmd.h"

static char work_dir[] = "/tmp/qcow-create-XXXXXX";

struct row {
	const char *options, *size; /* size NULL: of base.raw */
};

static const struct row rows[] = {
	{ "compat=1.1", "20M" },
	{ "compat=0.10", "20M" },
	{ "compat=1.1", "0" },
	{ "compat=1.1", "1000" },
	{ "cluster_size=512", "1G" },
	{ "cluster_size=512", "1T" },
	{ "cluster_size=2M", "1P" },
	{ "cluster_size=3k", "20M" },
	{ "compat=1.1", "3P" },
	{ "compat=1.1", "9E" },
	{ "refcount_bits=1", "20M" },
	{ "refcount_bits=3", "20M" },
	{ "refcount_bits=64,cluster_size=512", "20M" },
	{ "compat=0.10,refcount_bits=8", "20M" },
	{ "compat=0.10,lazy_refcounts=on", "20M" },
	{ "compat=0.10,compression_type=zstd", "20M" },
	{ "compression_type=zstd", "20M" },
	{ "lazy_refcounts=on", "20M" },
	{ "extended_l2=on", "20M" },
	{ "extended_l2=on,cluster_size=8k", "20M" },
	{ "preallocation=metadata", "20M" },
	{ "preallocation=falloc", "20M" },
	{ "preallocation=full", "3M" },
	{ "preallocation=metadata,extended_l2=on", "20M" },
	{ "preallocation=metadata,cluster_size=4k,refcount_bits=8", "20M" },
	{ "data_file=d", "20M" },
	{ "data_file=d,data_file_raw=on", "20M" },
	{ "data_file_raw=on", "20M" },
	{ "backing_file=base.raw,backing_fmt=raw", NULL },
	{ "backing_file=base.raw,backing_fmt=raw", "9M" },
	{ "backing_file=base.raw", NULL },
	{ "backing_file=missing,backing_fmt=raw", NULL },
	{ "backing_file=base.raw,backing_fmt=raw,preallocation=metadata", NULL },
	{ "backing_file=base.raw,backing_fmt=raw,data_file=d,data_file_raw=on", NULL },
};

static int shell(const char *cmd)
{
	char line[1200];
	int status;

	snprintf(line, sizeof(line), "{ %s; } >log 2>&1", cmd);
	status = system(line);
	return WEXITSTATUS(status);
}

static int qemu_create(const struct row *row)
{
	char cmd[400];

	snprintf(cmd, sizeof(cmd), "rm -f a.q d; qemu-img create -q -f qcow2 -o %s a.q %s",
		 row->options, row->size ? row->size : "");
	return shell(cmd);
}

static int our_create(const struct row *row)
{
	char options[200], size[20];
	char *argv[] = { (char[]){ "qcow" },
			 (char[]){ "-q" },
			 (char[]){ "-o" },
			 options,
			 (char[]){ "b.q" },
			 row->size ? size : NULL,
			 NULL };

	snprintf(options, sizeof(options), "%s", row->options);
	snprintf(size, sizeof(size), "%s", row->size ? row->size : "");
	assert_int_equal(shell("rm -f b.q d"), 0);
	optind = 0;
	return cmd_create(row->size ? 6 : 5, argv);
}

static const char *const checks[] = {
	/* What differs may differ: names, and how much of the file is a hole. */
	"for i in a b; do qemu-img info --output=json $i.q | grep -v actual-size | "
	"sed \"s/\\\"$i.q/\\\"x/\" >$i.json; done; cmp a.json b.json",
	"qemu-img check -f qcow2 b.q",
	"[ ! -s base.raw ] || qemu-img compare -f qcow2 -F qcow2 a.q b.q",
	"s=$(qemu-img info b.q | grep -o '([0-9]* bytes' | head -1 | tr -dc 0-9); "
	"[ \"$s\" -lt 8192 ] || qemu-io -f qcow2 -c 'write -P 3 1024 5000' -c 'read -P 3 1024 5000' b.q",
	"qemu-img check -f qcow2 b.q",
};

static void test_rows(void **state)
{
	size_t i, k;
	int theirs, ours;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		theirs = qemu_create(&rows[i]);
		ours = our_create(&rows[i]);
		if (theirs != ours)
			fail_msg("%s %s: %d, qemu %d", rows[i].options, rows[i].size, ours, theirs);
		if (ours) {
			/* A command that fails leaves nothing behind. */
			assert_int_not_equal(access("b.q", F_OK), 0);
			continue;
		}
		for (k = 0; k < sizeof(checks) / sizeof(*checks); k++)
			if ((k != 2 || !strstr(rows[i].size ? rows[i].size : "", "P")) &&
			    shell(checks[k]))
				fail_msg("%s %s fails: %s", rows[i].options, rows[i].size,
					 checks[k]);
	}
}

static void test_many_overlays(void **state)
{
	char *argv[] = { (char[]){ "qcow" }, (char[]){ "-q" },
			 (char[]){ "-b" },   (char[]){ "base.raw" },
			 (char[]){ "-F" },   (char[]){ "raw" },
			 (char[]){ "o1.q" }, (char[]){ "o2.q" },
			 (char[]){ "o3.q" }, NULL };

	(void)state;
	optind = 0;
	assert_int_equal(cmd_create(9, argv), 0);
	assert_int_equal(shell("for i in 1 2 3; do qemu-img compare -f qcow2 -F raw o$i.q base.raw "
			       "|| exit; done"),
			 0);
}

struct crash {
	unsigned int images, others;
};

static bool judge(struct memio *m, size_t k, void *arg)
{
	struct crash *c = arg;
	struct imgcheck result;

	if (memcmp(m->data, "QFI", 3)) {
		c->others++;
		return true;
	}
	c->images++;
	imgcheck(m->data, m->size, &result);
	if (result.corruptions || result.leaks)
		fail_msg("crash at %zu: %s", k, result.first);
	return true;
}

/* On a device with another image: the old one, none, or the new one, and nothing between. */
static void test_crashes(void **state)
{
	struct qcow_create_params p = { .size = 8 << 20,
					.version = 3,
					.cluster_bits = 12,
					.refcount_order = 4,
					.prealloc = QCOW_PREALLOC_METADATA };
	struct memio *m = memio_create(32 << 20);
	struct crash c = { 0 };
	struct memio_crash crash;
	struct qcow_error err = { 0 };

	(void)state;
	m->io.fixed_end = true;
	assert_int_equal(qcow_create(&m->io, &p, &err), 0);
	memio_record(m, &crash, 3);
	p.cluster_bits = 9;
	p.refcount_order = 6;
	p.size = 1 << 20;
	assert_int_equal(qcow_create(&m->io, &p, &err), 0);
	memio_crashes(&crash, 3, judge, &c);
	assert_true(c.images > 0 && c.others > 0);
	memio_destroy(m);
}

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(work_dir) || chdir(work_dir) < 0)
		return -1;
	return shell(
		"qemu-img create -q -f raw base.raw 5M && qemu-io -f raw -c 'write -P 9 1M 1M' base.raw");
}

static int remove_dir(void **state)
{
	char cmd[80];

	(void)state;
	snprintf(cmd, sizeof(cmd), "cd / && rm -rf %s", work_dir);
	return system(cmd);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_many_overlays),
		cmocka_unit_test(test_crashes),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
