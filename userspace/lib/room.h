/* SPDX-License-Identifier: GPL-2.0-only */
/* How much more can be allocated: for whoever has to make room in time. */
#ifndef QCOW_LIB_ROOM_H
#define QCOW_LIB_ROOM_H

#include <stdint.h>

#include "lib/error.h"
#include "lib/writer.h"

/*
 * Bytes. Of a device: its free clusters, wherever they are. They are counted once,
 * which reads all refcount blocks, and kept up to date from then on; what a device has
 * grown since is in it. Of a file: what its file system has for it, which others may
 * take. -EOPNOTSUPP: nobody knows.
 */
int qcow_writer_room(struct qcow_writer *w, uint64_t *bytes, struct qcow_error *err);

#endif
