/* SPDX-License-Identifier: GPL-2.0-only */
/* Lists of clusters of the data layer, next to each other where possible. */
#ifndef DM_QCOW_SPACE_H
#define DM_QCOW_SPACE_H

#include <linux/list.h>
#include <linux/types.h>

/* Consecutive clusters, by number. */
struct qcow_space {
	struct list_head node;
	u64 cluster, nr;
	bool zero;		/* durably reads as zeros */
};

bool qcow_space_add(struct list_head *list, u64 cluster, u64 nr, bool zero);
void qcow_space_free_all(struct list_head *list);

#endif
