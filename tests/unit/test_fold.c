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
#include "lib/writer-priv.h"
#include "verbs.h"

#define DISK (320 * 1024)

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
	/* Overwritten in place. */
	"qemu-img create -q -f qcow2 -o cluster_size=4k $1 320k; " IO "-c 'write -P 3 0 320k' $1",
};

static const char *const tops[] = {
	"qemu-img create -q -f qcow2 b.qcow2 320k; "
	"qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 -o cluster_size=4k $1; " IO
	"-c 'write -P 7 0 30k' -c 'write -z 100k 20k' -c 'write -P 9 200k 64k' $1",
	"qemu-img create -q -f qcow2 b.qcow2 320k; "
	"qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 -o extended_l2=on,cluster_size=16k $1; " IO
	"-c 'write -P 7 512 3k' -c 'write -P 6 50k 1k' -c 'write -z 64k 32k' -c 'write -P 9 300k 8k' $1",
	/* No zeros: over an allocated base nothing but data is written. */
	"qemu-img create -q -f qcow2 b.qcow2 320k; "
	"qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 -o cluster_size=4k $1; " IO
	"-c 'write -P 7 0 32k' $1",
};

struct visit {
	struct memio *top;
	uint8_t *want, *is;
	unsigned int nr;
	size_t end; /* where the verb has returned: all is in the base, for good */
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
	if (k < v->end || v->wrong[0])
		return !v->wrong[0];
	read_disk(&m->io, NULL, v->is);
	if (memcmp(v->want, v->is, DISK))
		snprintf(v->wrong, sizeof(v->wrong), "at the end: the base does not have it all");
	return !v->wrong[0];
}

static int fold(struct memio *top, struct memio *base, uint32_t drop, struct qcow_error *err)
{
	struct qcow_write_test test = { .drop = drop };
	struct qcow_fold p = { .top = chain_of(&top->io, &base->io, false),
			       .depth = 1,
			       .base = chain_of(&base->io, NULL, false) };
	int r = qcow_chain_make_writable(p.base, false, err);

	if (!r) {
		qcow_chain_writer(p.base)->test = &test;
		r = qcow_fold(&p, err);
	}
	qcow_chain_destroy(p.top);
	qcow_chain_destroy(p.base);
	return r;
}

/* Commits, and looks at every crash on its way; @wrong is what was found. */
static void one_base(const char *make_base, const char *make_top, uint32_t drop, char wrong[200])
{
	struct memio *top = work_image("%s", make_top), *base = work_image("%s", make_base);
	struct visit v = { .top = top, .want = malloc(DISK), .is = malloc(DISK) };
	struct qcow_error err = { 0 };
	struct memio_crash crash;
	struct imgcheck check;

	read_disk(&top->io, &base->io, v.want);
	memio_record(base, &crash, 3);
	if (fold(top, base, drop, &err))
		fail_msg("%s", err.text);
	/* All is in the base now. */
	read_disk(&base->io, NULL, v.is);
	assert_memory_equal(v.want, v.is, DISK);
	imgcheck(base->data, base->size, &check);
	if (check.leaks || check.corruptions || work_qemu_check(base))
		fail_msg("afterwards: %u leaks, %s", (unsigned int)check.leaks, check.first);
	v.end = base->nr;
	memio_crashes(&crash, drop ? 12 : 3, visit_crash, &v);
	strcpy(wrong, v.wrong);
	assert_true(drop || v.nr > 5);
	free(v.want);
	free(v.is);
	memio_destroy(base);
	memio_destroy(top);
}

static void test_base(void **state)
{
	char wrong[200];
	size_t i, k;

	(void)state;
	for (i = 0; i < sizeof(bases) / sizeof(*bases); i++)
		for (k = 0; k < sizeof(tops) / sizeof(*tops); k++) {
			one_base(bases[i], tops[k], 0, wrong);
			if (wrong[0])
				fail_msg("%s: crash %s", bases[i], wrong);
		}
}

/*
 * GRANT is made durable by DATA too, before anything points there; behind a lost new L2 table the
 * image has it all still.
 */
static void test_barriers(void **state)
{
	static const struct {
		enum qcow_barrier barrier;
		size_t base, top;
	} rows[] = {
		{ QCOW_BARRIER_DATA, 4, 1 },
		{ QCOW_BARRIER_COMMIT, 5, 0 },
		{ QCOW_BARRIER_CLOSE, 6, 2 },
	};
	char wrong[200];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		one_base(bases[rows[i].base], tops[rows[i].top], 1u << rows[i].barrier, wrong);
		if (!wrong[0])
			fail_msg("nobody misses %s", qcow_barrier_name(rows[i].barrier));
	}
}

/* Storage that fails at any moment: the disk is the same, and the command may be repeated. */
static void test_faults(void **state)
{
	struct memio *top = work_image("%s", tops[0]), *base;
	uint8_t *want = malloc(DISK), *is = malloc(DISK);
	struct qcow_error err;
	struct imgcheck check;
	long after;
	int r = -1;

	(void)state;
	for (after = 0; r; after++) {
		base = work_image("%s", bases[0]);
		read_disk(&top->io, &base->io, want);
		base->fail_after = after;
		base->fail_errno = after % 2 ? EIO : ENOSPC;
		err = (struct qcow_error){ 0 };
		r = fold(top, base, 0, &err);
		assert_true(!r || *err.text);
		base->fail_after = -1;
		imgcheck(base->data, base->size, &check);
		if (check.corruptions)
			fail_msg("fault at %ld: %s", after, check.first);
		read_disk(&top->io, &base->io, is);
		assert_memory_equal(want, is, DISK);
		if (r)
			assert_int_equal(fold(top, base, 0, &err), 0);
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

static int empty(struct qcow_writer *w, void *arg, struct qcow_error *err)
{
	return qcow_fold_empty(w, arg, err);
}

static int run_empty(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err)
{
	struct memio *base = arg;
	struct qcow_fold p = { .top = chain_of(&m->io, &base->io, true),
			       .depth = 1,
			       .raw = &base->io };
	int r = qcow_fold(&p, err);

	qcow_chain_destroy(p.top);
	return r < 0 ? r : verb_write(m, drop, empty, NULL, err);
}

/* The raw base is durable before anybody empties the image. */
static void test_raw_is_durable(void **state)
{
	struct memio *base = memio_create(DISK), *m;
	struct qcow_error err = { 0 };
	struct memio_crash crash;
	struct qcow_fold p = { .depth = 1, .raw = &base->io };

	(void)state;
	m = work_image("truncate -s 320k b; qemu-img create -q -f qcow2 -b b -F raw $1; " IO
		       "-c 'write -P 7 3k 100k' $1");
	p.top = chain_of(&m->io, &base->io, true);
	memio_record(base, &crash, 1);
	assert_int_equal(qcow_fold(&p, &err), 0);
	assert_true(base->nr > 1 && base->log[base->nr - 1].type == MEMIO_FLUSH);
	free(crash.start);
	qcow_chain_destroy(p.top);
	memio_destroy(m);
	memio_destroy(base);
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
			.run = run_empty,
			.leaks_ok = true,
			.qemu_every = 20,
		};

		base = memio_create(DISK);
		for (k = 0; k < DISK; k++)
			base->data[k] = (uint8_t)(k / 700);
		v.arg = base;
		v.base = &base->io;
		m = work_image("%s", images[i]);
		verb_crash(m, &v, 3);
		memio_destroy(m);
		memio_destroy(base);
	}
}

static void test_empty_barriers(void **state)
{
	/* Before the top goes empty, the base is told to be durable; then its entries go first. */
	static const enum qcow_barrier barriers[] = { QCOW_BARRIER_COMMIT };
	struct memio *base = memio_create(DISK);
	struct verb_case v = { .run = run_empty, .leaks_ok = true, .arg = base, .base = &base->io };

	(void)state;
	verb_barriers(
		"truncate -s 320k b; qemu-img create -q -f qcow2 -b b -F raw -o cluster_size=4k $1; " IO
		"-c 'write -P 7 3k 100k' $1",
		&v, barriers, 1);
	memio_destroy(base);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base),	       cmocka_unit_test(test_faults),
		cmocka_unit_test(test_barriers),       cmocka_unit_test(test_empty),
		cmocka_unit_test(test_empty_barriers), cmocka_unit_test(test_raw_is_durable),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
