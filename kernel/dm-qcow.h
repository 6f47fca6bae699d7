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
 * supervisor.mutex     mutex     (genl.c) the role of the supervisor    process
 * target->lock         mutex     target->image, ->shape, ->layers[]     process
 *                                against an ATTACH that reads them;
 *                                never held across an upcall
 * inflight->mutex      mutex     one fence at a time                    process
 * link->lock           spinlock  link->state, ->net, ->portid, ->epoch  process
 * upcalls->lock        spinlock  the table, the queue, parked bios      process, timer work
 * cache->lock          spinlock  fetched blocks: hash, LRU, bytes       process
 * map->pages xa_lock   spinlock  changes of the map; lookups use RCU    process
 *
 * None of them is taken in interrupt context: ki_complete() and end_io touch
 * per-CPU counters and atomics only, and hand the rest to a workqueue.
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
#define QCOW_DEFAULT_MAP_KIB	(64U << 10)
#define QCOW_DEFAULT_CACHE_KIB	(8U << 10)

/* Module-wide queues, made in main.c before the target is registered. */
extern struct workqueue_struct *qcow_wq;	/* upcalls, parked bios, events */
extern struct workqueue_struct *qcow_read_wq;	/* file layers: reads */

int qcow_target_init(void);
void qcow_target_exit(void);

#endif
