// SPDX-License-Identifier: GPL-2.0-only
#include "sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/be.h"
#include "lib/chain.h"

static void ok_at(struct sim *s, int r, int line)
{
	if (r < 0)
		fail_msg("sim.c:%d: %s (%d)", line, s->err.text, r);
}
#define ok(s, r) ok_at(s, r, __LINE__)

/* ---- contents ---------------------------------------------------------------------- */

uint64_t sim_block_size(const struct sim *s)
{
	return 1ull << s->block_bits;
}

void sim_fill(const struct sim *s, uint64_t block, uint32_t version, uint8_t *buf)
{
	uint64_t i, word, size = sim_block_size(s);

	if (version == BASE_VERSION) {
		memcpy(buf, s->base + block * size, size);
		return;
	}
	for (i = 0; i < size; i += 8) {
		word = version ? (block << 40 | (uint64_t)version << 16 | i / 512) : 0;
		memcpy(buf + i, &word, 8);
	}
}

static void add_event(struct sim *s, uint64_t block, uint32_t version)
{
	if (s->nr_events == s->max_events) {
		s->max_events = s->max_events * 2 + 64;
		s->events = realloc(s->events, s->max_events * sizeof(*s->events));
		assert_non_null(s->events);
	}
	s->events[s->nr_events++] =
		(struct sim_event){ .block = (uint32_t)block, .version = version, .at = s->m->nr };
	s->version[block] = version;
}

struct qcow_chain *sim_open_chain(struct qcow_io *io, struct qcow_scratch **scratch,
				  struct qcow_error *err)
{
	struct qcow_chain_params params = { .cache_bytes = 32 << 10 };
	struct qcow_chain *c;

	if (qcow_chain_create(&c, &params, err) < 0)
		return NULL;
	if (qcow_chain_add_qcow2(c, io, NULL, err) < 0 || qcow_chain_seal(c, err) < 0 ||
	    qcow_scratch_create(scratch, c, err) < 0) {
		qcow_chain_destroy(c);
		return NULL;
	}
	return c;
}

/* ---- set-up ------------------------------------------------------------------------ */

static void load_map(struct sim *s, struct qcow_chain *chain, struct qcow_scratch *scratch)
{
	uint64_t b, off;
	struct qcow_extent e;

	for (b = 0; b < s->nr_blocks; b++) {
		struct sim_cluster *cl = &s->cl[b / s->per_cluster];

		off = b << s->block_bits;
		ok(s, qcow_chain_extent(chain, off, sim_block_size(s), &e, scratch, &s->err));
		s->version[b] = BASE_VERSION;
		s->state[b] = e.type == QCOW_EXTENT_DATA	 ? SIM_DATA
			      : e.type == QCOW_EXTENT_COMPRESSED ? SIM_FETCH
			      : e.type == QCOW_EXTENT_ZERO	 ? SIM_ZERO
								 : SIM_HOLE;
		if (s->state[b] == SIM_FETCH || !e.has_host_off)
			continue;
		cl->host = e.host_off & ~((1ull << s->cluster_bits) - 1);
		cl->exclusive = e.copied;
		cl->committed = true;
	}
}

static void alloc_arrays(struct sim *s)
{
	s->cl = calloc(s->nr_clusters, sizeof(*s->cl));
	s->state = calloc(s->nr_blocks, 1);
	s->version = calloc(s->nr_blocks, sizeof(*s->version));
	s->dirty = calloc(s->nr_blocks, sizeof(*s->dirty));
	s->keep = calloc(s->nr_blocks, sizeof(*s->keep));
	s->pool = calloc(4096, sizeof(*s->pool));
	s->limbo = calloc(4096, sizeof(*s->limbo));
	s->acks = calloc(4096, sizeof(*s->acks));
	s->base = calloc(s->nr_blocks + 1, sim_block_size(s));
	assert_true(s->cl && s->state && s->version && s->dirty && s->keep && s->pool && s->limbo &&
		    s->acks && s->base);
}

void sim_open(struct sim *s, struct memio *m, uint64_t seed, uint32_t drop)
{
	struct qcow_scratch *scratch;
	struct qcow_chain *chain;
	const struct qcow_header *h;

	*s = (struct sim){ .m = m, .seed = seed, .lease_clusters = 8 };
	s->test.drop = drop;
	chain = sim_open_chain(&m->io, &scratch, &s->err);
	if (!chain)
		fail_msg("%s", s->err.text);
	h = qcow_image_header(qcow_chain_layer_image(chain, 0));
	s->cluster_bits = h->cluster_bits;
	s->block_bits = qcow_chain_block_bits(chain);
	s->per_cluster = 1u << (s->cluster_bits - s->block_bits);
	s->nr_clusters = (h->size + (1ull << s->cluster_bits) - 1) >> s->cluster_bits;
	s->nr_blocks = s->nr_clusters * s->per_cluster;
	s->v2 = h->version < 3;
	s->autoclear = h->autoclear & ~QCOW_AUTOCLEAR_KNOWN;
	alloc_arrays(s);
	ok(s, qcow_chain_read(chain, 0, s->base, s->nr_blocks << s->block_bits, scratch, &s->err));
	load_map(s, chain, scratch);
	qcow_scratch_destroy(scratch);
	qcow_chain_destroy(chain);
}

static void open_writer(struct sim *s)
{
	struct qcow_writer_params params = { .test = &s->test };

	ok(s, qcow_image_open(&s->img, &s->m->io, &s->err));
	ok(s, qcow_writer_create(&s->w, s->img, &params, &s->err));
}

/* kill -9 and a new worker: what the kernel holds is what there is. */
static void reattach(struct sim *s)
{
	s->m->fail_after = -1;
	s->kills++;
	qcow_writer_destroy(s->w);
	qcow_image_close(s->img);
	open_writer(s);
	ok(s, qcow_lease_adopt(s->w, s->lease, s->nr_leases, &s->err));
}

void sim_start(struct sim *s)
{
	struct qcow_writer_params params = { .test = &s->test };

	memio_record(s->m, &s->crash, s->seed ^ 0xc0ffee);
	if (!s->kill_at_open) {
		open_writer(s);
		return;
	}
	/* The first worker dies between the write that clears the bits and its barrier. */
	s->m->fail_after = 1;
	s->m->fail_errno = EIO;
	ok(s, qcow_image_open(&s->img, &s->m->io, &s->err));
	assert_int_equal(qcow_writer_create(&s->w, s->img, &params, &s->err), -EIO);
	reattach(s);
}

static void maybe_kill_soon(struct sim *s)
{
	if ((!s->kill_often && !s->full_often) || memio_random(&s->seed) % 2)
		return;
	s->m->fail_after = (long)(memio_random(&s->seed) % 4);
	s->m->fail_errno =
		s->full_often && (!s->kill_often || memio_random(&s->seed) % 2) ? ENOSPC : EIO;
}

/* Is it something to say again: after a kill, or when there is space? */
static bool again(struct sim *s, int r)
{
	if (r == -EIO) {
		reattach(s);
		return true;
	}
	if (r != -ENOSPC || s->m->fail_after < 0)
		return false;
	s->m->fail_after = -1;
	s->nr_full++;
	return true;
}

/* ---- leases ------------------------------------------------------------------------ */

static void stock_pool(struct sim *s, const struct qcow_lease_extent *e)
{
	uint64_t off;

	for (off = e->host_off; !e->table && off < e->host_off + e->len;
	     off += 1ull << s->cluster_bits) {
		s->pool[s->nr_pool].off = off;
		s->pool[s->nr_pool++].zero = e->zero;
	}
}

static size_t propose(struct sim *s, struct qcow_lease_extent *e)
{
	uint64_t bytes = (uint64_t)s->lease_clusters << s->cluster_bits;
	size_t nr;
	int r;

	do {
		r = qcow_lease_propose(s->w, bytes, qcow_lease_tables_for(s->w, bytes), e,
				       SIM_LEASES - s->nr_leases, &nr, &s->err);
	} while (again(s, r));
	ok(s, r);
	assert_true(nr > 0);
	return nr;
}

static void get_lease(struct sim *s)
{
	struct qcow_lease_extent *e = &s->lease[s->nr_leases];
	size_t nr, i;
	int r;

	maybe_kill_soon(s);
	do {
		nr = propose(s, e);
		/* The kernel has recorded the proposal: a new worker hears of it. */
		s->nr_leases += nr;
		do {
			r = qcow_lease_grant(s->w, e, nr, &s->err);
		} while (again(s, r) && r != -ENOSPC);
		if (r == -ENOSPC)
			s->nr_leases -= nr;
	} while (r == -ENOSPC);
	ok(s, r);
	s->m->fail_after = -1;
	for (i = 0; i < nr; i++)
		stock_pool(s, &e[i]);
}

static uint64_t take(struct sim *s, bool *zero)
{
	size_t i;

	while (!s->nr_pool)
		get_lease(s);
	i = memio_random(&s->seed) % s->nr_pool;
	*zero = s->pool[i].zero;
	s->nr_pool--;
	{
		uint64_t off = s->pool[i].off;

		s->pool[i] = s->pool[s->nr_pool];
		return off;
	}
}

/* ---- guest I/O --------------------------------------------------------------------- */

static void put_block(struct sim *s, uint64_t block, uint64_t host)
{
	uint64_t in = (block % s->per_cluster) << s->block_bits;
	uint8_t *buf = malloc(sim_block_size(s));

	sim_fill(s, block, s->version[block], buf);
	ok(s, s->m->io.ops->pwrite(&s->m->io, buf, sim_block_size(s), host + in));
	free(buf);
}

/* The cluster's place is no longer needed once what is pending is committed. */
static void abandon(struct sim *s, struct sim_cluster *cl)
{
	uint64_t b, nr = s->per_cluster;

	if (cl->host && cl->exclusive && cl->committed)
		s->limbo[s->nr_limbo++] = cl->host;
	else if (cl->host && cl->exclusive) {
		s->pool[s->nr_pool].off = cl->host;
		s->pool[s->nr_pool++].zero = false;
	}
	for (b = (uint64_t)(cl - s->cl) * s->per_cluster; nr; b++, nr--)
		s->keep[b] = false;
	*cl = (struct sim_cluster){ 0 };
}

static void move_cluster(struct sim *s, uint64_t block)
{
	uint64_t first = block - block % s->per_cluster, b;
	struct sim_cluster *cl = &s->cl[block / s->per_cluster];
	uint64_t host;
	bool zero, held_data = false;

	host = take(s, &zero);
	for (b = first; b < first + s->per_cluster; b++) {
		if (s->state[b] != SIM_DATA && s->state[b] != SIM_FETCH)
			continue;
		held_data = true;
		s->state[b] = SIM_DATA;
		s->dirty[b] = true;
		if (b != block)
			put_block(s, b, host);
	}
	/* The exception: nothing but zeros can come to light. */
	if (!zero || held_data)
		s->need_data_flush = true;
	abandon(s, cl);
	*cl = (struct sim_cluster){ .host = host, .exclusive = true };
}

void sim_write(struct sim *s, uint64_t block)
{
	struct sim_cluster *cl = &s->cl[block / s->per_cluster];

	if (!cl->host || !cl->exclusive)
		move_cluster(s, block);
	else if (s->state[block] != SIM_DATA)
		s->need_data_flush = true;
	add_event(s, block, s->next_version++ + 1);
	put_block(s, block, cl->host);
	if (s->state[block] != SIM_DATA)
		s->dirty[block] = true;
	/* A cluster that moved holds all its data at a new place. */
	s->dirty[block] |= !cl->committed;
	s->keep[block] = false;
	s->state[block] = SIM_DATA;
}

void sim_zero(struct sim *s, uint64_t block, bool keep)
{
	uint64_t first = block - block % s->per_cluster, b;
	struct sim_cluster *cl = &s->cl[block / s->per_cluster];
	bool data = false;

	/* Part of a compressed cluster: written out first. */
	if (s->state[block] == SIM_FETCH && s->per_cluster > 1)
		move_cluster(s, block);
	add_event(s, block, 0);
	s->state[block] = s->v2 ? SIM_HOLE : SIM_ZERO;
	s->dirty[block] = true;
	s->keep[block] = keep && cl->exclusive && !s->v2;
	for (b = first; b < first + s->per_cluster; b++)
		data |= s->state[b] == SIM_DATA;
	if (!data && !s->keep[block])
		abandon(s, cl);
}

/* ---- flush ------------------------------------------------------------------------- */

static size_t build(struct sim *s, struct qcow_delta *d)
{
	uint64_t b;
	size_t nr = 0;

	for (b = 0; b < s->nr_blocks; b++) {
		if (!s->dirty[b])
			continue;
		d[nr] = (struct qcow_delta){ .guest_off = b << s->block_bits,
					     .len = sim_block_size(s),
					     .type = s->keep[b] ? QCOW_DELTA_ZERO_KEEP
								: QCOW_DELTA_ZERO };
		if (s->state[b] == SIM_DATA)
			d[nr].type = QCOW_DELTA_DATA;
		if (d[nr].type != QCOW_DELTA_ZERO) {
			d[nr].host_off = s->cl[b / s->per_cluster].host +
					 ((b % s->per_cluster) << s->block_bits);
		}
		nr++;
	}
	return nr;
}

static void count_exclusive(struct sim *s, const struct qcow_lost *lost, size_t nr)
{
	size_t i, j;

	for (i = 0; i < nr; i++) {
		for (j = 0; lost[i].exclusive && j < s->nr_limbo; j++)
			if (s->limbo[j] == lost[i].host_off)
				break;
		if (lost[i].exclusive && j == s->nr_limbo)
			fail_msg("lost %#llx, which the kernel did not give up",
				 (unsigned long long)lost[i].host_off);
	}
}

static void free_shared(struct sim *s, const struct qcow_lost *lost, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++)
		if (!lost[i].exclusive)
			ok(s, qcow_free(s->w, &lost[i], 1, &s->err));
}

/* Steps until done; what was lost by a step is kept until all is durable. */
static void commit(struct sim *s, struct qcow_delta *d, size_t nr)
{
	struct qcow_commit c = { .deltas = d, .nr = nr };
	struct qcow_lost *lost = NULL;
	size_t nr_lost = 0;
	int r;

	maybe_kill_soon(s);
	while (c.next < c.nr) {
		r = qcow_commit_step(s->w, &c, &s->err);
		if (again(s, r)) {
			c = (struct qcow_commit){ .deltas = d, .nr = nr };
			continue;
		}
		ok(s, r);
		count_exclusive(s, c.lost, c.nr_lost);
		lost = realloc(lost, (nr_lost + c.nr_lost + 1) * sizeof(*lost));
		assert_non_null(lost);
		memcpy(lost + nr_lost, c.lost, c.nr_lost * sizeof(*lost));
		nr_lost += c.nr_lost;
	}
	s->m->fail_after = -1;
	if (qcow_writer_failed(s->w))
		reattach(s);
	free_shared(s, lost, nr_lost);
	free(lost);
}

static void committed(struct sim *s)
{
	uint64_t b;

	for (b = 0; b < s->nr_blocks; b++) {
		if (s->dirty[b] && s->cl[b / s->per_cluster].host)
			s->cl[b / s->per_cluster].committed = true;
		s->dirty[b] = s->keep[b] = false;
	}
	for (; s->nr_limbo; s->nr_limbo--) {
		s->pool[s->nr_pool].off = s->limbo[s->nr_limbo - 1];
		s->pool[s->nr_pool++].zero = false;
	}
	s->need_data_flush = false;
}

void sim_flush(struct sim *s)
{
	struct qcow_delta *d = calloc(s->nr_blocks + 1, sizeof(*d));
	size_t nr;

	assert_non_null(d);
	nr = build(s, d);
	/* Also without deltas: what was overwritten in place. */
	if (s->need_data_flush || !nr)
		ok(s, qcow_barrier(s->w, QCOW_BARRIER_DATA, &s->err));
	commit(s, d, nr);
	free(d);
	committed(s);
	s->acks[s->nr_acks].at = s->m->nr;
	s->acks[s->nr_acks++].events = s->nr_events;
}

void sim_random_step(struct sim *s)
{
	uint64_t dice = memio_random(&s->seed) % 100, b = memio_random(&s->seed) % s->nr_blocks;
	uint64_t i;

	if (dice < 45) {
		sim_write(s, b);
	} else if (dice < 55) {
		for (i = 0; i < 4; i++)
			sim_write(s, (b + i) % s->nr_blocks);
	} else if (dice < 75) {
		sim_zero(s, b, dice & 1);
	} else if (dice < 82) {
		for (i = 0; i < 6; i++)
			sim_zero(s, (b + i) % s->nr_blocks, false);
	} else {
		sim_flush(s);
	}
}

void sim_finish(struct sim *s)
{
	struct qcow_lease_extent e;
	size_t i;

	sim_flush(s);
	for (i = 0; i < s->nr_pool; i++) {
		e = (struct qcow_lease_extent){ .host_off = s->pool[i].off,
						.len = 1ull << s->cluster_bits };
		ok(s, qcow_lease_return(s->w, &e, 1, &s->err));
	}
	ok(s, qcow_writer_finish(s->w, &s->err));
	s->nr_pool = 0;
}

void sim_close(struct sim *s)
{
	qcow_writer_destroy(s->w);
	qcow_image_close(s->img);
	free(s->cl);
	free(s->state);
	free(s->version);
	free(s->dirty);
	free(s->keep);
	free(s->pool);
	free(s->limbo);
	free(s->acks);
	free(s->base);
	free(s->events);
	memio_destroy(s->m);
}
