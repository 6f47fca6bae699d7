/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A qcow_io over a descriptor, by direct I/O.
 *
 * Direct, because the kernel module writes data behind our back: on a block
 * device the page cache would go on showing old blocks. Alignment comes from
 * statx(STATX_DIOALIGN), or else the logical block size. A request that is not
 * aligned goes through a bounce buffer allocated here, under a mutex; the
 * library aligns what matters for speed.
 */
#ifndef QCOW_HOST_DIRECT_H
#define QCOW_HOST_DIRECT_H

#include <stdint.h>

#include "lib/io.h"

/*
 * @fd: regular file or block device, preferably O_DIRECT (else I/O is
 * buffered); with O_RDWR the qcow_io can write. It does not own @fd. Free with qcow_io_destroy().
 */
int host_io_create(struct qcow_io **io, int fd, struct qcow_error *err);

#endif
