/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Small reads of a table, forward mostly, through one aligned buffer. A crafted
 * table of a quarter million empty records then costs memory copies, not a
 * quarter million direct reads.
 */
#ifndef QCOW_LIB_WINDOW_H
#define QCOW_LIB_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/io.h"

#define QCOW_WINDOW_SIZE 4096

struct qcow_window {
	_Alignas(QCOW_WINDOW_SIZE) uint8_t buf[QCOW_WINDOW_SIZE];
	struct qcow_io *io;
	uint64_t host_off; /* of buf; multiple of the window's size */
	bool filled;
};

void qcow_window_init(struct qcow_window *w, struct qcow_io *io);
int qcow_window_read(struct qcow_window *w, void *buf, size_t len, uint64_t host_off,
		     struct qcow_error *err);

#endif
