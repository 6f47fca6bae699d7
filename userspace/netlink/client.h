/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A socket of the dm-qcow netlink family.
 *
 * A link is a descriptor that carries one message a datagram, and a family id:
 * a netlink socket, or for tests one end of a socketpair. Any number of threads
 * may send and receive on one link at once, each with a buffer of its own.
 */
#ifndef QCOW_NETLINK_CLIENT_H
#define QCOW_NETLINK_CLIENT_H

#include "netlink/message.h"

#include <stdatomic.h>
#include <sys/types.h>

struct qnl_link {
	int fd;
	uint16_t family;
	atomic_uint seq;
};

/*
 * -ENOENT: the kernel has no such family, so the module is not loaded. Sockets
 * are close-on-exec: a link has one owner, whose death the kernel must see.
 */
int qnl_link_init(struct qnl_link *link);
void qnl_link_exit(struct qnl_link *link);

/*
 * Sends one message, encoded in the caller's @buf. The kernel has consumed it
 * when this returns. @nl_flags are NLM_F_*; the sequence number goes to @seq if
 * that is not NULL.
 */
int qnl_send(struct qnl_link *link, const struct qnl_msg *msg, uint16_t nl_flags, void *buf,
	     size_t size, uint32_t *seq);

/*
 * Receives one datagram. Returns its length, 0 if there is nothing to look at
 * (a stranger's message), -EAGAIN (non-blocking or timed out), -EMSGSIZE (cut to
 * @size), -ENOBUFS (the socket lost messages), -EPIPE (a socketpair's peer left).
 */
ssize_t qnl_recv(struct qnl_link *link, void *buf, size_t size);

/*
 * Sends a request and waits for its answer, at most @timeout_ms; for a dump,
 * @each sees every message. Other messages that arrive meanwhile are dropped, so
 * the link must have no other traffic yet. @reply points into @buf.
 */
typedef int (*qnl_each_fn)(const struct qnl_msg *msg, void *arg);
int qnl_request(struct qnl_link *link, const struct qnl_msg *req, void *buf, size_t size,
		int timeout_ms, struct qnl_msg *reply);
int qnl_dump(struct qnl_link *link, const struct qnl_msg *req, void *buf, size_t size,
	     int timeout_ms, qnl_each_fn each, void *arg);

/*
 * Takes the supervisor's role, or with @target that of its worker. On EBUSY an
 * earlier socket of that role may be on its way out: tries again for @patience_ms.
 */
int qnl_attach(struct qnl_link *link, const uint32_t *target, void *buf, size_t size,
	       int patience_ms, struct qnl_msg *reply);

/* Calls @each for every target, on a socket of its own. */
int qnl_list(qnl_each_fn each, void *arg);

/*
 * Is there a supervisor? 1 or 0, or an errno: -ENOENT (no module), -EPERM. The
 * kernel knows best, so it is asked: the role is taken for a moment if it is free.
 */
int qnl_supervised(void);

#endif
