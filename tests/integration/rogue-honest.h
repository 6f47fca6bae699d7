/* SPDX-License-Identifier: GPL-2.0-only */
/* What an honest worker answers. Included by rogue.c alone. */
#ifndef ROGUE_HONEST_H
#define ROGUE_HONEST_H

/* The honest worker's image. */
static struct {
	bool writable;		/* the table's mode */
	bool on_device;		/* layer 0 is the device, layer 1 the file */
	bool data_file;		/* layer 1 is it: it gets what is written, where the guest has it */
	uint64_t next;		/* the first free cluster of layer 0 */
	uint32_t tables;	/* what OPEN, GRANT and COMMIT say */
	uint64_t lost;		/* what COMMIT says */
	struct dm_qcow_run run; /* each page is like this */
	struct dm_qcow_delta delta; /* the last COMMIT's first */
	unsigned int nr_commits, nr_frees;
} disk;

static const struct dm_qcow_shape good_shape = {
	.virtual_size = DISK,
	.identity = { 1, 2 },
	.cluster_size = BLOCK,
	.block_size = BLOCK,
	.logical_block_size = 512,
	.dma_alignment = 511,
	.nr_layers = 2,
	.flags = DM_QCOW_SHAPE_ZEROES | DM_QCOW_SHAPE_KEEP,
};

static void begin_answer(const struct event *up)
{
	begin(&wrk, up->cmd);
	put_u32(&wrk, DM_QCOW_ATTR_TARGET, target);
	put_u32(&wrk, DM_QCOW_ATTR_EPOCH, epoch);
	put_u64(&wrk, DM_QCOW_ATTR_COOKIE, up->cookie);
}

static int answer_nothing(const struct event *up)
{
	begin_answer(up);
	return ask(&wrk, NULL);
}

static int answer_probe(const struct event *up, const struct dm_qcow_shape *shape, dev_t dev)
{
	struct dm_qcow_device d = { major(dev), minor(dev) };

	begin_answer(up);
	put(&wrk, DM_QCOW_ATTR_SHAPE, shape, sizeof(*shape));
	put(&wrk, DM_QCOW_ATTR_DEVICES, &d, sizeof(d));
	return ask(&wrk, NULL);
}

static void put_open(const struct event *up, const struct dm_qcow_shape *shape,
		     const struct dm_qcow_layer *layers, unsigned int nr)
{
	begin_answer(up);
	put(&wrk, DM_QCOW_ATTR_SHAPE, shape, sizeof(*shape));
	put(&wrk, DM_QCOW_ATTR_LAYERS, layers, nr * sizeof(*layers));
}

static int answer_open(const struct event *up, const struct dm_qcow_shape *shape,
		       const struct dm_qcow_layer *layers, unsigned int nr)
{
	put_open(up, shape, layers, nr);
	if (disk.writable)
		put_u32(&wrk, DM_QCOW_ATTR_TABLES, disk.tables);
	return ask(&wrk, NULL);
}

static int answer_open_well(const struct event *up)
{
	struct dm_qcow_layer layers[] = { { layer_fd, 0, 71 }, { device_fd, 0, 72 } };

	if (disk.writable && disk.data_file)
		layers[1] = (struct dm_qcow_layer){ device_rw, DM_QCOW_LAYER_WRITABLE, 72 };
	else if (disk.writable)
		layers[0] = (struct dm_qcow_layer){ layer_rw, DM_QCOW_LAYER_WRITABLE, 71 };
	if (disk.writable && disk.on_device) {
		layers[0].fd = device_rw;
		layers[1].fd = layer_fd;
	}
	return answer_open(up, &good_shape, layers, 2);
}

static int answer_runs(const struct event *up, uint64_t page, uint64_t seq, const void *runs,
		       size_t len)
{
	begin_answer(up);
	put_u64(&wrk, DM_QCOW_ATTR_PAGE, page);
	put_u64(&wrk, DM_QCOW_ATTR_SEQ, seq);
	put(&wrk, DM_QCOW_ATTR_RUNS, runs, len);
	return ask(&wrk, NULL);
}

/* A disk that is read is the file of layer 0. */
static int answer_load_well(const struct event *up)
{
	struct dm_qcow_run run = {
		up->page * PAGE_BYTES, DM_QCOW_PAGE_BLOCKS, 0, DM_QCOW_RUN_DATA, 0, 0
	};

	if (disk.writable)
		run = disk.run;
	return answer_runs(up, up->page, up->map_seq, &run, sizeof(run));
}

static int answer_leases(const struct event *up, const struct dm_qcow_lease *leases,
			 unsigned int nr)
{
	begin_answer(up);
	put(&wrk, DM_QCOW_ATTR_LEASES, leases, nr * sizeof(*leases));
	if (up->cmd == DM_QCOW_CMD_GRANT)
		put_u32(&wrk, DM_QCOW_ATTR_TABLES, disk.tables);
	return ask(&wrk, NULL);
}

/*
 * A table; and fewer clusters than may be asked for, in two extents that do not touch, in
 * the wrong order.
 */
static int answer_propose_well(const struct event *up)
{
	const uint64_t asked = up->bytes / BLOCK;
	const uint32_t nr = asked < 601 ? (uint32_t)asked : 601;
	const struct dm_qcow_lease leases[] = {
		{ disk.next, 1, DM_QCOW_LEASE_TABLE },
		{ disk.next + (nr + 1) * (uint64_t)BLOCK, 1, 0 },
		{ disk.next + BLOCK, nr - 1, 0 },
	};

	return answer_leases(up, leases, nr < 2 ? nr + 1 : 3);
}

static int answer_grant_well(const struct event *up)
{
	struct dm_qcow_lease leases[DM_QCOW_MAX_LEASES];
	unsigned int i;

	memcpy(leases, up->leases, up->nr_leases * sizeof(leases[0]));
	for (i = 0; i < up->nr_leases; i++) {
		if (!disk.on_device)
			leases[i].flags |= DM_QCOW_LEASE_ZERO;
		disk.next += (leases[i].nr_clusters + 1ull) * BLOCK;
	}
	return answer_leases(up, leases, up->nr_leases);
}

static int answer_commit_well(const struct event *up)
{
	disk.delta = up->delta;
	disk.nr_commits++;
	begin_answer(up);
	put_u32(&wrk, DM_QCOW_ATTR_TABLES, disk.tables);
	put_u64(&wrk, DM_QCOW_ATTR_LOST, disk.lost);
	return ask(&wrk, NULL);
}

static int answer_well(const struct event *up)
{
	switch (up->cmd) {
	case DM_QCOW_CMD_PROBE:
		return answer_probe(up, &good_shape, device);
	case DM_QCOW_CMD_OPEN:
		return answer_open_well(up);
	case DM_QCOW_CMD_LOAD:
		return answer_load_well(up);
	case DM_QCOW_CMD_PROPOSE:
		return answer_propose_well(up);
	case DM_QCOW_CMD_GRANT:
		return answer_grant_well(up);
	case DM_QCOW_CMD_COMMIT:
		return answer_commit_well(up);
	case DM_QCOW_CMD_FREE:
		disk.nr_frees++;
		return answer_nothing(up);
	case DM_QCOW_CMD_CLOSE:
		return answer_nothing(up);
	default:
		return ENOSYS;
	}
}

/* Answers all but what @lie says it has answered, until @pid has ended. */
static int serve_but(pid_t pid, bool (*lie)(const struct event *up))
{
	struct event up;
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid)
		if (await_any(&wrk, &up, 50) && !(lie && lie(&up)))
			answer_well(&up);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int serve(pid_t pid)
{
	return serve_but(pid, NULL);
}

#endif
