/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * `qcowd --respawn`: where no service manager does it, a process of a few pages
 * restarts the supervisor whenever it dies. Returns when the first supervisor is
 * ready, or when another owner's is; an exit status.
 */
#ifndef QCOW_DAEMON_RESPAWN_H
#define QCOW_DAEMON_RESPAWN_H

#include "daemon/supervisor.h"

#define RESPAWN_PID_PATH "/run/qcowd.pid"

int respawn_main(struct supervisor_config *config);

#endif
