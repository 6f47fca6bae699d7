// SPDX-License-Identifier: GPL-2.0-only
/*
 * The write side under power cuts and kills: random guests (sim.h) on images of every
 * kind; after each disk write the disk is what a crash may leave of it, and must be
 * sound and hold what was acknowledged. Then the same with one barrier dropped at a
 * time, which must be noticed.
 *
 * Arguments: names of tests, or a seed to begin with.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "imgcheck.h"
#include "lib/be.h"
#include "sim.h"
#include "workdir.h"

struct variant {
	const char *name, *options, *size, *more;
	unsigned int steps;
};

/* `more` is shell, with $1 the image. */
static const struct variant variants[] = {
	{ "v3", "cluster_size=64k", "8M", "", 40 },
	{ "v2", "cluster_size=4k,compat=0.10", "1M", "", 40 },
	{ "tiny", "cluster_size=512", "256k", "", 60 },
	{ "tiny64", "cluster_size=512,refcount_bits=64", "256k", "", 60 },
	{ "grow", "cluster_size=512,refcount_bits=64,preallocation=metadata", "1960k",
	  "qemu-img snapshot -c a $1", 60 },
	{ "refs1", "cluster_size=512,refcount_bits=1", "256k", "", 40 },
	{ "refs2", "cluster_size=1k,refcount_bits=2", "512k", "", 40 },
	{ "refs4", "cluster_size=1k,refcount_bits=4", "512k", "", 40 },
	{ "refs8", "cluster_size=4k,refcount_bits=8", "1M", "", 40 },
	{ "refs32", "cluster_size=4k,refcount_bits=32", "1M", "", 40 },
	{ "huge", "cluster_size=2M", "40M", "", 12 },
	{ "extl2", "cluster_size=16k,extended_l2=on", "512k", "", 60 },
	{ "snap", "cluster_size=4k", "1M",
	  "qemu-io -f qcow2 -c 'write -P 7 0 600k' $1; qemu-img snapshot -c a $1; "
	  "qemu-io -f qcow2 -c 'write -P 8 100k 60k' $1; qemu-img snapshot -c b $1",
	  50 },
	{ "snapext", "cluster_size=16k,extended_l2=on", "1M",
	  "qemu-io -f qcow2 -c 'write -P 7 0 300k' -c 'write -z 40k 8k' $1; "
	  "qemu-img snapshot -c a $1; qemu-io -f qcow2 -c 'write -P 8 100k 20k' $1",
	  50 },
	{ "comp", "cluster_size=4k", "1M",
	  "for i in 0 4 8 12 40 44 200; do qemu-io -f qcow2 -c \"write -c -P $i ${i}k 4k\" $1; done",
	  50 },
	{ "compsnap", "cluster_size=16k,extended_l2=on", "1M",
	  "for i in 0 16 32 64; do qemu-io -f qcow2 -c \"write -c -P $i ${i}k 16k\" $1; done; "
	  "qemu-img snapshot -c a $1",
	  50 },
	{ "prealloc", "cluster_size=4k,preallocation=metadata", "512k", "", 40 },
};

static struct memio *make_image(const struct variant *v)
{
	return work_create(v->options, v->size, v->more);
}

/* ---- crashes ----------------------------------------------------------------------- */

struct verdict {
	struct sim *s;
	unsigned int nr;
	char wrong[300];
	unsigned int qemu_every;
	const char *only; /* part of what is wrong; NULL: whatever it is */
};

static bool judge(struct memio *m, size_t k, void *arg)
{
	struct verdict *v = arg;
	const char *wrong = sim_judge(v->s, m, k);
	int status;

	v->nr++;
	if (!wrong && v->qemu_every && v->nr % v->qemu_every == 0) {
		status = work_qemu_check(m);
		if (status && status != 3)
			wrong = "qemu-img check disagrees";
	}
	if (wrong && v->only && !strstr(wrong, v->only))
		return true;
	if (wrong)
		snprintf(v->wrong, sizeof(v->wrong), "crash at %zu of %zu: %s", k, v->s->m->nr,
			 wrong);
	return !wrong;
}

static void run(struct sim *s, struct memio *m, unsigned int steps, uint64_t seed, uint32_t drop,
		bool kill, bool full)
{
	unsigned int i;

	m->can_zero = seed & 1;
	sim_open(s, m, seed, drop);
	s->kill_often = kill;
	s->full_often = full;
	s->kill_at_open = drop == 1u << QCOW_BARRIER_ADOPT;
	sim_start(s);
	for (i = 0; i < steps; i++)
		sim_random_step(s);
	sim_finish(s);
}

/* After a clean end: no leak, and qemu says so too. */
static void check_clean(struct sim *s, const char *name, bool may_leak)
{
	struct imgcheck result;
	int status;

	imgcheck(s->m->data, s->m->size, &result);
	if (result.corruptions || (result.leaks && !may_leak))
		fail_msg("%s: at the end %llu leaks, %llu corruptions: %s", name,
			 (unsigned long long)result.leaks, (unsigned long long)result.corruptions,
			 result.first);
	status = work_qemu_check(s->m);
	if (status && !(may_leak && status == 3))
		fail_msg("%s: qemu-img check gives %d at the end", name, status);
}

static unsigned int nr_kills, nr_full;

static void crash_one(const struct variant *v, uint64_t seed, bool kill, bool full)
{
	struct sim s;
	struct verdict verdict = { .s = &s, .qemu_every = 400 };
	const char *wrong;

	run(&s, make_image(v), v->steps, seed, 0, kill, full);
	check_clean(&s, v->name, kill || full);
	wrong = sim_judge(&s, s.m, s.m->nr);
	if (wrong)
		fail_msg("%s, seed %llu: at the end: %s", v->name, (unsigned long long)seed, wrong);
	memio_crashes(&s.crash, 2, judge, &verdict);
	if (verdict.wrong[0])
		fail_msg("%s, seed %llu, kills %d: %s", v->name, (unsigned long long)seed, kill,
			 verdict.wrong);
	nr_kills += s.kills;
	nr_full += s.nr_full;
	sim_close(&s);
}

static uint64_t first_seed = 1;

static void test_crashes(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(variants) / sizeof(*variants); i++)
		crash_one(&variants[i], first_seed + i, false, false);
}

static void test_kills(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(variants) / sizeof(*variants); i += 2)
		crash_one(&variants[i], first_seed + 100 + i, true, false);
	assert_true(nr_kills > 20);
}

/* The disk is full now and then, under a worker that may also die. */
static void test_full(void **state)
{
	size_t i;

	(void)state;
	for (i = 1; i < sizeof(variants) / sizeof(*variants); i += 2)
		crash_one(&variants[i], first_seed + 200 + i, i % 4 == 1, true);
	print_message("full %u times\n", nr_full);
	assert_true(nr_full > 10);
}

/* ---- dropped barriers -------------------------------------------------------------- */

static const struct variant *variant(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(variants) / sizeof(*variants); i++)
		if (!strcmp(variants[i].name, name))
			return &variants[i];
	fail_msg("no variant %s", name);
	return NULL;
}

static bool notices(const struct variant *v, enum qcow_barrier barrier, const char *only,
		    uint64_t seed)
{
	struct sim s;
	struct verdict verdict = { .s = &s, .only = only };
	struct memio *m = make_image(v);

	if (barrier == QCOW_BARRIER_AUTOCLEAR || barrier == QCOW_BARRIER_ADOPT)
		qcow_put_be64(m->data + 88, 1ull << 40);
	run(&s, m, v->steps, seed, 1u << barrier, false, false);
	if (!s.test.nr[barrier])
		fail_msg("%s never meets barrier %s", v->name, qcow_barrier_name(barrier));
	memio_crashes(&s.crash, 4, judge, &verdict);
	sim_close(&s);
	return verdict.wrong[0];
}

static void test_dropped(void **state)
{
	static const struct {
		enum qcow_barrier barrier;
		const char *variant, *only;
	} rows[] = {
		{ QCOW_BARRIER_AUTOCLEAR, "v3", NULL },
		{ QCOW_BARRIER_REFBLOCK, "tiny64", NULL },
		{ QCOW_BARRIER_REFTABLE, "grow", NULL },
		{ QCOW_BARRIER_REFTABLE_USED, "grow", NULL },
		{ QCOW_BARRIER_GRANT, "v3", NULL },
		{ QCOW_BARRIER_DATA, "snap", NULL },
		{ QCOW_BARRIER_L2_TABLE, "snap", NULL },
		{ QCOW_BARRIER_COMMIT, "v3", NULL },
		{ QCOW_BARRIER_COMMIT, "snap", ": refcount 2, references 3" },
		{ QCOW_BARRIER_ADOPT, "v3", NULL },
	};
	uint64_t seed;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		for (seed = 1; seed < 20; seed++)
			if (notices(variant(rows[i].variant), rows[i].barrier, rows[i].only, seed))
				break;
		if (seed == 20)
			fail_msg("nobody misses barrier %s", qcow_barrier_name(rows[i].barrier));
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crashes),
		cmocka_unit_test(test_kills),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_dropped),
	};

	if (argc > 1 && atoi(argv[1]))
		first_seed = (uint64_t)atoi(argv[1]);
	else if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
