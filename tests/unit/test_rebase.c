// SPDX-License-Identifier: GPL-2.0-only
/* Rebase under power cuts and failing storage: the guest always sees the same. */
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
#include "lib/rebase.h"
#include "verbs.h"

#define BASE_SIZE (300 * 1024)

struct setup {
	struct memio *base; /* what the image has */
	struct memio *next; /* what it gets; NULL = nothing */
	const char *name;   /* of that */
};

static struct memio *make_base(uint64_t seed)
{
	struct memio *m = memio_create(BASE_SIZE);
	uint64_t i;

	for (i = 0; i < BASE_SIZE; i++)
		m->data[i] = i / 5000 % 3 ? (uint8_t)memio_random(&seed) : 0;
	return m;
}

static struct qcow_chain *chain_of(struct qcow_io *top, struct qcow_io *base)
{
	struct qcow_chain_params params = { .raw_ok = !top };
	struct qcow_chain *c;

	assert_int_equal(qcow_chain_create(&c, &params, NULL), 0);
	if (top)
		assert_int_equal(qcow_chain_add_qcow2(c, top, NULL, NULL), 0);
	assert_int_equal(qcow_chain_add_raw(c, base, NULL), 0);
	assert_int_equal(qcow_chain_seal(c, NULL), 0);
	return c;
}

static int act(struct qcow_writer *w, void *arg, struct qcow_error *err)
{
	return qcow_rebase(w, arg, err);
}

static int run_rebase(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err)
{
	struct setup *s = arg;
	struct qcow_rebase p = { .old = chain_of(&m->io, &s->base->io) };
	int r;

	if (s->next) {
		p.new = chain_of(NULL, &s->next->io);
		p.name = s->name;
		p.format = "raw";
	}
	r = verb_write(m, drop, act, &p, err);
	qcow_chain_destroy(p.old);
	qcow_chain_destroy(p.new);
	return r;
}

#define MAKE(options)                                                                  \
	"truncate -s 300k base.raw next.raw; qemu-img create -q -f qcow2 -b base.raw " \
	"-F raw -o " options " $1 320k; qemu-io -f qcow2 -c 'write -P 7 40k 50k' "     \
	"-c 'write -P 8 200k 3k' $1"

static const char *const images[] = {
	MAKE("cluster_size=4k"),
	MAKE("cluster_size=512,refcount_bits=64"),
	MAKE("cluster_size=4k,compat=0.10"),
	MAKE("cluster_size=16k,extended_l2=on"),
	MAKE("cluster_size=64k,refcount_bits=1"),
	MAKE("cluster_size=4k") "; qemu-img snapshot -c s $1",
};

#define NR_IMAGES (sizeof(images) / sizeof(*images))

/* The base stays what it is for the one who looks: what was copied hides it. */
static void test_flatten(void **state)
{
	struct setup s = { .base = make_base(1) };
	struct verb_case v = { .run = run_rebase,
			       .arg = &s,
			       .leaks_ok = true,
			       .qemu_every = 40,
			       .base = &s.base->io };
	struct memio *m;
	size_t i;

	(void)state;
	for (i = 0; i < NR_IMAGES; i++) {
		m = work_image("%s", images[i]);
		verb_crash(m, &v, 3);
		memio_destroy(m);
	}
	memio_destroy(s.base);
}

/* A base that shows nothing of it: looked at with either one, all is there. */
static void test_other(void **state)
{
	struct setup s = { .base = make_base(1), .next = make_base(2), .name = "next.raw" };
	struct verb_case v = {
		.run = run_rebase, .arg = &s, .leaks_ok = true, .base = &s.base->io
	};
	struct qcow_error err = { 0 };
	struct memio *m;
	uint8_t *was, *is;
	struct qcow_scratch *x;
	struct qcow_chain *c;
	size_t i;

	(void)state;
	was = malloc(320 * 1024);
	is = malloc(320 * 1024);
	for (i = 0; i < NR_IMAGES; i++) {
		m = work_image("%s", images[i]);
		c = chain_of(&m->io, &s.base->io);
		assert_int_equal(qcow_scratch_create(&x, c, NULL), 0);
		assert_int_equal(qcow_chain_read(c, 0, was, 320 * 1024, x, NULL), 0);
		qcow_scratch_destroy(x);
		qcow_chain_destroy(c);
		verb_crash(m, &v, 3);
		c = chain_of(&m->io, &s.next->io);
		assert_int_equal(qcow_scratch_create(&x, c, NULL), 0);
		assert_int_equal(qcow_chain_read(c, 0, is, 320 * 1024, x, &err), 0);
		qcow_scratch_destroy(x);
		qcow_chain_destroy(c);
		assert_memory_equal(was, is, 320 * 1024);
		memio_destroy(m);
	}
	free(was);
	free(is);
	memio_destroy(s.base);
	memio_destroy(s.next);
}

static void test_faults(void **state)
{
	struct setup s = { .base = make_base(1) };
	struct verb_case v = {
		.run = run_rebase, .arg = &s, .leaks_ok = true, .base = &s.base->io
	};

	(void)state;
	verb_faults(images[0], &v);
	memio_destroy(s.base);
}

/* What was to be copied finds no space: nothing stays taken for it. */
static void test_full(void **state)
{
	struct setup s = { .base = make_base(1) };
	struct memio *m = work_image("%s", images[0]);
	uint64_t size = m->size;
	struct imgcheck c;
	struct qcow_error err = { 0 };

	(void)state;
	m->space_end = size + 20 * 4096;
	assert_int_equal(run_rebase(m, 0, &s, &err), -ENOSPC);
	imgcheck(m->data, m->size, &c);
	assert_true(!c.corruptions && !c.leaks);
	assert_true(m->size <= size);
	memio_destroy(m);
	memio_destroy(s.base);
}

/* Does not fit the header's first sector: it is written before the header names it. */
static const char *long_name(void)
{
	static char name[620];

	memset(name, '/', 600);
	strcpy(name + 600, "next.raw");
	name[0] = '.';
	return name;
}

/*
 * GRANT is made durable by DATA too, before anything points there; a lost new L2 table shows the
 * old backing file, which shows the same.
 */
static void test_barriers(void **state)
{
	static const struct {
		enum qcow_barrier barrier;
		size_t image;
	} rows[] = {
		{ QCOW_BARRIER_DATA, 0 },
		{ QCOW_BARRIER_COMMIT, 3 },
		{ QCOW_BARRIER_TABLE, 0 },
	};
	struct setup s = { .base = make_base(1), .name = long_name() };
	struct verb_case v = {
		.run = run_rebase, .arg = &s, .leaks_ok = true, .base = &s.base->io
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		s.next = rows[i].barrier == QCOW_BARRIER_TABLE ? make_base(2) : NULL;
		verb_barriers(images[rows[i].image], &v, &rows[i].barrier, 1);
		memio_destroy(s.next);
	}
	memio_destroy(s.base);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flatten),	 cmocka_unit_test(test_other),
		cmocka_unit_test(test_faults),	 cmocka_unit_test(test_full),
		cmocka_unit_test(test_barriers),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
