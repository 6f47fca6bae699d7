/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel module does to an image, in one thread: leases, deltas, the pool,
 * flushes. It remembers what it wrote when, so that after a crash every sector can be
 * judged.
 */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include "lib/chain.h"
#include "lib/commit.h"
#include "lib/lease.h"
#include "lib/writer.h"
#include "memio.h"

#define SIM_LEASES   256
#define BASE_VERSION UINT32_MAX /* what the image held at the start */

enum sim_state {
	SIM_HOLE,
	SIM_ZERO,
	SIM_DATA,
	SIM_FETCH, /* compressed */
};

/* Guest cluster, as the kernel's map has it. */
struct sim_cluster {
	uint64_t host; /* 0 = none */
	bool exclusive, committed;
};

struct sim_event {
	uint32_t block, version; /* version 0: zeros */
	size_t at;		 /* position in the log when it was issued */
};

struct sim {
	struct memio *m;
	struct memio_crash crash;
	struct qcow_image *img;
	struct qcow_writer *w;
	struct qcow_write_test test;
	struct qcow_error err;
	uint64_t seed;
	uint32_t cluster_bits, block_bits, per_cluster;
	uint64_t nr_blocks, nr_clusters;
	bool v2, can_discard;
	uint64_t autoclear; /* bits that must be gone before anything else is written */

	uint8_t *base; /* the disk at the start, as the library reads it */
	struct sim_cluster *cl;
	uint8_t *state;	   /* enum sim_state of each block */
	uint32_t *version; /* of each block; UINT32_MAX = base */
	bool *dirty;	   /* has an uncommitted delta */
	bool *keep;	   /* ... which is ZERO_KEEP */
	bool need_data_flush;

	struct {
		uint64_t off;
		bool zero;
	} * pool;
	size_t nr_pool;
	uint64_t *limbo; /* exclusive clusters until the commit */
	size_t nr_limbo;
	struct qcow_lease_extent lease[SIM_LEASES];
	size_t nr_leases;

	struct sim_event *events;
	size_t nr_events, max_events;
	struct {
		size_t at, events;
	} * acks;
	size_t nr_acks;
	uint32_t next_version;
	unsigned int lease_clusters;
	unsigned int kills;   /* done */
	unsigned int nr_full; /* times the disk was full */
	bool kill_often, kill_at_open, full_often;
};

void sim_open(struct sim *s, struct memio *m, uint64_t seed, uint32_t drop);
/* Recording starts; the writer is opened. */
void sim_start(struct sim *s);
void sim_write(struct sim *s, uint64_t block);
void sim_zero(struct sim *s, uint64_t block, bool keep);
void sim_flush(struct sim *s);
void sim_random_step(struct sim *s);
/* Returns leases, finishes the writer: the image is clean. */
void sim_finish(struct sim *s);
void sim_close(struct sim *s);

/* NULL, or what is wrong with the disk after a crash at log position @k. */
const char *sim_judge(struct sim *s, struct memio *m, size_t k);

/* For simjudge.c. */
void sim_fill(const struct sim *s, uint64_t block, uint32_t version, uint8_t *buf);
uint64_t sim_block_size(const struct sim *s);
struct qcow_chain *sim_open_chain(struct qcow_io *io, struct qcow_scratch **scratch,
				  struct qcow_error *err);

#endif
