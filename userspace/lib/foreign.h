/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Formats we do not read, recognised only to say what to do about it. No
 * decision depends on this: a file that is to be raw is never looked at.
 */
#ifndef QCOW_LIB_FOREIGN_H
#define QCOW_LIB_FOREIGN_H

#include "lib/error.h"
#include "lib/io.h"

/* Reading a LUKS container takes its key. */
#define QCOW_LUKS_CONVERT                                                   \
	"qemu-img convert --object secret,id=s,file=PASSFILE --image-opts " \
	"driver=luks,key-secret=s,file.filename=OLD -O qcow2 NEW"

/* For a file without the qcow2 magic: fills @err and returns its negative code. */
int qcow_foreign_fail(struct qcow_io *io, struct qcow_error *err);

#endif
