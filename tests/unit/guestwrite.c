// SPDX-License-Identifier: GPL-2.0-only
/* The part of guest.h that changes something. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memio.h"

/* Deltas in one COMMIT: few, so that generations come in several. */
#define CHUNK 9

static uint64_t cluster_size(const struct guest *g)
{
	return g->shape.cluster_size;
}

/* ---- leases ------------------------------------------------------------------------------- */

static void stock(struct guest *g, const struct qnl_msg *granted)
{
	struct dm_qcow_lease l;

	for (uint32_t i = 0; i < granted->leases.nr; i++) {
		qnl_array_get(&granted->leases, i, &l, sizeof(l));
		assert_true(l.host_off == g->held[g->nr_held + i].host_off);
		for (uint32_t j = 0; !(l.flags & DM_QCOW_LEASE_TABLE) && j < l.nr_clusters; j++) {
			g->pool[g->nr_pool].off = l.host_off + j * cluster_size(g);
			g->pool[g->nr_pool++].zero = l.flags & DM_QCOW_LEASE_ZERO;
		}
	}
	/* Of a granted proposal only the tables are kept. */
	for (uint32_t i = 0, nr = g->nr_proposed, at = g->nr_held; i < nr; i++)
		if (g->held[at + i].flags & DM_QCOW_LEASE_TABLE)
			g->held[g->nr_held++] = g->held[at + i];
	g->nr_proposed = 0;
}

static void get_lease(struct guest *g, uint64_t bytes, uint32_t tables)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_PROPOSE }, grant = { .cmd = DM_QCOW_CMD_GRANT };
	const struct qnl_msg *reply;

	qnl_set(&up, BYTES, bytes, bytes);
	qnl_set(&up, TABLES, tables, tables);
	reply = guest_call(g, &up);
	assert_answer_ok(reply);
	g->nr_proposed = reply->leases.nr;
	if (!g->nr_proposed)
		return;
	for (uint32_t i = 0; i < reply->leases.nr; i++)
		qnl_array_get(&reply->leases, i, &g->held[g->nr_held + i], sizeof(*g->held));
	qnl_set(&grant, LEASES, leases,
		((struct qnl_array){ g->held + g->nr_held, g->nr_proposed }));
	reply = guest_call(g, &grant);
	assert_answer_ok(reply);
	assert_int_equal(reply->leases.nr, g->nr_proposed);
	g->tables = reply->tables;
	stock(g, reply);
}

static uint64_t take(struct guest *g, bool *zero)
{
	uint64_t off;
	size_t i;

	if (!g->nr_pool)
		get_lease(g, 7 * cluster_size(g), 0);
	assert_true(g->nr_pool > 0);
	i = memio_random(&g->seed) % g->nr_pool;
	off = g->pool[i].off;
	*zero = g->pool[i].zero;
	g->pool[i] = g->pool[--g->nr_pool];
	return off;
}

static void give(struct guest *g, uint64_t off)
{
	g->pool[g->nr_pool].off = off;
	g->pool[g->nr_pool++].zero = false;
}

/* ---- writing ------------------------------------------------------------------------------- */

static uint32_t dirty_pages(const struct guest *g, uint32_t but)
{
	uint32_t nr = 0, b, page;

	for (page = 0; page * DM_QCOW_PAGE_BLOCKS < g->nr_blocks; page++) {
		if (page == but)
			continue;
		for (b = page * DM_QCOW_PAGE_BLOCKS;
		     b < (page + 1) * DM_QCOW_PAGE_BLOCKS && b < g->nr_blocks; b++)
			if (g->block[b].dirty)
				break;
		nr += b < (page + 1) * DM_QCOW_PAGE_BLOCKS && b < g->nr_blocks;
	}
	return nr;
}

/* No page becomes dirty that the worker has no table for. */
static void make_room(struct guest *g, uint32_t b)
{
	uint32_t pages = dirty_pages(g, b / DM_QCOW_PAGE_BLOCKS) + 1;

	if (pages <= g->tables)
		return;
	get_lease(g, 0, 2);
	if (pages <= g->tables)
		return;
	guest_flush(g);
	if (!g->tables)
		get_lease(g, 0, 2);
	assert_true(g->tables >= 1);
}

static void put_block(struct guest *g, uint32_t b)
{
	uint32_t size = g->shape.block_size;
	uint64_t off = g->cluster[b / g->per_cluster].own + guest_in_cluster(g, b);
	void *buf = aligned_alloc(4096, size < 4096 ? 4096 : size);

	memcpy(buf, g->want + (size_t)b * size, size);
	assert_int_equal(pwrite(g->layers[g->data_layer].fd, buf, size, (off_t)off), size);
	free(buf);
	if (!guest_is_own(g, b)) {
		g->block[b] = (struct guest_block){ .type = DM_QCOW_RUN_DATA,
						    .layer = (uint16_t)g->data_layer,
						    .host = off,
						    .dirty = true };
	}
}

/* Its data of the image itself goes along: an entry has but one place for it. */
static void move_cluster(struct guest *g, uint32_t b)
{
	struct guest_cluster *cl = &g->cluster[b / g->per_cluster];
	uint32_t first = b - b % g->per_cluster, i;
	bool zero, held = false;

	*cl = (struct guest_cluster){ .own = take(g, &zero) };
	for (i = first; i < first + g->per_cluster; i++) {
		const struct guest_block *blk = &g->block[i];

		if ((blk->type != DM_QCOW_RUN_DATA || blk->layer) && blk->type != DM_QCOW_RUN_FETCH)
			continue;
		held = true;
		if (i != b)
			put_block(g, i);
	}
	g->need_flush |= held || !zero;
}

void guest_write(struct guest *g, uint32_t b)
{
	uint32_t size = g->shape.block_size;
	uint64_t word = memio_random(&g->seed) | 1;

	make_room(g, b);
	if (g->cluster[b / g->per_cluster].own == GUEST_NONE)
		move_cluster(g, b);
	else if (!guest_is_own(g, b))
		g->need_flush = true;
	for (uint32_t i = 0; i < size; i += 8)
		memcpy(g->want + (size_t)b * size + i, &word, 8);
	put_block(g, b);
}

static void zero_by_writing(struct guest *g, uint32_t b)
{
	guest_write(g, b);
	memset(g->want + (size_t)b * g->shape.block_size, 0, g->shape.block_size);
	put_block(g, b);
}

static void abandon(struct guest *g, struct guest_cluster *cl)
{
	if (cl->committed)
		g->limbo[g->nr_limbo++] = cl->own;
	else
		give(g, cl->own);
	*cl = (struct guest_cluster){ .own = GUEST_NONE };
}

static bool holds_data(const struct guest *g, uint32_t b)
{
	for (uint32_t i = b - b % g->per_cluster, n = 0; n < g->per_cluster; i++, n++)
		if (guest_is_own(g, i))
			return true;
	return false;
}

void guest_zero(struct guest *g, uint32_t b, bool keep)
{
	struct guest_cluster *cl = &g->cluster[b / g->per_cluster];

	if (!(g->shape.flags & DM_QCOW_SHAPE_ZEROES)) {
		zero_by_writing(g, b);
		return;
	}
	make_room(g, b);
	/* Part of a compressed cluster is written out first. */
	if (g->block[b].type == DM_QCOW_RUN_FETCH && g->per_cluster > 1)
		move_cluster(g, b);
	keep &= cl->own != GUEST_NONE && g->shape.flags & DM_QCOW_SHAPE_KEEP;
	memset(g->want + (size_t)b * g->shape.block_size, 0, g->shape.block_size);
	g->block[b] = (struct guest_block){ .type = DM_QCOW_RUN_ZERO, .dirty = true, .keep = keep };
	if (!keep && cl->own != GUEST_NONE && g->data_layer == 0 && !holds_data(g, b))
		abandon(g, cl);
}

/* ---- flush ------------------------------------------------------------------------------------
 */

static struct dm_qcow_delta delta_of(const struct guest *g, uint32_t b)
{
	const struct guest_block *blk = &g->block[b];
	uint64_t own = g->cluster[b / g->per_cluster].own;
	struct dm_qcow_delta d = { .guest_off = (uint64_t)b * g->shape.block_size,
				   .nr_blocks = 1,
				   .type = DM_QCOW_DELTA_ZERO };

	/* Its cluster was given up after all. */
	if (blk->keep && own != GUEST_NONE)
		d.type = DM_QCOW_DELTA_ZERO_KEEP;
	if (blk->type == DM_QCOW_RUN_DATA)
		d.type = DM_QCOW_DELTA_DATA;
	if (d.type != DM_QCOW_DELTA_ZERO)
		d.host_off = own + guest_in_cluster(g, b);
	return d;
}

static bool joins(const struct guest *g, const struct dm_qcow_delta *a,
		  const struct dm_qcow_delta *b)
{
	uint64_t len = (uint64_t)a->nr_blocks * g->shape.block_size;

	return a->type == b->type && a->guest_off + len == b->guest_off &&
	       (a->type == DM_QCOW_DELTA_ZERO || a->host_off + len == b->host_off);
}

static void commit(struct guest *g, const struct dm_qcow_delta *deltas, uint32_t nr, bool unflushed)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_COMMIT };
	const struct qnl_msg *reply;

	qnl_set(&up, GENERATION, generation, 1);
	qnl_set(&up, FLAGS, flags, unflushed ? DM_QCOW_COMMIT_UNFLUSHED : 0);
	qnl_set(&up, DELTAS, deltas, ((struct qnl_array){ deltas, nr }));
	reply = guest_call(g, &up);
	assert_answer_ok(reply);
	assert_true(qnl_has(reply, QNL_BIT(TABLES) | QNL_BIT(LOST)));
	g->tables = reply->tables;
	g->lost += reply->lost;
}

/* A cluster's deltas stay together: all of its data moves, or none. */
static void commit_all(struct guest *g, bool unflushed)
{
	struct dm_qcow_delta deltas[CHUNK + 64], d;
	uint32_t nr = 0;

	for (uint32_t b = 0; b < g->nr_blocks; b++) {
		if (b % g->per_cluster == 0 && nr >= CHUNK) {
			commit(g, deltas, nr, unflushed);
			nr = 0;
		}
		if (!g->block[b].dirty)
			continue;
		d = delta_of(g, b);
		if (nr && joins(g, &deltas[nr - 1], &d))
			deltas[nr - 1].nr_blocks++;
		else
			deltas[nr++] = d;
	}
	if (nr)
		commit(g, deltas, nr, unflushed);
}

void guest_flush(struct guest *g)
{
	if (g->need_flush)
		assert_int_equal(fdatasync(g->layers[g->data_layer].fd), 0);
	commit_all(g, !g->need_flush);
	g->need_flush = false;
	for (uint32_t b = 0; b < g->nr_blocks; b++) {
		if (g->block[b].dirty)
			g->cluster[b / g->per_cluster].committed = true;
		g->block[b].dirty = g->block[b].keep = false;
	}
	while (g->nr_limbo)
		give(g, g->limbo[--g->nr_limbo]);
}

void guest_free(struct guest *g, size_t nr)
{
	struct dm_qcow_lease leases[DM_QCOW_MAX_LEASES];
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_FREE };
	const struct qnl_msg *reply;
	unsigned int kills = g->nr_kills;
	uint32_t n = 0;

	for (; n < nr && g->nr_pool; n++)
		leases[n] = (struct dm_qcow_lease){ .host_off = g->pool[--g->nr_pool].off,
						    .nr_clusters = 1 };
	qnl_set(&up, LEASES, leases, ((struct qnl_array){ leases, n }));
	reply = guest_call(g, &up);
	if (reply)
		assert_answer_ok(reply);
	if (g->nr_kills != kills)
		g->maybe_leaked += n + g->lost;
	g->lost = 0;
}

void guest_suspend(struct guest *g)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_CLOSE };
	enum guest_kill kill = g->kill;

	g->kill = GUEST_LIVES;
	guest_flush(g);
	while (g->nr_pool || g->lost)
		guest_free(g, 100);
	g->kill = kill;
	assert_answer_ok(guest_call(g, &up));
	guest_drop_layers(g);
	g->nr_held = 0;
}

void guest_random_step(struct guest *g)
{
	uint64_t dice = memio_random(&g->seed) % 100;
	uint32_t b = (uint32_t)(memio_random(&g->seed) % g->nr_blocks);

	if (dice < 45)
		guest_write(g, b);
	else if (dice < 60)
		for (uint32_t i = 0; i < 5; i++)
			guest_write(g, (b + i) % g->nr_blocks);
	else if (dice < 72)
		guest_zero(g, b, dice & 1);
	else if (dice < 80)
		for (uint32_t i = 0; i < 6; i++)
			guest_zero(g, (b + i) % g->nr_blocks, false);
	else if (dice < 94)
		guest_flush(g);
	else if (dice < 97)
		guest_free(g, 3);
	else
		guest_compare(g);
}
