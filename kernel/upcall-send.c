// SPDX-License-Identifier: GPL-2.0-only
/* How upcalls get to the worker's socket; see upcall.h. */

#include <linux/err.h>
#include <linux/skbuff.h>
#include <net/genetlink.h>

#include "dm-qcow.h"
#include "upcall.h"

#define SENT_BYTES_MAX	(64U << 10)	/* well below the default socket buffer */
#define RETRY_DELAY	(HZ / 50)	/* after a full socket or no memory */

/**
 * qcow_upcall_find_locked() - the upcall of a cookie
 * @ucs: the target's upcalls, locked
 * @cookie: its cookie
 *
 * Context: process; does not sleep.
 * Return: the upcall, or NULL if it is not in the table (any more).
 */
struct qcow_upcall *qcow_upcall_find_locked(struct qcow_upcalls *ucs, u64 cookie)
{
	struct qcow_upcall *uc;

	hash_for_each_possible(ucs->cookies, uc, by_cookie, cookie)
		if (uc->cookie == cookie)
			return uc;
	return NULL;
}

/**
 * qcow_upcall_unsend_locked() - SENT -> QUEUED
 * @ucs: the target's upcalls, locked
 * @uc: sent
 *
 * Context: process; does not sleep.
 */
void qcow_upcall_unsend_locked(struct qcow_upcalls *ucs, struct qcow_upcall *uc)
{
	lockdep_assert_held(&ucs->lock);
	uc->sent = false;
	ucs->sent_bytes -= uc->truesize;
	list_move(&uc->node, &ucs->queued);
}

static int put_question(struct sk_buff *msg, struct qcow_upcalls *ucs,
			const struct qcow_upcall *uc)
{
	if (nla_put_u64_64bit(msg, DM_QCOW_ATTR_COOKIE, uc->cookie, DM_QCOW_ATTR_PAD))
		return -EMSGSIZE;
	switch (uc->cmd) {
	case DM_QCOW_CMD_LOAD:
		return nla_put_u64_64bit(msg, DM_QCOW_ATTR_PAGE, uc->key, DM_QCOW_ATTR_PAD) ?:
		       nla_put_u64_64bit(msg, DM_QCOW_ATTR_SEQ, uc->seq, DM_QCOW_ATTR_PAD);
	case DM_QCOW_CMD_FETCH:
		return nla_put_u64_64bit(msg, DM_QCOW_ATTR_OFFSET, uc->key, DM_QCOW_ATTR_PAD) ?:
		       nla_put_u32(msg, DM_QCOW_ATTR_LENGTH, uc->length);
	default:
		return uc->put ? uc->put(msg, uc) :
				 nla_put_u32(msg, DM_QCOW_ATTR_FLAGS, ucs->flags);
	}
}

/* Under the lock, because whoever claims the upcall may free what it asks with. */
static bool put_in_table(struct sk_buff *msg, struct qcow_upcalls *ucs, u64 cookie)
{
	struct qcow_upcall *uc;
	int r = -ENOENT;

	spin_lock(&ucs->lock);
	uc = qcow_upcall_find_locked(ucs, cookie);
	if (uc)
		r = put_question(msg, ucs, uc);
	spin_unlock(&ucs->lock);
	WARN_ON_ONCE(r == -EMSGSIZE);
	return !r;
}

static struct sk_buff *build(struct qcow_upcalls *ucs, const struct qcow_upcall *uc)
{
	size_t room = 4 * nla_total_size_64bit(sizeof(u64)) + uc->room;
	struct sk_buff *msg;
	void *header;

	msg = qcow_msg_create(ucs->link, uc->cmd, room, &header);
	if (!msg)
		return ERR_PTR(-ENOMEM);
	if (!put_in_table(msg, ucs, uc->cookie)) {
		nlmsg_free(msg);
		return ERR_PTR(-ENOENT);
	}
	genlmsg_end(msg, header);
	return msg;
}

static bool writes(u8 cmd)
{
	switch (cmd) {
	case DM_QCOW_CMD_OPEN:		/* closes what is open, too */
	case DM_QCOW_CMD_GRANT:
	case DM_QCOW_CMD_COMMIT:
	case DM_QCOW_CMD_FREE:
	case DM_QCOW_CMD_CLOSE:
		return true;
	default:
		return false;
	}
}

/**
 * qcow_upcall_note_hung_locked() - an upcall is given up
 * @ucs: the target's upcalls, locked
 * @uc: claimed, unanswered
 *
 * If a worker has it, the supervisor is told DM_QCOW_CMD_HUNG.
 *
 * Context: process; does not sleep.
 */
void qcow_upcall_note_hung_locked(struct qcow_upcalls *ucs, const struct qcow_upcall *uc)
{
	lockdep_assert_held(&ucs->lock);
	if (!uc->sent)
		return;
	if (writes(uc->cmd))
		ucs->hung_epoch = uc->epoch;
	ucs->silent_epoch = uc->epoch;
	queue_delayed_work(qcow_wq, &ucs->hung_work, 0);
}

/**
 * qcow_upcall_tell_hung() - have the supervisor kill the worker
 * @work: qcow_upcalls.hung_work
 *
 * Says it until it is heard: nothing that writes is sent to that worker any more, so
 * nothing of it would time out once more.
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_upcall_tell_hung(struct work_struct *work)
{
	struct qcow_upcalls *ucs = container_of(to_delayed_work(work), struct qcow_upcalls,
						hung_work);
	u32 silent_epoch;
	int r;

	spin_lock(&ucs->lock);
	silent_epoch = ucs->silent_epoch;
	spin_unlock(&ucs->lock);
	if (!qcow_link_attached(ucs->link) || qcow_link_epoch(ucs->link) != silent_epoch)
		return;
	r = qcow_supervisor_notify(ucs->link, DM_QCOW_CMD_HUNG);
	if (r == -EAGAIN || r == -ENOMEM)
		queue_delayed_work(qcow_wq, &ucs->hung_work, RETRY_DELAY);
}

/* Copies the next upcall to be sent; false if there is none, or no room for it. */
static bool peek(struct qcow_upcalls *ucs, struct qcow_upcall *copy)
{
	struct qcow_upcall *uc;

	bool found = false;
	u32 epoch = qcow_link_epoch(ucs->link);

	spin_lock(&ucs->lock);
	list_for_each_entry(uc, &ucs->queued, node) {
		if (ucs->sent_bytes >= SENT_BYTES_MAX)
			break;
		if (writes(uc->cmd) && ucs->hung_epoch == epoch)
			continue;
		*copy = *uc;
		found = true;
		break;
	}
	spin_unlock(&ucs->lock);
	return found;
}

/* QUEUED -> SENT, unless somebody claimed it meanwhile, or sent it. */
static bool mark_sent(struct qcow_upcalls *ucs, u64 cookie, unsigned int truesize, u32 epoch)
{
	struct qcow_upcall *uc;

	spin_lock(&ucs->lock);
	uc = qcow_upcall_find_locked(ucs, cookie);
	if (uc && uc->sent)
		uc = NULL;
	if (uc) {
		uc->sent = true;
		uc->epoch = epoch;
		uc->truesize = truesize;
		ucs->sent_bytes += truesize;
		list_move_tail(&uc->node, &ucs->sent);
	}
	spin_unlock(&ucs->lock);
	return uc;
}

/* SENT -> QUEUED: it did not go out after all. */
static void unmark_sent(struct qcow_upcalls *ucs, u64 cookie)
{
	struct qcow_upcall *uc;

	spin_lock(&ucs->lock);
	uc = qcow_upcall_find_locked(ucs, cookie);
	if (uc && uc->sent)
		qcow_upcall_unsend_locked(ucs, uc);
	spin_unlock(&ucs->lock);
}

static int send_one(struct qcow_upcalls *ucs, const struct qcow_upcall *copy)
{
	struct sk_buff *msg = build(ucs, copy);
	int r;

	if (IS_ERR(msg))
		return PTR_ERR(msg) == -ENOENT ? 0 : -ENOMEM;
	/* Should another worker attach just now, this one's socket is closed: nothing arrives. */
	if (!mark_sent(ucs, copy->cookie, msg->truesize, qcow_link_epoch(ucs->link))) {
		nlmsg_free(msg);
		return 0;
	}
	r = qcow_link_send(ucs->link, msg);
	if (r)
		unmark_sent(ucs, copy->cookie);
	return r;
}

/**
 * qcow_upcall_push() - send what is queued, as far as there is room
 * @ucs: the target's upcalls
 *
 * May run more than once at a time. What cannot go out now is tried again later.
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_upcall_push(struct qcow_upcalls *ucs)
{
	struct qcow_upcall copy;
	int r = 0;

	/* Without a worker they stay queued; its ATTACH starts us again. */
	while (!r && qcow_link_attached(ucs->link) && peek(ucs, &copy))
		r = send_one(ucs, &copy);
	if (r == -EAGAIN || r == -ENOMEM)
		queue_delayed_work(qcow_wq, &ucs->send_work, RETRY_DELAY);
}

/**
 * qcow_upcall_send() - qcow_upcall_push() as a work item
 * @work: qcow_upcalls.send_work
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_upcall_send(struct work_struct *work)
{
	qcow_upcall_push(container_of(to_delayed_work(work), struct qcow_upcalls, send_work));
}
