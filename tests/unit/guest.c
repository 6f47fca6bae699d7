// SPDX-License-Identifier: GPL-2.0-only
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int guest_shell(const char *command)
{
	char cmd[2048];
	int status;

	snprintf(cmd, sizeof(cmd), "cd %s && { %s; } >log 2>&1", rig_dir, command);
	status = system(cmd);
	return WEXITSTATUS(status);
}

void guest_make(const char *options, const char *size, const char *more)
{
	char cmd[1500];

	snprintf(cmd, sizeof(cmd),
		 "set -e && set -- w.qcow2 && rm -f $1 && "
		 "qemu-img create -q -f qcow2 -o %s $1 %s && { %s; }",
		 options, size, more[0] ? more : ":");
	if (guest_shell(cmd))
		fail_msg("failed: %s", cmd);
}

struct dm_qcow_run guest_run(const struct qnl_msg *loaded, uint32_t block)
{
	struct dm_qcow_run run;

	for (uint32_t i = 0; i < loaded->runs.nr; i++) {
		qnl_array_get(&loaded->runs, i, &run, sizeof(run));
		if (block < run.nr_blocks)
			return run;
		block -= run.nr_blocks;
	}
	fail_msg("no such block");
	return run;
}

const struct qnl_msg *guest_ask_propose(struct rig *rig, uint64_t bytes, uint32_t tables)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_PROPOSE };

	qnl_set(&up, BYTES, bytes, bytes);
	qnl_set(&up, TABLES, tables, tables);
	return rig_ask(rig, &up);
}

const struct qnl_msg *guest_ask_leases(struct rig *rig, uint8_t cmd,
				       const struct dm_qcow_lease *leases, uint32_t nr)
{
	struct qnl_msg up = { .cmd = cmd };

	qnl_set(&up, LEASES, leases, ((struct qnl_array){ leases, nr }));
	return rig_ask(rig, &up);
}

const struct qnl_msg *guest_ask_commit(struct rig *rig, const struct dm_qcow_delta *deltas,
				       uint32_t nr)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_COMMIT };

	qnl_set(&up, GENERATION, generation, 1);
	qnl_set(&up, FLAGS, flags, 0);
	qnl_set(&up, DELTAS, deltas, ((struct qnl_array){ deltas, nr }));
	return rig_ask(rig, &up);
}

/* ---- faults ---------------------------------------------------------------------- */

static struct guest *faulty; /* whose image's I/O fails */
static const struct qcow_io_ops *real_ops;

static int may_write(void)
{
	if (faulty->fail_after > 0) {
		faulty->fail_after--;
		return 0;
	}
	/* What failed for want of space is given back, and is enough for what comes next. */
	if (faulty->fail_errno == ENOSPC && faulty->tripped)
		return 0;
	faulty->tripped = true;
	return faulty->fail_errno ? -faulty->fail_errno : -EIO;
}

static int faulty_pwrite(struct qcow_io *io, const void *buf, size_t len, uint64_t off)
{
	int r = may_write();

	return r ? r : real_ops->pwrite(io, buf, len, off);
}

/* A flush that meets ENOSPC has failed: that is another thing. */
static int faulty_flush(struct qcow_io *io)
{
	int r = faulty->fail_errno == ENOSPC ? 0 : may_write();

	return r ? r : real_ops->flush(io);
}

static int faulty_truncate(struct qcow_io *io, uint64_t size)
{
	int r = may_write();

	return r ? r : real_ops->truncate(io, size);
}

static int faulty_zero(struct qcow_io *io, uint64_t off, uint64_t len)
{
	int r = may_write();

	return r ? r : real_ops->zero(io, off, len);
}

void guest_break_io(struct guest *g)
{
	static struct qcow_io_ops ops;
	struct host_chain *chain = g->rig->worker.image.chain;
	struct qcow_io *io;

	if (!chain)
		return;
	io = qcow_image_io(qcow_chain_layer_image(host_chain_lib(chain), 0));
	if (io->ops != &ops) {
		real_ops = io->ops;
		ops = *real_ops;
		ops.pwrite = faulty_pwrite;
		ops.flush = faulty_flush;
		ops.truncate = faulty_truncate;
		ops.zero = faulty_zero;
	}
	faulty = g;
	io->ops = &ops;
}

/* ---- the worker comes and goes ------------------------------------------------------ */

static void start(struct guest *g)
{
	g->rig = rig_create_rw(g->name, g->word);
}

/* The kernel hands over copies of what it holds. */
static void reattach(struct guest *g)
{
	struct dm_qcow_layer layers[4];
	struct qcow_error err = { 0 };

	g->nr_kills++;
	rig_destroy(g->rig);
	start(g);
	for (uint32_t i = 0; i < g->nr_layers; i++) {
		layers[i] = g->layers[i];
		layers[i].fd = fcntl(layers[i].fd, F_DUPFD_CLOEXEC, 0);
	}
	if (g->nr_layers &&
	    image_adopt(&g->rig->worker.image, &(struct qnl_array){ layers, g->nr_layers },
			&(struct qnl_array){ g->held, g->nr_held + g->nr_proposed }, &err))
		fail_msg("%s", err.text);
	rig_serve(g->rig);
}

/* A FREE in doubt is not said again: NULL. */
const struct qnl_msg *guest_call(struct guest *g, struct qnl_msg *up)
{
	enum guest_kill kill = g->kill;
	const struct qnl_msg *reply;

	g->kill = GUEST_LIVES;
	g->tripped = false;
	if (kill == GUEST_KILL_WITHIN)
		guest_break_io(g);
	reply = kill == GUEST_KILL_BEFORE ? NULL : rig_ask(g->rig, up);
	if (g->tripped || kill == GUEST_KILL_BEFORE || kill == GUEST_KILL_AFTER) {
		reattach(g);
		if (up->cmd == DM_QCOW_CMD_FREE)
			return NULL;
		reply = rig_ask(g->rig, up);
	} else if (kill == GUEST_KILL_WITHIN) {
		g->fail_after = INT32_MAX;
	}
	return reply;
}

/* ---- the map -------------------------------------------------------------------------- */

static uint64_t cluster_size(const struct guest *g)
{
	return g->shape.cluster_size;
}

uint64_t guest_in_cluster(const struct guest *g, uint32_t b)
{
	return (uint64_t)(b % g->per_cluster) * g->shape.block_size;
}

bool guest_is_own(const struct guest *g, uint32_t b)
{
	const struct guest_block *blk = &g->block[b];
	uint64_t own = g->cluster[b / g->per_cluster].own;

	return own != GUEST_NONE && blk->type == DM_QCOW_RUN_DATA && blk->layer == g->data_layer &&
	       blk->host == own + guest_in_cluster(g, b);
}

struct seen {
	struct guest_block block;
	uint64_t own;
};

static struct seen seen_in(const struct guest *g, const struct dm_qcow_run *run, uint32_t i,
			   uint32_t b)
{
	uint64_t dist = (uint64_t)i * g->shape.block_size;
	struct seen s = { .own = GUEST_NONE };

	s.block.type = run->type;
	s.block.broken = run->flags & DM_QCOW_RUN_BROKEN;
	if (run->type == DM_QCOW_RUN_DATA) {
		s.block.layer = run->layer;
		s.block.host = run->host_off + dist;
	}
	if (run->flags & DM_QCOW_RUN_WRITABLE)
		s.own = run->host_off + dist - guest_in_cluster(g, b);
	if (run->flags & DM_QCOW_RUN_RESERVED)
		s.own = run->reserved_off + dist - guest_in_cluster(g, b);
	return s;
}

static void load_page(struct guest *g, uint32_t first,
		      void (*each)(struct guest *, uint32_t, const struct seen *))
{
	const struct qnl_msg *reply = rig_load(g->rig, first / DM_QCOW_PAGE_BLOCKS);
	struct dm_qcow_run run;
	struct seen s;
	uint32_t b = first;

	assert_answer_ok(reply);
	for (uint32_t i = 0; i < reply->runs.nr; i++) {
		qnl_array_get(&reply->runs, i, &run, sizeof(run));
		for (uint32_t j = 0; j < run.nr_blocks; j++, b++) {
			if (b >= g->nr_blocks)
				continue;
			s = seen_in(g, &run, j, b);
			each(g, b, &s);
		}
	}
	assert_int_equal(b, first + DM_QCOW_PAGE_BLOCKS);
}

static void load(struct guest *g, void (*each)(struct guest *, uint32_t, const struct seen *))
{
	for (uint32_t b = 0; b < g->nr_blocks; b += DM_QCOW_PAGE_BLOCKS)
		load_page(g, b, each);
}

static void set_block(struct guest *g, uint32_t b, const struct seen *s)
{
	struct guest_cluster *cl = &g->cluster[b / g->per_cluster];

	if (b % g->per_cluster == 0)
		*cl = (struct guest_cluster){ .own = GUEST_NONE, .committed = true };
	g->block[b] = s->block;
	if (s->own == GUEST_NONE)
		return;
	/* All blocks of a cluster have their place in one cluster of the host. */
	if (cl->own != GUEST_NONE && cl->own != s->own)
		fail_msg("block %u: two places", b);
	cl->own = s->own;
}

static void compare_block(struct guest *g, uint32_t b, const struct seen *s)
{
	const struct guest_block *blk = &g->block[b];
	uint64_t own = g->cluster[b / g->per_cluster].own;

	if (blk->dirty)
		return;
	if (blk->type != s->block.type ||
	    (blk->type == DM_QCOW_RUN_DATA &&
	     (blk->host != s->block.host || blk->layer != s->block.layer)))
		fail_msg("block %u: %d at %#llx, not %d at %#llx", b, s->block.type,
			 (unsigned long long)s->block.host, blk->type,
			 (unsigned long long)blk->host);
	/* A shared block of a cluster that is being moved has no place of its own yet. */
	if (g->cluster[b / g->per_cluster].committed && own != s->own)
		fail_msg("block %u: own place %#llx, not %#llx", b, (unsigned long long)s->own,
			 (unsigned long long)own);
}

void guest_compare(struct guest *g)
{
	uint32_t size = g->shape.block_size;
	const struct qnl_msg *reply;

	load(g, compare_block);
	for (uint32_t b = 0; b < g->nr_blocks; b++) {
		if (g->block[b].dirty || (uint64_t)(b + 1) * size > g->shape.virtual_size)
			continue;
		reply = rig_fetch(g->rig, (uint64_t)b * size, size);
		assert_answer_ok(reply);
		if (memcmp((void *)(uintptr_t)reply->addr, g->want + (size_t)b * size, size))
			fail_msg("block %u reads wrong", b);
	}
}

/* ---- opening ----------------------------------------------------------------------------- */

static void run_shell(const char *fmt, const char *name)
{
	char line[300];

	snprintf(line, sizeof(line), fmt, name);
	if (guest_shell(line))
		fail_msg("failed: %s", line);
}

static void read_raw(uint8_t *to, size_t size)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/raw", rig_dir);
	f = fopen(path, "r");
	assert_non_null(f);
	memset(to, 0, size);
	assert_true(fread(to, 1, size, f) > 0);
	fclose(f);
}

static void keep_layers(struct guest *g, const struct qnl_msg *reply)
{
	assert_true(reply->layers.nr <= 4);
	g->data_layer = UINT32_MAX;
	for (uint32_t i = 0; i < reply->layers.nr; i++) {
		qnl_array_get(&reply->layers, i, &g->layers[i], sizeof(g->layers[i]));
		g->layers[i].fd = fcntl(g->layers[i].fd, F_DUPFD_CLOEXEC, 0);
		if (g->layers[i].flags & DM_QCOW_LAYER_WRITABLE)
			g->data_layer = i;
	}
	g->nr_layers = reply->layers.nr;
	assert_true(g->data_layer != UINT32_MAX);
}

void guest_drop_layers(struct guest *g)
{
	while (g->nr_layers)
		close(g->layers[--g->nr_layers].fd);
}

void guest_resume(struct guest *g)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_OPEN };
	const struct qnl_msg *reply = guest_call(g, &up);

	assert_answer_ok(reply);
	assert_true(qnl_has(reply, QNL_BIT(SHAPE) | QNL_BIT(LAYERS) | QNL_BIT(TABLES)));
	g->shape = reply->shape;
	g->tables = reply->tables;
	keep_layers(g, reply);
	if (g->block) {
		load(g, set_block);
		return;
	}
	g->per_cluster = g->shape.cluster_size / g->shape.block_size;
	g->nr_clusters =
		(uint32_t)((g->shape.virtual_size + cluster_size(g) - 1) / cluster_size(g));
	g->nr_blocks = g->nr_clusters * g->per_cluster;
	g->want = malloc(g->nr_clusters * cluster_size(g));
	g->block = calloc(g->nr_blocks, sizeof(*g->block));
	g->cluster = calloc(g->nr_clusters, sizeof(*g->cluster));
	assert_true(g->want && g->block && g->cluster);
	read_raw(g->want, g->nr_clusters * cluster_size(g));
	load(g, set_block);
}

void guest_open(struct guest *g, const char *name, const char *word, uint64_t seed)
{
	memset(g, 0, sizeof(*g));
	g->name = name;
	g->word = word;
	g->seed = seed;
	g->fail_after = INT32_MAX;
	run_shell("qemu-img convert -f qcow2 -O raw %s raw", name);
	start(g);
	rig_serve(g->rig);
	guest_resume(g);
}

void guest_destroy(struct guest *g)
{
	guest_drop_layers(g);
	rig_destroy(g->rig);
	free(g->want);
	free(g->block);
	free(g->cluster);
}

/* "N leaked clusters were found on the image." */
static unsigned long leaks(void)
{
	char path[128], line[200];
	unsigned long n = 0, nr = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/log", rig_dir);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, " leaked clusters were found") && sscanf(line, "%lu", &n) == 1)
			nr = n;
	fclose(f);
	return nr;
}

void guest_judge(struct guest *g)
{
	size_t size = g->shape.virtual_size;
	uint8_t *got = malloc(size);
	unsigned long nr;

	assert_non_null(got);
	run_shell("qemu-img convert -f qcow2 -O raw %s raw", g->name);
	read_raw(got, size);
	for (size_t i = 0; i < size; i += 512)
		if (memcmp(got + i, g->want + i, 512 < size - i ? 512 : size - i))
			fail_msg("byte %#zx reads wrong", i);
	free(got);
	/* 3 are leaks only. */
	run_shell("qemu-img check -f qcow2 %s || [ $? = 3 ]", g->name);
	nr = leaks();
	if (nr > g->maybe_leaked && !(g->shares && g->nr_kills))
		fail_msg("%lu clusters leak, %llu may", nr, (unsigned long long)g->maybe_leaked);
}
