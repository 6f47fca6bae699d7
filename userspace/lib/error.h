/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How libqcow2 reports what went wrong.
 *
 * Every function that can fail returns 0 or a negative errno and, if the caller
 * passed a struct qcow_error, leaves one line of text in it: what was found,
 * which table at which host offset, and what to do about it. The library never
 * prints, never exits and keeps no global state, so one thread's error cannot
 * become another's.
 */
#ifndef QCOW_LIB_ERROR_H
#define QCOW_LIB_ERROR_H

#include <stdarg.h>
#include <stdint.h>

/* host_off of an error that is about no particular place. */
#define QCOW_NO_OFF UINT64_MAX

struct qcow_error {
	int code;	   /* positive errno; 0 = no error recorded */
	uint64_t host_off; /* bytes into the layer's file; QCOW_NO_OFF if none */
	char text[480];	   /* one line, no newline, printable, always terminated */
};

/*
 * Records an error and returns -@code, so that a check is one statement:
 *     return qcow_fail(err, EINVAL, off, "L1 table at %#x ...", ...);
 * @err may be NULL. The text is cleaned (lib/text.h), since names from images and
 * directories appear in it.
 */
int qcow_fail(struct qcow_error *err, int code, uint64_t host_off, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Puts "<prefix>: " in front of what is recorded (a layer's path, say). */
void qcow_error_prefix(struct qcow_error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

void qcow_error_clear(struct qcow_error *err);

#endif
