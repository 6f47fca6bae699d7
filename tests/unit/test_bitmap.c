// SPDX-License-Identifier: GPL-2.0-only
/* Bitmaps made, removed and changed: with power cuts at every point, and writes that fail. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/bitedit.h"
#include "lib/resize.h"
#include "lib/snapedit.h"
#include "verbs.h"

#define IO "qemu-io -f qcow2 "
/* `fine` has bits in more than one cluster of 512 bytes, with one for each 512 of the disk. */
#define TWO                                                                                     \
	IO "-c 'write 0 64k' $1; qemu-img snapshot -c s $1; qemu-img bitmap --add -g 4k $1 b; " \
	   "qemu-img bitmap --add -g 512 $1 fine; " IO                                          \
	   "-c 'write 10k 3k' -c 'write 3M 9k' -c 'write 3900k 50k' $1"

static const char *const options[] = {
	"cluster_size=4k",
	"cluster_size=512,refcount_bits=8",
	"cluster_size=64k,extended_l2=on",
};

#define NR_OPTIONS (sizeof(options) / sizeof(*options))

struct call {
	const char *name;
	struct qcow_bitmap_step steps[2];
	size_t nr;
	uint64_t size;	 /* resize instead */
	bool apply;	 /* the snapshot s instead */
	struct memio *m; /* what it is run on */
};

static struct call calls[] = {
	{ .name = "new",
	  .steps = { { .what = QCOW_BITMAP_ADD, .granularity_bits = 10 } },
	  .nr = 1 },
	{ .name = "b", .steps = { { .what = QCOW_BITMAP_REMOVE } }, .nr = 1 },
	{ .name = "fine",
	  .steps = { { .what = QCOW_BITMAP_CLEAR }, { .what = QCOW_BITMAP_DISABLE } },
	  .nr = 2 },
	{ .name = "b", .steps = { { .what = QCOW_BITMAP_MERGE, .source = "fine" } }, .nr = 1 },
	{ .name = "fine",
	  .steps = { { .what = QCOW_BITMAP_CLEAR }, { .what = QCOW_BITMAP_MERGE, .source = "b" } },
	  .nr = 2 },
	{ .size = (3 << 20) + 1024 },
	{ .size = 9 << 20 },
	{ .apply = true },
};

#define NR_CALLS (sizeof(calls) / sizeof(*calls))

static const char *recipe(const char *opt)
{
	static char text[1000];

	snprintf(text, sizeof(text), "qemu-img create -q -f qcow2 -o %s $1 4M; %s", opt, TWO);
	return text;
}

static int resize(struct qcow_writer *w, const struct call *c, struct qcow_error *err)
{
	struct qcow_resize_params p = { .size = c->size };
	struct qcow_chain_params params = { .cache_bytes = 32 << 10 };
	int r;

	assert_int_equal(qcow_chain_create(&p.chain, &params, err), 0);
	r = qcow_chain_add_qcow2(p.chain, &c->m->io, NULL, err);
	if (!r)
		r = qcow_chain_seal(p.chain, err);
	if (!r)
		r = qcow_resize(w, &p, err);
	qcow_chain_destroy(p.chain);
	return r;
}

static int act(struct qcow_writer *w, void *arg, struct qcow_error *err)
{
	struct call *c = arg;
	struct qcow_image *img;
	int r;

	if (c->size)
		return resize(w, c, err);
	if (c->apply)
		return qcow_snapshot_apply(w, "s", err);
	r = qcow_image_open(&img, &c->m->io, err);
	if (r < 0)
		return r;
	c->steps[0].from = c->steps[1].from = img;
	r = qcow_bitmap_edit(w, c->name, c->steps, c->nr, err);
	qcow_image_close(img);
	return r;
}

static int run_call(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err)
{
	struct call *c = arg;

	c->m = m;
	return verb_write(m, drop, act, c, err);
}

static void test_crashes(void **state)
{
	struct memio *m;
	size_t i, k;

	(void)state;
	for (i = 0; i < NR_OPTIONS; i++) {
		for (k = 0; k < NR_CALLS; k++) {
			struct verb_case v = {
				.run = run_call,
				.arg = &calls[k],
				.qemu_every = 30,
			};

			print_message("%s %zu\n", options[i], k);
			m = work_image("%s", recipe(options[i]));
			verb_crash(m, &v, 3);
			memio_destroy(m);
		}
	}
}

static void test_faults(void **state)
{
	size_t k;

	(void)state;
	for (k = 0; k < NR_CALLS; k += 2) {
		struct verb_case v = {
			.run = run_call,
			.arg = &calls[k],
		};

		verb_faults(recipe(options[0]), &v);
	}
}

static void test_barriers(void **state)
{
	static const enum qcow_barrier barriers[] = { QCOW_BARRIER_TABLE, QCOW_BARRIER_HEADER };
	struct verb_case v = { .run = run_call, .arg = &calls[3] };

	(void)state;
	verb_barriers(recipe(options[0]), &v, barriers, 2);
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
