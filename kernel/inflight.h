/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * In-flight epochs: tell when every bio mapped before a given moment is done.
 *
 * A bio enters the current epoch before it looks the map up, and leaves that
 * same epoch in end_io. A fence turns to the other epoch and waits until the old
 * one is empty. An RCU read section alone would end in ->map, long before the
 * data moves.
 */
#ifndef DM_QCOW_INFLIGHT_H
#define DM_QCOW_INFLIGHT_H

#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>

/* In no epoch: waiting, and to look the map up again. Counted, but not looked at. */
#define QCOW_EPOCH_NONE	2

struct qcow_inflight_cpu {
	long nr[3];		/* entered minus left on this CPU; may be negative */
};

struct qcow_inflight {
	struct qcow_inflight_cpu __percpu *cpu;
	unsigned int idx;	/* current epoch; written under mutex */
	struct mutex mutex;	/* one fence at a time */
};

int qcow_inflight_init(struct qcow_inflight *f);
void qcow_inflight_exit(struct qcow_inflight *f);
int qcow_inflight_fence(struct qcow_inflight *f, unsigned long timeout);
long qcow_inflight_count(struct qcow_inflight *f);

/**
 * qcow_inflight_enter() - a bio is about to look the map up
 * @f: the target's epochs
 *
 * Context: an RCU read section, which goes on until the lookup is done; the fence's
 * synchronize_rcu() waits for it, so whoever read the old index has counted itself
 * before the fence starts to sum. Does not sleep.
 * Return: the epoch, for qcow_inflight_leave().
 */
static inline unsigned int qcow_inflight_enter(struct qcow_inflight *f)
{
	/* Pairs with smp_store_release() in fence: new epoch, new map. */
	unsigned int idx = smp_load_acquire(&f->idx);

	this_cpu_inc(f->cpu->nr[idx]);
	return idx;
}

/**
 * qcow_inflight_leave() - the bio is done
 * @f: the target's epochs
 * @idx: what qcow_inflight_enter() returned
 *
 * Context: any, interrupts included; does not sleep.
 */
static inline void qcow_inflight_leave(struct qcow_inflight *f, unsigned int idx)
{
	this_cpu_dec(f->cpu->nr[idx]);
}

#endif
