/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What newer kernels have and older ones lack. The module's code is written for
 * the newest API; only this file tests for versions or features.
 */
#ifndef DM_QCOW_COMPAT_H
#define DM_QCOW_COMPAT_H

#include <linux/blkdev.h>
#include <linux/fs.h>

/* since v6.5, "block: replace fmode_t with a block-specific type for block open
 * flags"; drop when the floor reaches it
 */
#ifndef BLK_OPEN_READ
#define BLK_OPEN_READ	FMODE_READ
#define BLK_OPEN_WRITE	FMODE_WRITE
#endif

/* since v6.17, "workqueue: Add new WQ_PERCPU flag"; drop when the floor reaches it.
 * Before that, per CPU is what a workqueue is unless it says otherwise.
 */
#ifndef HAVE_WQ_PERCPU
#define WQ_PERCPU	0
#endif

/* since v6.6, "fs: add IOCB flags related to passing back dio completions", and gone
 * again in v6.19, which completes such writes at once
 */
#ifdef IOCB_DIO_CALLER_COMP
static inline bool iocb_wants_task(const struct kiocb *iocb)
{
	return iocb->dio_complete;
}

static inline long iocb_complete_in_task(struct kiocb *iocb)
{
	return iocb->dio_complete(iocb->private);
}
#else
#define IOCB_DIO_CALLER_COMP	0
static inline bool iocb_wants_task(const struct kiocb *iocb)
{
	return false;
}

static inline long iocb_complete_in_task(struct kiocb *iocb)
{
	return 0;
}
#endif

#endif
