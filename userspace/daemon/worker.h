/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The worker: one process, one target, one netlink socket, a pool of threads.
 *
 * All threads block in recvmsg(2) on the one socket and the kernel wakes one per
 * upcall, so that FETCHes decompress on all CPUs with no queue of our own.
 */
#ifndef QCOW_DAEMON_WORKER_H
#define QCOW_DAEMON_WORKER_H

#include "daemon/image.h"
#include "netlink/client.h"

/* What the supervisor learns from the exit status. */
enum {
	WORKER_EXIT_FAILED = 1,
	WORKER_EXIT_GONE = 3, /* the kernel has no such target (any more) */
	WORKER_EXIT_BUSY = 4, /* an earlier worker's socket stays open */
};

/* Where the supervisor puts the worker's end of the broker's socket pair. */
#define WORKER_BROKER_FD 3

/* A COMMIT may hold up a PROPOSE; neither may hold up a FETCH. */
#define WORKER_MIN_THREADS 4
#define WORKER_MAX_THREADS 16

/* The process: attaches, locks itself in, serves. Never returns but with an exit status. */
int worker_main(uint32_t target);

struct worker {
	struct qnl_link link;
	struct image image;
	uint32_t target;
	uint32_t epoch;
};

/* Serves upcalls with @lane until the target or the socket is gone; returns why. */
int worker_serve(struct worker *w, struct lane *lane);

#endif
