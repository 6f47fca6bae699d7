// SPDX-License-Identifier: GPL-2.0-only
/* Bigger and smaller disks, with power cuts at every point and with writes that fail. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/be.h"
#include "lib/resize.h"
#include "verbs.h"

#define IO "qemu-io -f qcow2 "

static const struct variant {
	const char *name, *options, *more;
	bool base; /* a raw file of 512k, longer than the disk */
} variants[] = {
	{ "v3", "cluster_size=4k", IO "-c 'write -P 7 0 299k' $1", false },
	{ "v2", "cluster_size=4k,compat=0.10", IO "-c 'write -P 7 0 299k' $1", false },
	{ "tiny", "cluster_size=512,refcount_bits=1", IO "-c 'write -P 7 0 299k' $1", false },
	{ "extl2", "cluster_size=16k,extended_l2=on", IO "-c 'write -P 7 0 299k' $1", false },
	{ "snap", "cluster_size=4k",
	  IO "-c 'write -P 7 0 299k' $1; qemu-img snapshot -c a $1; " IO
	     "-c 'write -P 9 200k 99k' $1",
	  false },
	{ "zlib", "cluster_size=4k", IO "-c 'write -c -P 7 296k 3k' -c 'write -c -P 8 8k 4k' $1",
	  false },
	{ "bitmaps", "cluster_size=4k",
	  "qemu-img bitmap --add -g 4k $1 b; " IO
	  "-c 'write -P 7 0 299k' $1; qemu-img bitmap --add -g 64k $1 c",
	  false },
	{ "base", "cluster_size=4k", IO "-c 'write -P 7 0 20k' $1", true },
	{ "basev2", "cluster_size=4k,compat=0.10", IO "-c 'write -P 7 0 20k' $1", true },
	{ "baseext", "cluster_size=16k,extended_l2=on", IO "-c 'write -P 7 290k 2k' $1", true },
};

static const char *recipe(const struct variant *v)
{
	static char text[1000];

	snprintf(text, sizeof(text),
		 "truncate -s 512k base.raw; qemu-img create -q -f qcow2 -o %s %s $1 299k; %s",
		 v->options, v->base ? "-b base.raw -F raw" : "", v->more);
	return text;
}

struct call {
	uint64_t size;
	enum qcow_prealloc prealloc;
	struct qcow_io *base;
	struct memio *m; /* what it is run on */
	struct memio *data;
};

static int resize(struct qcow_writer *w, void *arg, struct qcow_error *err)
{
	const struct call *c = arg;
	struct qcow_resize_params p = { .size = c->size, .prealloc = c->prealloc };
	struct qcow_chain_params params = { .cache_bytes = 32 << 10 };
	int r;

	assert_int_equal(qcow_chain_create(&p.chain, &params, err), 0);
	r = qcow_chain_add_qcow2(p.chain, &c->m->io, NULL, err);
	if (!r && c->data) {
		r = qcow_chain_add_data_file(p.chain, &c->data->io, err);
		p.data = &c->data->io;
	}
	if (!r && c->base) {
		r = qcow_chain_add_raw(p.chain, c->base, err);
		p.backing_size = 512 << 10;
	}
	if (!r)
		r = qcow_chain_seal(p.chain, err);
	if (!r)
		r = qcow_resize(w, &p, err);
	qcow_chain_destroy(p.chain);
	return r;
}

static int run_call(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err)
{
	struct call *c = arg;

	c->m = m;
	return verb_write(m, drop, resize, c, err);
}

static struct call calls[] = {
	{ .size = 800 << 10 },
	{ .size = (300 << 10) + 512 },
	{ .size = 100 << 10 },
	{ .size = (101 << 10) + 512 },
	{ .size = 400 << 10, .prealloc = QCOW_PREALLOC_METADATA },
};

#define NR_CALLS (sizeof(calls) / sizeof(*calls))

static void test_crashes(void **state)
{
	struct memio *base = verb_raw(512 << 10), *m;
	size_t i, k;

	(void)state;
	for (i = 0; i < sizeof(variants) / sizeof(*variants); i++) {
		/* Version 2 with snapshots is refused; see tests/tools. */
		for (k = 0; k < NR_CALLS; k++) {
			struct verb_case v = { .run = run_call,
					       .arg = &calls[k],
					       .qemu_every = 40,
					       .base = variants[i].base ? &base->io : NULL };

			print_message("%s %zu\n", variants[i].name, k);
			calls[k].base = v.base;
			m = work_image("%s", recipe(&variants[i]));
			m->can_zero = k & 1;
			verb_crash(m, &v, 3);
			memio_destroy(m);
		}
	}
	memio_destroy(base);
}

static void test_faults(void **state)
{
	struct memio *base = verb_raw(512 << 10);
	size_t k;

	(void)state;
	for (k = 0; k < NR_CALLS; k++) {
		struct verb_case v = { .run = run_call, .arg = &calls[k], .base = &base->io };

		calls[k].base = &base->io;
		verb_faults(recipe(&variants[7]), &v);
	}
	memio_destroy(base);
}

static void test_barriers(void **state)
{
	static const enum qcow_barrier barriers[] = { QCOW_BARRIER_TABLE, QCOW_BARRIER_HEADER };
	struct verb_case v = { .run = run_call, .arg = &calls[2] };

	(void)state;
	calls[2].base = NULL;
	verb_barriers(recipe(&variants[0]), &v, barriers, 2);
}

static void expect_bytes(const struct memio *m, uint64_t from, uint64_t end, uint8_t byte)
{
	for (uint64_t i = from; i < end; i++)
		assert_int_equal(m->data[i], byte);
}

/* A device goes on behind the disk's end: what is there is not the bigger disk's. */
static void data_device(bool raw)
{
	const uint64_t kib = 1024, less = 100 * kib + 512, more = 400 * kib;
	struct memio *data = verb_raw(1 << 20);
	struct call c = { .size = less, .data = data };
	struct qcow_error err = { 0 };

	c.m = work_create(raw ? "cluster_size=4k,data_file=d,data_file_raw=on"
			      : "cluster_size=4k,data_file=d",
			  "299k", IO "-c 'write -P 7 0 299k' $1");
	data->io.fixed_end = true;
	assert_int_equal(run_call(c.m, 0, &c, &err), 0);
	expect_bytes(data, 0, less, 0x55);
	expect_bytes(data, less, 299 * kib, 0);
	expect_bytes(data, 299 * kib, 1 << 20, 0x55);

	memset(data->data + less, 0x66, (1 << 20) - less);
	c.size = more;
	assert_int_equal(run_call(c.m, 0, &c, &err), 0);
	expect_bytes(data, 0, less, 0x55);
	expect_bytes(data, less, raw ? more : 104 * kib, 0);
	expect_bytes(data, raw ? more : 104 * kib, 1 << 20, 0x66);

	c.size = 2 << 20;
	assert_int_equal(run_call(c.m, 0, &c, &err), -ENOSPC);
	memio_destroy(c.m);
	memio_destroy(data);
}

static void test_data_device(void **state)
{
	(void)state;
	data_device(false);
	data_device(true);
}

/* An old version 2 image that was amended: the snapshot must not get the disk's new size. */
static void test_snapshot_without_size(void **state)
{
	struct call c = { .size = 1 << 30 };
	struct qcow_error err = { 0 };
	uint64_t view;
	uint8_t *entry;

	(void)state;
	c.m = work_create("cluster_size=4k", "299k", "qemu-img snapshot -c snap $1");
	entry = c.m->data + qcow_be64(c.m->data + 64);
	assert_int_equal(qcow_be32(entry + 36), 24);
	/* Behind the fixed fields: extra data, the id "1", the name. */
	memmove(entry + 40, entry + 64, 5);
	qcow_put_be32(entry + 36, 0);
	view = verb_view(c.m);
	assert_int_equal(run_call(c.m, 0, &c, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "\"snap\""));
	assert_true(verb_view(c.m) == view);
	memio_destroy(c.m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crashes),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_barriers),
		cmocka_unit_test(test_data_device),
		cmocka_unit_test(test_snapshot_without_size),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
