/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel module does to an image that is open for writing, block by block and
 * in one thread, by the messages of the contract. It knows what the disk must read, and
 * can kill the worker under any upcall.
 */
#ifndef QCOW_TESTS_GUEST_H
#define QCOW_TESTS_GUEST_H

#include "rig.h"

#define GUEST_NONE UINT64_MAX

struct guest_block {
	uint8_t type; /* DM_QCOW_RUN_* */
	uint16_t layer;
	uint64_t host; /* DATA */
	bool broken, dirty, keep;
};

struct guest_cluster {
	uint64_t own;	/* host offset of the cluster that is this one's alone, or GUEST_NONE */
	bool committed; /* the disk says so too */
};

/* How the worker dies under the next upcall. */
enum guest_kill {
	GUEST_LIVES,
	GUEST_KILL_BEFORE, /* it has not begun */
	GUEST_KILL_AFTER,  /* it has done all, but the answer is lost */
	GUEST_KILL_WITHIN, /* after fail_after more writes and flushes */
};

struct guest {
	const char *name, *word;
	struct rig *rig;
	uint64_t seed;
	struct dm_qcow_shape shape;
	struct dm_qcow_layer layers[4];
	uint32_t nr_layers, data_layer, per_cluster, nr_clusters, nr_blocks;
	uint8_t *want; /* the disk, in whole clusters */
	struct guest_block *block;
	struct guest_cluster *cluster;
	bool need_flush;
	uint32_t tables; /* as the last answer said */
	struct {
		uint64_t off;
		bool zero;
	} pool[4096];
	size_t nr_pool;
	uint64_t limbo[4096]; /* given up; the disk still points there */
	size_t nr_limbo;
	struct dm_qcow_lease held[DM_QCOW_MAX_LEASES]; /* tables, then the proposal */
	uint32_t nr_held, nr_proposed;
	enum guest_kill kill;
	long fail_after;
	int fail_errno; /* 0: EIO */
	bool tripped;	/* fail_after writes were made */
	unsigned int nr_kills;
	uint64_t maybe_leaked; /* clusters: what the kernel counts as such */
	uint64_t lost;	       /* as COMMIT counted, since the last FREE */
	bool shares;	       /* clusters with snapshots, or compressed ones: kills leak them */
};

/* Opens the image @name of rig_dir; its disk is what qemu-img says it is. */
void guest_open(struct guest *g, const char *name, const char *word, uint64_t seed);
/* OPEN again, after guest_suspend(). */
void guest_resume(struct guest *g);
/* All leases go back, the image is clean. */
void guest_suspend(struct guest *g);
void guest_destroy(struct guest *g);

void guest_write(struct guest *g, uint32_t block);
void guest_zero(struct guest *g, uint32_t block, bool keep);
void guest_flush(struct guest *g);
/* FREE: what was lost, and @nr clusters of the pool. */
void guest_free(struct guest *g, size_t nr);
void guest_random_step(struct guest *g);

/* The worker says of every clean block what we think, and reads the right bytes. */
void guest_compare(struct guest *g);
/* After guest_suspend(): qemu reads the disk as it must be, and finds no damage. */
void guest_judge(struct guest *g);

/* A command line in the images' directory: its exit status. What it says is in "log". */
int guest_shell(const char *command);
/* Makes w.qcow2 of these options and this size; @more is shell, with $1 the image. */
void guest_make(const char *options, const char *size, const char *more);
/* The run of a LOAD answer that @block of the page is in. */
struct dm_qcow_run guest_run(const struct qnl_msg *loaded, uint32_t block);
/* The upcalls as they are, without a guest. */
const struct qnl_msg *guest_ask_propose(struct rig *rig, uint64_t bytes, uint32_t tables);
const struct qnl_msg *guest_ask_leases(struct rig *rig, uint8_t cmd,
				       const struct dm_qcow_lease *leases, uint32_t nr);
const struct qnl_msg *guest_ask_commit(struct rig *rig, const struct dm_qcow_delta *deltas,
				       uint32_t nr);

/* From now on, writes to the image fail with fail_errno after fail_after more. */
void guest_break_io(struct guest *g);

/* For guestwrite.c. An upcall and its answer; NULL for a FREE that is in doubt. */
const struct qnl_msg *guest_call(struct guest *g, struct qnl_msg *up);
uint64_t guest_in_cluster(const struct guest *g, uint32_t block);
/* Does the block have data in its cluster's own place? */
bool guest_is_own(const struct guest *g, uint32_t block);
void guest_drop_layers(struct guest *g);

#endif
