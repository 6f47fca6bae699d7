// SPDX-License-Identifier: GPL-2.0-only
/* The pool of leased clusters; see alloc.h. */

#include <linux/mm.h>
#include <linux/slab.h>
#include <net/genetlink.h>

#include "alloc.h"
#include "dm-qcow.h"
#include "room.h"

#define TABLES_LOW	16
#define BARREN_MAX	8	/* GRANTs one after the other without a table */
#define RETRY_DELAY	HZ	/* while there is no space */

/* A lease takes about as long as writing half of one: the next is asked for in time. */
static bool is_low(const struct qcow_alloc *alloc)
{
	return !alloc->identity && alloc->nr_free < alloc->lease_clusters / 2 + 1;
}

/* Clusters, or tables to name them in. */
static bool lacks_locked(const struct qcow_alloc *alloc)
{
	return is_low(alloc) || alloc->nr_tables < TABLES_LOW || alloc->wanted;
}

static void kick_locked(struct qcow_alloc *alloc)
{
	lockdep_assert_held(&alloc->lock);
	if (alloc->stopped || alloc->state != QCOW_ALLOC_IDLE)
		return;
	/* That is retry()'s business. */
	if (alloc->shortage.of & QCOW_SHORT_OF_CLUSTERS)
		return;
	if (!lacks_locked(alloc))
		return;
	alloc->wanted = false;
	alloc->state = QCOW_ALLOC_PROPOSING;
	queue_work(qcow_wq, &alloc->work);
}

static void settle_locked(struct qcow_alloc *alloc, enum qcow_alloc_state state)
{
	alloc->state = state;
	wake_up_all(&alloc->settled);
}

static void note_shortage_locked(struct qcow_alloc *alloc, unsigned int of)
{
	alloc->shortage.of |= of;
	queue_delayed_work(qcow_wq, &alloc->retry, RETRY_DELAY);
}

/* No space is no reason to fail anybody before its time is up. */
static int verdict_locked(struct qcow_alloc *alloc, int error)
{
	if (error != -ENOSPC)
		return error;
	note_shortage_locked(alloc, QCOW_SHORT_OF_CLUSTERS);
	if (!alloc->nr_free && !alloc->identity)
		qcow_shortage_wait(&alloc->shortage);
	return qcow_shortage_overdue(&alloc->shortage) ? -ENOSPC : 0;
}

static void tell(struct qcow_alloc *alloc, int error)
{
	/* A 0 from verdict_locked(): nothing came, let them wait. */
	if (error)
		alloc->changed(alloc, error);
}

static int propose_done(struct qcow_upcall *uc, const struct qcow_answer *answer)
{
	struct qcow_alloc *alloc = uc->private;
	int error = answer->error, r = 0;

	qcow_upcall_free(alloc->upcalls, uc);
	/* In PROPOSING nobody else touches the proposal. */
	if (!error)
		r = qcow_alloc_take_proposal(alloc, answer);
	if (r)
		error = -EIO;
	spin_lock(&alloc->lock);
	/* Nobody would come again for who waits for what did not come. */
	if (!error && !answer->nr_leases && (is_low(alloc) || !alloc->nr_tables))
		error = -ENOSPC;
	if (error || !answer->nr_leases) {
		error = verdict_locked(alloc, error);
		settle_locked(alloc, QCOW_ALLOC_IDLE);
	} else {
		alloc->nr_proposal = answer->nr_leases;
		alloc->state = QCOW_ALLOC_GRANTING;
		queue_work(qcow_wq, &alloc->work);
	}
	spin_unlock(&alloc->lock);
	tell(alloc, error);
	return r;
}

static void add_free_locked(struct qcow_alloc *alloc, u64 cluster, u64 nr, bool zero)
{
	if (qcow_space_add(&alloc->free, cluster, nr, zero))
		alloc->nr_free += nr;
	else
		alloc->nr_leaked += nr;
}

/* ATTACH has no room for more; the oldest are in use by now. */
static void bound_tables_locked(struct qcow_alloc *alloc)
{
	struct qcow_space *s, *prev;
	unsigned int nr = 0;

	list_for_each_entry_safe_reverse(s, prev, &alloc->tables, node) {
		if (++nr <= DM_QCOW_MAX_LEASES)
			continue;
		list_del(&s->node);
		kfree(s);
	}
}

static void take_grant_locked(struct qcow_alloc *alloc, const struct qcow_answer *answer)
{
	struct dm_qcow_lease l;
	unsigned int i;
	u64 cluster;

	for (i = 0; i < alloc->nr_proposal; i++) {
		memcpy(&l, answer->leases + i * sizeof(l), sizeof(l));
		cluster = l.host_off >> SECTOR_SHIFT >> alloc->cluster_shift;
		if (!(l.flags & DM_QCOW_LEASE_TABLE))
			add_free_locked(alloc, cluster, l.nr_clusters,
					l.flags & DM_QCOW_LEASE_ZERO);
		else if (!qcow_space_add(&alloc->tables, cluster, l.nr_clusters, false))
			alloc->nr_leaked += l.nr_clusters;
	}
	bound_tables_locked(alloc);
	alloc->nr_proposal = 0;
	alloc->nr_tables = answer->tables;
	qcow_shortage_end(&alloc->shortage, QCOW_SHORT_OF_CLUSTERS);
	alloc->smaller = 0;
	alloc->nr_leases++;
}

/* What failed in a way that leaves open whether it was done. */
static bool in_doubt(int error)
{
	return error == -ETIMEDOUT || error == -ERESTART;
}

/* The last of the space is in smaller pieces. */
static bool ask_less_locked(struct qcow_alloc *alloc, int error)
{
	if (error != -ENOSPC || !(alloc->lease_clusters >> alloc->smaller))
		return false;
	alloc->smaller += 2;
	kick_locked(alloc);
	return true;
}

/*
 * Once it may happen that a COMMIT used all the tables of a GRANT said again. But who
 * never has any would be asked for ever, and nobody's write would end.
 */
static bool goes_nowhere(struct qcow_alloc *alloc, const struct qcow_answer *answer)
{
	/* Only GRANTs' answers look at it, and they come one at a time. */
	alloc->nr_barren = answer->tables ? 0 : alloc->nr_barren + 1;
	return alloc->nr_barren > BARREN_MAX;
}

static int grant_done(struct qcow_upcall *uc, const struct qcow_answer *answer)
{
	struct qcow_alloc *alloc = uc->private;
	int error = answer->error, r = 0;
	bool granted;

	qcow_upcall_free(alloc->upcalls, uc);
	if (!error && (!qcow_alloc_is_proposal(alloc, answer) || goes_nowhere(alloc, answer)))
		r = -EINVAL;
	if (r)
		error = -EIO;
	granted = !error;
	spin_lock(&alloc->lock);
	if (granted) {
		take_grant_locked(alloc, answer);
		settle_locked(alloc, QCOW_ALLOC_IDLE);
		kick_locked(alloc);
	} else {
		if (!in_doubt(error))
			alloc->nr_proposal = 0;
		settle_locked(alloc, in_doubt(error) ? QCOW_ALLOC_HELD : QCOW_ALLOC_IDLE);
		if (error == -ETIMEDOUT)
			queue_delayed_work(qcow_wq, &alloc->retry, RETRY_DELAY);
		if (ask_less_locked(alloc, error))
			error = 0;
		error = verdict_locked(alloc, error);
	}
	spin_unlock(&alloc->lock);
	if (granted) {
		qcow_room_take(alloc->room, answer);
		alloc->changed(alloc, 0);
	}
	tell(alloc, error);
	return r;
}

static int put_propose(struct sk_buff *msg, const struct qcow_upcall *uc)
{
	const struct qcow_alloc *alloc = uc->data;
	u64 bytes = alloc->nr_asked << alloc->cluster_shift << SECTOR_SHIFT;

	return nla_put_u64_64bit(msg, DM_QCOW_ATTR_BYTES, bytes, DM_QCOW_ATTR_PAD) ?:
	       nla_put_u32(msg, DM_QCOW_ATTR_TABLES, QCOW_TABLES_ASKED);
}

static int put_grant(struct sk_buff *msg, const struct qcow_upcall *uc)
{
	const struct qcow_alloc *alloc = uc->data;

	return nla_put(msg, DM_QCOW_ATTR_LEASES, alloc->nr_proposal * sizeof(*alloc->proposal),
		       alloc->proposal);
}

static void ask(struct work_struct *work)
{
	struct qcow_alloc *alloc = container_of(work, struct qcow_alloc, work);
	struct qcow_upcall propose = {
		.cmd = DM_QCOW_CMD_PROPOSE, .put = put_propose, .room = 64, .data = alloc,
		.done = propose_done, .private = alloc,
	};
	struct qcow_upcall grant = {
		.cmd = DM_QCOW_CMD_GRANT, .put = put_grant, .data = alloc,
		.room = 64 + DM_QCOW_MAX_LEASES * sizeof(struct dm_qcow_lease),
		.done = grant_done, .private = alloc,
	};
	bool granting;
	int r;

	spin_lock(&alloc->lock);
	granting = alloc->state == QCOW_ALLOC_GRANTING;
	if (!granting)
		alloc->nr_asked = is_low(alloc) ?
			max(alloc->lease_clusters >> alloc->smaller, 1ULL) : 0;
	spin_unlock(&alloc->lock);
	r = qcow_upcall_submit(alloc->upcalls, granting ? &grant : &propose);
	if (!r)
		return;
	spin_lock(&alloc->lock);
	settle_locked(alloc, granting ? QCOW_ALLOC_HELD : QCOW_ALLOC_IDLE);
	spin_unlock(&alloc->lock);
	tell(alloc, r);
}

/* Time to look for space again, or to give up. */
static void retry(struct work_struct *work)
{
	struct qcow_alloc *alloc = container_of(to_delayed_work(work), struct qcow_alloc, retry);
	bool again = false;
	int error = 0;

	spin_lock(&alloc->lock);
	if (qcow_shortage_overdue(&alloc->shortage)) {
		error = -ENOSPC;
		/* All who wait fail now. Who finds no room later may wait as long. */
		qcow_shortage_end(&alloc->shortage, QCOW_SHORT_OF_SPACE);
	}
	if (!alloc->stopped && alloc->state == QCOW_ALLOC_HELD) {
		alloc->state = QCOW_ALLOC_GRANTING;
		again = true;
	} else if (!alloc->stopped && alloc->state == QCOW_ALLOC_IDLE && lacks_locked(alloc)) {
		alloc->wanted = false;
		alloc->state = QCOW_ALLOC_PROPOSING;
		again = true;
	}
	/* Short of nothing but space: let it try again; who finds no room will say so. */
	if (alloc->shortage.of && (again || alloc->shortage.of != QCOW_SHORT_OF_SPACE))
		queue_delayed_work(qcow_wq, &alloc->retry, RETRY_DELAY);
	spin_unlock(&alloc->lock);
	if (again)
		queue_work(qcow_wq, &alloc->work);
	alloc->changed(alloc, error);
}

/**
 * qcow_alloc_take() - hand out clusters that lie next to each other
 * @alloc: the pool
 * @max: how many would do
 * @host_sector: where the first is
 * @zero: all of them durably read as zeros
 *
 * Context: process; does not sleep.
 * Return: how many; 0 if there are none: @changed will be called.
 */
unsigned int qcow_alloc_take(struct qcow_alloc *alloc, unsigned int max, sector_t *host_sector,
			     bool *zero)
{
	struct qcow_space *s;
	unsigned int nr = 0;

	spin_lock(&alloc->lock);
	s = list_first_entry_or_null(&alloc->free, struct qcow_space, node);
	if (s) {
		nr = min_t(u64, max, s->nr);
		*host_sector = s->cluster << alloc->cluster_shift;
		*zero = s->zero;
		s->cluster += nr;
		s->nr -= nr;
		alloc->nr_free -= nr;
		if (!s->nr) {
			list_del(&s->node);
			kfree(s);
		}
	}
	if (!nr)
		qcow_shortage_wait(&alloc->shortage);
	kick_locked(alloc);
	spin_unlock(&alloc->lock);
	return nr;
}

/**
 * qcow_alloc_put() - clusters are free to be handed out again
 * @alloc: the pool
 * @host_sector: the first
 * @nr: how many
 * @zero: they durably read as zeros
 *
 * Context: process; does not sleep.
 */
void qcow_alloc_put(struct qcow_alloc *alloc, sector_t host_sector, u64 nr, bool zero)
{
	u64 cluster = host_sector >> alloc->cluster_shift;
	struct qcow_space *s;

	spin_lock(&alloc->lock);
	s = list_first_entry_or_null(&alloc->free, struct qcow_space, node);
	/* What was taken too much goes back where it came from. */
	if (s && s->zero == zero && cluster + nr == s->cluster) {
		s->cluster = cluster;
		s->nr += nr;
		alloc->nr_free += nr;
	} else {
		add_free_locked(alloc, cluster, nr, zero);
	}
	spin_unlock(&alloc->lock);
}

/**
 * qcow_alloc_want() - somebody waits for tables: see that some come
 * @alloc: the pool
 *
 * Context: process; does not sleep.
 */
void qcow_alloc_want(struct qcow_alloc *alloc)
{
	spin_lock(&alloc->lock);
	alloc->wanted = true;
	qcow_shortage_wait(&alloc->shortage);
	kick_locked(alloc);
	spin_unlock(&alloc->lock);
}

/**
 * qcow_alloc_no_space() - data found no room below
 * @alloc: the pool
 *
 * Context: process; does not sleep. @changed will be called to try again, or to give up.
 */
void qcow_alloc_no_space(struct qcow_alloc *alloc)
{
	spin_lock(&alloc->lock);
	note_shortage_locked(alloc, QCOW_SHORT_OF_SPACE);
	qcow_shortage_wait(&alloc->shortage);
	spin_unlock(&alloc->lock);
}

/**
 * qcow_alloc_space_again() - data found room
 * @alloc: the pool
 *
 * Context: process; does not sleep.
 */
void qcow_alloc_space_again(struct qcow_alloc *alloc)
{
	spin_lock(&alloc->lock);
	qcow_shortage_end(&alloc->shortage, QCOW_SHORT_OF_SPACE);
	spin_unlock(&alloc->lock);
}

/**
 * qcow_alloc_set_tables() - the helper said how many tables are in reserve
 * @alloc: the pool
 * @nr_tables: the uapi's TABLES
 *
 * Context: process; does not sleep.
 */
void qcow_alloc_set_tables(struct qcow_alloc *alloc, u32 nr_tables)
{
	spin_lock(&alloc->lock);
	alloc->nr_tables = nr_tables;
	spin_unlock(&alloc->lock);
}

/**
 * qcow_alloc_leaked() - clusters that only a check will find again
 * @alloc: the pool
 * @nr: how many, at most
 *
 * Context: process; does not sleep.
 */
void qcow_alloc_leaked(struct qcow_alloc *alloc, u64 nr)
{
	spin_lock(&alloc->lock);
	alloc->nr_leaked += nr;
	spin_unlock(&alloc->lock);
}

/**
 * qcow_alloc_open() - the image was opened for writing
 * @alloc: the pool, empty
 * @layer: the data layer
 * @identity: it needs no clusters
 * @nr_tables: the uapi's TABLES
 *
 * Context: process; does not sleep.
 */
void qcow_alloc_open(struct qcow_alloc *alloc, const struct qcow_layer *layer, bool identity,
		     u32 nr_tables)
{
	spin_lock(&alloc->lock);
	alloc->layer = layer;
	alloc->identity = identity;
	alloc->nr_tables = nr_tables;
	alloc->nr_barren = 0;
	qcow_shortage_end(&alloc->shortage, ~0U);
	alloc->nr_proposal = 0;
	alloc->nr_free = 0;
	alloc->state = QCOW_ALLOC_IDLE;
	qcow_space_free_all(&alloc->free);
	qcow_space_free_all(&alloc->tables);
	spin_unlock(&alloc->lock);
}

static bool is_settled(struct qcow_alloc *alloc)
{
	bool settled;

	spin_lock(&alloc->lock);
	settled = alloc->state == QCOW_ALLOC_IDLE || alloc->state == QCOW_ALLOC_HELD;
	spin_unlock(&alloc->lock);
	return settled;
}

/**
 * qcow_alloc_stop() - ask for nothing more
 * @alloc: the pool
 * @timeout: jiffies to wait at most for what was asked
 *
 * Context: process; sleeps, killable and bounded.
 * Return: 0, -ETIMEDOUT or -EINTR.
 */
int qcow_alloc_stop(struct qcow_alloc *alloc, unsigned long timeout)
{
	long left;

	spin_lock(&alloc->lock);
	alloc->stopped = true;
	spin_unlock(&alloc->lock);
	cancel_delayed_work_sync(&alloc->retry);
	left = wait_event_killable_timeout(alloc->settled, is_settled(alloc), timeout);
	if (left > 0)
		return 0;
	return left ? -EINTR : -ETIMEDOUT;
}

/**
 * qcow_alloc_start() - undo qcow_alloc_stop(), and go on with what was held
 * @alloc: the pool
 *
 * Context: process; does not sleep.
 */
void qcow_alloc_start(struct qcow_alloc *alloc)
{
	spin_lock(&alloc->lock);
	alloc->stopped = false;
	if (alloc->shortage.of || alloc->state == QCOW_ALLOC_HELD)
		queue_delayed_work(qcow_wq, &alloc->retry, 0);
	spin_unlock(&alloc->lock);
}

/**
 * qcow_alloc_init() - an empty pool
 * @alloc: zeroed, but for what is constant, which the caller sets
 * @upcalls: the target's
 * @writing: the table allows it: with memory for a proposal
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_alloc_init(struct qcow_alloc *alloc, struct qcow_upcalls *upcalls, bool writing)
{
	alloc->upcalls = upcalls;
	spin_lock_init(&alloc->lock);
	INIT_LIST_HEAD(&alloc->free);
	INIT_LIST_HEAD(&alloc->tables);
	INIT_WORK(&alloc->work, ask);
	INIT_DELAYED_WORK(&alloc->retry, retry);
	init_waitqueue_head(&alloc->settled);
	if (writing)
		alloc->proposal = kvcalloc(DM_QCOW_MAX_LEASES, sizeof(*alloc->proposal),
					   GFP_KERNEL);
	return writing && !alloc->proposal ? -ENOMEM : 0;
}

/**
 * qcow_alloc_exit() - undo qcow_alloc_init()
 * @alloc: stopped, with no upcall left
 *
 * Context: process; waits for its work.
 */
void qcow_alloc_exit(struct qcow_alloc *alloc)
{
	cancel_delayed_work_sync(&alloc->retry);
	cancel_work_sync(&alloc->work);
	qcow_space_free_all(&alloc->free);
	qcow_space_free_all(&alloc->tables);
	kvfree(alloc->proposal);
}
