/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What commits make free: clusters of the guest's own go back to the pool, and are
 * punched; shared ones, and what the pool has too much of, go to the helper with FREE.
 * All under commit->mutex, after the commit and a fence.
 */
#ifndef DM_QCOW_RELEASE_H
#define DM_QCOW_RELEASE_H

#include <linux/list.h>
#include <linux/types.h>

struct qcow_disk;

unsigned long qcow_release_patience(const struct qcow_disk *disk);
void qcow_release_lost(struct qcow_disk *disk, u64 nr);
void qcow_release_punch(struct qcow_disk *disk, const struct list_head *spaces);
int qcow_release_some(struct qcow_disk *disk, u64 keep);
void qcow_release_tidy(struct qcow_disk *disk);

#endif
