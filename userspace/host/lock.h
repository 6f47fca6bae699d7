/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QEMU's image locks: OFD locks on single bytes of the image file.
 *
 * Byte 100+n says "I use permission n", byte 200+n "nobody else may use n":
 * n = 0 consistent read, 1 write, 3 resize. Held always as read locks, so that
 * holders never collide on a byte they share; only a probe uses the write type,
 * with F_OFD_GETLK, which takes nothing. The locks belong to the open file
 * description: they live as long as any copy of the descriptor does, in the
 * kernel module too.
 */
#ifndef QCOW_HOST_LOCK_H
#define QCOW_HOST_LOCK_H

#include "lib/error.h"

enum host_lock {
	HOST_LOCK_NONE = 0,
	HOST_LOCK_BASE,	  /* read, and nobody writes or resizes: 100, 201, 203 */
	HOST_LOCK_WRITER, /* 100, 101, 103, 201, 203 */
};

/*
 * Takes the lock, then looks for a conflict: in this order, so that of two
 * openers at least one sees the other. -EBUSY: another process holds a
 * conflicting one, and nothing is held; the text names its pid if we may see it.
 * @path only for messages.
 */
int host_lock_take(int fd, enum host_lock mode, const char *path, struct qcow_error *err);
/* Only looks. Same errors. */
int host_lock_probe(int fd, enum host_lock mode, const char *path, struct qcow_error *err);
/* Gives everything back; errors do not matter, close does the same. */
void host_lock_drop(int fd);

#endif
