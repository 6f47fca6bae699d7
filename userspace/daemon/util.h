/* SPDX-License-Identifier: GPL-2.0-only */
/* Small helpers of the daemon: scoped clean-up, time, threads, one-line logging. */
#ifndef QCOW_DAEMON_UTIL_H
#define QCOW_DAEMON_UTIL_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define __cleanup(fn) __attribute__((cleanup(fn)))

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

int64_t monotonic_ms(void);

/* A thread that nobody joins, with a stack of @stack bytes: all memory is locked. 0 or -errno. */
int thread_detached(void *(*run)(void *arg), void *arg, size_t stack);

/*
 * One line to stderr; a newline is added. Never waits: when the journal's disk is
 * the one we serve, a full log socket must not stop us. Takes no memory.
 */
void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* From now on the log is the kernel's ring buffer: no terminal and no journal. */
void log_to_kernel(void);

#endif
