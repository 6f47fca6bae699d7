// SPDX-License-Identifier: GPL-2.0-only
#include "lib/io.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int named(const struct qcow_io *io, int r, struct qcow_error *err)
{
	if (io->name)
		qcow_error_prefix(err, "%s", io->name);
	return r;
}

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
		return named(io,
			     qcow_fail(err, -r, host_off,
				       "cannot read %zu bytes at offset %#" PRIx64 ": %s", len,
				       host_off, strerror(-r)),
			     err);
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

static int check_write(bool able, uint64_t len, uint64_t host_off, struct qcow_error *err)
{
	if (!able)
		return qcow_fail(err, EROFS, QCOW_NO_OFF, "the file is open for reading only");
	if (len > QCOW_HOST_OFF_MAX || host_off > QCOW_HOST_OFF_MAX - len)
		return qcow_fail(err, EINVAL, host_off,
				 "write of %" PRIu64 " bytes at offset %#" PRIx64
				 " passes the largest possible file",
				 len, host_off);
	return 0;
}

static int fail_write(const struct qcow_io *io, int r, const char *what, uint64_t len,
		      uint64_t host_off, struct qcow_error *err)
{
	return named(io,
		     qcow_fail(err, -r, host_off,
			       "cannot %s %" PRIu64 " bytes at offset %#" PRIx64 ": %s", what, len,
			       host_off, strerror(-r)),
		     err);
}

int qcow_io_pwrite(struct qcow_io *io, const void *buf, size_t len, uint64_t host_off,
		   struct qcow_error *err)
{
	int r = check_write(io->ops->pwrite, len, host_off, err);

	if (r < 0)
		return r;
	r = io->ops->pwrite(io, buf, len, host_off);
	return r < 0 ? fail_write(io, r, "write", len, host_off, err) : 0;
}

int qcow_io_flush(struct qcow_io *io, struct qcow_error *err)
{
	int r = check_write(io->ops->flush, 0, 0, err);

	if (r < 0)
		return r;
	r = io->ops->flush(io);
	if (r < 0)
		return named(io, qcow_fail(err, -r, QCOW_NO_OFF, "cannot flush: %s", strerror(-r)),
			     err);
	return 0;
}

int qcow_io_truncate(struct qcow_io *io, uint64_t size, struct qcow_error *err)
{
	int r = check_write(io->ops->truncate, 0, size, err);

	if (r < 0)
		return r;
	r = io->ops->truncate(io, size);
	if (r < 0)
		return qcow_fail(err, -r, size, "cannot make the file %" PRIu64 " bytes long: %s",
				 size, strerror(-r));
	return 0;
}

int qcow_io_zero(struct qcow_io *io, uint64_t host_off, uint64_t len, struct qcow_error *err)
{
	int r = check_write(true, len, host_off, err);

	if (r < 0)
		return r;
	r = io->ops->zero ? io->ops->zero(io, host_off, len) : -EOPNOTSUPP;
	if (r < 0 && r != -EOPNOTSUPP)
		return fail_write(io, r, "zero", len, host_off, err);
	return r;
}

int qcow_io_back(struct qcow_io *io, uint64_t host_off, uint64_t len, struct qcow_error *err)
{
	int r = check_write(true, len, host_off, err);

	if (r < 0)
		return r;
	r = io->ops->back ? io->ops->back(io, host_off, len) : -EOPNOTSUPP;
	if (r < 0 && r != -EOPNOTSUPP)
		return fail_write(io, r, "find space for", len, host_off, err);
	return r;
}

int qcow_io_punch(struct qcow_io *io, uint64_t host_off, uint64_t len, struct qcow_error *err)
{
	int r = check_write(true, len, host_off, err);

	if (r < 0)
		return r;
	r = io->ops->punch ? io->ops->punch(io, host_off, len) : -EOPNOTSUPP;
	if (r < 0 && r != -EOPNOTSUPP)
		return fail_write(io, r, "discard", len, host_off, err);
	return r;
}

int qcow_io_room(struct qcow_io *io, uint64_t *bytes, struct qcow_error *err)
{
	int r = io->ops->room ? io->ops->room(io, bytes) : -EOPNOTSUPP;

	if (r < 0 && r != -EOPNOTSUPP)
		return qcow_fail(err, -r, QCOW_NO_OFF, "cannot find out how much space is free: %s",
				 strerror(-r));
	return r;
}

int qcow_io_write_zeros(struct qcow_io *io, uint64_t host_off, uint64_t len, void *buf, size_t size,
			struct qcow_error *err)
{
	size_t n;
	int r = 0;

	memset(buf, 0, len < size ? len : size);
	for (; len && !r; len -= n, host_off += n) {
		n = len < size ? len : size;
		r = qcow_io_pwrite(io, buf, n, host_off, err);
	}
	return r;
}

int qcow_io_clear(struct qcow_io *io, uint64_t host_off, uint64_t len, void *buf, size_t size,
		  struct qcow_error *err)
{
	int r = qcow_io_zero(io, host_off, len, err);

	return r == -EOPNOTSUPP ? qcow_io_write_zeros(io, host_off, len, buf, size, err) : r;
}

void qcow_io_hole(struct qcow_io *io, uint64_t host_off, uint64_t *len, bool *is_hole)
{
	if (!io->ops->hole || io->ops->hole(io, host_off, len, is_hole) < 0)
		*is_hole = false;
}

void qcow_io_destroy(struct qcow_io *io)
{
	if (io && io->ops->destroy)
		io->ops->destroy(io);
}
