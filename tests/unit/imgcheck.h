/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Is an image in memory sound? Written apart from libqcow2, on raw bytes, so that the
 * two do not share a mistake.
 */
#ifndef TESTS_IMGCHECK_H
#define TESTS_IMGCHECK_H

#include <stddef.h>
#include <stdint.h>

struct imgcheck {
	uint64_t leaks, corruptions;
	char first[160]; /* the first corruption */
};

void imgcheck(const uint8_t *data, uint64_t size, struct imgcheck *result);

#endif
