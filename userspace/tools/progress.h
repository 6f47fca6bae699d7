/* SPDX-License-Identifier: GPL-2.0-only */
/* How far a long verb is, on the standard error; and stopping one by a signal. */
#ifndef QCOW_TOOLS_PROGRESS_H
#define QCOW_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "lib/watch.h"

struct progress {
	bool shown;
	struct timespec start, last;
	bool printed;
};

void progress_start(struct progress *p, bool shown);
/* @total 0: not known. Prints a few times a second. */
void progress_at(struct progress *p, uint64_t done, uint64_t total);
void progress_end(struct progress *p);

/* For the library: shows @p, and stops it when a signal has asked for that. */
struct qcow_watch progress_watch(struct progress *p);

/* From now on SIGINT, SIGTERM and SIGHUP only say so; the second one kills. */
void cancel_catch(void);
bool cancel_asked(void);

#endif
