// SPDX-License-Identifier: GPL-2.0-only
/* Rows of the order on disk, left out; see drop.h. */

#ifdef QCOW_DROP

#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/string.h>

#include "drop.h"

static char drop[16];
module_param_string(drop, drop, sizeof(drop), 0644);
MODULE_PARM_DESC(drop, "for tests: the row of the order on disk to leave out");

/**
 * qcow_drops() - is a row left out?
 * @row: its name
 *
 * Context: any.
 * Return: true if so.
 */
bool qcow_drops(const char *row)
{
	return sysfs_streq(drop, row);
}

/**
 * qcow_drop_window() - give others time to do what the row would have kept them from
 *
 * Context: process; sleeps.
 */
void qcow_drop_window(void)
{
	msleep(1000);
}

#endif
