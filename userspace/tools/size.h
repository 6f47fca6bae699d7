/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef QCOW_TOOLS_SIZE_H
#define QCOW_TOOLS_SIZE_H

#include <stdint.h>

/*
 * "10G", "512", "64KiB", "1.5T": units of 1024, rounded down to bytes. -EINVAL for anything else,
 * -ERANGE past 2^64.
 */
int size_parse(const char *text, uint64_t *bytes);

/* A power of two: its exponent. */
int size_parse_power(const char *text, uint32_t *bits);

#endif
