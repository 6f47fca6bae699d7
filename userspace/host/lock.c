// SPDX-License-Identifier: GPL-2.0-only
#include "host/lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define USE_BASE    100 /* + permission: I use it */
#define REFUSE_BASE 200 /* + permission: nobody else may */

enum {
	PERM_READ = 0,
	PERM_WRITE = 1,
	PERM_RESIZE = 3,
	NR_PERMS = 4
};

/* Bit masks of permissions. */
struct lock_set {
	unsigned int use, refuse;
};

static struct lock_set lock_set(enum host_lock mode)
{
	struct lock_set s = { .use = 1 << PERM_READ, .refuse = 1 << PERM_WRITE | 1 << PERM_RESIZE };

	if (mode == HOST_LOCK_WRITER)
		s.use |= 1 << PERM_WRITE | 1 << PERM_RESIZE;
	return s;
}

static int ofd_lock(int fd, int cmd, short type, off_t start, off_t len, bool *taken)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	if (fcntl(fd, cmd, &fl) < 0)
		return -errno;
	if (taken)
		*taken = fl.l_type != F_UNLCK;
	return 0;
}

static int take_bytes(int fd, off_t base, unsigned int perms)
{
	int i, r;

	for (i = 0; i < NR_PERMS; i++) {
		if (!(perms & 1u << i))
			continue;
		r = ofd_lock(fd, F_OFD_SETLK, F_RDLCK, base + i, 1, NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

/* *@byte: the first byte of @perms somebody else holds, or 0. */
static int find_conflict(int fd, off_t base, unsigned int perms, off_t *byte)
{
	bool taken;
	int i, r;

	*byte = 0;
	for (i = 0; i < NR_PERMS; i++) {
		if (!(perms & 1u << i))
			continue;
		/* The write type collides with read locks too; F_OFD_GETLK takes nothing. */
		r = ofd_lock(fd, F_OFD_GETLK, F_WRLCK, base + i, 1, &taken);
		if (r < 0)
			return r;
		if (taken) {
			*byte = base + i;
			return 0;
		}
	}
	return 0;
}

/* A line of /proc/PID/fdinfo/FD: "lock:  1: OFDLCK ADVISORY READ -1 fe:01:4711 100 101" */
static bool line_holds(const char *line, const struct stat *st, off_t byte)
{
	unsigned int maj, min;
	unsigned long long ino, first, last;
	char end[32];

	if (sscanf(line, "lock:%*d: OFDLCK %*s %*s %*d %x:%x:%llu %llu %31s", &maj, &min, &ino,
		   &first, end) != 5)
		return false;
	last = strcmp(end, "EOF") ? strtoull(end, NULL, 10) : UINT64_MAX;
	return maj == major(st->st_dev) && min == minor(st->st_dev) && ino == st->st_ino &&
	       first <= (unsigned long long)byte && (unsigned long long)byte <= last;
}

static bool file_holds(const char *path, const struct stat *st, off_t byte)
{
	FILE *f = fopen(path, "re");
	char line[256];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = line_holds(line, st, byte);
	fclose(f);
	return found;
}

static bool process_holds(const char *pid, const struct stat *st, off_t byte)
{
	char path[600];
	struct dirent *de;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fdinfo", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (de = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, de->d_name);
		found = file_holds(path, st, byte);
	}
	closedir(dir);
	return found;
}

static void process_name(const char *pid, char *name, size_t room)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(name, (int)room, f))
		snprintf(name, room, "?");
	name[strcspn(name, "\n")] = '\0';
	if (f)
		fclose(f);
}

/*
 * An OFD lock has no owner pid in F_OFD_GETLK nor in /proc/locks; but every
 * descriptor's fdinfo lists the locks of its description.
 */
static void describe_holder(int fd, off_t byte, char *out, size_t room)
{
	char name[32], self[16];
	struct dirent *de;
	struct stat st;
	DIR *proc;

	snprintf(self, sizeof(self), "%d", getpid());
	snprintf(out, room, "another process, or a mapped device whose helper is gone");
	if (fstat(fd, &st) < 0)
		return;
	proc = opendir("/proc");
	if (!proc)
		return;
	while ((de = readdir(proc))) {
		/* We may hold the same byte already: locks are taken before they are probed. */
		if (de->d_name[0] < '1' || de->d_name[0] > '9' || !strcmp(de->d_name, self) ||
		    !process_holds(de->d_name, &st, byte))
			continue;
		process_name(de->d_name, name, sizeof(name));
		snprintf(out, room, "%s (pid %.16s)", name, de->d_name);
		break;
	}
	closedir(proc);
}

static int conflict(int fd, off_t byte, const char *path, struct qcow_error *err)
{
	char holder[80];
	int perm = (int)(byte % 100);

	describe_holder(fd, byte, holder, sizeof(holder));
	if (byte >= REFUSE_BASE)
		return qcow_fail(err, EBUSY, QCOW_NO_OFF, "%s is locked against %s by %s", path,
				 perm == PERM_READ ? "readers" : "writers", holder);
	return qcow_fail(err, EBUSY, QCOW_NO_OFF, "%s is in use by a writer: %s", path, holder);
}

int host_lock_probe(int fd, enum host_lock mode, const char *path, struct qcow_error *err)
{
	struct lock_set s = lock_set(mode);
	off_t byte;
	int r;

	if (mode == HOST_LOCK_NONE)
		return 0;
	r = find_conflict(fd, REFUSE_BASE, s.use, &byte);
	if (!r && !byte)
		r = find_conflict(fd, USE_BASE, s.refuse, &byte);
	if (r < 0)
		return qcow_fail(err, -r, QCOW_NO_OFF, "%s: cannot look for locks: %s", path,
				 strerror(-r));
	return byte ? conflict(fd, byte, path, err) : 0;
}

int host_lock_take(int fd, enum host_lock mode, const char *path, struct qcow_error *err)
{
	struct lock_set s = lock_set(mode);
	int r;

	if (mode == HOST_LOCK_NONE)
		return 0;
	r = take_bytes(fd, USE_BASE, s.use);
	if (!r)
		r = take_bytes(fd, REFUSE_BASE, s.refuse);
	if (r < 0) {
		qcow_fail(err, -r, QCOW_NO_OFF, "%s: cannot lock: %s", path, strerror(-r));
		goto out_drop;
	}
	r = host_lock_probe(fd, mode, path, err);
	if (r < 0)
		goto out_drop;
	return 0;

out_drop:
	host_lock_drop(fd);
	return r;
}

void host_lock_drop(int fd)
{
	ofd_lock(fd, F_OFD_SETLK, F_UNLCK, USE_BASE, NR_PERMS, NULL);
	ofd_lock(fd, F_OFD_SETLK, F_UNLCK, REFUSE_BASE, NR_PERMS, NULL);
}
