// SPDX-License-Identifier: GPL-2.0-only
/*
 * Convert into memory: after a power cut at any moment there is a complete image or
 * none; an error of the storage at any moment is reported; many options, many sizes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "imgcheck.h"
#include "lib/convert.h"
#include "lib/zeros.h"
#include "workdir.h"

struct variant {
	const char *name;
	struct qcow_create_params p;
	size_t min_sparse;
	bool compress;
};

static const struct variant variants[] = {
	{ "64k", { .version = 3, .cluster_bits = 16, .refcount_order = 4 }, 4096, false },
	{ "512", { .version = 3, .cluster_bits = 9, .refcount_order = 6 }, 4096, false },
	{ "v2", { .version = 2, .cluster_bits = 12, .refcount_order = 4 }, 4096, true },
	{ "zlib", { .version = 3, .cluster_bits = 12, .refcount_order = 1 }, 4096, true },
	{ "zlib1", { .version = 3, .cluster_bits = 9, .refcount_order = 0 }, 4096, true },
	{ "zstd",
	  { .version = 3,
	    .cluster_bits = 16,
	    .refcount_order = 3,
	    .compression = QCOW_COMPRESSION_ZSTD },
	  4096,
	  true },
	{ "extl2",
	  { .version = 3, .cluster_bits = 14, .refcount_order = 4, .extl2 = true },
	  4096,
	  false },
	{ "full", { .version = 3, .cluster_bits = 12, .refcount_order = 5 }, 0, false },
	{ "prealloc",
	  { .version = 3,
	    .cluster_bits = 12,
	    .refcount_order = 4,
	    .prealloc = QCOW_PREALLOC_METADATA },
	  4096,
	  false },
};

#define NR_VARIANTS (sizeof(variants) / sizeof(*variants))

/* Holes, text and noise, by a seed. */
static struct memio *make_disk(uint64_t size, uint64_t seed)
{
	struct memio *m = memio_create(size);
	uint64_t off, n, i;

	for (off = 0; off < size; off += n) {
		n = 512 * (1 + memio_random(&seed) % 60);
		if (n > size - off)
			n = size - off;
		switch (memio_random(&seed) % 3) {
		case 0:
			break;
		case 1:
			memset(m->data + off, (int)(1 + memio_random(&seed) % 255), n);
			break;
		default:
			for (i = 0; i < n; i++)
				m->data[off + i] = (uint8_t)memio_random(&seed);
		}
	}
	return m;
}

static struct qcow_chain *chain_of(struct qcow_io *io, bool raw)
{
	struct qcow_chain_params params = { .raw_ok = raw };
	struct qcow_error err = { 0 };
	struct qcow_chain *c;

	assert_int_equal(qcow_chain_create(&c, &params, &err), 0);
	if ((raw ? qcow_chain_add_raw(c, io, &err) : qcow_chain_add_qcow2(c, io, NULL, &err)) ||
	    qcow_chain_seal(c, &err))
		fail_msg("%s", err.text);
	return c;
}

static int convert(const struct variant *v, struct memio *disk, struct memio *out,
		   struct qcow_error *err)
{
	struct qcow_chain *src = chain_of(&disk->io, true);
	struct qcow_create_params p = v->p;
	struct qcow_convert c = { .src = { &src, 1 },
				  .io = &out->io,
				  .compress = v->compress,
				  .min_sparse = v->min_sparse,
				  .nr_threads = 1 };
	int r;

	p.size = disk->size;
	r = qcow_builder_create(&c.image, &out->io, &p, err);
	if (!r)
		r = qcow_convert(&c, err);
	if (!r)
		r = qcow_io_flush(&out->io, err);
	if (!r)
		r = qcow_builder_finish(c.image, true, err);
	qcow_builder_destroy(c.image);
	qcow_chain_destroy(src);
	return r;
}

static bool has_magic(const struct memio *m)
{
	return m->size >= 4 && !memcmp(m->data, "QFI\xfb", 4);
}

/* NULL, or what is wrong with the image. */
static const char *judge(struct memio *m, const struct memio *disk)
{
	static char text[400];
	struct qcow_error err = { 0 };
	struct imgcheck check;
	struct qcow_scratch *s;
	struct qcow_chain *c;
	uint8_t *buf = malloc(disk->size);
	const char *wrong = NULL;

	imgcheck(m->data, m->size, &check);
	if (check.corruptions || check.leaks) {
		snprintf(text, sizeof(text), "%u leaks, %s", (unsigned int)check.leaks,
			 check.first);
		free(buf);
		return text;
	}
	c = chain_of(&m->io, false);
	assert_int_equal(qcow_scratch_create(&s, c, &err), 0);
	if (qcow_chain_size(c) != disk->size)
		wrong = "another size";
	else if (qcow_chain_read(c, 0, buf, disk->size, s, &err))
		wrong = "cannot be read";
	else if (memcmp(buf, disk->data, disk->size))
		wrong = "other contents";
	qcow_scratch_destroy(s);
	qcow_chain_destroy(c);
	free(buf);
	return wrong;
}

struct visit {
	const struct memio *disk;
	const char *wrong;
	unsigned int nr_none, nr_complete;
};

static bool visit_crash(struct memio *m, size_t k, void *arg)
{
	struct visit *v = arg;

	(void)k;
	if (!has_magic(m)) {
		v->nr_none++;
		return true;
	}
	v->nr_complete++;
	v->wrong = judge(m, v->disk);
	return !v->wrong;
}

static void test_crashes(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < NR_VARIANTS; i++) {
		struct memio *disk = make_disk(200 * 1024 + 512 * i, i + 1), *out = memio_create(0);
		struct visit v = { .disk = disk };
		struct qcow_error err = { 0 };
		struct memio_crash crash;

		memio_record(out, &crash, i + 1);
		if (convert(&variants[i], disk, out, &err))
			fail_msg("%s: %s", variants[i].name, err.text);
		memio_crashes(&crash, 4, visit_crash, &v);
		if (v.wrong)
			fail_msg("%s after a crash: %s", variants[i].name, v.wrong);
		assert_true(v.nr_none > 4 && v.nr_complete > 0);
		v.wrong = judge(out, disk);
		if (v.wrong)
			fail_msg("%s: %s", variants[i].name, v.wrong);
		memio_destroy(out);
		memio_destroy(disk);
	}
}

/* The storage fails at every moment; the last try succeeds. */
static void test_errors(void **state)
{
	struct memio *disk = make_disk(100 * 1024, 9), *out;
	struct qcow_error err;
	long n;
	int r = -1;

	(void)state;
	for (n = 0; r; n++) {
		out = memio_create(0);
		out->fail_after = n;
		out->fail_errno = ENOSPC;
		err = (struct qcow_error){ 0 };
		r = convert(&variants[n % 2 ? 2 : 4], disk, out, &err);
		assert_true(r == 0 || r == -ENOSPC);
		assert_true(!r || *err.text);
		memio_destroy(out);
	}
	assert_true(n > 10);
	memio_destroy(disk);
}

/* ---- into an image that is there --------------------------------------------------- */

#define INTO_SIZE (320 * 1024)

static int into(struct memio *disk, struct memio *m, struct qcow_error *err)
{
	struct qcow_chain *src = chain_of(&disk->io, true), *to = chain_of(&m->io, false);
	struct qcow_convert c = { .src = { &src, 1 }, .min_sparse = 4096, .nr_threads = 2 };
	int r = qcow_chain_make_writable(to, false, err);

	if (!r)
		r = qcow_into_create(&c.into, to, err);
	if (!r)
		r = qcow_convert(&c, err);
	if (c.into)
		r = qcow_into_finish(c.into, r, r ? NULL : err);
	qcow_into_destroy(c.into);
	qcow_chain_destroy(src);
	qcow_chain_destroy(to);
	return r;
}

static void read_disk(struct memio *m, uint8_t *buf)
{
	struct qcow_chain *c = chain_of(&m->io, false);
	struct qcow_scratch *s;
	struct qcow_error err;

	assert_int_equal(qcow_scratch_create(&s, c, NULL), 0);
	if (qcow_chain_read(c, 0, buf, INTO_SIZE, s, &err))
		fail_msg("%s", err.text);
	qcow_scratch_destroy(s);
	qcow_chain_destroy(c);
}

struct into_visit {
	uint8_t *old, *new, *is;
	uint64_t len; /* of what is written */
	size_t end;
	const char *wrong;
	char text[200];
};

/* Each sector is the old or the new one; behind the source's end nothing changes. */
static bool visit_into(struct memio *m, size_t k, void *arg)
{
	struct into_visit *v = arg;
	struct imgcheck check;
	uint64_t at;

	imgcheck(m->data, m->size, &check);
	if (check.corruptions) {
		snprintf(v->text, sizeof(v->text), "%s", check.first);
		v->wrong = v->text;
		return false;
	}
	read_disk(m, v->is);
	for (at = 0; at < INTO_SIZE && !v->wrong; at += 512) {
		if (memcmp(v->is + at, v->new + at, 512) &&
		    (k == v->end || memcmp(v->is + at, v->old + at, 512)))
			v->wrong = at < v->len ? "neither old nor new" : "what was to stay";
	}
	return !v->wrong;
}

static void test_into(void **state)
{
	static const char *const images[] = {
		"cluster_size=4k",
		"cluster_size=64k,refcount_bits=64",
		"cluster_size=4k,compat=0.10",
		"cluster_size=16k,extended_l2=on",
	};
	struct memio *disk, *m;
	struct memio_crash crash;
	struct qcow_error err = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(images) / sizeof(*images); i++) {
		struct into_visit v = { .old = malloc(INTO_SIZE),
					.new = malloc(INTO_SIZE),
					.is = malloc(INTO_SIZE) };

		m = work_create(
			images[i], "320k",
			"qemu-io -f qcow2 -c 'write -P 7 0 150k' -c 'write -P 8 180k 140k' $1; "
			"qemu-img snapshot -c s $1; qemu-io -f qcow2 -c 'write -P 9 64k 64k' $1");
		disk = make_disk(200 * 1024 + 512, i + 1);
		v.len = disk->size;
		read_disk(m, v.old);
		memcpy(v.new, v.old, INTO_SIZE);
		memcpy(v.new, disk->data, disk->size);
		memio_record(m, &crash, i + 1);
		if (into(disk, m, &err))
			fail_msg("%s: %s", images[i], err.text);
		v.end = m->nr;
		memio_crashes(&crash, 3, visit_into, &v);
		if (v.wrong)
			fail_msg("%s: %s", images[i], v.wrong);
		assert_int_equal(work_qemu_check(m), 0);
		memio_destroy(m);
		memio_destroy(disk);
		free(v.old);
		free(v.new);
		free(v.is);
	}
}

/* ---- several disks ----------------------------------------------------------------- */

static void test_concat(void **state)
{
	struct memio *disks[] = { make_disk(70 * 1024 + 512, 1), make_disk(512, 2),
				  make_disk(130 * 1024, 3) };
	struct qcow_chain *chains[3];
	struct memio *out = memio_create(0), *all = memio_create(0);
	struct qcow_create_params p = variants[0].p;
	struct qcow_convert c = {
		.src = { chains, 3 }, .io = &out->io, .min_sparse = 4096, .nr_threads = 2
	};
	struct qcow_error err = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		chains[i] = chain_of(&disks[i]->io, true);
		memcpy(all->data + all->size, disks[i]->data, disks[i]->size);
		all->size += disks[i]->size;
	}
	p.size = qcow_concat_size(&c.src);
	assert_int_equal(p.size, all->size);
	if (qcow_builder_create(&c.image, &out->io, &p, &err) || qcow_convert(&c, &err) ||
	    qcow_builder_finish(c.image, true, &err))
		fail_msg("%s", err.text);
	assert_null(judge(out, all));
	qcow_builder_destroy(c.image);
	for (i = 0; i < 3; i++) {
		qcow_chain_destroy(chains[i]);
		memio_destroy(disks[i]);
	}
	memio_destroy(out);
	memio_destroy(all);
}

static void test_zeros(void **state)
{
	uint8_t buf[300];
	size_t len, i;

	(void)state;
	for (len = 0; len < 100; len++) {
		memset(buf, 0, sizeof(buf));
		assert_true(qcow_is_zero(buf + 3, len));
		for (i = 0; i < len; i++) {
			buf[3 + i] = 1;
			assert_false(qcow_is_zero(buf + 3, len));
			buf[3 + i] = 0;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crashes), cmocka_unit_test(test_errors),
		cmocka_unit_test(test_into),	cmocka_unit_test(test_concat),
		cmocka_unit_test(test_zeros),
	};

	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
