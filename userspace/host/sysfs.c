// SPDX-License-Identifier: GPL-2.0-only
#include "host/sysfs.h"

#include <dirent.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Deeper stacks than this are not built; a cycle in sysfs must not hang us. */
#define MAX_STACK 16

__attribute__((format(printf, 5, 6))) static bool read_attr(const char *sys, dev_t dev, char *buf,
							    size_t room, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	FILE *f;
	bool ok;
	int n;

	n = snprintf(path, sizeof(path), "%s/dev/block/%u:%u/", sys, major(dev), minor(dev));
	va_start(ap, fmt);
	vsnprintf(path + n, sizeof(path) - (size_t)n, fmt, ap);
	va_end(ap);
	f = fopen(path, "re");
	if (!f)
		return false;
	ok = fgets(buf, (int)room, f);
	fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

bool host_sysfs_zoned(const char *sys, dev_t dev)
{
	char buf[64];

	/* A partition has no queue of its own. */
	if (!read_attr(sys, dev, buf, sizeof(buf), "queue/zoned") &&
	    !read_attr(sys, dev, buf, sizeof(buf), "../queue/zoned"))
		return false;
	return strcmp(buf, "none");
}

/* dm names are VG-LV, a hyphen within either being doubled. */
static bool vg_of_name(const char *name, char *vg, size_t room)
{
	size_t n = 0;

	for (; *name; name++) {
		if (name[0] == '-' && name[1] != '-')
			break;
		if (name[0] == '-')
			name++;
		if (n + 1 >= room)
			return false;
		vg[n++] = *name;
	}
	vg[n] = '\0';
	return *name && n;
}

bool host_sysfs_vg(const char *sys, dev_t dev, char *vg, size_t room)
{
	char uuid[256], name[256];

	/* The uuid is LVM's; a name anybody may give a dm device. */
	return read_attr(sys, dev, uuid, sizeof(uuid), "dm/uuid") && !strncmp(uuid, "LVM-", 4) &&
	       read_attr(sys, dev, name, sizeof(name), "dm/name") && vg_of_name(name, vg, room);
}

static bool parse_dev(const char *text, dev_t *dev)
{
	unsigned int maj, min;

	if (sscanf(text, "%u:%u", &maj, &min) != 2)
		return false;
	*dev = makedev(maj, min);
	return true;
}

static bool stands_on(const char *sys, dev_t dev, dev_t below, int depth);

static bool loop_stands_on(const char *sys, dev_t dev, dev_t below, int depth)
{
	char path[PATH_MAX];
	struct stat st;

	return read_attr(sys, dev, path, sizeof(path), "loop/backing_file") && !stat(path, &st) &&
	       stands_on(sys, S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev, below, depth);
}

static bool partition_stands_on(const char *sys, dev_t dev, dev_t below, int depth)
{
	char buf[64];
	dev_t disk;

	return read_attr(sys, dev, buf, sizeof(buf), "partition") &&
	       read_attr(sys, dev, buf, sizeof(buf), "../dev") && parse_dev(buf, &disk) &&
	       stands_on(sys, disk, below, depth);
}

static bool slaves_stand_on(const char *sys, dev_t dev, dev_t below, int depth)
{
	char path[PATH_MAX], buf[64];
	struct dirent *de;
	bool found = false;
	dev_t slave;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/dev/block/%u:%u/slaves", sys, major(dev), minor(dev));
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (de = readdir(dir)))
		found = de->d_name[0] != '.' &&
			read_attr(sys, dev, buf, sizeof(buf), "slaves/%s/dev", de->d_name) &&
			parse_dev(buf, &slave) && stands_on(sys, slave, below, depth);
	closedir(dir);
	return found;
}

static bool stands_on(const char *sys, dev_t dev, dev_t below, int depth)
{
	if (dev == below)
		return true;
	if (depth == MAX_STACK)
		return false;
	return slaves_stand_on(sys, dev, below, depth + 1) ||
	       partition_stands_on(sys, dev, below, depth + 1) ||
	       loop_stands_on(sys, dev, below, depth + 1);
}

bool host_sysfs_stands_on(const char *sys, dev_t dev, dev_t below)
{
	return stands_on(sys, dev, below, 0);
}
