/* SPDX-License-Identifier: GPL-2.0-only */
/* Threads that do the same step again and again, until nothing is left or one fails. */
#ifndef QCOW_LIB_TEAM_H
#define QCOW_LIB_TEAM_H

#include <pthread.h>
#include <stddef.h>

#include "lib/error.h"

#define QCOW_TEAM_MAX  64u
#define QCOW_TEAM_DONE 1 /* what a step says when nothing is left */

struct qcow_team {
	pthread_mutex_t lock;	/* of what follows; and of what the steps share, if they like */
	pthread_cond_t changed; /* also when @r is */
	int r;			/* the first failure */
	struct qcow_error err;
};

void qcow_team_init(struct qcow_team *t);
void qcow_team_exit(struct qcow_team *t);

/*
 * @step runs on each of the @nr members, an array of @size bytes each, without the lock,
 * on a thread of its own; if there can be no thread at all, on this one. A step that sees
 * @r set should end. Returns @r.
 */
int qcow_team_run(struct qcow_team *t, void *members, size_t size, unsigned int nr,
		  int (*step)(void *member, struct qcow_error *err));

#endif
