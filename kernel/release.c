// SPDX-License-Identifier: GPL-2.0-only
/* What is free after a commit; see release.h. */

#include <linux/blkdev.h>
#include <linux/falloc.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <net/genetlink.h>

#include "dm-qcow.h"
#include "drop.h"
#include "io.h"
#include "release.h"

/**
 * qcow_release_patience() - how long COMMIT or FREE may take
 * @disk: open for writing, commit->mutex held
 *
 * Context: process.
 * Return: jiffies.
 */
unsigned long qcow_release_patience(const struct qcow_disk *disk)
{
	return disk->commit.patience ?: disk->upcalls.timeout;
}

/**
 * qcow_release_lost() - clusters that were not the guest's alone have lost their pointer
 * @disk: open for writing, commit->mutex held
 * @nr: as COMMIT's answer says
 *
 * What a dead worker remembered is leaked: nobody else knows what it was.
 *
 * Context: process; does not sleep.
 */
void qcow_release_lost(struct qcow_disk *disk, u64 nr)
{
	struct qcow_commit *c = &disk->commit;
	u32 epoch = qcow_link_epoch(disk->upcalls.link);

	if (epoch != c->lost_epoch) {
		qcow_alloc_leaked(&disk->alloc, c->lost);
		c->lost = 0;
		c->lost_epoch = epoch;
	}
	c->lost += nr;
}

static void punch(struct qcow_disk *disk, sector_t sector, u64 nr_sectors)
{
	struct qcow_layer *layer = &disk->layers[disk->map.data_layer];
	unsigned int noio = memalloc_noio_save();

	/* A favour to the layer below: it may refuse, and a frozen one shall hold up no flush. */
	if (layer->bdev)
		blkdev_issue_discard(layer->bdev, sector, nr_sectors, GFP_NOIO);
	else if (READ_ONCE(file_inode(layer->file)->i_sb->s_writers.frozen) == SB_UNFROZEN)
		vfs_fallocate(layer->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      sector << SECTOR_SHIFT, nr_sectors << SECTOR_SHIFT);
	memalloc_noio_restore(noio);
}

/**
 * qcow_release_punch() - the layer below needs keep no bytes of free clusters
 * @disk: open for writing, commit->mutex held
 * @spaces: the clusters
 *
 * Context: process; may sleep.
 */
void qcow_release_punch(struct qcow_disk *disk, const struct list_head *spaces)
{
	unsigned int shift = disk->alloc.cluster_shift;
	const struct qcow_space *s;

	if (!disk->commit.passdown)
		return;
	list_for_each_entry(s, spaces, node)
		punch(disk, s->cluster << shift, s->nr << shift);
}

static void reuse(struct qcow_disk *disk)
{
	unsigned int shift = disk->alloc.cluster_shift;
	struct qcow_space *s, *next;

	qcow_release_punch(disk, &disk->commit.unfenced);
	list_for_each_entry_safe(s, next, &disk->commit.unfenced, node) {
		qcow_alloc_put(&disk->alloc, s->cluster << shift, s->nr, qcow_drops("zero"));
		list_del(&s->node);
		kfree(s);
	}
}

struct free_question {
	struct dm_qcow_lease *leases;
	unsigned int nr;
	u64 generation;
};

static int put_free(struct sk_buff *msg, const struct qcow_upcall *uc)
{
	const struct free_question *q = uc->data;

	if (nla_put_u64_64bit(msg, DM_QCOW_ATTR_GENERATION, q->generation, DM_QCOW_ATTR_PAD))
		return -EMSGSIZE;
	return q->nr ? nla_put(msg, DM_QCOW_ATTR_LEASES, q->nr * sizeof(*q->leases), q->leases) : 0;
}

/**
 * qcow_release_some() - one FREE, of what was lost and of unused clusters
 * @disk: open for writing, commit->mutex held
 * @keep: clusters to keep in the pool
 *
 * What it did not do for certain is counted as leaked.
 *
 * Context: process; waits for the helper, killable and bounded.
 * Return: 0; 1 if there is more; or a negative errno.
 */
int qcow_release_some(struct qcow_disk *disk, u64 keep)
{
	struct qcow_commit *c = &disk->commit;
	/* The deltas' memory: nothing is sealed now. */
	struct free_question q = { .leases = (void *)c->deltas, .generation = c->generation };
	struct qcow_upcall question = { .cmd = DM_QCOW_CMD_FREE, .put = put_free, .data = &q };
	u64 nr_clusters;
	unsigned int i;
	int r;

	qcow_release_lost(disk, 0);
	nr_clusters = c->lost;
	q.nr = qcow_alloc_surplus(&disk->alloc, keep, q.leases);
	if (!q.nr && !c->lost)
		return 0;
	question.room = 64 + q.nr * sizeof(*q.leases);
	for (i = 0; i < q.nr; i++)
		nr_clusters += q.leases[i].nr_clusters;
	r = qcow_upcall_call(&disk->upcalls, &question, NULL, NULL, qcow_release_patience(disk));
	c->lost = 0;
	if (!r)
		return q.nr == DM_QCOW_MAX_LEASES;
	qcow_alloc_leaked(&disk->alloc, nr_clusters);
	return r;
}

/**
 * qcow_release_tidy() - let go of what commits have made free
 * @disk: open for writing, commit->mutex held
 *
 * Nobody waits for this but the next commit.
 *
 * Context: process; waits for the fence and the helper, killable and bounded.
 */
void qcow_release_tidy(struct qcow_disk *disk)
{
	struct qcow_commit *c = &disk->commit;

	if (list_empty(&c->unfenced) && !c->lost)
		return;
	/* If somebody is slow, next time, which comes: writers may wait for these clusters. */
	if (!qcow_drops("fence") && qcow_inflight_fence(&disk->inflight, HZ)) {
		qcow_commit_note(disk);
		return;
	}
	reuse(disk);
	if (c->lost || disk->alloc.nr_free > 4 * disk->alloc.lease_clusters)
		qcow_release_some(disk, 2 * disk->alloc.lease_clusters);
}
