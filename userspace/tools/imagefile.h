/* SPDX-License-Identifier: GPL-2.0-only */
/* One image file, opened by a verb that works on the image itself and not on its chain. */
#ifndef QCOW_TOOLS_IMAGEFILE_H
#define QCOW_TOOLS_IMAGEFILE_H

#include <stdbool.h>

#include "lib/error.h"
#include "lib/io.h"
#include "lib/writer.h"

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

/* An image whose metadata a verb changes; nobody else uses it meanwhile. */
struct image_edit {
	struct image_file f;
	struct qcow_image *img;
	struct qcow_writer *w;
};

int image_edit_open(struct image_edit *e, const char *path, const struct qcow_writer_params *params,
		    struct qcow_error *err);
void image_edit_close(struct image_edit *e); /* zeroed is fine */

#endif
