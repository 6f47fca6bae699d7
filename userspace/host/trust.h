/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which files an image may make us open.
 *
 * The image is the admin's word. Every further file is named by an image, that
 * is by whoever wrote it, and is opened only if
 *   - the directory of its literal name is allowed, and
 *   - what the name resolves to is a regular file in an allowed directory, or a
 *     block device on the admin's list;
 * or if it is the one file the admin pinned. Allowed are the image's own
 * directory (as written and as resolved, not what is below it), and every
 * directory given by backing_dir or in the configuration file, with all below it.
 * Block devices are never allowed by directory: everything under /dev would be. A
 * name below /dev needs no allowed directory, as it can lead to listed ones only.
 *
 * What was checked is what is opened: the name is opened with O_PATH first, the
 * check looks at that descriptor (/proc/self/fd), and reading re-opens the same
 * descriptor. A rename or a changed symlink in between cannot slip past.
 *
 * Configuration file, one rule per line, '#' starts a comment:
 *   backing-dir DIR        as backing_dir:DIR
 *   volume-group VG        logical volumes of this group
 *   block-device PATH      this device, by any name that resolves to it
 */
#ifndef QCOW_HOST_TRUST_H
#define QCOW_HOST_TRUST_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "host/lock.h"
#include "host/options.h"
#include "lib/error.h"

#define HOST_CONF_PATH "/etc/qcow.conf"

struct host_policy {
	char **own_dirs; /* canonical; exact match */
	size_t nr_own_dirs;
	char **dirs; /* canonical; with everything below */
	size_t nr_dirs;
	char **vgs;
	size_t nr_vgs;
	char **bdevs; /* paths; compared by device number when asked */
	size_t nr_bdevs;
	char *pin; /* absolute; NULL = none */
	enum host_format backing_format;
	bool no_backing;
	dev_t own_device; /* of the mapped device itself; 0 = not known */
};

/*
 * @image as the admin wrote it; its directory becomes the own one.
 * @conf: HOST_CONF_PATH, or another file for tests; a missing one is empty, a
 * broken one is an error (a typo must not silently loosen or tighten trust).
 */
int host_policy_init(struct host_policy *p, const char *image, const struct host_options *o,
		     const char *conf, dev_t own_device, struct qcow_error *err);
void host_policy_exit(struct host_policy *p);

enum host_role {
	HOST_ROLE_IMAGE = 1, /* named by the admin: no directory rule */
	HOST_ROLE_BACKING,   /* named by an image */
	HOST_ROLE_PINNED,    /* named by the admin with backing:FILE; must equal policy->pin */
	HOST_ROLE_DATA_FILE, /* named by an image */
};

struct host_request {
	enum host_role role;
	const char *path;    /* relative names already joined to the parent's directory */
	bool write;	     /* also for writing; only IMAGE and layer 0's DATA_FILE */
	bool buffered_ok;    /* without direct I/O if the file system has none (tools only) */
	bool buffered;	     /* regular files through the page cache (tools only) */
	enum host_lock lock; /* of the new description; the holder's pid is in /proc, so here */
	bool probe_only;     /* only look whether @lock could be taken */
};

/*
 * Checks and opens. Runs on the side that has file system access (in the daemon
 * the supervisor). On success *@fd is open O_DIRECT (unless buffered_ok had to be
 * used), close-on-exec, on a regular file or block device.
 * -EACCES  not allowed; the text names the flag or configuration line to add
 * -ENOTSUP neither file nor block device, zoned device, no direct I/O
 * -EBUSY   another process holds a conflicting lock
 * -ELOOP   lies on the mapped device itself (policy->own_device)
 * others   from open(2)
 */
int host_open_layer(const struct host_policy *p, const struct host_request *req, int *fd,
		    struct qcow_error *err);

/*
 * Where a name recorded in an image points: absolute names stay, relative ones
 * are joined to the directory of @parent as written (QEMU does the same).
 * -EINVAL for json: and protocol names (`nbd:`, `http://`) and empty ones.
 * *@out is malloc'ed.
 */
int host_join_name(const char *parent, const char *name, char **out, struct qcow_error *err);

#endif
