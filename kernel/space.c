// SPDX-License-Identifier: GPL-2.0-only
/* Lists of clusters; see space.h. */

#include <linux/slab.h>

#include "space.h"

/**
 * qcow_space_add() - put clusters at the end of a list
 * @list: of struct qcow_space
 * @cluster: first
 * @nr: how many
 * @zero: they durably read as zeros
 *
 * Context: any that may not sleep; the caller holds the list's lock.
 * Return: false without memory.
 */
bool qcow_space_add(struct list_head *list, u64 cluster, u64 nr, bool zero)
{
	struct qcow_space *last = NULL;

	if (!list_empty(list))
		last = list_last_entry(list, struct qcow_space, node);
	if (last && last->zero == zero && last->cluster + last->nr == cluster) {
		last->nr += nr;
		return true;
	}
	last = kmalloc(sizeof(*last), GFP_NOWAIT | __GFP_NOWARN);
	if (!last)
		return false;
	*last = (struct qcow_space){ .cluster = cluster, .nr = nr, .zero = zero };
	list_add_tail(&last->node, list);
	return true;
}

/**
 * qcow_space_free_all() - forget clusters
 * @list: of struct qcow_space; becomes empty
 *
 * Context: any; the caller holds the list's lock.
 */
void qcow_space_free_all(struct list_head *list)
{
	struct qcow_space *s, *next;

	list_for_each_entry_safe(s, next, list, node)
		kfree(s);
	INIT_LIST_HEAD(list);
}
