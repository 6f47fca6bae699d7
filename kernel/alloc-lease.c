// SPDX-License-Identifier: GPL-2.0-only
/* Leases: what the helper says of them, checked; what it is told of them; see alloc.h. */

#include <linux/slab.h>

#include "alloc.h"
#include "dm-qcow.h"
#include "layer.h"

static u64 lease_bytes(const struct qcow_alloc *alloc, const struct dm_qcow_lease *l)
{
	return (u64)l->nr_clusters << alloc->cluster_shift << SECTOR_SHIFT;
}

static bool lease_ok(const struct qcow_alloc *alloc, const struct dm_qcow_lease *l)
{
	u64 size = BIT_ULL(alloc->cluster_shift + SECTOR_SHIFT);

	if (!l->nr_clusters || l->flags & ~DM_QCOW_LEASE_TABLE || !IS_ALIGNED(l->host_off, size))
		return false;
	/* With identity, tables are all there is, and go into a layer that we do not know. */
	if (alloc->identity)
		return l->flags & DM_QCOW_LEASE_TABLE;
	return qcow_layer_holds(alloc->layer, l->host_off, lease_bytes(alloc, l));
}

/* Does the proposal's @i-th lie on an earlier one? */
static bool overlaps(const struct qcow_alloc *alloc, unsigned int i)
{
	const struct dm_qcow_lease *new = &alloc->proposal[i], *old;

	for (old = alloc->proposal; old < new; old++)
		if (new->host_off - old->host_off < lease_bytes(alloc, old) ||
		    old->host_off - new->host_off < lease_bytes(alloc, new))
			return true;
	return false;
}

/**
 * qcow_alloc_take_proposal() - check the answer to PROPOSE, and copy it
 * @alloc: PROPOSING, so that nobody else touches the proposal
 * @a: the answer
 *
 * Context: the helper's; does not sleep.
 * Return: 0, or -EINVAL: a lease is impossible, or on another, or more than was asked
 * for, which would have the pool grow without end.
 */
int qcow_alloc_take_proposal(struct qcow_alloc *alloc, const struct qcow_answer *a)
{
	u64 room[] = { alloc->nr_asked, QCOW_TABLES_ASKED };
	struct dm_qcow_lease *l;
	bool table;
	unsigned int i;

	if (a->nr_leases > DM_QCOW_MAX_LEASES)
		return -EINVAL;
	for (i = 0; i < a->nr_leases; i++) {
		l = &alloc->proposal[i];
		memcpy(l, a->leases + i * sizeof(*l), sizeof(*l));
		table = l->flags & DM_QCOW_LEASE_TABLE;
		if (!lease_ok(alloc, l) || l->nr_clusters > room[table] || overlaps(alloc, i))
			return -EINVAL;
		room[table] -= l->nr_clusters;
	}
	return 0;
}

/**
 * qcow_alloc_is_proposal() - is the answer to GRANT what was proposed?
 * @alloc: GRANTING
 * @answer: the answer
 *
 * Context: the helper's; does not sleep.
 * Return: true if so.
 */
bool qcow_alloc_is_proposal(const struct qcow_alloc *alloc, const struct qcow_answer *answer)
{
	struct dm_qcow_lease l;
	unsigned int i;

	if (answer->nr_leases != alloc->nr_proposal ||
	    !qcow_answer_has(answer, DM_QCOW_ATTR_TABLES))
		return false;
	for (i = 0; i < alloc->nr_proposal; i++) {
		memcpy(&l, answer->leases + i * sizeof(l), sizeof(l));
		if (l.host_off != alloc->proposal[i].host_off ||
		    l.nr_clusters != alloc->proposal[i].nr_clusters ||
		    (l.flags & ~DM_QCOW_LEASE_ZERO) != alloc->proposal[i].flags)
			return false;
	}
	return true;
}

static struct dm_qcow_lease lease_of(const struct qcow_alloc *alloc, u64 cluster, u64 nr, u32 flags)
{
	return (struct dm_qcow_lease){
		.host_off = cluster << alloc->cluster_shift << SECTOR_SHIFT,
		.nr_clusters = min_t(u64, nr, U32_MAX),
		.flags = flags,
	};
}

/**
 * qcow_alloc_surplus() - take out what goes back to the helper
 * @alloc: the pool
 * @keep: clusters to keep; if 0, a proposal that was not granted goes too
 * @leases: room for DM_QCOW_MAX_LEASES
 *
 * Context: process; does not sleep.
 * Return: how many leases there are in @leases.
 */
unsigned int qcow_alloc_surplus(struct qcow_alloc *alloc, u64 keep, struct dm_qcow_lease *leases)
{
	struct qcow_space *s, *prev;
	unsigned int nr = 0;

	spin_lock(&alloc->lock);
	if (!keep && alloc->state == QCOW_ALLOC_HELD) {
		nr = alloc->nr_proposal;
		memcpy(leases, alloc->proposal, nr * sizeof(*leases));
		alloc->nr_proposal = 0;
		alloc->state = QCOW_ALLOC_IDLE;
	}
	/* Those that came last: the first are contiguous, and known to be zeros. */
	list_for_each_entry_safe_reverse(s, prev, &alloc->free, node) {
		if (alloc->nr_free <= keep || nr == DM_QCOW_MAX_LEASES)
			break;
		leases[nr] = lease_of(alloc, s->cluster, s->nr, 0);
		s->cluster += leases[nr].nr_clusters;
		s->nr -= leases[nr].nr_clusters;
		alloc->nr_free -= leases[nr++].nr_clusters;
		if (s->nr)
			continue;
		list_del(&s->node);
		kfree(s);
	}
	spin_unlock(&alloc->lock);
	return nr;
}

/**
 * qcow_alloc_list() - what a new worker has to know
 * @alloc: the pool
 * @leases: room for DM_QCOW_MAX_LEASES
 *
 * Context: process; does not sleep.
 * Return: how many leases there are in @leases.
 */
unsigned int qcow_alloc_list(struct qcow_alloc *alloc, struct dm_qcow_lease *leases)
{
	const struct qcow_space *s;
	unsigned int nr;

	spin_lock(&alloc->lock);
	nr = alloc->nr_proposal;
	memcpy(leases, alloc->proposal, nr * sizeof(*leases));
	list_for_each_entry_reverse(s, &alloc->tables, node) {
		if (nr == DM_QCOW_MAX_LEASES)
			break;
		leases[nr++] = lease_of(alloc, s->cluster, s->nr, DM_QCOW_LEASE_TABLE);
	}
	spin_unlock(&alloc->lock);
	return nr;
}
