/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is lacking below, and since when somebody waits for it. Clusters can be lacking
 * while the pool still has some: then nobody waits yet.
 */
#ifndef DM_QCOW_SHORTAGE_H
#define DM_QCOW_SHORTAGE_H

#include <linux/jiffies.h>
#include <linux/types.h>

#define QCOW_SHORT_OF_CLUSTERS	1U	/* the helper finds none */
#define QCOW_SHORT_OF_SPACE	2U	/* data found no room in its file system */

/**
 * struct qcow_shortage - under the owner's lock
 * @timeout: jiffies that somebody may wait; constant
 * @of: QCOW_SHORT_OF_*; 0: there is enough
 * @since: jiffies, since somebody waits; 0: nobody does
 */
struct qcow_shortage {
	unsigned long timeout;
	unsigned int of;
	unsigned long since;
};

/* Somebody has to wait, if something is lacking. */
static inline void qcow_shortage_wait(struct qcow_shortage *s)
{
	if (s->of && !s->since)
		WRITE_ONCE(s->since, jiffies ?: 1);
}

/* There is enough of it again, or what is lacking has had its consequences. */
static inline void qcow_shortage_end(struct qcow_shortage *s, unsigned int of)
{
	s->of &= ~of;
	if (!s->of)
		WRITE_ONCE(s->since, 0);
}

static inline bool qcow_shortage_overdue(const struct qcow_shortage *s)
{
	return s->since && time_after_eq(jiffies, s->since + s->timeout);
}

#endif
