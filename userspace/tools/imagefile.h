/* SPDX-License-Identifier: GPL-2.0-only */
/* One image file, opened by a verb that works on the image itself and not on its chain. */
#ifndef QCOW_TOOLS_IMAGEFILE_H
#define QCOW_TOOLS_IMAGEFILE_H

#include <stdbool.h>

#include "lib/error.h"
#include "lib/io.h"

struct image_file {
	int fd;
	struct qcow_io *io;
};

/*
 * Locked as QEMU does it: -EBUSY while somebody else uses it, a mapped device too.
 * @share: no lock, for reading only.
 */
int image_file_open(struct image_file *f, const char *path, bool write, bool share,
		    struct qcow_error *err);
void image_file_close(struct image_file *f); /* zeroed is fine */

#endif
