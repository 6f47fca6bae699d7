/* SPDX-License-Identifier: GPL-2.0-only */
/* What was asked of a device and what of it was acknowledged as durable, by the marks in the log of
 * its disk. */
#ifndef TESTS_JOURNAL_H
#define TESTS_JOURNAL_H

#include <stdint.h>

#define JOURNAL_MAGIC 0x6c616e72756f6a71ULL
/* Below are the versions of what the image contained at first. */
#define JOURNAL_FIRST_VERSION 1000

enum journal_op {
	JOURNAL_WRITE,
	JOURNAL_ZERO,
	JOURNAL_DISCARD,
};

/*
 * Operations on one sector happened in the order of their versions.
 * mark: from this mark of the log on it is durable; 0: nobody was told so
 * begun: before this mark of the log it had not begun
 */
struct journal_entry {
	uint64_t version;
	uint64_t sector;
	uint64_t nr;
	uint32_t op;
	uint32_t mark;
	uint32_t begun;
	uint32_t unused;
};

struct journal {
	uint64_t magic;
	uint64_t nr_sectors;
	uint64_t nr_entries;
	uint64_t marks;
	struct journal_entry entries[];
};

#endif
