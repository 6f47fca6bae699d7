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

#include "lib/rebase.h"
#include "verbs.h"

#define BASE_SIZE (300 * 1024)

static char work_dir[] = "/tmp/qcow-rebase-XXXXXX";

struct setup {
	struct memio *base; /* what the image has */
	struct memio *next; /* what it gets; NULL = nothing */
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

static int run_rebase(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err)
{
	struct setup *s = arg;
	struct qcow_write_test test = { .drop = drop };
	struct qcow_writer_params params = { .keep_bitmaps = true, .test = &test };
	struct qcow_rebase p = { .old = chain_of(&m->io, &s->base->io) };
	struct qcow_writer *w = NULL;
	struct qcow_image *img;
	int r = qcow_image_open(&img, &m->io, err);

	if (s->next) {
		p.new = chain_of(NULL, &s->next->io);
		p.name = "next.raw";
		p.format = "raw";
	}
	if (!r)
		r = qcow_writer_create(&w, img, &params, err);
	if (!r)
		r = qcow_rebase(w, &p, err);
	qcow_writer_destroy(w);
	if (img)
		qcow_image_close(img);
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
			       .dir = work_dir,
			       .base = &s.base->io };
	struct memio *m;
	size_t i;

	(void)state;
	for (i = 0; i < NR_IMAGES; i++) {
		m = verb_make(work_dir, images[i]);
		verb_crash(m, &v, 3);
		memio_destroy(m);
	}
	memio_destroy(s.base);
}

/* A base that shows nothing of it: looked at with either one, all is there. */
static void test_other(void **state)
{
	struct setup s = { .base = make_base(1), .next = make_base(2) };
	struct verb_case v = {
		.run = run_rebase, .arg = &s, .leaks_ok = true, .dir = work_dir, .base = &s.base->io
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
		m = verb_make(work_dir, images[i]);
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
		.run = run_rebase, .arg = &s, .leaks_ok = true, .dir = work_dir, .base = &s.base->io
	};

	(void)state;
	verb_faults(work_dir, images[0], &v);
	memio_destroy(s.base);
}

static int remove_dir(void **state)
{
	char cmd[100];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", work_dir);
	return system(cmd);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(work_dir) ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flatten),
		cmocka_unit_test(test_other),
		cmocka_unit_test(test_faults),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
