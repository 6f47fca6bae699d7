// SPDX-License-Identifier: GPL-2.0-only
#include "lib/error.h"

#include <stdio.h>
#include <string.h>

/*
 * Control characters, C1 ones in their UTF-8 form included, become '?': names
 * from an image end up in these texts, and texts on terminals and in logs.
 */
static void make_printable(char *text)
{
	unsigned char *c;

	for (c = (unsigned char *)text; *c; c++) {
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
		else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f)
			c[0] = c[1] = '?';
	}
}

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
	make_printable(err->text);
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
	make_printable(text);
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
