// SPDX-License-Identifier: GPL-2.0-only
#include "tools/newfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/direct.h"
#include "host/names.h"
#include "tools/imagefile.h"

static int fail_errno(const char *path, struct qcow_error *err)
{
	return qcow_fail(err, errno, QCOW_NO_OFF, "%s: %s", path, strerror(errno));
}

/* Who owns it and who may read it stays as it was, as far as we may say so. */
static void inherit(int fd, const struct stat *old)
{
	if (fchown(fd, old->st_uid, old->st_gid) == 0 || old->st_uid == geteuid())
		(void)fchmod(fd, old->st_mode & 07777);
}

static int open_temp(struct new_file *f, bool direct, struct qcow_error *err)
{
	char *dir = host_dir_name(f->path);
	mode_t mask = umask(0);
	int n, flags;

	umask(mask);
	n = dir ? asprintf(&f->temp, "%s/.%s.XXXXXX", dir, host_base_name(f->path)) : -1;
	free(dir);
	if (n < 0) {
		f->temp = NULL;
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	}
	f->fd = mkostemp(f->temp, O_CLOEXEC);
	if (f->fd < 0) {
		free(f->temp);
		f->temp = NULL;
		return qcow_fail(err, errno, QCOW_NO_OFF, "cannot make a file beside it: %s",
				 strerror(errno));
	}
	(void)fchmod(f->fd, 0644 & ~mask);
	flags = fcntl(f->fd, F_GETFL);
	/* Where there is no direct I/O, it is not insisted on. */
	if (direct)
		(void)fcntl(f->fd, F_SETFL, flags | O_DIRECT);
	return 0;
}

static int open_by_kind(struct new_file *f, bool keep, bool direct, struct qcow_error *err)
{
	struct stat st;
	bool exists = !stat(f->path, &st);
	int r = 0;

	if (!exists && (keep || errno != ENOENT))
		return fail_errno(f->path, err);
	if (exists)
		/* Locked, so that nobody is in the middle of it, and nobody begins. */
		r = image_file_open_fd(&f->old_fd, f->path, true, false, err);
	if (r < 0)
		return r;
	if (keep || (exists && S_ISBLK(st.st_mode))) {
		f->fd = f->old_fd;
		f->old_fd = -1;
		return 0;
	}
	r = open_temp(f, direct, err);
	if (!r && exists)
		inherit(f->fd, &st);
	return r;
}

int new_file_open(struct new_file *f, const char *path, bool keep, bool direct,
		  struct qcow_error *err)
{
	int r;

	*f = (struct new_file){ .fd = -1, .old_fd = -1 };
	/* A link stays one: what it leads to is replaced. */
	f->path = realpath(path, NULL);
	if (!f->path)
		f->path = strdup(path);
	if (!f->path)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	r = open_by_kind(f, keep, direct, err);
	if (!r)
		r = host_io_create(&f->io, f->fd, err);
	if (r < 0)
		new_file_close(f);
	return r;
}

static int sync_dir(const char *path, struct qcow_error *err)
{
	char *dir = host_dir_name(path);
	int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, r = 0;

	if (fd < 0 || fsync(fd) < 0)
		r = fail_errno(dir ? dir : path, err);
	if (fd >= 0)
		close(fd);
	free(dir);
	return r;
}

int new_file_publish(struct new_file *f, bool sync, struct qcow_error *err)
{
	if (!f->temp)
		return 0;
	if (rename(f->temp, f->path) < 0)
		return fail_errno(f->path, err);
	free(f->temp);
	f->temp = NULL;
	return sync ? sync_dir(f->path, err) : 0;
}

void new_file_close(struct new_file *f)
{
	if (!f->path)
		return;
	if (f->temp)
		unlink(f->temp);
	qcow_io_destroy(f->io);
	if (f->fd >= 0)
		close(f->fd);
	if (f->old_fd >= 0)
		close(f->old_fd);
	free(f->temp);
	free(f->path);
	*f = (struct new_file){ .fd = -1, .old_fd = -1 };
}
