/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef QCOW_LIB_ZEROS_H
#define QCOW_LIB_ZEROS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Most of what is not zeros shows it in its first bytes; the rest is memcmp's speed. */
static inline bool qcow_is_zero(const void *buf, size_t len)
{
	const uint8_t *p = buf;
	uint64_t a, b;

	if (len < 16) {
		while (len && !*p)
			p++, len--;
		return !len;
	}
	memcpy(&a, p, 8);
	memcpy(&b, p + 8, 8);
	return !(a | b) && !memcmp(p, p + 16, len - 16);
}

#endif
