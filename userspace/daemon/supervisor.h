/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef QCOW_DAEMON_SUPERVISOR_H
#define QCOW_DAEMON_SUPERVISOR_H

#include <stdbool.h>

struct supervisor_config {
	const char *conf; /* trust rules: HOST_CONF_PATH */
	bool initrd;	  /* must survive switch-root and shutdown */
	int ready_fd;	  /* gets one byte when ready, then logs go to the kernel; -1: none */
};

/* Exit statuses, for whoever owns the supervisor: a restart would not help 3 and 4. */
enum {
	SUPERVISOR_EXIT_FAILED = 1,
	SUPERVISOR_EXIT_NO_MODULE = 3,
	SUPERVISOR_EXIT_TAKEN = 4,
};

/* Runs until SIGTERM or SIGINT; returns the exit status. Call it from the main thread. */
int supervisor_main(const struct supervisor_config *config);

#endif
