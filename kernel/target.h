/* SPDX-License-Identifier: GPL-2.0-only */
/* One dm target: its table line, its worker's link, its image, its disk. */
#ifndef DM_QCOW_TARGET_H
#define DM_QCOW_TARGET_H

#include <linux/device-mapper.h>
#include <linux/mutex.h>

#include "args.h"
#include "genl.h"
#include "io.h"

/*
 * What the device may do. One way only, by qcow_target_set_mode(); only a new table
 * goes back.
 *
 *	RW -> RO -> FAIL
 *	RW -------> FAIL
 */
enum qcow_mode {
	QCOW_MODE_RW,
	QCOW_MODE_RO,			/* writes end with an error */
	QCOW_MODE_FAIL,			/* everything ends with an error */
};

struct qcow_target {
	struct dm_target *ti;
	struct qcow_args args;		/* constant */
	struct qcow_link link;
	struct qcow_disk disk;
	struct dm_dev **devs;		/* block-device layers; constant after the constructor */
	unsigned int nr_devs;
	bool no_space;			/* what the last event said */
	bool noflush;			/* this suspend is; dm's suspend_lock */
	enum qcow_mode mode;		/* set under lock, read anywhere */
	atomic_long_t nr_errors;	/* bios that ended with one */
	struct work_struct event_work;
	struct mutex lock;		/* protects what follows, ->mode and disk.layers */
	enum dm_qcow_state image;
	bool unclean;			/* the last suspend did not end with a CLOSE */
	struct dm_qcow_shape shape;
};

void qcow_target_set_mode(struct qcow_target *t, enum qcow_mode mode);
void qcow_target_event(struct qcow_target *t);

const char *qcow_mode_name(enum qcow_mode mode);
void qcow_status_print(struct qcow_target *t, char *result, unsigned int maxlen);

int qcow_image_probe(struct qcow_target *t);
int qcow_image_open(struct qcow_target *t);
int qcow_image_close(struct qcow_target *t, unsigned long patience);
void qcow_image_drop(struct qcow_target *t);
void qcow_image_put_devices(struct qcow_target *t);

extern const struct qcow_link_ops qcow_image_link_ops;

#endif
