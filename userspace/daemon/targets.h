/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The supervisor's targets: who wants a worker, who has one.
 *
 *   wanted, no worker   START, LIST (not attached)  -> spawn, at once or after a pause
 *   wanted, worker      its exit                    -> wanted, no worker
 *   wanted, worker      HUNG                        -> killed; its exit as above
 *   unwanted, worker    GONE, LIST (missing)        -> killed; its exit forgets the target
 *
 * A worker is started only when the one before has been reaped: two of them would
 * be two writers of one image.
 *
 * Starting, killing and the clock are behind an ops struct, for tests.
 */
#ifndef QCOW_DAEMON_TARGETS_H
#define QCOW_DAEMON_TARGETS_H

#include "daemon/table.h"

#include <stdbool.h>

struct target;

struct targets_ops {
	/* Starts a worker; its process id, or a negative errno. */
	pid_t (*spawn)(void *arg, uint32_t id, const struct table *table);
	void (*kill)(void *arg, pid_t pid);
	int64_t (*now_ms)(void *arg);
};

struct targets {
	struct target *first;
	const struct targets_ops *ops;
	void *arg;
};

void targets_init(struct targets *t, const struct targets_ops *ops, void *arg);
/* Forgets all targets; their workers are left alone. */
void targets_exit(struct targets *t);

/* Each takes one message of the kernel. */
void targets_start(struct targets *t, const struct qnl_msg *msg);
void targets_hung(struct targets *t, const struct qnl_msg *msg);
void targets_gone(struct targets *t, const struct qnl_msg *msg);

/* A LIST: begin, one call per message, end (@complete: nothing was lost on the way). */
void targets_list_begin(struct targets *t);
void targets_list_entry(struct targets *t, const struct qnl_msg *msg);
void targets_list_end(struct targets *t, bool complete);

/* A child was reaped; @status as from waitpid(2). */
void targets_reaped(struct targets *t, pid_t pid, int status);

/* Starts the workers whose time has come; milliseconds to the next one, or -1. */
int targets_run(struct targets *t);

#endif
