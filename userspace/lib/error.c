// SPDX-License-Identifier: GPL-2.0-only
#include "lib/error.h"

#include <stdio.h>
#include <string.h>

#include "lib/text.h"

int qcow_fail(struct qcow_error *err, int code, uint64_t host_off, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return -code;
	err->code = code;
	err->host_off = host_off;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	qcow_text_clean(err->text);
	return -code;
}

void qcow_error_prefix(struct qcow_error *err, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list ap;
	size_t n, room;

	if (!err)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	qcow_text_clean(text);
	/* A long prefix is cut, not the reason behind it. */
	n = strnlen(err->text, sizeof(err->text) - 1);
	room = sizeof(err->text) - 1 - n;
	if (room < 8)
		return;
	n = strnlen(text, room - 2);
	memmove(err->text + n + 2, err->text, strlen(err->text) + 1);
	memcpy(err->text, text, n);
	memcpy(err->text + n, ": ", 2);
}

void qcow_error_clear(struct qcow_error *err)
{
	if (!err)
		return;
	err->code = 0;
	err->host_off = QCOW_NO_OFF;
	err->text[0] = '\0';
}
