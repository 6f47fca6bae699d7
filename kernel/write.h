/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes that cannot go where the map points: blocks get a place of their own, what
 * surrounds the new bytes is brought along, and the map is set when all is written.
 */
#ifndef DM_QCOW_WRITE_H
#define DM_QCOW_WRITE_H

#include <linux/workqueue.h>

struct qcow_cell;
struct qcow_disk;

void qcow_write_run(struct qcow_cell *cell);
void qcow_write_finish(struct work_struct *work);
void qcow_write_give_up(struct qcow_cell *cell);

/* copy.c */
void qcow_copy_start(struct qcow_cell *cell);
void qcow_copy_destroy(struct qcow_cell *cell);

/* discard.c */
void qcow_discard_run(struct qcow_cell *cell);

#endif
