/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For tests, and in no ordinary build: with QCOW_DROP=y on make's command line the module
 * has a parameter "drop", which names a row of the order in commit.h that is then left
 * out. A test has to notice. Leases are small then, so that clusters are soon used again.
 */
#ifndef DM_QCOW_DROP_H
#define DM_QCOW_DROP_H

#ifdef QCOW_DROP

bool qcow_drops(const char *row);
void qcow_drop_window(void);

#else

static inline bool qcow_drops(const char *row)
{
	return false;
}

static inline void qcow_drop_window(void)
{
}

#endif

#endif
