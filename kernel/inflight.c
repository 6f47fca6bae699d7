// SPDX-License-Identifier: GPL-2.0-only
/* In-flight epochs; see inflight.h. */

#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/jiffies.h>
#include <linux/sched/signal.h>

#include "inflight.h"

/**
 * qcow_inflight_init() - set up empty epochs
 * @f: embedded in its owner
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_inflight_init(struct qcow_inflight *f)
{
	f->cpu = alloc_percpu(struct qcow_inflight_cpu);
	if (!f->cpu)
		return -ENOMEM;
	f->idx = 0;
	mutex_init(&f->mutex);
	return 0;
}

/**
 * qcow_inflight_exit() - undo qcow_inflight_init()
 * @f: with no bio in either epoch
 *
 * Context: process.
 */
void qcow_inflight_exit(struct qcow_inflight *f)
{
	free_percpu(f->cpu);
}

/*
 * The sum over CPUs of one epoch. Once nobody can enter it any more the sum can
 * only be read too high, never too low: each CPU's term only falls. So 0 is 0.
 */
static long sum(struct qcow_inflight *f, unsigned int idx)
{
	long nr = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		nr += READ_ONCE(per_cpu_ptr(f->cpu, cpu)->nr[idx]);
	return nr;
}

/**
 * qcow_inflight_count() - bios in flight, about
 * @f: the target's epochs
 *
 * Context: any; does not sleep. Exact only while nothing enters or leaves.
 * Return: the number.
 */
long qcow_inflight_count(struct qcow_inflight *f)
{
	return sum(f, 0) + sum(f, 1);
}

static int wait_empty(struct qcow_inflight *f, unsigned int idx, unsigned long end)
{
	while (sum(f, idx)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, end))
			return -ETIMEDOUT;
		usleep_range(500, 1000);
	}
	return 0;
}

/**
 * qcow_inflight_fence() - wait for every bio mapped before this call
 * @f: the target's epochs
 * @timeout: jiffies to wait at most
 *
 * Context: process; sleeps, killable and bounded. Not to be called from a worker
 * that completes bios. A bio that enters after the call began is not waited for.
 * Return: 0; -ETIMEDOUT or -EINTR, and then the next fence waits for the rest.
 */
int qcow_inflight_fence(struct qcow_inflight *f, unsigned long timeout)
{
	unsigned long end = jiffies + timeout;
	unsigned int old;
	int r;

	r = mutex_lock_killable(&f->mutex);
	if (r)
		return r;
	old = f->idx;
	/*
	 * The other epoch may still hold bios that an earlier, timed-out fence
	 * gave up on; entering it again would merge them with new ones, and this
	 * fence has to wait for them anyway.
	 */
	r = wait_empty(f, !old, end);
	if (r)
		goto out_unlock;
	/* Pairs with smp_load_acquire() in enter: map changes come before. */
	smp_store_release(&f->idx, !old);
	synchronize_rcu();
	r = wait_empty(f, old, end);
out_unlock:
	mutex_unlock(&f->mutex);
	return r;
}
