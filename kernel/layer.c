// SPDX-License-Identifier: GPL-2.0-only
/* Opening, checking and closing layers; see layer.h. */

#include <linux/blkdev.h>
#include <linux/file.h>

#include "dm-qcow.h"
#include "layer.h"

/* Host offsets are kept in 47 bits of sectors; qcow2 itself stops at 2^56. */
#define MAX_HOST_OFF	BIT_ULL(56)

/*
 * What the helper may not write through its descriptor the kernel does not write for
 * it: it was given read-only ones for what is not its image.
 */
static int check_mode(const struct file *file, bool write)
{
	fmode_t need = FMODE_READ | (write ? FMODE_WRITE : 0);

	return (file->f_mode & need) == need ? 0 : -EBADF;
}

static int check_file(struct file *file, dev_t self, bool write)
{
	struct inode *inode = file_inode(file);

	if (!file->f_op->read_iter || (write && !file->f_op->write_iter))
		return -EBADF;
	if (write && IS_IMMUTABLE(inode))
		return -EPERM;
	if (!S_ISREG(inode->i_mode))
		return -EINVAL;
	if (!(file->f_mode & FMODE_CAN_ODIRECT) || !(file->f_flags & O_DIRECT))
		return -EOPNOTSUPP;
	/* The kernel moves a swap file's blocks behind the file system's back. */
	if (IS_SWAPFILE(inode))
		return -ETXTBSY;
	if (inode->i_sb->s_bdev && inode->i_sb->s_bdev->bd_dev == self)
		return -ELOOP;
	return 0;
}

/**
 * qcow_layer_open() - take over a layer that the helper opened
 * @layer: to be filled; for a block device the caller sets @layer->bdev afterwards
 * @desc: from the OPEN answer; its fd is one of the current process
 * @self: number of the dm device itself, which no layer may lie on
 *
 * Context: the helper's, in its sendmsg(2); may sleep.
 * Return: 0, and the caller owes qcow_layer_close(); -EBADF (not open for that), -EINVAL,
 * -EOPNOTSUPP (no direct I/O), -ETXTBSY (a swap file), -EPERM (immutable), -ELOOP.
 */
int qcow_layer_open(struct qcow_layer *layer, const struct dm_qcow_layer *desc, dev_t self)
{
	bool write = desc->flags & DM_QCOW_LAYER_WRITABLE;
	struct file *file = fget(desc->fd);
	int r;

	if (!file)
		return -EBADF;
	r = check_mode(file, write);
	if (!r && S_ISBLK(file_inode(file)->i_mode))
		r = file_inode(file)->i_rdev == self ? -ELOOP : 0;
	else if (!r)
		r = check_file(file, self, write);
	if (r) {
		fput(file);
		return r;
	}
	layer->file = file;
	layer->bdev = NULL;
	layer->size = i_size_read(file->f_mapping->host);
	layer->flags = desc->flags;
	layer->tag = desc->tag;
	return 0;
}

/**
 * qcow_layer_close() - drop the reference to the file
 * @layer: open or never opened (zeroed)
 *
 * The file, and its locks, are gone when it returns, if it was the last reference.
 *
 * Context: a kernel thread; may sleep.
 */
void qcow_layer_close(struct qcow_layer *layer)
{
	if (layer->file)
		__fput_sync(layer->file);
	layer->file = NULL;
	layer->bdev = NULL;
}

/**
 * qcow_layer_holds() - may a DATA run lie there?
 * @layer: open
 * @off: bytes
 * @len: bytes
 *
 * A file may be read past its end (zeros); a device may not.
 *
 * Context: any; does not sleep.
 * Return: true if so.
 */
bool qcow_layer_holds(const struct qcow_layer *layer, u64 off, u64 len)
{
	/* A device may have grown since it was opened. */
	u64 end = layer->bdev ? bdev_nr_bytes(layer->bdev) : MAX_HOST_OFF;

	return off <= end && len <= end - off;
}
