/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef QCOW_DAEMON_MEMORY_H
#define QCOW_DAEMON_MEMORY_H

/*
 * Keeps this process going when memory is short and the disk it serves is the swap
 * device or the root: no page of it is ever read back or reclaimed through that
 * disk, and the OOM killer passes it by. Needs CAP_IPC_LOCK and CAP_SYS_RESOURCE;
 * what fails is logged and done without. Threads inherit all of it.
 */
void memory_protect(void);

#endif
