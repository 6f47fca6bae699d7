/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dm-log-writes logs a FUA write when it completes, but what completed before without FUA only with
 * the next flush, or the one after: so in the log the older write can stand behind the newer one.
 * On a disk the newer one wins, and that is what is made of it here, sector by sector.
 *
 * Which is newer the stamps say. Zeros have none: they are newer only if a later operation made
 * zeros there. A discarded cluster is used again, and discarded again, only after a flush.
 */
#ifndef TESTS_OVERTAKEN_H
#define TESTS_OVERTAKEN_H

#include "../integration/stamp.h"
#include "dmlog.h"
#include "journal.h"

/* What a sector of data says of itself; @version 0: nothing. */
struct overtaken_stamp {
	uint64_t sector, version;
};

static inline struct overtaken_stamp overtaken_stamp(const unsigned char *data)
{
	const uint64_t *word = (const uint64_t *)data;
	struct overtaken_stamp stamp = { word[0] & 0xffffffffffffULL, word[1] };

	if (stamp_get(data, 1, stamp.sector) != stamp.version)
		stamp.version = 0;
	return stamp;
}

static inline bool overtaken_zeroed_later(const struct journal *journal,
					  const struct overtaken_stamp *than)
{
	for (uint64_t i = 0; i < journal->nr_entries; i++) {
		const struct journal_entry *e = &journal->entries[i];

		if (e->op != JOURNAL_WRITE && e->version > than->version &&
		    e->sector <= than->sector && than->sector < e->sector + e->nr)
			return true;
	}
	return false;
}

/* Is the sector at @old, logged after the FUA write of the one at @new, older? */
static inline bool overtaken_by(const struct journal *journal, const unsigned char *old,
				const unsigned char *new)
{
	struct overtaken_stamp o = overtaken_stamp(old), n = overtaken_stamp(new);
	static const unsigned char zeros[SECTOR];

	if (!n.version)
		return false;
	if (o.version)
		return o.sector == n.sector && o.version < n.version;
	return !memcmp(old, zeros, SECTOR) && !overtaken_zeroed_later(journal, &n);
}

static inline void overtaken_mark(struct dmlog_entry *old, uint64_t i)
{
	if (!old->overtaken)
		old->overtaken = calloc(old->nr, 1);
	if (!old->overtaken)
		die("out of memory");
	old->overtaken[i] = true;
}

static inline void overtaken_compare(const struct journal *journal, struct dmlog_entry *old,
				     const struct dmlog_entry *new, unsigned int flushes)
{
	uint64_t start = old->sector > new->sector ? old->sector : new->sector;
	uint64_t a = old->sector + old->nr, b = new->sector + new->nr, end = a < b ? a : b;

	for (uint64_t s = start; s < end; s++) {
		const unsigned char *data = new->data + (s - new->sector) * SECTOR;
		bool older = old->flags & DMLOG_DISCARD
				     ? !flushes
				     : overtaken_by(journal, old->data + (s - old->sector) * SECTOR,
						    data);

		if (older)
			overtaken_mark(old, s - old->sector);
	}
}

/* Has entries say which of their sectors are not to be written. */
static inline void overtaken_find(struct dmlog *log, const struct journal *journal)
{
	for (uint64_t i = 0; i < log->nr_entries; i++) {
		unsigned int flushes = 0;

		if (!(log->entries[i].flags & DMLOG_FUA))
			continue;
		for (uint64_t j = i + 1; j < log->nr_entries && flushes < 2; j++) {
			struct dmlog_entry *old = &log->entries[j];

			if (!(old->flags & DMLOG_FUA))
				overtaken_compare(journal, old, &log->entries[i], flushes);
			flushes += (old->flags & DMLOG_FLUSH) != 0;
		}
	}
}

#endif
