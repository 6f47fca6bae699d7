/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The worker's sandbox: complete before the first byte of an image is parsed.
 *
 *   sandbox_prepare   limits, memory, OOM score: needs the capabilities
 *   sandbox_drop      no capabilities, no way to gain any; threads inherit it, so
 *                     it comes before them
 *   sandbox_seal      the system call filter, on all threads at once; starting
 *                     threads is over
 *
 * What is left: read and write the descriptors one has, talk on the sockets one has,
 * take anonymous memory.
 */
#ifndef QCOW_DAEMON_SANDBOX_H
#define QCOW_DAEMON_SANDBOX_H

void sandbox_prepare(void);
int sandbox_drop(void);
int sandbox_seal(void);

#endif
