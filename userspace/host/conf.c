// SPDX-License-Identifier: GPL-2.0-only
#include "host/conf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/names.h"

/* A directory that does not exist allows nothing; it is no error, mounts come and go. */
static int add_dir(struct host_policy *p, const char *dir)
{
	char *real = realpath(dir, NULL);
	int r = real ? host_list_add(&p->dirs, &p->nr_dirs, real) : 0;

	free(real);
	return r;
}

static int apply(struct host_policy *p, const char *key, const char *value)
{
	if (!strcmp(key, "backing-dir"))
		return value[0] == '/' ? add_dir(p, value) : -EINVAL;
	if (!strcmp(key, "volume-group"))
		return host_list_add(&p->vgs, &p->nr_vgs, value);
	if (!strcmp(key, "block-device"))
		return value[0] == '/' ? host_list_add(&p->bdevs, &p->nr_bdevs, value) : -EINVAL;
	return -EINVAL;
}

/* Cuts @line into key and value; false for an empty line. */
static bool split(char *line, char **key, char **value)
{
	char *end;

	line[strcspn(line, "#\n")] = '\0';
	*key = line + strspn(line, " \t");
	end = *key + strlen(*key);
	while (end > *key && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = '\0';
	*value = *key + strcspn(*key, " \t");
	if (**value)
		*(*value)++ = '\0';
	*value += strspn(*value, " \t");
	return **key;
}

static int parse_line(struct host_policy *p, char *line, const char *path, unsigned int nr,
		      struct qcow_error *err)
{
	char *key, *value;
	int r;

	if (!split(line, &key, &value))
		return 0;
	r = *value ? apply(p, key, value) : -EINVAL;
	if (r == -EINVAL)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "%s line %u: expected backing-dir, block-device (both with an "
				 "absolute path) or volume-group NAME, found \"%s %s\"",
				 path, nr, key, value);
	return r < 0 ? qcow_fail(err, -r, QCOW_NO_OFF, "out of memory") : 0;
}

int host_conf_read(struct host_policy *p, const char *path, struct qcow_error *err)
{
	FILE *f = fopen(path, "re");
	unsigned int nr = 0;
	char *line = NULL;
	size_t room = 0;
	int r = 0;

	if (!f && errno == ENOENT)
		return 0;
	if (!f)
		return qcow_fail(err, errno, QCOW_NO_OFF, "cannot open %s: %s", path,
				 strerror(errno));
	while (!r && getline(&line, &room, f) >= 0)
		r = parse_line(p, line, path, ++nr, err);
	if (!r && ferror(f))
		r = qcow_fail(err, EIO, QCOW_NO_OFF, "cannot read %s", path);
	free(line);
	fclose(f);
	return r;
}
