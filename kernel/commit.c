// SPDX-License-Identifier: GPL-2.0-only
/* Commits; see commit.h. */

#include <linux/blkdev.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <net/genetlink.h>

#include "delta.h"
#include "dm-qcow.h"
#include "drop.h"
#include "io.h"
#include "release.h"

#define BACKGROUND_DELAY	(5 * HZ)	/* how old deltas get without a flush */

/*
 * Whatever a failed flush says, what it was to make durable may be gone, and another
 * one would not know: its ENOSPC or ETIMEDOUT must not read as the helper's, after
 * which a commit is said again.
 */
static int flush_layer(struct qcow_disk *disk)
{
	struct qcow_layer *layer = &disk->layers[disk->map.data_layer];
	unsigned int noio;
	int r;

	disk->commit.nr_flushes++;
	if (layer->bdev) {
		r = blkdev_issue_flush(layer->bdev);
	} else {
		noio = memalloc_noio_save();
		r = vfs_fsync(layer->file, 1);
		memalloc_noio_restore(noio);
	}
	if (!r)
		return 0;
	qcow_errors_flush(&disk->errors, layer, r);
	return -EIO;
}

/* ---- one COMMIT --------------------------------------------------------------- */

/* As many of the sealed deltas as one message takes. */
struct chunk {
	const struct qcow_commit *c;
	struct qcow_room *room;
	unsigned int nr;
	u32 flags;
	/* the answer */
	u32 tables;
	u64 lost;
};

static int put_commit(struct sk_buff *msg, const struct qcow_upcall *uc)
{
	const struct chunk *chunk = uc->data;
	const struct qcow_commit *c = chunk->c;

	return nla_put_u64_64bit(msg, DM_QCOW_ATTR_GENERATION, c->generation, DM_QCOW_ATTR_PAD) ?:
	       nla_put_u32(msg, DM_QCOW_ATTR_FLAGS, chunk->flags) ?:
	       nla_put(msg, DM_QCOW_ATTR_DELTAS, chunk->nr * sizeof(*c->deltas),
		       &c->deltas[c->next_delta]);
}

static int take_commit(void *private, const struct qcow_answer *answer)
{
	struct chunk *chunk = private;

	if (!qcow_answer_has(answer, DM_QCOW_ATTR_TABLES))
		return -EPROTO;
	chunk->tables = answer->tables;
	chunk->lost = answer->lost;
	qcow_room_take(chunk->room, answer);
	return 0;
}

static u64 cluster_of(const struct qcow_disk *disk, u64 guest_off)
{
	return guest_off >> SECTOR_SHIFT >> disk->alloc.cluster_shift;
}

/* The blocks of a cluster stay together: it may move, and must not be seen half moved. */
static unsigned int next_chunk(const struct qcow_disk *disk)
{
	const struct qcow_commit *c = &disk->commit;
	const struct dm_qcow_delta *d = &c->deltas[c->next_delta];
	unsigned int nr = c->nr_deltas - c->next_delta;
	unsigned int block_shift = disk->map.block_shift + SECTOR_SHIFT;

	if (nr <= DM_QCOW_MAX_DELTAS)
		return nr;
	for (nr = DM_QCOW_MAX_DELTAS; nr > 1; nr--) {
		const struct dm_qcow_delta *last = &d[nr - 1];
		u64 end = last->guest_off + ((u64)last->nr_blocks << block_shift);

		if (cluster_of(disk, end - 1) != cluster_of(disk, d[nr].guest_off))
			break;
	}
	return nr;
}

/*
 * A worker died or hung over it, perhaps after its last write. To the next one all is as
 * it should be, and what an entry pointed to before, unless it was the guest's alone, is
 * known to nobody.
 */
static void count_unknown(struct qcow_disk *disk, const struct chunk *chunk)
{
	const struct dm_qcow_delta *d = &chunk->c->deltas[chunk->c->next_delta];
	unsigned int i, block_shift = disk->map.block_shift + SECTOR_SHIFT;
	u64 nr = 0, last;

	for (i = 0; i < chunk->nr; i++) {
		last = d[i].guest_off + ((u64)d[i].nr_blocks << block_shift) - 1;
		nr += cluster_of(disk, last) - cluster_of(disk, d[i].guest_off) + 1;
	}
	qcow_alloc_leaked(&disk->alloc, nr - min(nr, chunk->lost));
}

static int commit_chunk(struct qcow_disk *disk)
{
	unsigned long resent = READ_ONCE(disk->upcalls.nr_commits_resent);
	struct qcow_commit *c = &disk->commit;
	struct chunk chunk = {
		.c = c,
		.room = &disk->room,
		.nr = next_chunk(disk),
		.flags = c->exposing ? 0 : DM_QCOW_COMMIT_UNFLUSHED,
	};
	struct qcow_upcall question = {
		.cmd = DM_QCOW_CMD_COMMIT, .put = put_commit, .data = &chunk,
		.room = 64 + chunk.nr * sizeof(*c->deltas),
	};
	int r;

	r = qcow_upcall_call(&disk->upcalls, &question, take_commit, &chunk,
			     qcow_release_patience(disk));
	if (r == -ETIMEDOUT || r == -EINTR || READ_ONCE(disk->upcalls.nr_commits_resent) != resent)
		count_unknown(disk, &chunk);
	if (r)
		return r;
	c->next_delta += chunk.nr;
	qcow_release_lost(disk, chunk.lost);
	qcow_alloc_set_tables(&disk->alloc, chunk.tables);
	return 0;
}

/* Makes the sealed generation durable. After an error it is said again from its start. */
static int commit_sealed(struct qcow_disk *disk)
{
	struct qcow_commit *c = &disk->commit;
	int r = 0;

	c->next_delta = 0;
	if (c->exposing && !qcow_drops("flush") && !qcow_drops("seal"))
		r = flush_layer(disk);
	while (!r && c->next_delta < c->nr_deltas)
		r = commit_chunk(disk);
	if (r)
		return r;
	c->nr_commits++;
	c->nr_committed += c->nr_deltas;
	c->nr_deltas = 0;
	/* Pairs with the acquire in idle: who sees us not busy has it durable. */
	smp_store_release(&c->busy, false);
	qcow_map_unseal(&disk->map);
	list_splice_tail_init(&c->freed, &c->unfenced);
	return 0;
}

static void seal(struct qcow_disk *disk)
{
	struct qcow_commit *c = &disk->commit;

	WRITE_ONCE(c->busy, true);
	/* Pairs with smp_rmb() in idle: who sees nothing dirty any more sees us busy. */
	smp_mb();
	spin_lock(&c->lock);
	c->generation++;
	list_splice_tail_init(&c->open_freed, &c->freed);
	spin_unlock(&c->lock);
	c->nr_deltas = qcow_map_seal(&disk->map, c->deltas, &c->exposing);
	/* An external data file is not what the helper flushes. */
	c->exposing |= disk->alloc.identity;
	if (c->nr_deltas)
		return;
	/* Freed while the last generation was sealed, which had their entries. */
	list_splice_tail_init(&c->freed, &c->unfenced);
	/* Pairs with the acquire in idle. */
	smp_store_release(&c->busy, false);
}

/* ---- the worker ------------------------------------------------------------------------- */

static int commit_locked(struct qcow_disk *disk, bool flush)
{
	struct qcow_commit *c = &disk->commit;
	int r = 0;

	lockdep_assert_held(&c->mutex);
	/* What a flush or a commit left undone when it failed, another one would not know. */
	if (c->broken)
		return c->broken;
	if (c->nr_deltas)
		r = commit_sealed(disk);
	if (r)
		return r;
	if (qcow_drops("seal")) {
		flush_layer(disk);
		qcow_drop_window();
	}
	if (qcow_drops("free"))
		qcow_release_some(disk, 0);
	seal(disk);
	if (qcow_drops("punch"))
		qcow_release_punch(disk, &c->freed);
	if (c->nr_deltas)
		return commit_sealed(disk);
	return flush ? flush_layer(disk) : 0;
}

static void take_flushes(struct qcow_commit *c, struct bio_list *bios)
{
	bio_list_init(bios);
	spin_lock(&c->lock);
	bio_list_merge(bios, &c->flushes);
	bio_list_init(&c->flushes);
	spin_unlock(&c->lock);
}

/* Or is the generation kept, and said again? */
static bool is_for_good(int error)
{
	switch (error) {
	case -ENOSPC:
	case -ETIMEDOUT:
	case -ERESTART:
	case -EINTR:
		return false;
	default:
		return true;
	}
}

static void break_down(struct qcow_disk *disk, int error)
{
	lockdep_assert_held(&disk->commit.mutex);
	WRITE_ONCE(disk->commit.broken, error);
	qcow_errors_mode(&disk->errors, "COMMIT", error, NULL);
	disk->degrade(disk);
}

static void failed(struct qcow_disk *disk, int error)
{
	if (is_for_good(error))
		break_down(disk, error);
	else
		qcow_commit_note(disk);
}

static void run(struct work_struct *work)
{
	struct qcow_disk *disk = container_of(work, struct qcow_disk, commit.work);
	struct bio_list bios;
	bool waited_for, flush;
	int r;

	mutex_lock(&disk->commit.mutex);
	/* Before anything is looked at: who presses later wants another one. */
	waited_for = xchg(&disk->commit.pressed, false) || !qcow_commit_idle(disk);
	take_flushes(&disk->commit, &bios);
	flush = !bio_list_empty(&bios);
	if (qcow_drops("answer")) {
		qcow_bios_end(&bios, 0);
		qcow_drop_window();
	}
	r = commit_locked(disk, flush);
	qcow_bios_end(&bios, r);
	if (r)
		failed(disk, r);
	else
		qcow_release_tidy(disk);
	mutex_unlock(&disk->commit.mutex);
	if (!waited_for)
		return;
	if (!r) {
		qcow_cells_resume(disk);
		return;
	}
	/* They would only ask for the same again, at once. */
	WRITE_ONCE(disk->commit.pressed, true);
	/* Nobody waits for the helper for longer than that. */
	if (r == -ETIMEDOUT)
		qcow_cells_fail(disk, r);
}

static void in_background(struct work_struct *work)
{
	struct qcow_commit *c = container_of(to_delayed_work(work), struct qcow_commit,
					     background);

	queue_work(qcow_commit_wq, &c->work);
}

/* A commit of nothing would make no room; there will be some when a claim ends. */
static void hurry(struct qcow_disk *disk)
{
	if (!qcow_commit_idle(disk))
		queue_work(qcow_commit_wq, &disk->commit.work);
}

static bool credit(struct qcow_disk *disk, struct qcow_map_page *page)
{
	return qcow_map_credit(&disk->map, page, READ_ONCE(disk->alloc.nr_tables));
}

/*
 * If there is no table to count on, @pressed is set before the last look. Pairs with
 * qcow_commit_unclaim(), where it is read after the credit was given back.
 */
static bool have_table(struct qcow_disk *disk, struct qcow_map_page *page)
{
	if (likely(credit(disk, page)))
		return true;
	WRITE_ONCE(disk->commit.pressed, true);
	if (credit(disk, page))
		return true;
	qcow_alloc_want(&disk->alloc);
	return false;
}

/**
 * qcow_commit_idle() - is there nothing that a flush would have to commit?
 * @disk: open for writing
 *
 * Context: any; does not sleep. Whatever was completed before the call is considered.
 * Return: true if a flush of the data layer is all it takes.
 */
bool qcow_commit_idle(struct qcow_disk *disk)
{
	bool dirty = READ_ONCE(disk->map.nr_dirty);

	smp_rmb();	/* pairs with smp_mb() in seal() */
	return !dirty && !smp_load_acquire(&disk->commit.busy);
}

/**
 * qcow_commit_flush() - end a bio when everything completed before is durable
 * @disk: open for writing
 * @bio: a flush, or a FUA write whose data was written
 *
 * Context: any but interrupts; does not sleep.
 */
void qcow_commit_flush(struct qcow_disk *disk, struct bio *bio)
{
	spin_lock(&disk->commit.lock);
	bio_list_add(&disk->commit.flushes, bio);
	/* With the lock: when the bio has ended, dm may take the disk away. */
	queue_work(qcow_commit_wq, &disk->commit.work);
	spin_unlock(&disk->commit.lock);
}

/**
 * qcow_commit_end() - end a bio that has been carried out, when it may end
 * @disk: open for writing
 * @bio: a write or discard, with its status; REQ_FUA waits for a commit
 *
 * Context: any but interrupts; does not sleep.
 */
void qcow_commit_end(struct qcow_disk *disk, struct bio *bio)
{
	if (!bio->bi_status && (bio->bi_opf & REQ_FUA))
		qcow_commit_flush(disk, bio);
	else
		bio_endio(bio);
}

/**
 * qcow_commit_claim() - may a cell make deltas?
 * @disk: open for writing
 * @page: pinned; where they will be
 * @nr: how many at most
 *
 * Keeps the generation, and what its commit can need in tables, within bounds.
 *
 * Context: process; does not sleep.
 * Return: true, and qcow_commit_unclaim() is owed; or false: a commit or a lease is on
 * its way, and qcow_cells_resume() comes after it.
 */
bool qcow_commit_claim(struct qcow_disk *disk, struct qcow_map_page *page, unsigned int nr)
{
	struct qcow_commit *c = &disk->commit;
	unsigned long nr_dirty;
	bool room;

	if (!have_table(disk, page)) {
		hurry(disk);
		return false;
	}
	spin_lock(&c->lock);
	/* A claim ends only after its deltas have been counted: none is missed in here. */
	nr_dirty = READ_ONCE(disk->map.nr_dirty);
	room = nr_dirty + c->nr_claimed + nr <= QCOW_DELTAS_MAX;
	if (room)
		c->nr_claimed += nr;
	else
		WRITE_ONCE(c->pressed, true);
	spin_unlock(&c->lock);
	if (!room || nr_dirty > QCOW_DELTAS_MAX / 2)
		hurry(disk);
	return room;
}

/**
 * qcow_commit_unclaim() - the deltas are there, or will not come
 * @disk: open for writing
 * @nr: what qcow_commit_claim() got
 *
 * Context: process; does not sleep.
 */
void qcow_commit_unclaim(struct qcow_disk *disk, unsigned int nr)
{
	spin_lock(&disk->commit.lock);
	disk->commit.nr_claimed -= nr;
	spin_unlock(&disk->commit.lock);
	/* A claim that came to nothing leaves room, and no delta that would tell. */
	if (unlikely(READ_ONCE(disk->commit.pressed)))
		queue_work(qcow_commit_wq, &disk->commit.work);
}

/**
 * qcow_commit_note() - there are deltas: they will not get old
 * @disk: open for writing
 *
 * Context: process; does not sleep.
 */
void qcow_commit_note(struct qcow_disk *disk)
{
	/* Does nothing if it is on its way. */
	queue_delayed_work(qcow_commit_wq, &disk->commit.background, BACKGROUND_DELAY);
}

/**
 * qcow_commit_freed() - clusters of the guest's own have lost their entry
 * @disk: open for writing
 * @host_sector: the first
 * @nr: how many
 *
 * They go back to the pool after the generation's commit and a fence.
 *
 * Context: process; does not sleep. After the entries were set.
 */
void qcow_commit_freed(struct qcow_disk *disk, sector_t host_sector, u64 nr)
{
	struct qcow_commit *c = &disk->commit;
	bool ok;

	if (qcow_drops("reuse") || qcow_drops("free")) {
		qcow_alloc_put(&disk->alloc, host_sector, nr, false);
		return;
	}
	spin_lock(&c->lock);
	ok = qcow_space_add(&c->open_freed, host_sector >> disk->alloc.cluster_shift, nr, false);
	spin_unlock(&c->lock);
	if (!ok)
		qcow_alloc_leaked(&disk->alloc, nr);
}

/**
 * qcow_commit_all() - make everything durable
 * @disk: open for writing, with no bio in flight
 * @patience: jiffies to wait at most for each upcall
 *
 * Context: postsuspend; waits for the helper, killable and bounded.
 * Return: 0 or a negative errno; then the deltas are still there.
 */
int qcow_commit_all(struct qcow_disk *disk, unsigned long patience)
{
	int r;

	if (mutex_lock_killable(&disk->commit.mutex))
		return -EINTR;
	disk->commit.patience = patience;
	r = commit_locked(disk, true);
	if (!r)
		qcow_release_tidy(disk);
	else if (is_for_good(r))
		break_down(disk, r);
	/* The fence was interrupted: the next image must not be given this one's clusters. */
	if (!r && !list_empty(&disk->commit.unfenced))
		r = -EINTR;
	disk->commit.patience = 0;
	mutex_unlock(&disk->commit.mutex);
	return r;
}

/**
 * qcow_commit_return_leases() - give unused clusters back to the helper
 * @disk: committed, with no bio in flight and the pool stopped
 * @patience: jiffies to wait at most for each upcall
 *
 * Context: postsuspend; waits for the helper, killable and bounded.
 * Return: 0 or a negative errno.
 */
int qcow_commit_return_leases(struct qcow_disk *disk, unsigned long patience)
{
	int r;

	if (mutex_lock_killable(&disk->commit.mutex))
		return -EINTR;
	disk->commit.patience = patience;
	/* If the worker died over it there is a leak, which was counted: go on closing. */
	do {
		r = qcow_release_some(disk, 0);
	} while (r > 0 || r == -ESTALE);
	disk->commit.patience = 0;
	mutex_unlock(&disk->commit.mutex);
	return r;
}

/**
 * qcow_commit_pause() - begin no more background work
 * @disk: the disk
 *
 * A commit that is at work goes on: it may wait for the helper for long, and who comes
 * after it with qcow_commit_all() waits killably.
 *
 * Context: process; does not wait for the helper.
 */
void qcow_commit_pause(struct qcow_disk *disk)
{
	cancel_delayed_work_sync(&disk->commit.background);
	cancel_work(&disk->commit.work);
}

/**
 * qcow_commit_stop() - no more background work
 * @disk: the disk
 *
 * Context: process; waits for a commit that is at work, which is bounded.
 */
void qcow_commit_stop(struct qcow_disk *disk)
{
	cancel_delayed_work_sync(&disk->commit.background);
	cancel_work_sync(&disk->commit.work);
}

/**
 * qcow_commit_init() - set up an empty generation
 * @disk: zeroed
 *
 * Context: any.
 */
void qcow_commit_init(struct qcow_disk *disk)
{
	struct qcow_commit *c = &disk->commit;

	INIT_WORK(&c->work, run);
	INIT_DELAYED_WORK(&c->background, in_background);
	mutex_init(&c->mutex);
	spin_lock_init(&c->lock);
	bio_list_init(&c->flushes);
	INIT_LIST_HEAD(&c->freed);
	INIT_LIST_HEAD(&c->unfenced);
	INIT_LIST_HEAD(&c->open_freed);
}

/**
 * qcow_commit_reserve() - set memory aside for a sealed generation
 * @disk: to be written
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_commit_reserve(struct qcow_disk *disk)
{
	struct qcow_commit *c = &disk->commit;

	c->deltas = kvcalloc(QCOW_DELTAS_MAX, sizeof(*c->deltas), GFP_KERNEL);
	return c->deltas ? 0 : -ENOMEM;
}

/**
 * qcow_commit_exit() - undo qcow_commit_init()
 * @disk: the disk, stopped
 *
 * Context: process.
 */
void qcow_commit_exit(struct qcow_disk *disk)
{
	struct qcow_commit *c = &disk->commit;

	qcow_space_free_all(&c->freed);
	qcow_space_free_all(&c->unfenced);
	qcow_space_free_all(&c->open_freed);
	kvfree(c->deltas);
}
