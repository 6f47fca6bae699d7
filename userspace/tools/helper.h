/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef QCOW_TOOLS_HELPER_H
#define QCOW_TOOLS_HELPER_H

/*
 * Makes sure that a qcowd supervisor runs and that something restarts it: systemd
 * where that is running and has the unit, else `qcowd --respawn`. Returns when it
 * is attached to the module; prints one line and returns -1 if it cannot be.
 */
int helper_start(void);

#endif
