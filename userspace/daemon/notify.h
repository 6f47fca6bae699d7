/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef QCOW_DAEMON_NOTIFY_H
#define QCOW_DAEMON_NOTIFY_H

/* Tells the service manager, if one asked for it by $NOTIFY_SOCKET; see sd_notify(3). */
void notify_manager(const char *state);

#endif
