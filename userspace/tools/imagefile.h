/* SPDX-License-Identifier: GPL-2.0-only */
/* One image file, opened by a verb that works on the image itself and not on its chain. */
#ifndef QCOW_TOOLS_IMAGEFILE_H
#define QCOW_TOOLS_IMAGEFILE_H

#include <stdbool.h>

#include "lib/error.h"
#include "lib/io.h"
#include "lib/resize.h"
#include "lib/writer.h"
#include "host/chain.h"

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
/* The same without a struct qcow_io. */
int image_file_open_fd(int *fd, const char *path, bool write, bool share, struct qcow_error *err);
/*
 * What a chain has judged and read, again and for writing; or its image, which the verb had
 * open before. -ESTALE: the name stands for another file by now. Somebody may have changed
 * it just to have us write where the policy does not let us read.
 */
int image_file_open_layer(struct image_file *f, const struct host_layer *l, struct qcow_error *err);
int image_file_is_layer(const struct image_file *f, const struct host_layer *l,
			struct qcow_error *err);
/* The external data file of the chain's image, for writing; without one @f stays closed. */
int image_file_open_data(struct image_file *f, struct host_chain *hc, struct qcow_error *err);

/* An image whose metadata a verb changes; nobody else uses it meanwhile. */
struct image_edit {
	struct image_file f;
	struct qcow_image *img;
	struct qcow_writer *w;
};

int image_edit_open(struct image_edit *e, const char *path, const struct qcow_writer_params *params,
		    struct qcow_error *err);
/* Fills in the rest of @p from the chain, which shows what the image does. */
int image_edit_resize(struct image_edit *e, struct host_chain *hc, struct qcow_resize_params *p,
		      struct qcow_error *err);
void image_edit_close(struct image_edit *e); /* zeroed is fine */

#endif
