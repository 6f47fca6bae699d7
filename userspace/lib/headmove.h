/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A header of the other version. Version 3 has 40 bytes more, so extensions and the
 * backing file's name move; all of it is valid at once when the first sector is
 * written, because a name that does not fit there goes where the old header is not.
 */
#ifndef QCOW_LIB_HEADMOVE_H
#define QCOW_LIB_HEADMOVE_H

#include <stdint.h>

#include "lib/error.h"
#include "lib/writer.h"

/*
 * @cluster: the header's first cluster as it is; @sector: the new first sector, fixed
 * fields but version and length still to be filled in (qcow_head_set_all). Writes the
 * name, if it lies elsewhere. Names of features go. -ENOSPC: no room.
 */
int qcow_head_move(struct qcow_writer *w, const uint8_t *cluster, uint32_t version,
		   uint8_t sector[512], struct qcow_error *err);

/*
 * The name and format of the backing file, durably; NULL = none. All that was written
 * before is durable first: barriers TABLE and HEADER. Names of features go. -ENOSPC.
 */
int qcow_head_set_backing(struct qcow_writer *w, const char *name, const char *format,
			  struct qcow_error *err);

#endif
