// SPDX-License-Identifier: GPL-2.0-only
/* Another version, other refcounts: with power cuts at every point, and writes that fail. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/amend.h"
#include "verbs.h"

#define IO   "qemu-io -f qcow2 "
#define DATA IO "-c 'write -P 7 0 200k' -c 'write -z 40k 20k' -c 'discard 100k 20k' $1"
#define SNAP \
	IO "-c 'write -P 7 0 200k' $1; qemu-img snapshot -c a $1; " IO "-c 'write -P 9 8k 20k' $1"
/* Zero clusters of both kinds, of the snapshot alone, of the disk alone, and of both. */
#define ZEROSNAP                                                                              \
	DATA "; qemu-img snapshot -c a $1; " IO "-c 'write -P 9 40k 8k' -c 'write -z 8k 8k' " \
	     "-c 'write -zu 16k 4k' $1; qemu-img snapshot -c b $1; " IO "-c 'write -P 3 0 4k' $1"
/* 600 bytes of path: it does not fit the header's first sector. */
#define LONG "$(printf './%.0s' $(seq 300))base.raw"

static const struct step {
	const char *name, *options, *more;
	struct qcow_amend_params to;
	bool base;
} steps[] = {
	{ "up", "cluster_size=4k,compat=0.10", IO "-c 'write -P 7 0 200k' $1", { 3, 4, 0, 0 }, 0 },
	{ "all", "cluster_size=4k,compat=0.10", IO "-c 'write -P 7 0 200k' $1", { 3, 5, 1, 0 }, 0 },
	{ "down", "cluster_size=4k", DATA, { 2, 4, 0, 0 }, 0 },
	{ "downsnap", "cluster_size=4k", SNAP, { 2, 4, 0, 0 }, 0 },
	{ "downsnapzero", "cluster_size=4k", ZEROSNAP, { 2, 4, 0, 0 }, 0 },
	{ "downsnapbase", "cluster_size=4k -b base.raw -F raw", ZEROSNAP, { 2, 4, 0, 0 }, 1 },
	{ "downbase", "cluster_size=4k -b base.raw -F raw", DATA, { 2, 4, 0, 0 }, 1 },
	{ "upbase", "cluster_size=4k,compat=0.10 -b base.raw -F raw", "true", { 3, 4, 0, 0 }, 1 },
	{ "uplong", "cluster_size=4k,compat=0.10 -F raw -b " LONG, "true", { 3, 4, 0, 0 }, 1 },
	{ "downlong", "cluster_size=4k -F raw -b " LONG, DATA, { 2, 4, 0, 0 }, 1 },
	{ "refs1", "cluster_size=512", DATA, { 3, 0, 0, 0 }, 0 },
	{ "refs64", "cluster_size=512", SNAP, { 3, 6, 0, 0 }, 0 },
	{ "refs2", "cluster_size=4k,refcount_bits=64", SNAP, { 3, 1, 0, 0 }, 0 },
	{ "lazy", "cluster_size=4k", DATA, { 3, 4, 1, 0 }, 0 },
};

#define NR_STEPS (sizeof(steps) / sizeof(*steps))

static const char *recipe(const struct step *s)
{
	static char text[1000];

	/* The base's contents do not matter to qemu-img. */
	snprintf(text, sizeof(text),
		 "truncate -s 256k base.raw; qemu-img create -q -f qcow2 -o %s $1 256k; %s",
		 s->options, s->more);
	return text;
}

static int act(struct qcow_writer *w, void *arg, struct qcow_error *err)
{
	const struct step *s = arg;

	return qcow_amend(w, &s->to, err);
}

static int run_step(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err)
{
	return verb_write(m, drop, act, arg, err);
}

/* Nothing the guest sees changes, so that the version tells the old header from the new. */
static void test_crashes(void **state)
{
	struct memio *base = verb_raw(256 << 10), *m;
	size_t i;

	(void)state;
	for (i = 0; i < NR_STEPS; i++) {
		struct verb_case v = { .run = run_step,
				       .arg = (void *)&steps[i],
				       .qemu_every = 20,
				       .base = steps[i].base ? &base->io : NULL };

		print_message("%s\n", steps[i].name);
		m = work_image("%s", recipe(&steps[i]));
		verb_crash(m, &v, 4);
		assert_int_equal(m->data[7], steps[i].to.version);
		memio_destroy(m);
	}
	memio_destroy(base);
}

static void test_faults(void **state)
{
	static const size_t some[] = { 1, 8, 5, 6, 12 };
	struct memio *base = verb_raw(256 << 10);
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(some) / sizeof(*some); i++) {
		struct verb_case v = { .run = run_step,
				       .arg = (void *)&steps[some[i]],
				       .base = steps[some[i]].base ? &base->io : NULL };

		verb_faults(recipe(&steps[some[i]]), &v);
	}
	memio_destroy(base);
}

static void test_barriers(void **state)
{
	static const enum qcow_barrier barriers[] = { QCOW_BARRIER_TABLE, QCOW_BARRIER_HEADER };
	struct verb_case v = { .run = run_step, .arg = (void *)&steps[2] };

	(void)state;
	verb_barriers(recipe(&steps[2]), &v, barriers, 2);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crashes),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_barriers),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
