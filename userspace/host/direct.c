// SPDX-License-Identifier: GPL-2.0-only
#include "host/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define BOUNCE_SIZE (64u << 10)

struct direct_io {
	struct qcow_io io;
	int fd;
	bool is_bdev;
	/*
	 * Held by whoever writes through the page cache: the file system lets one at a time
	 * write to a file anyway, and those who wait in it burn a processor meanwhile.
	 */
	pthread_mutex_t write_lock;
	bool buffered;
	pthread_mutex_t lock; /* of bounce */
	uint8_t *bounce;
	size_t bounce_size;
	pthread_mutex_t hole_lock; /* of what follows: [from, to) is a hole, or is not */
	uint64_t known_from, known_to;
	bool known_hole;
};

static struct direct_io *to_direct(struct qcow_io *io)
{
	return (struct direct_io *)io;
}

/*
 * Aligned in every respect. A short read that is no multiple of the alignment can
 * only be the file's end; zeros follow.
 */
static int read_aligned(struct direct_io *d, uint8_t *buf, size_t len, uint64_t off)
{
	ssize_t n;

	while (len) {
		n = pread(d->fd, buf, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		off += (uint64_t)n;
		len -= (size_t)n;
		if (!n || (uint64_t)n % d->io.align) {
			memset(buf, 0, len);
			return 0;
		}
	}
	return 0;
}

static int read_bounced(struct direct_io *d, uint8_t *buf, size_t len, uint64_t off)
{
	uint64_t start;
	size_t in, n;
	int r = 0;

	pthread_mutex_lock(&d->lock);
	while (len) {
		start = off & ~((uint64_t)d->io.align - 1);
		in = (size_t)(off - start);
		n = d->bounce_size - in < len ? d->bounce_size - in : len;
		r = read_aligned(d, d->bounce,
				 (in + n + d->io.align - 1) & ~(size_t)(d->io.align - 1), start);
		if (r < 0)
			break;
		memcpy(buf, d->bounce + in, n);
		buf += n;
		off += n;
		len -= n;
	}
	pthread_mutex_unlock(&d->lock);
	return r;
}

static int direct_pread(struct qcow_io *io, void *buf, size_t len, uint64_t off)
{
	struct direct_io *d = to_direct(io);

	if ((len | off) & (io->align - 1) || (uintptr_t)buf & (io->mem_align - 1))
		return read_bounced(d, buf, len, off);
	return read_aligned(d, buf, len, off);
}

static int direct_size(struct qcow_io *io, uint64_t *size)
{
	struct direct_io *d = to_direct(io);
	struct stat st;

	/* It may have been made larger. */
	if (d->is_bdev)
		return ioctl(d->fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
	if (fstat(d->fd, &st) < 0)
		return -errno;
	*size = (uint64_t)st.st_size;
	return 0;
}

/* A quota, or the longest file the file system can hold, are as good as a full disk. */
static int write_error(void)
{
	return errno == EDQUOT || errno == EFBIG ? -ENOSPC : -errno;
}

static int write_aligned(struct direct_io *d, const uint8_t *buf, size_t len, uint64_t off)
{
	ssize_t n;

	while (len) {
		n = pwrite(d->fd, buf, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return write_error();
		/* Direct I/O goes on only at a block's start; a rest short of that is the end. */
		if (!n || (uint64_t)n % d->io.align)
			return -ENOSPC;
		buf += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int direct_truncate(struct qcow_io *io, uint64_t size)
{
	struct direct_io *d = to_direct(io);

	if (d->is_bdev)
		return -EOPNOTSUPP;
	return ftruncate(d->fd, (off_t)size) < 0 ? write_error() : 0;
}

/* If a block up to @end made the file longer, what of it nobody wants goes again. */
static int cut_block(struct direct_io *d, uint64_t old_size, uint64_t want, uint64_t end)
{
	uint64_t size;
	int r;

	if (want < old_size)
		want = old_size;
	if (want >= end)
		return 0;
	r = direct_size(&d->io, &size);
	return r < 0 || size != end ? r : direct_truncate(&d->io, want);
}

/* Writes @whole bytes of the bounce buffer; the file needs to have them up to @want. */
static int write_blocks(struct direct_io *d, size_t whole, uint64_t start, uint64_t want)
{
	bool exact = d->io.exact_end && !d->is_bdev && want < start + whole;
	uint64_t size = 0;
	int r = exact ? direct_size(&d->io, &size) : 0;

	if (!r)
		r = write_aligned(d, d->bounce, whole, start);
	return r < 0 || !exact ? r : cut_block(d, size, want, start + whole);
}

/* Only for what nobody else writes near: reads, merges and writes whole blocks. */
static int write_bounced(struct direct_io *d, const uint8_t *buf, size_t len, uint64_t off)
{
	uint64_t start;
	size_t in, n, whole;
	int r = 0;

	pthread_mutex_lock(&d->lock);
	while (len && !r) {
		start = off & ~((uint64_t)d->io.align - 1);
		in = (size_t)(off - start);
		n = d->bounce_size - in < len ? d->bounce_size - in : len;
		whole = (in + n + d->io.align - 1) & ~(size_t)(d->io.align - 1);
		if (whole != n)
			r = read_aligned(d, d->bounce, whole, start);
		memcpy(d->bounce + in, buf, n);
		if (!r)
			r = write_blocks(d, whole, start, off + n);
		buf += n;
		off += n;
		len -= n;
	}
	pthread_mutex_unlock(&d->lock);
	return r;
}

static int direct_pwrite(struct qcow_io *io, const void *buf, size_t len, uint64_t off)
{
	struct direct_io *d = to_direct(io);
	int r;

	if ((len | off) & (io->align - 1) || (uintptr_t)buf & (io->mem_align - 1))
		return write_bounced(d, buf, len, off);
	if (d->buffered)
		pthread_mutex_lock(&d->write_lock);
	r = write_aligned(d, buf, len, off);
	if (d->buffered)
		pthread_mutex_unlock(&d->write_lock);
	return r;
}

static int direct_flush(struct qcow_io *io)
{
	return fdatasync(to_direct(io)->fd) < 0 ? -errno : 0;
}

/*
 * Of a block device, "punch" is the mode that zeroes only if the device does it by
 * itself, and then guarantees zeros; "zero" would fall back to writing them.
 */
static int direct_zero(struct qcow_io *io, uint64_t off, uint64_t len)
{
	struct direct_io *d = to_direct(io);
	int mode = d->is_bdev ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE;

	return fallocate(d->fd, mode, (off_t)off, (off_t)len) < 0 ? write_error() : 0;
}

static int direct_back(struct qcow_io *io, uint64_t off, uint64_t len)
{
	struct direct_io *d = to_direct(io);

	if (d->is_bdev)
		return -EOPNOTSUPP;
	return fallocate(d->fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0 ? write_error()
										 : 0;
}

static int direct_punch(struct qcow_io *io, uint64_t off, uint64_t len)
{
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	return fallocate(to_direct(io)->fd, mode, (off_t)off, (off_t)len) < 0 ? -errno : 0;
}

static int direct_room(struct qcow_io *io, uint64_t *bytes)
{
	struct direct_io *d = to_direct(io);
	struct statfs fs;

	if (d->is_bdev)
		return -EOPNOTSUPP;
	if (fstatfs(d->fd, &fs) < 0)
		return -errno;
	*bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
	return 0;
}

/* Moves the descriptor's position, which nothing here uses. */
static int find_hole(struct direct_io *d, uint64_t off)
{
	off_t data = lseek(d->fd, (off_t)off, SEEK_DATA), hole;

	if (data < 0 && errno != ENXIO)
		return -errno;
	d->known_hole = data < 0 || (uint64_t)data > off;
	d->known_from = off;
	d->known_to = data < 0 ? UINT64_MAX : (uint64_t)data;
	if (d->known_hole)
		return 0;
	hole = lseek(d->fd, (off_t)off, SEEK_HOLE);
	d->known_to = hole > 0 && (uint64_t)hole > off ? (uint64_t)hole : off + 1;
	return 0;
}

/*
 * The answer is kept: some file systems look at every page up to the end of the data to
 * give it. Only where nobody writes through this descriptor.
 */
static int direct_hole(struct qcow_io *io, uint64_t off, uint64_t *len, bool *is_hole)
{
	struct direct_io *d = to_direct(io);
	int r = 0;

	pthread_mutex_lock(&d->hole_lock);
	if (io->ops->pwrite || off < d->known_from || off >= d->known_to)
		r = find_hole(d, off);
	*is_hole = d->known_hole;
	if (!r && d->known_to - off < *len)
		*len = d->known_to - off;
	pthread_mutex_unlock(&d->hole_lock);
	return r;
}

static void direct_destroy(struct qcow_io *io)
{
	struct direct_io *d = to_direct(io);

	pthread_mutex_destroy(&d->lock);
	pthread_mutex_destroy(&d->write_lock);
	pthread_mutex_destroy(&d->hole_lock);
	free(d->bounce);
	free(d);
}

static const struct qcow_io_ops direct_ops = {
	.pread = direct_pread,
	.size = direct_size,
	.hole = direct_hole,
	.destroy = direct_destroy,
};

static const struct qcow_io_ops direct_write_ops = {
	.pread = direct_pread,
	.size = direct_size,
	.hole = direct_hole,
	.destroy = direct_destroy,
	.pwrite = direct_pwrite,
	.flush = direct_flush,
	.truncate = direct_truncate,
	.zero = direct_zero,
	.back = direct_back,
	.punch = direct_punch,
	.room = direct_room,
};

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static bool statx_align(struct direct_io *d)
{
#ifdef STATX_DIOALIGN
	struct statx sx;

	if (statx(d->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) < 0 ||
	    !(sx.stx_mask & STATX_DIOALIGN) || !is_power_of_two(sx.stx_dio_offset_align) ||
	    !is_power_of_two(sx.stx_dio_mem_align))
		return false;
	d->io.align = sx.stx_dio_offset_align;
	d->io.mem_align = sx.stx_dio_mem_align;
	return true;
#else
	(void)d;
	return false;
#endif
}

/* File systems older than STATX_DIOALIGN only say EINVAL to what is too small. */
static bool probe_align(struct direct_io *d)
{
	static const uint32_t sizes[] = { 512, 1024, 2048, 4096 };
	_Alignas(4096) uint8_t buf[4096];
	size_t i;

	for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		if (pread(d->fd, buf, sizes[i], 0) < 0)
			continue;
		d->io.align = d->io.mem_align = sizes[i];
		return true;
	}
	return false;
}

static int find_align(struct direct_io *d, struct qcow_error *err)
{
	int flags = fcntl(d->fd, F_GETFL);
	int ssz;

	if (flags < 0)
		return qcow_fail(err, errno, QCOW_NO_OFF, "bad descriptor: %s", strerror(errno));
	d->io.ops = (flags & O_ACCMODE) == O_RDWR ? &direct_write_ops : &direct_ops;
	d->io.align = d->io.mem_align = 1;
	d->buffered = !(flags & O_DIRECT);
	if (d->buffered || statx_align(d))
		return 0;
	if (d->is_bdev && !ioctl(d->fd, BLKSSZGET, &ssz) && is_power_of_two((uint32_t)ssz)) {
		d->io.align = d->io.mem_align = (uint32_t)ssz;
		return 0;
	}
	if (probe_align(d))
		return 0;
	return qcow_fail(err, EINVAL, QCOW_NO_OFF, "direct I/O does not work on this file");
}

static int find_kind(struct direct_io *d, struct qcow_error *err)
{
	struct stat st;

	if (fstat(d->fd, &st) < 0)
		goto out_errno;
	d->is_bdev = S_ISBLK(st.st_mode);
	d->io.fixed_end = d->is_bdev;
	return 0;

out_errno:
	return qcow_fail(err, errno, QCOW_NO_OFF, "cannot find out the size: %s", strerror(errno));
}

int host_io_create(struct qcow_io **io, int fd, struct qcow_error *err)
{
	struct direct_io *d = calloc(1, sizeof(*d));
	size_t align;
	int r;

	if (!d)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	d->fd = fd;
	r = find_kind(d, err);
	if (r < 0)
		goto out_free;
	r = find_align(d, err);
	if (r < 0)
		goto out_free;
	/* Twice the alignment at least: one request may touch two blocks. */
	d->bounce_size = 2ul * d->io.align > BOUNCE_SIZE ? 2ul * d->io.align : BOUNCE_SIZE;
	align = d->io.mem_align > 4096 ? d->io.mem_align : 4096;
	d->bounce = aligned_alloc(align, (d->bounce_size + align - 1) & ~(align - 1));
	if (!d->bounce) {
		r = qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
		goto out_free;
	}
	pthread_mutex_init(&d->lock, NULL);
	pthread_mutex_init(&d->write_lock, NULL);
	pthread_mutex_init(&d->hole_lock, NULL);
	*io = &d->io;
	return 0;

out_free:
	free(d);
	return r;
}
