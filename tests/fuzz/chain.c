// SPDX-License-Identifier: GPL-2.0-only
/*
 * L1, L2 and the walk down a chain. The input's first 4 bytes: where the base begins
 * in what follows (sixteenths of the whole), whether the base is raw, what
 * direct I/O wants, whether files have a fixed end. Then comes the top image.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/chain.h"

#define NR_PAGES  3
#define MAX_BLOCK 65536
#define PAGE	  512

struct subject {
	struct fuzzio top, base;
	struct qcow_chain *chain;
	struct qcow_scratch *scratch;
	uint8_t buf[MAX_BLOCK], again[MAX_BLOCK];
};

static int open_chain(struct subject *s, const uint8_t *data, size_t size)
{
	static const uint32_t aligns[] = { 1, 512, 4096 };
	const struct qcow_chain_params params = { .cache_bytes = 64 << 10 };
	size_t split = (size - 4) / 16 * (data[0] % 17);
	struct qcow_error err = { 0 };

	fuzzio_init(&s->top, data + 4, split);
	fuzzio_init(&s->base, data + 4 + split, size - 4 - split);
	s->top.io.align = s->base.io.align = aligns[data[2] % 3];
	s->top.io.fixed_end = s->base.io.fixed_end = data[3] & 1;
	if (qcow_chain_create(&s->chain, &params, NULL))
		return -1;
	if (qcow_chain_add_qcow2(s->chain, &s->top.io, NULL, NULL) ||
	    fuzz_add_base(s->chain, &s->base.io, data[1] & 1) || qcow_chain_seal(s->chain, &err))
		return -1;
	return qcow_scratch_create(&s->scratch, s->chain, NULL);
}

static const struct fuzzio *layer_io(const struct subject *s, uint32_t layer)
{
	return layer ? &s->base : &s->top;
}

static void check_data(struct subject *s, const struct qcow_run *run, uint64_t block)
{
	const struct fuzzio *m = layer_io(s, run->layer);
	uint64_t room = qcow_chain_size(s->chain) - run->guest_off;
	size_t len = (size_t)(block < room ? block : room);

	FUZZ_ASSERT(run->layer < qcow_chain_nr_layers(s->chain));
	FUZZ_ASSERT(!(run->host_off % 512) && !(run->host_off % m->io.align));
	FUZZ_ASSERT(run->host_off + run->len <= 1ull << 56);
	FUZZ_ASSERT(!m->io.fixed_end || run->host_off + run->len <= m->size);
	if (len > MAX_BLOCK)
		len = MAX_BLOCK;
	m->io.ops->pread((struct qcow_io *)&m->io, s->again, len, run->host_off);
	FUZZ_ASSERT(!qcow_chain_read(s->chain, run->guest_off, s->buf, len, s->scratch, NULL));
	FUZZ_ASSERT(!memcmp(s->buf, s->again, len));
}

/* The run's first block: LOAD and FETCH must tell the same story. */
static void check_run(struct subject *s, const struct qcow_run *run, uint64_t block)
{
	struct qcow_error err = { 0 };
	int r;

	if (run->guest_off >= qcow_chain_size(s->chain)) {
		FUZZ_ASSERT(run->type == QCOW_RUN_ZERO);
		return;
	}
	if (run->type == QCOW_RUN_DATA) {
		check_data(s, run, block);
		return;
	}
	r = qcow_chain_read(s->chain, run->guest_off, s->buf, block < MAX_BLOCK ? block : MAX_BLOCK,
			    s->scratch, &err);
	if (run->type == QCOW_RUN_ZERO)
		FUZZ_ASSERT(
			!r && !s->buf[0] &&
			!memcmp(s->buf, s->buf + 1, (block < MAX_BLOCK ? block : MAX_BLOCK) - 1));
	else
		FUZZ_ASSERT(!r || (r == -EIO && err.text[0]));
}

static void check_page(struct subject *s, uint64_t off, uint64_t block)
{
	struct qcow_run runs[PAGE];
	uint64_t next = off;
	size_t nr, i;

	FUZZ_ASSERT(!qcow_chain_resolve(s->chain, off, PAGE * block, runs, PAGE, &nr, s->scratch,
					NULL));
	for (i = 0; i < nr; i++) {
		FUZZ_ASSERT(runs[i].guest_off == next && runs[i].len && !(runs[i].len % block));
		check_run(s, &runs[i], block);
		next += runs[i].len;
	}
	FUZZ_ASSERT(next == off + PAGE * block);
}

static void check_chain(struct subject *s)
{
	uint64_t block = 1ull << qcow_chain_block_bits(s->chain), page = PAGE * block;
	uint64_t size = qcow_chain_size(s->chain), off = 0;
	int i;

	for (i = 0; i < NR_PAGES && off < size; i++, off += page)
		check_page(s, off, block);
	if (size > page)
		check_page(s, (size - 1) / page * page, block);
}

int fuzz_chain(const uint8_t *data, size_t size)
{
	static struct subject s;

	if (size < 4)
		return 0;
	s.chain = NULL;
	s.scratch = NULL;
	if (!open_chain(&s, data, size))
		check_chain(&s);
	qcow_scratch_destroy(s.scratch);
	qcow_chain_destroy(s.chain);
	return 0;
}
