// SPDX-License-Identifier: GPL-2.0-only
#include "host/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "host/lock.h"
#include "host/names.h"
#include "host/sysfs.h"

#define SYSFS "/sys"

static const char *role_name(enum host_role role)
{
	switch (role) {
	case HOST_ROLE_IMAGE:
		return "image";
	case HOST_ROLE_BACKING:
	case HOST_ROLE_PINNED:
		return "backing file";
	case HOST_ROLE_DATA_FILE:
		return "data file";
	}
	return "file";
}

static bool named_by_image(enum host_role role)
{
	return role == HOST_ROLE_BACKING || role == HOST_ROLE_DATA_FILE;
}

static int fail_errno(struct qcow_error *err, const struct host_request *req)
{
	int code = errno;
	bool reading_may_do = req->write && (code == EROFS || code == EACCES || code == EPERM);

	return qcow_fail(err, code, QCOW_NO_OFF, "cannot open %s %s%s: %s%s", role_name(req->role),
			 req->path, req->write ? " for writing" : "", strerror(code),
			 reading_may_do ? "; open it read-only" : "");
}

/*
 * The canonical path of what @fd is, checked to lead there still: the kernel
 * shows "(deleted)" or an old name for what was removed or moved meanwhile.
 */
static int path_of_fd(int fd, char path[PATH_MAX])
{
	char link[40];
	struct stat a, b;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	path[n] = '\0';
	if (fstat(fd, &a) < 0 || stat(path, &b) < 0)
		return -errno;
	return a.st_dev == b.st_dev && a.st_ino == b.st_ino ? 0 : -ESTALE;
}

static bool dir_allowed(const struct host_policy *p, const char *dir)
{
	size_t i;

	if (host_list_has(p->own_dirs, p->nr_own_dirs, dir))
		return true;
	for (i = 0; i < p->nr_dirs; i++)
		if (host_path_below(dir, p->dirs[i]))
			return true;
	return false;
}

static int check_dir(const struct host_policy *p, const struct host_request *req, const char *dir,
		     const char *how, struct qcow_error *err)
{
	if (dir_allowed(p, dir))
		return 0;
	return qcow_fail(err, EACCES, QCOW_NO_OFF,
			 "%s %s %s %s, which is not allowed; if you trust the image add: "
			 "--backing-dir %s (in a table: backing_dir:%s)",
			 role_name(req->role), req->path, how, dir, dir, dir);
}

static bool bdev_listed(const struct host_policy *p, dev_t rdev)
{
	char vg[128];
	struct stat st;
	size_t i;

	for (i = 0; i < p->nr_bdevs; i++)
		if (!stat(p->bdevs[i], &st) && S_ISBLK(st.st_mode) && st.st_rdev == rdev)
			return true;
	return host_sysfs_vg(SYSFS, rdev, vg, sizeof(vg)) && host_list_has(p->vgs, p->nr_vgs, vg);
}

static int check_bdev(const struct host_policy *p, const struct host_request *req, dev_t rdev,
		      struct qcow_error *err)
{
	char vg[128], line[160];

	if (bdev_listed(p, rdev))
		return 0;
	if (host_sysfs_vg(SYSFS, rdev, vg, sizeof(vg)))
		snprintf(line, sizeof(line), "volume-group %s", vg);
	else
		snprintf(line, sizeof(line), "block-device PATH");
	return qcow_fail(err, EACCES, QCOW_NO_OFF,
			 "%s %s is a block device that is not listed; if you trust the image add "
			 "\"%s\" to %s, or give --backing FILE",
			 role_name(req->role), req->path, line, HOST_CONF_PATH);
}

static int check_target(const struct host_policy *p, const struct host_request *req, int path_fd,
			const struct stat *st, struct qcow_error *err)
{
	char path[PATH_MAX], *dir;
	int r;

	if (S_ISBLK(st->st_mode))
		return check_bdev(p, req, st->st_rdev, err);
	r = path_of_fd(path_fd, path);
	if (r < 0)
		return qcow_fail(err, -r, QCOW_NO_OFF, "%s %s was moved while being opened",
				 role_name(req->role), req->path);
	dir = host_dir_name(path);
	if (!dir)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	r = check_dir(p, req, dir, "leads to", err);
	free(dir);
	return r;
}

/*
 * Opens the directory part, follows symlinks, and judges where it got, in @path.
 * Below /dev the answer waits: listed block devices may be named there.
 */
static int open_dir(const struct host_policy *p, const struct host_request *req,
		    char path[PATH_MAX], int *fd, struct qcow_error *err)
{
	char *dir = host_dir_name(req->path);
	int r;

	if (!dir)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	*fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (*fd < 0)
		return fail_errno(err, req);
	r = path_of_fd(*fd, path);
	if (r < 0)
		r = qcow_fail(err, -r, QCOW_NO_OFF, "the directory of %s was moved", req->path);
	else if (!host_path_below(path, "/dev"))
		r = check_dir(p, req, path, "is in", err);
	if (r < 0)
		close(*fd);
	return r;
}

static bool is_bdev(int path_fd)
{
	struct stat st;

	return !fstat(path_fd, &st) && S_ISBLK(st.st_mode);
}

/* Not through /proc/PID/fd and the like: those lead to where no directory rule holds. */
static int open_no_magic(int dir_fd, const char *name)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
}

/* An O_PATH descriptor: nothing is opened for I/O before it was judged. */
static int open_named(const struct host_policy *p, const struct host_request *req, int *path_fd,
		      struct qcow_error *err)
{
	const char *base = host_base_name(req->path);
	char dir[PATH_MAX];
	int dir_fd = -1, r;

	if (p->no_backing)
		return qcow_fail(err, EACCES, QCOW_NO_OFF,
				 "the image names the %s %s, but --no-backing allows none",
				 role_name(req->role), req->path);
	if (!*base)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "%s %s is a directory",
				 role_name(req->role), req->path);
	r = open_dir(p, req, dir, &dir_fd, err);
	if (r < 0)
		return r;
	*path_fd = open_no_magic(dir_fd, base);
	if (*path_fd < 0)
		r = fail_errno(err, req);
	close(dir_fd);
	if (r < 0 || is_bdev(*path_fd))
		return r;
	r = check_dir(p, req, dir, "is in", err);
	if (r < 0)
		close(*path_fd);
	return r;
}

static int open_trusted(const struct host_policy *p, const struct host_request *req, int *path_fd,
			struct qcow_error *err)
{
	if (req->role == HOST_ROLE_PINNED && (!p->pin || strcmp(p->pin, req->path)))
		return qcow_fail(err, EACCES, QCOW_NO_OFF, "%s is not the file --backing names",
				 req->path);
	*path_fd = open(req->path, O_PATH | O_CLOEXEC);
	return *path_fd < 0 ? fail_errno(err, req) : 0;
}

static int check_kind(const struct host_policy *p, const struct host_request *req,
		      const struct stat *st, struct qcow_error *err)
{
	dev_t dev = S_ISBLK(st->st_mode) ? st->st_rdev : st->st_dev;

	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "%s %s is neither a regular file nor a block device",
				 role_name(req->role), req->path);
	if (S_ISBLK(st->st_mode) && host_sysfs_zoned(SYSFS, dev))
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "%s %s is a zoned device, which cannot hold images",
				 role_name(req->role), req->path);
	/* I/O to the image would wait for itself. */
	if (p->own_device && host_sysfs_stands_on(SYSFS, dev, p->own_device))
		return qcow_fail(err, ELOOP, QCOW_NO_OFF,
				 "%s %s is stored on the very device it is to become",
				 role_name(req->role), req->path);
	return 0;
}

/* The same inode again, this time for I/O. */
static int reopen(const struct host_request *req, const struct stat *st, int path_fd, int *fd,
		  struct qcow_error *err)
{
	int flags = (req->write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY;
	/* Not a device: whose blocks the module may have changed behind the page cache. */
	bool direct = !req->buffered || S_ISBLK(st->st_mode);
	char link[40];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", path_fd);
	*fd = open(link, direct ? flags | O_DIRECT : flags);
	if (*fd < 0 && errno == EINVAL && req->buffered_ok)
		*fd = open(link, flags);
	if (*fd >= 0)
		return 0;
	if (errno == EINVAL)
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "%s %s is on a file system without direct I/O; copy it to another",
				 role_name(req->role), req->path);
	return fail_errno(err, req);
}

static int lock(const struct host_request *req, int fd, struct qcow_error *err)
{
	if (req->probe_only)
		return host_lock_probe(fd, req->lock, req->path, err);
	return host_lock_take(fd, req->lock, req->path, err);
}

static int judge_and_open(const struct host_policy *p, const struct host_request *req, int path_fd,
			  int *fd, struct qcow_error *err)
{
	struct stat st;
	int r;

	if (fstat(path_fd, &st) < 0)
		return fail_errno(err, req);
	if (named_by_image(req->role)) {
		r = check_target(p, req, path_fd, &st, err);
		if (r < 0)
			return r;
	}
	r = check_kind(p, req, &st, err);
	if (r < 0)
		return r;
	r = reopen(req, &st, path_fd, fd, err);
	if (r < 0)
		return r;
	r = lock(req, *fd, err);
	if (r < 0)
		close(*fd);
	return r;
}

int host_open_layer(const struct host_policy *p, const struct host_request *req, int *fd,
		    struct qcow_error *err)
{
	int path_fd = -1, r;

	if (named_by_image(req->role))
		r = open_named(p, req, &path_fd, err);
	else
		r = open_trusted(p, req, &path_fd, err);
	if (r < 0)
		return r;
	r = judge_and_open(p, req, path_fd, fd, err);
	close(path_fd);
	return r;
}

/* QEMU takes what is before a colon for a protocol unless a slash comes first. */
static bool has_protocol(const char *name)
{
	return name[strcspn(name, ":/")] == ':';
}

int host_join_name(const char *parent, const char *name, char **out, struct qcow_error *err)
{
	char *dir;
	int n;

	if (!*name)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "the image names an empty path");
	if (has_protocol(name))
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "the image names \"%s\"; only plain paths are opened, no json: or "
				 "protocol names (a path with a colon is written ./NAME)",
				 name);
	if (name[0] == '/') {
		*out = strdup(name);
		goto out_check;
	}
	dir = host_dir_name(parent);
	n = dir ? asprintf(out, "%s%s%s", dir, strcmp(dir, "/") ? "/" : "", name) : -1;
	free(dir);
	if (n < 0)
		*out = NULL;
out_check:
	return *out ? 0 : qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
}
