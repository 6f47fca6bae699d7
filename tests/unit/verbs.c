// SPDX-License-Identifier: GPL-2.0-only
#include "verbs.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "imgcheck.h"
#include "lib/bitset.h"
#include "lib/chain.h"

#define BROKEN 1ull /* the view of what cannot be read */
#define STEP   (256u << 10)

/* ---- views --------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	uint64_t word;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&word, p, 8);
		hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
		hash ^= hash >> 29;
	}
	for (; len; len--)
		hash = (hash ^ *p++) * 0x100000001b3ull;
	return hash;
}

static struct qcow_io *view_base;

static int open_chain(struct qcow_chain **c, struct qcow_scratch **s, struct qcow_io *io,
		      const char *snapshot)
{
	struct qcow_chain_params params = { .cache_bytes = 32 << 10 };
	int r = qcow_chain_create(c, &params, NULL);

	if (r < 0)
		return r;
	r = qcow_chain_add_qcow2(*c, io, snapshot, NULL);
	if (!r && qcow_chain_needs(*c) == QCOW_NEED_BACKING)
		r = view_base ? qcow_chain_add_raw(*c, view_base, NULL) : -EINVAL;
	if (!r)
		r = qcow_chain_seal(*c, NULL);
	if (!r)
		r = qcow_scratch_create(s, *c, NULL);
	if (r < 0)
		qcow_chain_destroy(*c);
	return r;
}

static uint64_t view_disk(struct qcow_io *io, const char *snapshot, uint64_t hash)
{
	static uint8_t buf[STEP];
	struct qcow_scratch *s;
	struct qcow_chain *c;
	uint64_t size, at;
	size_t n;
	int r = 0;

	if (open_chain(&c, &s, io, snapshot) < 0)
		return BROKEN;
	size = qcow_chain_size(c);
	hash = mix(hash, &size, sizeof(size));
	for (at = 0; at < size && !r; at += n) {
		n = size - at < STEP ? (size_t)(size - at) : STEP;
		r = qcow_chain_read(c, at, buf, n, s, NULL);
		hash = mix(hash, buf, n);
	}
	qcow_scratch_destroy(s);
	qcow_chain_destroy(c);
	return r < 0 ? BROKEN : hash;
}

struct view {
	struct memio *m;
	const struct qcow_header *h;
	uint64_t hash;
};

static int view_snapshot(const struct qcow_snapshot *s, void *arg)
{
	struct view *v = arg;

	v->hash = mix(v->hash, s->id, strlen(s->id));
	v->hash = mix(v->hash, s->name, strlen(s->name));
	v->hash = mix(v->hash, &s->vm_state_size, sizeof(s->vm_state_size));
	if (v->hash != BROKEN)
		v->hash = view_disk(&v->m->io, s->id, v->hash);
	return v->hash == BROKEN ? -EIO : 0;
}

static int view_bitmap(const struct qcow_bitmap *b, void *arg)
{
	struct view *v = arg;
	uint8_t *bits;

	v->hash = mix(v->hash, b->name, strlen(b->name));
	v->hash = mix(v->hash, &b->granularity_bits, sizeof(b->granularity_bits));
	v->hash = mix(v->hash, &b->enabled, sizeof(b->enabled));
	if (bitset_read(&v->m->io, v->h, b, &bits, NULL) < 0)
		return -EIO;
	v->hash = mix(v->hash, bits, (size_t)b->table_size << v->h->cluster_bits);
	free(bits);
	return 0;
}

uint64_t verb_view(struct memio *m)
{
	struct view v = { .m = m };
	struct qcow_image *img;

	if (qcow_image_open(&img, &m->io, NULL) < 0)
		return BROKEN;
	v.h = qcow_image_header(img);
	v.hash = mix(17, v.h->backing_name, strlen(v.h->backing_name));
	v.hash = mix(v.hash, v.h->backing_format, strlen(v.h->backing_format));
	v.hash = view_disk(&m->io, NULL, v.hash);
	if (v.hash != BROKEN && (qcow_snapshots_walk(&m->io, v.h, view_snapshot, &v, NULL) < 0 ||
				 qcow_bitmaps_walk(&m->io, v.h, view_bitmap, &v, NULL) < 0))
		v.hash = BROKEN;
	qcow_image_close(img);
	return v.hash;
}

/* ---- images -------------------------------------------------------------------------- */

struct memio *verb_raw(uint64_t size)
{
	struct memio *m = memio_create(size);

	memset(m->data, 0x55, size);
	return m;
}

int verb_write(struct memio *m, uint32_t drop,
	       int (*act)(struct qcow_writer *w, void *arg, struct qcow_error *err), void *arg,
	       struct qcow_error *err)
{
	struct qcow_write_test test = { .drop = drop };
	struct qcow_writer_params params = { .keep_bitmaps = true, .test = &test };
	struct qcow_writer *w = NULL;
	struct qcow_image *img;
	int r = qcow_image_open(&img, &m->io, err);

	if (r < 0)
		return r;
	r = qcow_writer_create(&w, img, &params, err);
	if (!r)
		r = act(w, arg, err);
	qcow_writer_destroy(w);
	qcow_image_close(img);
	return r;
}

/* ---- crashes ------------------------------------------------------------------------- */

struct verdict {
	const struct verb_case *v;
	uint64_t before, after;
	size_t nr, nr_old, nr_new;
	char wrong[300];
};

static bool judge(struct memio *m, size_t k, void *arg)
{
	struct verdict *j = arg;
	const char *wrong = NULL;
	struct imgcheck result;
	uint64_t view;
	int status;

	imgcheck(m->data, m->size, &result);
	view = verb_view(m);
	j->nr_old += view == j->before;
	j->nr_new += view == j->after;
	if (result.corruptions)
		wrong = result.first;
	else if (result.leaks && !j->v->leaks_ok)
		wrong = "leaks";
	else if (view != j->before && view != j->after)
		wrong = view == BROKEN ? "unreadable" : "neither old nor new";
	if (!wrong && j->v->qemu_every && ++j->nr % j->v->qemu_every == 0) {
		status = work_qemu_check(m);
		if (status && !(status == 3 && j->v->leaks_ok))
			wrong = "qemu-img check disagrees";
	}
	if (wrong)
		snprintf(j->wrong, sizeof(j->wrong), "crash at %zu: %s", k, wrong);
	return !wrong;
}

/* Runs the verb and then all crashes on its way. */
static void try_crashes(struct memio *m, const struct verb_case *v, uint32_t drop,
			unsigned int tries, struct verdict *j)
{
	struct qcow_error err = { 0 };
	struct imgcheck result;
	struct memio_crash crash;

	view_base = v->base;
	*j = (struct verdict){ .v = v, .before = verb_view(m) };
	if (j->before == BROKEN)
		fail_msg("the image cannot be read");
	memio_record(m, &crash, 5);
	if (v->run(m, drop, v->arg, &err) < 0)
		fail_msg("%s", err.text);
	j->after = verb_view(m);
	imgcheck(m->data, m->size, &result);
	if (result.corruptions || result.leaks || j->after == BROKEN)
		fail_msg("afterwards: %llu leaks, %s", (unsigned long long)result.leaks,
			 result.first);
	memio_crashes(&crash, tries, judge, j);
}

void verb_crash(struct memio *m, const struct verb_case *v, unsigned int tries)
{
	struct verdict j;

	try_crashes(m, v, 0, tries, &j);
	if (j.wrong[0])
		fail_msg("%s", j.wrong);
	/* Else the crashes were not where they matter. */
	assert_true(j.nr_old > 0 && j.nr_new > 0);
	if (work_qemu_check(m))
		fail_msg("qemu-img check disagrees with the result");
}

void verb_barriers(const char *commands, const struct verb_case *v,
		   const enum qcow_barrier *barriers, size_t nr)
{
	struct verdict j;
	struct memio *m;
	size_t i;

	for (i = 0; i < nr; i++) {
		m = work_image("%s", commands);
		try_crashes(m, v, 1u << barriers[i], 12, &j);
		memio_destroy(m);
		if (!j.wrong[0])
			fail_msg("nobody misses %s", qcow_barrier_name(barriers[i]));
	}
}

/* ---- faults -------------------------------------------------------------------------- */

static bool fault_at(const char *commands, const struct verb_case *v, long after, int code)
{
	struct memio *m = work_image("%s", commands);
	struct qcow_error err = { 0 };
	struct imgcheck result;
	uint64_t before = verb_view(m), view;
	int r;

	m->fail_after = after;
	m->fail_errno = code;
	r = v->run(m, 0, v->arg, &err);
	m->fail_after = -1;
	view = verb_view(m);
	imgcheck(m->data, m->size, &result);
	if (result.corruptions || (result.leaks && !v->leaks_ok))
		fail_msg("fault %d at %ld: %s, %llu leaks", code, after, result.first,
			 (unsigned long long)result.leaks);
	/* A failed flush of the header, or after it, leaves open which of the two is there. */
	if (r < 0 && view != before && !strstr(err.text, "HEADER") && !strstr(err.text, "CLOSE"))
		fail_msg("fault %d at %ld: not as before, but: %s", code, after, err.text);
	memio_destroy(m);
	return r < 0;
}

void verb_faults(const char *commands, const struct verb_case *v)
{
	static const int codes[] = { EIO, ENOSPC };
	long after;
	size_t i;

	view_base = v->base;
	for (i = 0; i < 2; i++)
		for (after = 0; fault_at(commands, v, after, codes[i]); after++)
			assert_true(after < 2000);
}
