/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dm-qcow: what every file of the module shares.
 *
 * Locks, outermost first. A lock is never taken while one below it is held.
 *
 * lock                 kind      protects                             contexts
 * -------------------- --------- ------------------------------------ ----------
 * dm's suspend_lock    mutex     target->image transitions; the hooks  process
 *                                presuspend .. resume, dtr run under it
 * commit->mutex        mutex     one commit at a time; the sealed         process;
 *                                generation. Held across COMMIT and      commit worker
 *                                FREE, by the commit worker and
 *                                postsuspend only: nobody else waits
 * supervisor.mutex     mutex     (genl.c) the role of the supervisor    process
 * target->lock         mutex     target->image, ->shape, ->layers[]     process
 *                                against an ATTACH that reads them;
 *                                never held across an upcall
 * inflight->mutex      mutex     one fence at a time                    process
 * link->lock           spinlock  link->state, ->net, ->portid, ->epoch  process
 * upcalls->lock        spinlock  the table, the queue, parked bios      process, timer work
 * cache->lock          spinlock  fetched blocks: hash, LRU, bytes       process
 * disk->ready_lock     spinlock  what workers are to dispatch           process
 * cells->lock          spinlock  the tree of cells, those that wait     process
 * commit->lock         spinlock  flushes that wait, claims, the open     process
 *                                generation's freed clusters
 * alloc->lock          spinlock  the pool, its state, the proposal      process
 * room->lock           spinlock  what is left below; what was told of it  process
 * errors->lock         spinlock  what failed last; interrupts off          any
 * map->pages xa_lock   spinlock  changes of the map, deltas; lookups    process
 *                                use RCU
 *
 * None of them is taken in interrupt context: ki_complete() and end_io touch
 * per-CPU counters and atomics only, and hand the rest to a workqueue. But one,
 * when a bio has failed: errors->lock, under which no other is taken.
 *
 * target->layers[] needs no lock on the I/O path: it changes only while dm has
 * the target suspended and every bio drained.
 */
#ifndef DM_QCOW_H
#define DM_QCOW_H

#include <linux/device-mapper.h>
#include <linux/dm-qcow.h>

#include "compat.h"

#define DM_MSG_PREFIX "qcow"

#define QCOW_DEFAULT_TIMEOUT	60	/* seconds an upcall may take */
#define QCOW_DEFAULT_NO_SPACE	60	/* seconds writes wait for space */
#define QCOW_DEFAULT_LOW_WATER	4096	/* MiB: four seconds at 1 GiB/s */
#ifdef QCOW_DROP
#define QCOW_LEASE_BYTES	(256U << 10)	/* see drop.h */
#else
#define QCOW_LEASE_BYTES	(64U << 20)
#endif
#define QCOW_DEFAULT_MAP_KIB	(64U << 10)
#define QCOW_DEFAULT_CACHE_KIB	(8U << 10)

/* Module-wide queues, made in main.c before the target is registered. */
extern struct workqueue_struct *qcow_wq;	/* upcalls, ends of writes, events */
extern struct workqueue_struct *qcow_dispatch_wq; /* bios that waited; waits for the above */
extern struct workqueue_struct *qcow_deferred_wq; /* writes not in place; waits for all of these */
extern struct workqueue_struct *qcow_read_wq;	/* file layers: reads */
extern struct workqueue_struct *qcow_write_wq;	/* file layers: writes; may wait for space */
extern struct workqueue_struct *qcow_written_wq; /* file layers: ends of writes that need a task */
extern struct workqueue_struct *qcow_commit_wq;	/* flushes and commits; waits for the helper */

int qcow_target_init(void);
void qcow_target_exit(void);

#endif
