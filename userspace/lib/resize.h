/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Another size of the disk, in one transaction (txn.h). What a bigger disk gets reads
 * as zeros whatever was there: data past the end of the old one, a longer backing
 * file, the state of a virtual machine behind the disk.
 */
#ifndef QCOW_LIB_RESIZE_H
#define QCOW_LIB_RESIZE_H

#include <stdint.h>

#include "lib/chain.h"
#include "lib/create.h"
#include "lib/error.h"
#include "lib/writer.h"

struct qcow_resize_params {
	uint64_t size;		     /* bytes, a multiple of 512, > 0 */
	enum qcow_prealloc prealloc; /* of what is new */
	/* To read what the disk shows; it has its own qcow_io. */
	struct qcow_chain *chain;
	uint64_t backing_size; /* bytes the backing file shows; 0 without one */
	struct qcow_io *data;  /* the external data file, for writing; NULL without one */
};

/*
 * -EINVAL   a size or preallocation that cannot be
 * -EFBIG    too big for clusters of this size
 * -ENOTSUP  version 2 with snapshots, whose sizes it does not record
 */
int qcow_resize(struct qcow_writer *w, const struct qcow_resize_params *p, struct qcow_error *err);

#endif
