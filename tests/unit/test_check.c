// SPDX-License-Identifier: GPL-2.0-only
/*
 * qcow_check() beside qemu-img check: sound images of every kind, and each with its
 * tables damaged in ways a seed chooses. Counts and verdicts agree; what we repaired
 * qemu finds sound, with the guest's bytes as they were.
 */
#include <errno.h>
#include <json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/be.h"
#include "lib/check.h"
#include "verbs.h"

static const char *const kinds[] = {
	"compat=0.10",
	"cluster_size=512",
	"cluster_size=4k,refcount_bits=64",
	"cluster_size=64k",
	"cluster_size=16k,extended_l2=on",
	"cluster_size=2M",
	"cluster_size=64k,preallocation=metadata",
	"cluster_size=64k,refcount_bits=8",
};
#define NR_KINDS (sizeof(kinds) / sizeof(*kinds))

static int shell(const char *fmt, const char *arg)
{
	char cmd[1500], line[1400];
	int status;

	snprintf(line, sizeof(line), fmt, arg);
	snprintf(cmd, sizeof(cmd), "cd %s && { %s; } >log 2>&1", work_dir, line);
	status = system(cmd);
	return WEXITSTATUS(status);
}

static struct memio *load(const char *name)
{
	char path[100];

	snprintf(path, sizeof(path), "%s/%s", work_dir, name);
	return memio_load(path);
}

static void save(const struct memio *m, const char *name)
{
	char path[100];

	snprintf(path, sizeof(path), "%s/%s", work_dir, name);
	memio_save(m, path);
}

static struct memio *make(const char *options, bool snapshot)
{
	if (shell("rm -f i.q; qemu-img create -q -f qcow2 -o %s i.q 8M && "
		  "qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -P 2 3M 200k' "
		  "-c 'discard 512k 128k' i.q && { qemu-io -f qcow2 -c 'write -c -P 3 6M 2M' i.q || :; }",
		  options))
		fail_msg("cannot make %s", options);
	if (snapshot && shell("qemu-img snapshot -c a i.q && "
			      "qemu-io -f qcow2 -c 'write -P 5 0 300k' %s",
			      "i.q"))
		fail_msg("cannot snapshot %s", options);
	return load("i.q");
}

static uint64_t number(json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) ? (uint64_t)json_object_get_int64(v) : 0;
}

static void same(const char *what, const char *key, json_object *o, uint64_t ours)
{
	if (number(o, key) != ours)
		fail_msg("%s: %s is %llu, for qemu %llu", what, key, (unsigned long long)ours,
			 (unsigned long long)number(o, key));
}

static int verdict(const struct qcow_check_result *r)
{
	return r->corruptions ? 2 : r->leaks ? 3 : 0;
}

static struct qcow_check_result check(struct memio *m, enum qcow_repair repair, uint64_t window)
{
	struct qcow_check_params params = { .repair = repair, .window = window, .data = true };
	struct qcow_check_result result;
	struct qcow_error err = { 0 };

	if (qcow_check(&m->io, &params, &result, &err) < 0)
		fail_msg("%s", err.text);
	return result;
}

static void compare(struct memio *m, const char *what)
{
	struct qcow_check_result r = check(m, QCOW_REPAIR_NONE, 0), small;
	json_object *o;
	char path[100];
	int status;

	save(m, "c.q");
	status = shell("qemu-img check --output=json -f qcow2 %s 2>/dev/null", "c.q");
	if (status != verdict(&r))
		fail_msg("%s: verdict %d, qemu says %d", what, verdict(&r), status);
	snprintf(path, sizeof(path), "%s/log", work_dir);
	o = json_object_from_file(path);
	assert_non_null(o);
	same(what, "corruptions", o, r.corruptions);
	same(what, "leaks", o, r.leaks);
	same(what, "image-end-offset", o, r.image_end);
	same(what, "total-clusters", o, r.total);
	same(what, "allocated-clusters", o, r.allocated);
	same(what, "fragmented-clusters", o, r.fragmented);
	same(what, "compressed-clusters", o, r.compressed);
	json_object_put(o);
	/* A window at a time it is the same. */
	small = check(m, QCOW_REPAIR_NONE, 100);
	assert_memory_equal(&small, &r, sizeof(r));
}

/* Steps of an extended entry, whose second half is a bitmap. */
static void flip_entries(struct memio *m, uint64_t table, uint64_t nr, uint64_t *seed)
{
	m->data[table + memio_random(seed) % nr * 16] ^= 0x80;
	m->data[table + memio_random(seed) % nr * 16] ^= 0x80;
}

/* What may happen to tables; guest data and where L2 entries point stay. */
static const char *damage(struct memio *m, uint64_t *seed)
{
	uint64_t l1 = qcow_be64(m->data + 40), reftable = qcow_be64(m->data + 48);
	uint64_t l2 = qcow_be64(m->data + l1) & 0x00fffffffffffe00ull;
	uint64_t block = qcow_be64(m->data + reftable);
	int i;

	switch (memio_random(seed) % 6) {
	case 0:
		for (i = 0; i < 3; i++)
			m->data[block + memio_random(seed) % 64] =
				(uint8_t)(memio_random(seed) % 4);
		return "refcounts";
	case 1:
		m->data[l1] ^= 0x80;
		return "COPIED of an L2 table";
	case 2:
		flip_entries(m, l2, 8, seed);
		return "COPIED of clusters";
	case 3:
		qcow_put_be64(m->data + reftable, 0);
		return "no refcount block";
	case 4:
		qcow_put_be64(m->data + reftable, (m->size + (64 << 20)) & ~0x1fffffull);
		return "refcount block past the end";
	}
	m->data[reftable + 7] ^= 1;
	return "reserved bit in the refcount table";
}

static void repaired(struct memio *m, struct memio *sound, const char *what)
{
	struct qcow_check_result r = check(m, QCOW_REPAIR_ALL, 0);

	if (verdict(&r))
		fail_msg("%s: still %llu corruptions, %llu leaks after the repair", what,
			 (unsigned long long)r.corruptions, (unsigned long long)r.leaks);
	save(m, "r.q");
	save(sound, "s.q");
	if (shell("qemu-img check -f qcow2 %s && qemu-img compare -f qcow2 -F qcow2 r.q s.q",
		  "r.q"))
		fail_msg("%s: qemu is not content with the repair", what);
}

static void test_sound(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < 2 * NR_KINDS; i++) {
		struct memio *m = make(kinds[i / 2], i % 2);

		compare(m, kinds[i / 2]);
		memio_destroy(m);
	}
}

static void test_damaged(void **state)
{
	char what[120];
	size_t i, n;

	(void)state;
	for (i = 0; i < NR_KINDS; i++) {
		struct memio *sound = make(kinds[i], i % 2);
		uint64_t seed = i + 1;

		for (n = 0; n < 7; n++) {
			struct memio *m = load("i.q");

			snprintf(what, sizeof(what), "%s, damage %zu: %s", kinds[i], n,
				 damage(m, &seed));
			if (!strstr(what, "reserved"))
				compare(m, what);
			repaired(m, sound, what);
			memio_destroy(m);
		}
		memio_destroy(sound);
	}
}

/* ---- crashes ------------------------------------------------------------------------- */

struct visit {
	uint64_t view; /* of the sound image */
	const char *what;
};

/* Wherever the repair stops: nothing is lost, and another one ends it. */
static bool visit_repair(struct memio *m, size_t k, void *arg)
{
	const struct visit *v = arg;
	struct memio *copy = memio_create(m->size);
	struct qcow_check_result r;

	memcpy(copy->data, m->data, m->size);
	if (verb_view(copy) != v->view)
		fail_msg("%s: crash at %zu: another disk", v->what, k);
	r = check(copy, QCOW_REPAIR_ALL, 0);
	if (verdict(&r) || verb_view(copy) != v->view)
		fail_msg("%s: crash at %zu: cannot be repaired any more", v->what, k);
	memio_destroy(copy);
	return true;
}

static void test_repair_crashes(void **state)
{
	struct memio_crash crash;
	struct visit v;
	char what[120];
	size_t i, n;

	(void)state;
	for (i = 0; i < NR_KINDS; i++) {
		struct memio *m = make(kinds[i], i % 2);
		uint64_t seed = i + 1;

		v = (struct visit){ .view = verb_view(m), .what = what };
		memio_destroy(m);
		for (n = 0; n < 7; n++) {
			m = load("i.q");
			snprintf(what, sizeof(what), "%s, damage %zu: %s", kinds[i], n,
				 damage(m, &seed));
			memio_record(m, &crash, n);
			check(m, QCOW_REPAIR_ALL, 0);
			memio_crashes(&crash, 2, visit_repair, &v);
			memio_destroy(m);
		}
	}
}

static void test_leaks_only(void **state)
{
	struct memio *m = make("cluster_size=64k", false);
	uint64_t block = qcow_be64(m->data + qcow_be64(m->data + 48)), i;
	struct qcow_check_result r;

	(void)state;
	for (i = 5; i < 9; i++)
		qcow_put_be16(m->data + block + i * 2, qcow_be16(m->data + block + i * 2) + 1);
	r = check(m, QCOW_REPAIR_NONE, 0);
	assert_int_equal(r.leaks, 4);
	r = check(m, QCOW_REPAIR_LEAKS, 0);
	assert_true(r.leaks_fixed == 4 && !r.leaks && !r.corruptions);
	memio_destroy(m);
}

static void test_marks(void **state)
{
	struct memio *m = make("cluster_size=64k", false);
	struct qcow_check_result r;
	uint64_t l2;

	(void)state;
	m->data[79] = 3;
	check(m, QCOW_REPAIR_ALL, 0);
	assert_int_equal(m->data[79], 0);
	/* Less than the whole repair: the mark stays, although all is well. */
	m->data[79] = 2;
	r = check(m, QCOW_REPAIR_LEAKS, 0);
	assert_int_equal(verdict(&r), 0);
	assert_int_equal(m->data[79], 2);
	/* What no repair makes good: here an entry that is not aligned. */
	l2 = qcow_be64(m->data + qcow_be64(m->data + 40)) & 0x00fffffffffffe00ull;
	m->data[l2 + 6] |= 2;
	r = check(m, QCOW_REPAIR_ALL, 0);
	assert_int_equal(verdict(&r), 2);
	assert_int_equal(m->data[79], 2);
	memio_destroy(m);
}

/* qemu-img calls a damaged deflate stream sound. */
static void test_data(void **state)
{
	struct qcow_check_params params = { .data = true };
	struct qcow_check_result r;
	struct qcow_error err;
	uint64_t l2, entry;
	struct memio *m;

	(void)state;
	m = make("cluster_size=64k", false);
	l2 = qcow_be64(m->data + qcow_be64(m->data + 40)) & 0x00fffffffffffe00ull;
	entry = qcow_be64(m->data + l2 + 8 * (6 << 20) / 65536);
	memset(m->data + (entry & ((1ull << 54) - 1)), 0xff, 8);
	assert_int_equal(qcow_check(&m->io, &params, &r, &err), 0);
	assert_int_equal(r.corruptions, 1);
	params.data = false;
	assert_int_equal(qcow_check(&m->io, &params, &r, &err), 0);
	assert_int_equal(r.corruptions, 0);
	memio_destroy(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sound),	       cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_leaks_only),     cmocka_unit_test(test_marks),
		cmocka_unit_test(test_repair_crashes), cmocka_unit_test(test_data),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
