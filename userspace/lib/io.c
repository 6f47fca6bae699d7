// SPDX-License-Identifier: GPL-2.0-only
#include "lib/io.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

int qcow_io_pread(struct qcow_io *io, void *buf, size_t len, uint64_t host_off,
		  struct qcow_error *err)
{
	int r;

	if (len > QCOW_HOST_OFF_MAX || host_off > QCOW_HOST_OFF_MAX - len)
		return qcow_fail(err, EINVAL, host_off,
				 "read of %zu bytes at offset %#" PRIx64
				 " passes the largest possible file",
				 len, host_off);
	r = io->ops->pread(io, buf, len, host_off);
	if (r < 0)
		return qcow_fail(err, -r, host_off,
				 "cannot read %zu bytes at offset %#" PRIx64 ": %s", len, host_off,
				 strerror(-r));
	return 0;
}

int qcow_io_size(struct qcow_io *io, uint64_t *size, struct qcow_error *err)
{
	int r = io->ops->size(io, size);

	if (r < 0)
		return qcow_fail(err, -r, QCOW_NO_OFF, "cannot find out the size: %s",
				 strerror(-r));
	return 0;
}

void qcow_io_destroy(struct qcow_io *io)
{
	if (io && io->ops->destroy)
		io->ops->destroy(io);
}
