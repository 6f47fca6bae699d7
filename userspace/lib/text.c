// SPDX-License-Identifier: GPL-2.0-only
#include "lib/text.h"

#include <stdbool.h>
#include <stddef.h>

/* Length of the UTF-8 sequence at @c, 0 if there is none (overlong and surrogates included). */
static size_t sequence_len(const unsigned char *c)
{
	size_t len, i;

	if (c[0] < 0x80)
		return 1;
	if (c[0] < 0xc2 || c[0] > 0xf4)
		return 0;
	len = c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
	/* A terminating NUL is no continuation byte, so this stops in time. */
	for (i = 1; i < len; i++)
		if ((c[i] & 0xc0) != 0x80)
			return 0;
	if ((c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f) ||
	    (c[0] == 0xf0 && c[1] < 0x90) || (c[0] == 0xf4 && c[1] > 0x8f))
		return 0;
	return len;
}

static bool is_control(const unsigned char *c, size_t len)
{
	return (len == 1 && (c[0] < 0x20 || c[0] == 0x7f)) ||
	       (len == 2 && c[0] == 0xc2 && c[1] < 0xa0);
}

static void scrub(unsigned char *c, bool controls)
{
	size_t len;

	while (*c) {
		len = sequence_len(c);
		if (len && !(controls && is_control(c, len))) {
			c += len;
			continue;
		}
		for (len = len ? len : 1; len; len--)
			*c++ = '?';
	}
}

void qcow_text_utf8(char *text)
{
	scrub((unsigned char *)text, false);
}

void qcow_text_clean(char *text)
{
	scrub((unsigned char *)text, true);
}
