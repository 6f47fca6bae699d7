/* SPDX-License-Identifier: GPL-2.0-only */
/* A chain of images in memory, and short words to ask it. */
#ifndef CHAINRIG_H
#define CHAINRIG_H

#include "memimg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/chain.h"

#define BITS	16
#define CLUSTER (1u << BITS)
#define DISK	(64ull << 20)
#define NR_RUNS 600

struct rig {
	struct memimg img[4];
	struct qcow_chain *chain;
	struct qcow_scratch *s;
	struct qcow_run runs[NR_RUNS];
	size_t nr;
	struct qcow_error err;
};

static inline void begin(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	assert_int_equal(qcow_chain_create(&rig->chain, NULL, &rig->err), 0);
}

static inline void add(struct rig *rig, int i)
{
	if (qcow_chain_add_qcow2(rig->chain, &rig->img[i].io, NULL, &rig->err) < 0)
		fail_msg("%s", rig->err.text);
}

static inline void seal(struct rig *rig)
{
	if (qcow_chain_seal(rig->chain, &rig->err) < 0)
		fail_msg("%s", rig->err.text);
	assert_int_equal(qcow_scratch_create(&rig->s, rig->chain, &rig->err), 0);
}

/* One image; what it holds is set before. */
static inline void one(struct rig *rig)
{
	struct memimg m = rig->img[0];

	begin(rig);
	rig->img[0] = m;
	add(rig, 0);
	seal(rig);
}

static inline void end(struct rig *rig)
{
	int i;

	qcow_scratch_destroy(rig->s);
	qcow_chain_destroy(rig->chain);
	for (i = 0; i < 4; i++)
		memimg_exit(&rig->img[i]);
}

static inline void resolve(struct rig *rig, uint64_t off, uint64_t len)
{
	if (qcow_chain_resolve(rig->chain, off, len, rig->runs, NR_RUNS, &rig->nr, rig->s,
			       &rig->err) < 0)
		fail_msg("%s", rig->err.text);
}

static inline void expect(const struct rig *rig, size_t i, enum qcow_run_type type, uint64_t len,
			  uint64_t host_off)
{
	assert_true(i < rig->nr);
	assert_int_equal(rig->runs[i].type, type);
	assert_true(rig->runs[i].len == len);
	assert_false(rig->runs[i].writable);
	if (type == QCOW_RUN_DATA)
		assert_true(rig->runs[i].host_off == host_off);
}

static inline int read_at(struct rig *rig, uint64_t off, uint8_t *buf, size_t len)
{
	return qcow_chain_read(rig->chain, off, buf, len, rig->s, &rig->err);
}

static inline void expect_bytes(struct rig *rig, uint64_t off, size_t len, uint8_t value)
{
	uint8_t *buf = malloc(len);
	size_t i;

	if (read_at(rig, off, buf, len) < 0)
		fail_msg("%s", rig->err.text);
	for (i = 0; i < len; i++)
		assert_int_equal(buf[i], value);
	free(buf);
}

static inline void expect_broken(struct rig *rig, uint64_t off, const char *text)
{
	uint8_t buf[512];

	qcow_error_clear(&rig->err);
	assert_int_equal(read_at(rig, off, buf, sizeof(buf)), -EIO);
	assert_int_equal(rig->err.code, EIO);
	if (!strstr(rig->err.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, rig->err.text);
	/* LOAD must not fail: that block alone is FETCH. */
	resolve(rig, off & ~(uint64_t)(CLUSTER - 1), CLUSTER);
	expect(rig, 0, QCOW_RUN_FETCH, CLUSTER, 0);
	assert_int_equal(rig->err.code, 0);
}

#endif
