/* SPDX-License-Identifier: GPL-2.0-only */
/* For what takes long: how far it is, and whether it is still wanted. */
#ifndef QCOW_LIB_WATCH_H
#define QCOW_LIB_WATCH_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"

/* Zeroed: nobody looks. */
struct qcow_watch {
	/* Called by any thread, one at a time, by rising @done; @total 0 = not known. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	bool (*cancelled)(void *arg);
	void *arg;
};

static inline void qcow_watch_at(const struct qcow_watch *w, uint64_t done, uint64_t total)
{
	if (w->progress)
		w->progress(w->arg, done, total);
}

/* -ECANCELED once it is not wanted any more. */
static inline int qcow_watch_cancelled(const struct qcow_watch *w, struct qcow_error *err)
{
	if (!w->cancelled || !w->cancelled(w->arg))
		return 0;
	return qcow_fail(err, ECANCELED, QCOW_NO_OFF, "cancelled");
}

#endif
