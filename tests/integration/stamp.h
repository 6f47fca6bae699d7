/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Contents that say where they belong: every 512-byte sector names the disk (a tag), the sector
 * and the write (a version) it comes from. So one wrong sector tells whether it is stale, from
 * another place, or from another disk. Version 0 is a sector of zeros.
 */
#ifndef TESTS_STAMP_H
#define TESTS_STAMP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SECTOR	      512U
#define STAMP_WORDS   (SECTOR / sizeof(uint64_t))
#define STAMP_FOREIGN UINT64_MAX

static inline uint64_t stamp_place(unsigned int tag, uint64_t sector)
{
	return ((uint64_t)tag << 48) | sector;
}

/* Version 0 makes zeros. */
static inline void stamp_put(void *buf, unsigned int tag, uint64_t sector, uint64_t version)
{
	uint64_t *word = buf;

	if (!version) {
		memset(buf, 0, SECTOR);
		return;
	}
	for (size_t i = 0; i < STAMP_WORDS; i += 2) {
		word[i] = stamp_place(tag, sector);
		word[i + 1] = version;
	}
}

/* The version, or STAMP_FOREIGN if these bytes were never this sector's. */
static inline uint64_t stamp_get(const void *buf, unsigned int tag, uint64_t sector)
{
	const uint64_t *word = buf;
	uint64_t version = word[1];
	uint64_t place = version ? stamp_place(tag, sector) : 0;

	for (size_t i = 0; i < STAMP_WORDS; i += 2)
		if (word[i] != place || word[i + 1] != version)
			return STAMP_FOREIGN;
	return version;
}

/* Says what is really there; for messages. */
static inline const char *stamp_name(const void *buf, char *out, size_t size)
{
	const uint64_t *word = buf;
	uint64_t sector = word[0] & ((1ULL << 48) - 1);
	unsigned int tag = (unsigned int)(word[0] >> 48);

	if (!stamp_get(buf, 0, 0))
		snprintf(out, size, "zeros");
	else if (tag && word[1] && stamp_get(buf, tag, sector) == word[1])
		snprintf(out, size, "disk %u, sector %llu, version %llu", tag,
			 (unsigned long long)sector, (unsigned long long)word[1]);
	else
		snprintf(out, size, "no stamp: %016llx %016llx", (unsigned long long)word[0],
			 (unsigned long long)word[1]);
	return out;
}

/* splitmix64: any state will do, also consecutive ones. */
static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
	return random_next(state) % limit;
}

#endif
