// SPDX-License-Identifier: GPL-2.0-only
/*
 * Internal snapshots made, applied and deleted, on images of every kind: with power
 * cuts at every point, with writes that fail, with one barrier less (which must be
 * noticed), and a tree of them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "verbs.h"
#include "imgcheck.h"
#include "lib/snapedit.h"

#define IO "qemu-io -f qcow2 "
#define TWO                                                                                   \
	IO "-c 'write -P 7 0 120k' $1; qemu-img snapshot -c a $1; " IO                        \
	   "-c 'write -P 8 30k 40k' -c 'write -z 80k 16k' $1; qemu-img snapshot -c b $1; " IO \
	   "-c 'write -P 9 64k 8k' -c 'discard 96k 16k' $1"
#define COMPRESSED                                                              \
	"for i in 0 32 64; do " IO                                              \
	"-c \"write -c -P $i ${i}k 32k\" $1; done; qemu-img snapshot -c a $1; " \
	"qemu-img snapshot -c b $1; " IO "-c 'write -P 5 33k 2k' $1"

static const struct variant {
	const char *name, *options, *more;
} variants[] = {
	{ "v3", "cluster_size=4k", TWO },
	{ "v2", "cluster_size=4k,compat=0.10", TWO },
	{ "tiny", "cluster_size=512", TWO },
	{ "tiny64", "cluster_size=512,refcount_bits=64", TWO },
	{ "refs4", "cluster_size=1k,refcount_bits=4", TWO },
	{ "refs8", "cluster_size=2k,refcount_bits=8", TWO },
	{ "refs32", "cluster_size=4k,refcount_bits=32", TWO },
	{ "extl2", "cluster_size=16k,extended_l2=on", TWO },
	{ "zlib", "cluster_size=4k", COMPRESSED },
	{ "zstd", "cluster_size=16k,compression_type=zstd", COMPRESSED },
	{ "resized", "cluster_size=4k",
	  TWO "; qemu-img resize -q -f qcow2 $1 3M; " IO "-c 'write -P 3 2M 64k' $1" },
};

#define NR_VARIANTS (sizeof(variants) / sizeof(*variants))

static const char *recipe(const struct variant *v)
{
	static char text[1500];

	snprintf(text, sizeof(text), "qemu-img create -q -f qcow2 -o %s $1 256k; %s", v->options,
		 v->more);
	return text;
}

/* ---- the verbs ------------------------------------------------------------------------- */

struct call {
	int (*act)(struct qcow_writer *w, const char *name, struct qcow_error *err);
	const char *name;
};

static int act_create(struct qcow_writer *w, const char *name, struct qcow_error *err)
{
	return qcow_snapshot_create(w, name, 1000, 5, err);
}

static int act(struct qcow_writer *w, void *arg, struct qcow_error *err)
{
	const struct call *c = arg;

	return c->act(w, c->name, err);
}

static int run_call(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err)
{
	return verb_write(m, drop, act, arg, err);
}

static struct call calls[] = {
	{ act_create, "new" },	       { qcow_snapshot_apply, "a" },  { qcow_snapshot_apply, "b" },
	{ qcow_snapshot_delete, "a" }, { qcow_snapshot_delete, "b" },
};

#define NR_CALLS (sizeof(calls) / sizeof(*calls))

/* ---- tests ----------------------------------------------------------------------------- */

static void test_crashes(void **state)
{
	size_t i, k;
	struct memio *m;

	(void)state;
	for (i = 0; i < NR_VARIANTS; i++) {
		for (k = 0; k < NR_CALLS; k++) {
			struct verb_case v = {
				.run = run_call,
				.arg = &calls[k],
				.qemu_every = 40,
			};

			print_message("%s %zu\n", variants[i].name, k);
			m = work_image("%s", recipe(&variants[i]));
			verb_crash(m, &v, 3);
			memio_destroy(m);
		}
	}
}

static void test_faults(void **state)
{
	static const size_t some[] = { 0, 2, 7, 9 };
	size_t i, k;

	(void)state;
	for (i = 0; i < sizeof(some) / sizeof(*some); i++) {
		for (k = 0; k < NR_CALLS; k += 2) {
			struct verb_case v = {
				.run = run_call,
				.arg = &calls[k],
			};

			verb_faults(recipe(&variants[some[i]]), &v);
		}
	}
}

static void test_barriers(void **state)
{
	static const enum qcow_barrier barriers[] = { QCOW_BARRIER_TABLE, QCOW_BARRIER_HEADER };
	struct verb_case v = { .run = run_call, .arg = &calls[1] };

	(void)state;
	verb_barriers(recipe(&variants[0]), &v, barriers, 2);
}

/* Refused without a trace. */
static void refuse(const char *commands, struct call c, int code, const char *text)
{
	struct memio *m = work_image("%s", commands);
	uint64_t size = m->size, before = verb_view(m);
	struct qcow_error err = { 0 };
	struct imgcheck result, was;

	imgcheck(m->data, m->size, &was);
	assert_int_equal(run_call(m, 0, &c, &err), code);
	if (!strstr(err.text, text))
		fail_msg("%s", err.text);
	imgcheck(m->data, m->size, &result);
	assert_int_equal(result.corruptions + result.leaks, was.corruptions + was.leaks);
	assert_true(verb_view(m) == before);
	assert_int_equal(m->size, size);
	memio_destroy(m);
}

static void test_refused(void **state)
{
	static const struct call create = { act_create, "x" }, unnamed = { act_create, "" },
				 missing = { qcow_snapshot_apply, "x" },
				 gone = { qcow_snapshot_delete, "x" };
	(void)state;
	refuse("qemu-img create -q -f qcow2 -o refcount_bits=1 $1 1M; " IO "-c 'write 0 64k' $1",
	       create, -EOVERFLOW, "refcounts of 1 bits are too narrow");
	refuse("qemu-img create -q -f qcow2 -o refcount_bits=2 $1 1M; " IO
	       "-c 'write 0 64k' $1; qemu-img snapshot -c a $1; qemu-img snapshot -c b $1",
	       create, -EOVERFLOW, "refcounts of 2 bits");
	refuse("qemu-img create -q -f qcow2 -o data_file=d $1 1M", create, -ENOTSUP, "data file");
	refuse("qemu-img create -q -f qcow2 $1 1M", unnamed, -EINVAL, "name");
	refuse("qemu-img create -q -f qcow2 $1 1M", missing, -ENOENT, "no snapshot");
	refuse("qemu-img create -q -f qcow2 $1 1M; qemu-img snapshot -c a $1", gone, -ENOENT,
	       "no snapshot");
	/* In use without a refcount: one more would take it for its own. */
	refuse("qemu-img create -q -f qcow2 $1 1M; " IO "-c 'write 0 64k' $1; "
	       "printf '\\0\\0' | dd of=$1 bs=1 seek=$((0x2000a)) conv=notrunc",
	       create, -EIO, "qcow check");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crashes),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_barriers),
		cmocka_unit_test(test_refused),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
