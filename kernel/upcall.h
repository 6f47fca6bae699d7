/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Upcalls: questions to the helper, kept until they are answered.
 *
 *	          submit              sent to the socket
 *	(new) ------------> QUEUED ----------------------> SENT
 *	                      ^                              |
 *	                      +------------------------------+
 *	                              the worker died
 *
 *	QUEUED or SENT -> claimed by exactly one of: an answer, the timer, cancel.
 *
 * Whoever claims an upcall takes it off the table under the lock, and owns it and
 * the bios that wait for it from then on. A late answer finds no cookie and so
 * touches nothing.
 *
 * A worker that lets something time out that writes may do it yet, when the kernel
 * has long said it again. So it is asked for nothing more that writes: that waits for
 * the next worker, which the supervisor starts when this one is dead.
 *
 * What is SENT is bounded in bytes of socket buffer; the rest stays QUEUED here, so
 * that a worker that does not read loses nothing.
 */
#ifndef DM_QCOW_UPCALL_H
#define DM_QCOW_UPCALL_H

#include <linux/bio.h>
#include <linux/hashtable.h>
#include <linux/list.h>
#include <linux/mempool.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "genl.h"

struct qcow_upcall;

/**
 * qcow_upcall_done_fn() - the upcall was claimed
 * @uc: off the table; to be freed by this function
 * @answer: whose error may be the helper's, -ETIMEDOUT, or that of a cancel
 *
 * Context: process; the helper's for an answer (so user memory can be read and
 * descriptors resolved), a worker's otherwise. May sleep, without I/O.
 * Return: 0, or what the sender of the answer did wrong.
 */
typedef int (*qcow_upcall_done_fn)(struct qcow_upcall *uc, const struct qcow_answer *answer);

/**
 * qcow_upcall_put_fn() - add what is asked to a message
 * @msg: with @uc->room bytes of room
 * @uc: in the table
 *
 * Context: under upcalls->lock; must not sleep.
 * Return: 0 or -EMSGSIZE.
 */
typedef int (*qcow_upcall_put_fn)(struct sk_buff *msg, const struct qcow_upcall *uc);

struct qcow_upcall {
	struct list_head node;		/* queued or sent; upcalls->lock */
	struct hlist_node by_cookie;	/* upcalls->lock */
	struct hlist_node by_key;	/* LOAD and FETCH; upcalls->lock */
	u64 cookie;
	u8 cmd;
	bool sent;			/* upcalls->lock */
	u32 epoch;			/* of the worker it was sent to; upcalls->lock */
	unsigned int truesize;		/* of the message, while sent */
	unsigned long deadline;		/* jiffies */
	u64 key;			/* LOAD: page; FETCH: guest offset */
	u64 seq;			/* LOAD */
	u32 length;			/* FETCH */
	qcow_upcall_put_fn put;		/* adds the question, if it is none of the above */
	size_t room;			/* bytes of attributes it adds */
	const void *data;		/* for @put; stays as long as the upcall is in the table */
	struct bio_list bios;		/* upcalls->lock until claimed */
	qcow_upcall_done_fn done;
	void *private;
	void *result;			/* done()'s, if it passes the upcall on */
};

struct qcow_upcalls {
	struct qcow_link *link;
	u32 flags;			/* DM_QCOW_FLAG_*, sent with PROBE and OPEN */
	unsigned long timeout;		/* jiffies an upcall may take */
	mempool_t pool;
	struct delayed_work send_work;
	struct delayed_work timer;
	struct delayed_work hung_work;
	spinlock_t lock;		/* protects what follows, and upcalls in the table */
	int refuse;			/* errno for new upcalls, or 0: they are welcome */
	u32 hung_epoch;			/* this worker may yet carry out what timed out */
	u32 silent_epoch;		/* the supervisor is to hear of this one */
	struct list_head queued;
	struct list_head sent;		/* both in the order of their deadlines */
	size_t sent_bytes;
	DECLARE_HASHTABLE(cookies, 6);
	DECLARE_HASHTABLE(keys, 6);
	unsigned long nr_submitted;
	unsigned long nr_loads;
	unsigned long nr_fetches;
	unsigned long nr_timeouts;
	unsigned long nr_deaths;
	unsigned long nr_commits_resent;
};

/**
 * qcow_call_fn() - look at the answer to a synchronous upcall
 * @private: the caller's
 * @answer: without error
 *
 * Context: the helper's, in its sendmsg(2); may sleep, without I/O.
 * Return: 0, or why the answer will not do: the caller's error, and the sender's.
 */
typedef int (*qcow_call_fn)(void *private, const struct qcow_answer *answer);

int qcow_upcalls_init(struct qcow_upcalls *ucs, struct qcow_link *link);
void qcow_upcalls_exit(struct qcow_upcalls *ucs);

void qcow_upcall_park(struct qcow_upcalls *ucs, const struct qcow_upcall *want, struct bio *bio);
void qcow_upcall_free(struct qcow_upcalls *ucs, struct qcow_upcall *uc);
int qcow_upcall_call(struct qcow_upcalls *ucs, const struct qcow_upcall *question,
		     qcow_call_fn fn, void *private, unsigned long timeout);
int qcow_upcall_submit(struct qcow_upcalls *ucs, const struct qcow_upcall *want);

int qcow_upcalls_answer(struct qcow_upcalls *ucs, const struct qcow_answer *answer);
void qcow_upcalls_attached(struct qcow_upcalls *ucs);
void qcow_upcalls_lost(struct qcow_upcalls *ucs);
void qcow_upcalls_refuse(struct qcow_upcalls *ucs, int error);
void qcow_upcalls_welcome(struct qcow_upcalls *ucs);

/* Between upcall.c and upcall-send.c. */
struct qcow_upcall *qcow_upcall_find_locked(struct qcow_upcalls *ucs, u64 cookie);
void qcow_upcall_unsend_locked(struct qcow_upcalls *ucs, struct qcow_upcall *uc);
void qcow_upcall_push(struct qcow_upcalls *ucs);
void qcow_upcall_send(struct work_struct *work);
void qcow_upcall_note_hung_locked(struct qcow_upcalls *ucs, const struct qcow_upcall *uc);
void qcow_upcall_tell_hung(struct work_struct *work);

void qcow_bios_end(struct bio_list *bios, int error);

int qcow_upcall_module_init(void);
void qcow_upcall_module_exit(void);

#endif
