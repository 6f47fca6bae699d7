// SPDX-License-Identifier: GPL-2.0-only
/*
 * Commit into a backing file under power cuts: seen through the image, the disk is the
 * same whenever the base stops half-way, and whenever emptying the image does.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "imgcheck.h"
#include "lib/fold.h"
#include "verbs.h"

#define DISK (320 * 1024)

static char work_dir[] = "/tmp/qcow-fold-XXXXXX";

static struct qcow_chain *chain_of(struct qcow_io *top, struct qcow_io *base, bool raw)
{
	struct qcow_chain *c;

	assert_int_equal(qcow_chain_create(&c, NULL, NULL), 0);
	assert_int_equal(qcow_chain_add_qcow2(c, top, NULL, NULL), 0);
	if (base && raw)
		assert_int_equal(qcow_chain_add_raw(c, base, NULL), 0);
	else if (base)
		assert_int_equal(qcow_chain_add_qcow2(c, base, NULL, NULL), 0);
	assert_int_equal(qcow_chain_seal(c, NULL), 0);
	return c;
}

static void read_disk(struct qcow_io *top, struct qcow_io *base, uint8_t *buf)
{
	struct qcow_chain *c = chain_of(top, base, false);
	struct qcow_error err = { 0 };
	struct qcow_scratch *s;

	assert_int_equal(qcow_scratch_create(&s, c, NULL), 0);
	if (qcow_chain_read(c, 0, buf, DISK, s, &err))
		fail_msg("%s", err.text);
	qcow_scratch_destroy(s);
	qcow_chain_destroy(c);
}

/* ---- into a qcow2 base ------------------------------------------------------------- */

#define IO "qemu-io -f qcow2 "
#define MAKE(opts) \
	"qemu-img create -q -f qcow2 -o " opts " $1 320k; " IO "-c 'write -P 3 10k 150k' $1"

static const char *const bases[] = {
	MAKE("cluster_size=4k"),
	MAKE("cluster_size=512,refcount_bits=64"),
	MAKE("cluster_size=4k,compat=0.10"),
	MAKE("cluster_size=16k,extended_l2=on"),
	MAKE("cluster_size=4k") "; qemu-img snapshot -c s $1; " IO "-c 'write -P 4 20k 9k' $1",
	"qemu-img create -q -f qcow2 -o cluster_size=4k $1 320k; " IO
	"-c 'write -c -P 3 8k 4k' -c 'write -c -P 4 12k 4k' -c 'write -P 5 40k 4k' $1",
};

static const char *const tops[] = {
	"qemu-img create -q -f qcow2 b.qcow2 320k; "
	"qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 -o cluster_size=4k $1; " IO
	"-c 'write -P 7 0 30k' -c 'write -z 100k 20k' -c 'write -P 9 200k 64k' $1",
	"qemu-img create -q -f qcow2 b.qcow2 320k; "
	"qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 -o extended_l2=on,cluster_size=16k $1; " IO
	"-c 'write -P 7 512 3k' -c 'write -z 64k 32k' -c 'write -P 9 300k 8k' $1",
};

struct visit {
	struct memio *top;
	uint8_t *want, *is;
	unsigned int nr;
	char wrong[200];
};

static bool visit_crash(struct memio *m, size_t k, void *arg)
{
	struct visit *v = arg;
	struct imgcheck check;

	imgcheck(m->data, m->size, &check);
	read_disk(&v->top->io, &m->io, v->is);
	if (check.corruptions)
		snprintf(v->wrong, sizeof(v->wrong), "at %zu: %s", k, check.first);
	else if (memcmp(v->want, v->is, DISK))
		snprintf(v->wrong, sizeof(v->wrong), "at %zu: another disk", k);
	v->nr++;
	return !v->wrong[0];
}

static int fold(struct memio *top, struct memio *base, struct qcow_error *err)
{
	struct qcow_fold p = { .top = chain_of(&top->io, &base->io, false),
			       .depth = 1,
			       .base = chain_of(&base->io, NULL, false) };
	int r = qcow_chain_make_writable(p.base, false, err);

	if (!r)
		r = qcow_fold(&p, err);
	qcow_chain_destroy(p.top);
	qcow_chain_destroy(p.base);
	return r;
}

static void one_base(const char *make_base, const char *make_top)
{
	struct memio *top = verb_make(work_dir, make_top), *base = verb_make(work_dir, make_base);
	struct visit v = { .top = top, .want = malloc(DISK), .is = malloc(DISK) };
	struct qcow_error err = { 0 };
	struct memio_crash crash;
	struct imgcheck check;

	read_disk(&top->io, &base->io, v.want);
	memio_record(base, &crash, 3);
	if (fold(top, base, &err))
		fail_msg("%s", err.text);
	/* All is in the base now. */
	read_disk(&base->io, NULL, v.is);
	assert_memory_equal(v.want, v.is, DISK);
	imgcheck(base->data, base->size, &check);
	if (check.leaks || check.corruptions || verb_qemu_check(base, work_dir))
		fail_msg("afterwards: %u leaks, %s", (unsigned int)check.leaks, check.first);
	memio_crashes(&crash, 3, visit_crash, &v);
	if (v.wrong[0])
		fail_msg("%s: crash %s", make_base, v.wrong);
	assert_true(v.nr > 5);
	free(v.want);
	free(v.is);
	memio_destroy(base);
	memio_destroy(top);
}

static void test_base(void **state)
{
	size_t i, k;

	(void)state;
	for (i = 0; i < sizeof(bases) / sizeof(*bases); i++)
		for (k = 0; k < sizeof(tops) / sizeof(*tops); k++)
			one_base(bases[i], tops[k]);
}

/* Storage that fails at any moment: the disk is the same, and the command may be repeated. */
static void test_faults(void **state)
{
	struct memio *top = verb_make(work_dir, tops[0]), *base;
	uint8_t *want = malloc(DISK), *is = malloc(DISK);
	struct qcow_error err;
	struct imgcheck check;
	long after;
	int r = -1;

	(void)state;
	for (after = 0; r; after++) {
		base = verb_make(work_dir, bases[0]);
		read_disk(&top->io, &base->io, want);
		base->fail_after = after;
		base->fail_errno = after % 2 ? EIO : ENOSPC;
		err = (struct qcow_error){ 0 };
		r = fold(top, base, &err);
		assert_true(!r || *err.text);
		base->fail_after = -1;
		imgcheck(base->data, base->size, &check);
		if (check.corruptions)
			fail_msg("fault at %ld: %s", after, check.first);
		read_disk(&top->io, &base->io, is);
		assert_memory_equal(want, is, DISK);
		if (r)
			assert_int_equal(fold(top, base, &err), 0);
		read_disk(&base->io, NULL, is);
		assert_memory_equal(want, is, DISK);
		memio_destroy(base);
	}
	assert_true(after > 5);
	free(want);
	free(is);
	memio_destroy(top);
}

/* ---- emptying, over a raw base ----------------------------------------------------- */

static int run_empty(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err)
{
	struct memio *base = arg;
	struct qcow_fold p = { .top = chain_of(&m->io, &base->io, true),
			       .depth = 1,
			       .raw = &base->io };
	struct qcow_write_test test = { .drop = drop };
	struct qcow_writer_params params = { .keep_bitmaps = true, .test = &test };
	struct qcow_writer *w = NULL;
	struct qcow_image *img;
	int r = qcow_fold(&p, err);

	qcow_chain_destroy(p.top);
	if (r < 0)
		return r;
	assert_int_equal(qcow_image_open(&img, &m->io, err), 0);
	r = qcow_writer_create(&w, img, &params, err);
	if (!r)
		r = qcow_fold_empty(w, NULL, err);
	qcow_writer_destroy(w);
	qcow_image_close(img);
	return r;
}

static void test_empty(void **state)
{
	static const char *const images[] = {
		"truncate -s 320k b; qemu-img create -q -f qcow2 -b b -F raw -o cluster_size=4k $1; " IO
		"-c 'write -P 7 3k 100k' -c 'write -z 120k 60k' $1",
		"truncate -s 320k b; qemu-img create -q -f qcow2 -b b -F raw -o compat=0.10 $1; " IO
		"-c 'write -P 7 3k 200k' $1; qemu-img snapshot -c s $1; " IO
		"-c 'write -P 9 0 9k' $1",
		"truncate -s 320k b; qemu-img create -q -f qcow2 -b b -F raw -o "
		"extended_l2=on,cluster_size=16k $1; " IO "-c 'write -P 7 3k 100k' $1",
	};
	struct memio *base, *m;
	size_t i, k;

	(void)state;
	for (i = 0; i < sizeof(images) / sizeof(*images); i++) {
		struct verb_case v = {
			.run = run_empty, .leaks_ok = true, .qemu_every = 20, .dir = work_dir
		};

		base = memio_create(DISK);
		for (k = 0; k < DISK; k++)
			base->data[k] = (uint8_t)(k / 700);
		v.arg = base;
		v.base = &base->io;
		m = verb_make(work_dir, images[i]);
		verb_crash(m, &v, 3);
		memio_destroy(m);
		memio_destroy(base);
	}
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(work_dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char cmd[100];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", work_dir);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
