/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A header with other extensions, or of the other version, which has 40 bytes more or
 * less: extensions and the backing file's name move. All of it is valid at once when
 * the first sector is written, because a name that does not fit there goes where the
 * old header is not.
 */
#ifndef QCOW_LIB_HEADMOVE_H
#define QCOW_LIB_HEADMOVE_H

#include <stdint.h>

#include "lib/error.h"
#include "lib/writer.h"

/*
 * @cluster: the header's cluster as it is; @h: what it is to be: version, backing file and
 * bitmaps count here; @sector: the new first sector, fixed fields still to be filled in
 * (qcow_head_set_all). Writes the name, if it lies elsewhere. Names of features go.
 * -ENOSPC: no room.
 */
int qcow_head_move(struct qcow_writer *w, const uint8_t *cluster, const struct qcow_header *h,
		   uint8_t sector[512], struct qcow_error *err);

/*
 * The name and format of the backing file, durably; NULL = none. All that was written
 * before is durable first: barriers TABLE and HEADER. Names of features go. -ENOSPC.
 */
int qcow_head_set_backing(struct qcow_writer *w, const char *name, const char *format,
			  struct qcow_error *err);

#endif
