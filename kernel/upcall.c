// SPDX-License-Identifier: GPL-2.0-only
/* Upcalls; see upcall.h. */

#include <linux/slab.h>

#include "dm-qcow.h"
#include "upcall.h"

#define POOL_MIN	16

static struct kmem_cache *upcall_cache;
static atomic64_t next_cookie = ATOMIC64_INIT(0);

/**
 * qcow_upcall_module_init() - make the slab cache of upcalls
 *
 * Context: module init.
 * Return: 0 or -ENOMEM.
 */
int qcow_upcall_module_init(void)
{
	upcall_cache = KMEM_CACHE(qcow_upcall, 0);
	return upcall_cache ? 0 : -ENOMEM;
}

/**
 * qcow_upcall_module_exit() - undo qcow_upcall_module_init()
 *
 * Context: module exit.
 */
void qcow_upcall_module_exit(void)
{
	kmem_cache_destroy(upcall_cache);
}

/**
 * qcow_bios_end() - end bios that waited for an upcall
 * @bios: becomes empty
 * @error: 0 or a negative errno; -ERESTART has dm queue them again (noflush)
 *
 * Context: any.
 */
void qcow_bios_end(struct bio_list *bios, int error)
{
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		/* A part that was cut off it may have failed before. */
		if (error && !bio->bi_status)
			bio->bi_status = error == -ERESTART ? BLK_STS_DM_REQUEUE :
							      errno_to_blk_status(error);
		bio_endio(bio);
	}
}

static struct qcow_upcall *find_key_locked(struct qcow_upcalls *ucs, u8 cmd, u64 key)
{
	struct qcow_upcall *uc;

	hash_for_each_possible(ucs->keys, uc, by_key, key)
		if (uc->cmd == cmd && uc->key == key)
			return uc;
	return NULL;
}

static bool has_key(const struct qcow_upcall *uc)
{
	return uc->cmd == DM_QCOW_CMD_LOAD || uc->cmd == DM_QCOW_CMD_FETCH;
}

/* The caller sends it, or has it sent. */
static void submit_locked(struct qcow_upcalls *ucs, struct qcow_upcall *uc)
{
	lockdep_assert_held(&ucs->lock);
	uc->cookie = atomic64_inc_return(&next_cookie);
	uc->deadline = jiffies + ucs->timeout;
	hash_add(ucs->cookies, &uc->by_cookie, uc->cookie);
	if (has_key(uc))
		hash_add(ucs->keys, &uc->by_key, uc->key);
	list_add_tail(&uc->node, &ucs->queued);
	ucs->nr_submitted++;
	ucs->nr_loads += uc->cmd == DM_QCOW_CMD_LOAD;
	ucs->nr_fetches += uc->cmd == DM_QCOW_CMD_FETCH;
	/* Deadlines come in order: a timer that is running already is early enough. */
	queue_delayed_work(qcow_wq, &ucs->timer, ucs->timeout);
}

static void kick_locked(struct qcow_upcalls *ucs)
{
	lockdep_assert_held(&ucs->lock);
	queue_delayed_work(qcow_wq, &ucs->send_work, 0);
}

static void claim_locked(struct qcow_upcalls *ucs, struct qcow_upcall *uc)
{
	lockdep_assert_held(&ucs->lock);
	list_del_init(&uc->node);
	hash_del(&uc->by_cookie);
	if (has_key(uc))
		hash_del(&uc->by_key);
	if (uc->sent)
		ucs->sent_bytes -= uc->truesize;
	if (!list_empty(&ucs->queued))
		kick_locked(ucs);
}

static struct qcow_upcall *claim(struct qcow_upcalls *ucs, u64 cookie, u8 cmd)
{
	struct qcow_upcall *uc;

	spin_lock(&ucs->lock);
	uc = qcow_upcall_find_locked(ucs, cookie);
	if (uc && uc->cmd == cmd)
		claim_locked(ucs, uc);
	else
		uc = NULL;
	spin_unlock(&ucs->lock);
	return uc;
}

static void fail(struct qcow_upcall *uc, int error)
{
	struct qcow_answer answer = { .cookie = uc->cookie, .cmd = uc->cmd, .error = error };

	uc->done(uc, &answer);
}

static struct qcow_upcall *create(struct qcow_upcalls *ucs, const struct qcow_upcall *want)
{
	struct qcow_upcall *uc = mempool_alloc(&ucs->pool, GFP_NOIO);

	*uc = *want;
	bio_list_init(&uc->bios);
	INIT_LIST_HEAD(&uc->node);
	return uc;
}

/**
 * qcow_upcall_free() - free a claimed upcall
 * @ucs: the target's upcalls
 * @uc: whose bios have been taken
 *
 * Context: any.
 */
void qcow_upcall_free(struct qcow_upcalls *ucs, struct qcow_upcall *uc)
{
	mempool_free(uc, &ucs->pool);
}

/**
 * qcow_upcall_park() - have a bio wait for a LOAD or FETCH
 * @ucs: the target's upcalls
 * @want: cmd, key, seq, length, done, private of the upcall, if there is none yet
 * @bio: given away; ended at once if upcalls are being refused
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_upcall_park(struct qcow_upcalls *ucs, const struct qcow_upcall *want, struct bio *bio)
{
	struct qcow_upcall *uc, *new = NULL;
	struct bio_list refused;
	int refuse;

	spin_lock(&ucs->lock);
	uc = find_key_locked(ucs, want->cmd, want->key);
	if (!uc) {
		spin_unlock(&ucs->lock);
		new = create(ucs, want);
		spin_lock(&ucs->lock);
		uc = find_key_locked(ucs, want->cmd, want->key);
	}
	refuse = ucs->refuse;
	if (!uc && !refuse) {
		submit_locked(ucs, new);
		kick_locked(ucs);
		uc = new;
		new = NULL;
	}
	if (!refuse)
		bio_list_add(&uc->bios, bio);
	spin_unlock(&ucs->lock);
	if (new)
		qcow_upcall_free(ucs, new);
	if (refuse) {
		bio_list_init(&refused);
		bio_list_add(&refused, bio);
		qcow_bios_end(&refused, refuse);
	}
}

/* A synchronous upcall: somebody waits for it. */
struct call {
	struct qcow_upcalls *ucs;
	struct completion done;
	qcow_call_fn fn;
	void *private;
	int error;
};

static int call_done(struct qcow_upcall *uc, const struct qcow_answer *answer)
{
	struct call *call = uc->private;
	int r = 0;

	if (!answer->error && call->fn)
		r = call->fn(call->private, answer);
	call->error = answer->error ?: r;
	qcow_upcall_free(call->ucs, uc);
	/* The last look at *call: it is on the stack of who waits. */
	complete(&call->done);
	/* An error of the helper's own is news to us, not to the helper. */
	return r;
}

/* Claims an upcall that nobody waits for any more, unless somebody claimed it just now. */
static struct qcow_upcall *give_up(struct qcow_upcalls *ucs, u64 cookie)
{
	struct qcow_upcall *uc;

	spin_lock(&ucs->lock);
	uc = qcow_upcall_find_locked(ucs, cookie);
	if (uc) {
		claim_locked(ucs, uc);
		qcow_upcall_note_hung_locked(ucs, uc);
	}
	spin_unlock(&ucs->lock);
	return uc;
}

/**
 * qcow_upcall_call() - ask, and wait for the answer
 * @ucs: the target's upcalls
 * @question: its cmd, put, room and data; the caller's
 * @fn: looks at the answer, may be NULL
 * @private: for @fn
 * @timeout: jiffies to wait at most; no longer than the target's helper_timeout
 *
 * Context: process; sleeps, killable and bounded.
 * Return: 0; the helper's error or @fn's; -ETIMEDOUT; -EINTR.
 */
int qcow_upcall_call(struct qcow_upcalls *ucs, const struct qcow_upcall *question,
		     qcow_call_fn fn, void *private, unsigned long timeout)
{
	struct call call = { .ucs = ucs, .fn = fn, .private = private };
	struct qcow_upcall *uc = create(ucs, question);
	u64 cookie;
	long left;
	int r;

	uc->done = call_done;
	uc->private = &call;
	init_completion(&call.done);
	spin_lock(&ucs->lock);
	r = ucs->refuse;
	if (!r)
		submit_locked(ucs, uc);
	cookie = uc->cookie;
	spin_unlock(&ucs->lock);
	if (r) {
		qcow_upcall_free(ucs, uc);
		return r;
	}
	/* Who waits anyway need not have another worker send it. */
	qcow_upcall_push(ucs);
	left = wait_for_completion_killable_timeout(&call.done, timeout);
	if (left > 0)
		return call.error;
	uc = give_up(ucs, cookie);
	if (!uc) {
		/* Somebody claimed it just now, and is in call_done(). */
		wait_for_completion(&call.done);
		return call.error;
	}
	qcow_upcall_free(ucs, uc);
	return left ? -EINTR : -ETIMEDOUT;
}

/**
 * qcow_upcall_submit() - ask, and go on
 * @ucs: the target's upcalls
 * @want: cmd, put, room, data, done, private; done() has to free the upcall
 *
 * Context: process; may sleep, without I/O.
 * Return: 0, and done() will be called; or why upcalls are being refused.
 */
int qcow_upcall_submit(struct qcow_upcalls *ucs, const struct qcow_upcall *want)
{
	struct qcow_upcall *uc = create(ucs, want);
	int r;

	spin_lock(&ucs->lock);
	r = ucs->refuse;
	if (!r) {
		submit_locked(ucs, uc);
		kick_locked(ucs);
	}
	spin_unlock(&ucs->lock);
	if (r)
		qcow_upcall_free(ucs, uc);
	return r;
}

/**
 * qcow_upcalls_answer() - the worker answered
 * @ucs: the target's upcalls
 * @answer: decoded
 *
 * Context: process, the helper's; may sleep, without I/O.
 * Return: 0; -ENOENT if there is no such upcall (any more); what done() says.
 */
int qcow_upcalls_answer(struct qcow_upcalls *ucs, const struct qcow_answer *answer)
{
	struct qcow_upcall *uc = claim(ucs, answer->cookie, answer->cmd);

	return uc ? uc->done(uc, answer) : -ENOENT;
}

/* The first upcall whose time is over, claimed. */
static struct qcow_upcall *claim_expired(struct qcow_upcalls *ucs)
{
	struct list_head *lists[] = { &ucs->sent, &ucs->queued };
	struct qcow_upcall *uc = NULL;
	int i;

	spin_lock(&ucs->lock);
	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		uc = list_first_entry_or_null(lists[i], struct qcow_upcall, node);
		if (uc && time_after_eq(jiffies, uc->deadline))
			break;
		uc = NULL;
	}
	if (uc) {
		claim_locked(ucs, uc);
		qcow_upcall_note_hung_locked(ucs, uc);
		ucs->nr_timeouts++;
	}
	spin_unlock(&ucs->lock);
	return uc;
}

/* Jiffies until the next deadline, or 0 if nothing waits. */
static unsigned long next_deadline(struct qcow_upcalls *ucs)
{
	struct list_head *lists[] = { &ucs->sent, &ucs->queued };
	unsigned long next = 0, left;
	struct qcow_upcall *uc;
	int i;

	spin_lock(&ucs->lock);
	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		uc = list_first_entry_or_null(lists[i], struct qcow_upcall, node);
		if (!uc)
			continue;
		left = time_after(uc->deadline, jiffies) ? uc->deadline - jiffies : 1;
		next = next ? min(next, left) : left;
	}
	spin_unlock(&ucs->lock);
	return next;
}

static void timer_fn(struct work_struct *work)
{
	struct qcow_upcalls *ucs = container_of(to_delayed_work(work), struct qcow_upcalls,
						timer);
	struct qcow_upcall *uc;
	unsigned long next;

	while ((uc = claim_expired(ucs)))
		fail(uc, -ETIMEDOUT);
	next = next_deadline(ucs);
	if (next)
		queue_delayed_work(qcow_wq, &ucs->timer, next);
}

/**
 * qcow_upcalls_attached() - a worker is there: send what waits
 * @ucs: the target's upcalls
 *
 * Context: any.
 */
void qcow_upcalls_attached(struct qcow_upcalls *ucs)
{
	mod_delayed_work(qcow_wq, &ucs->send_work, 0);
}

/**
 * qcow_upcalls_lost() - the worker died: its unanswered upcalls are queued again
 * @ucs: the target's upcalls
 *
 * They keep their cookies and deadlines. A FREE fails: nobody knows how much of it
 * was done, and doing it twice destroys data.
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_upcalls_lost(struct qcow_upcalls *ucs)
{
	struct qcow_upcall *uc, *next;
	LIST_HEAD(claimed);

	spin_lock(&ucs->lock);
	ucs->nr_deaths++;
	list_for_each_entry_safe_reverse(uc, next, &ucs->sent, node) {
		if (uc->cmd == DM_QCOW_CMD_FREE) {
			claim_locked(ucs, uc);
			list_add(&uc->node, &claimed);
		} else {
			ucs->nr_commits_resent += uc->cmd == DM_QCOW_CMD_COMMIT;
			qcow_upcall_unsend_locked(ucs, uc);
		}
	}
	spin_unlock(&ucs->lock);
	list_for_each_entry_safe(uc, next, &claimed, node)
		fail(uc, -ESTALE);
}

/**
 * qcow_upcalls_refuse() - fail what waits and what comes
 * @ucs: the target's upcalls
 * @error: for qcow_bios_end()
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_upcalls_refuse(struct qcow_upcalls *ucs, int error)
{
	struct list_head *lists[] = { &ucs->sent, &ucs->queued };
	struct qcow_upcall *uc, *next;
	LIST_HEAD(claimed);
	int i;

	spin_lock(&ucs->lock);
	ucs->refuse = error;
	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		list_for_each_entry_safe(uc, next, lists[i], node) {
			claim_locked(ucs, uc);
			list_add_tail(&uc->node, &claimed);
		}
	}
	spin_unlock(&ucs->lock);
	list_for_each_entry_safe(uc, next, &claimed, node)
		fail(uc, error);
}

/**
 * qcow_upcalls_welcome() - undo qcow_upcalls_refuse()
 * @ucs: the target's upcalls
 *
 * Context: process.
 */
void qcow_upcalls_welcome(struct qcow_upcalls *ucs)
{
	spin_lock(&ucs->lock);
	ucs->refuse = 0;
	spin_unlock(&ucs->lock);
}

/**
 * qcow_upcalls_init() - an empty table
 * @ucs: embedded in the target; ->timeout and ->flags are the caller's to set
 * @link: to the worker
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_upcalls_init(struct qcow_upcalls *ucs, struct qcow_link *link)
{
	memset(ucs, 0, sizeof(*ucs));
	ucs->link = link;
	spin_lock_init(&ucs->lock);
	INIT_LIST_HEAD(&ucs->queued);
	INIT_LIST_HEAD(&ucs->sent);
	hash_init(ucs->cookies);
	hash_init(ucs->keys);
	INIT_DELAYED_WORK(&ucs->send_work, qcow_upcall_send);
	INIT_DELAYED_WORK(&ucs->timer, timer_fn);
	INIT_DELAYED_WORK(&ucs->hung_work, qcow_upcall_tell_hung);
	return mempool_init_slab_pool(&ucs->pool, POOL_MIN, upcall_cache);
}

/**
 * qcow_upcalls_exit() - undo qcow_upcalls_init()
 * @ucs: whose link is unregistered and which was told to refuse
 *
 * Context: process; waits for the work items, which wait for nobody.
 */
void qcow_upcalls_exit(struct qcow_upcalls *ucs)
{
	cancel_delayed_work_sync(&ucs->send_work);
	cancel_delayed_work_sync(&ucs->timer);
	cancel_delayed_work_sync(&ucs->hung_work);
	mempool_exit(&ucs->pool);
}
