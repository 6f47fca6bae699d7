/* SPDX-License-Identifier: GPL-2.0-only */
/* Starting worker processes, from the supervisor's main thread only. */
#ifndef QCOW_DAEMON_SPAWN_H
#define QCOW_DAEMON_SPAWN_H

#include "daemon/supervisor.h"
#include "daemon/table.h"

/* The worker's process id, or a negative errno. */
pid_t spawn_worker(const struct supervisor_config *config, uint32_t id, const struct table *table);

/* Runs `modprobe dm-qcow` and waits for it. */
void load_module(void);

#endif
