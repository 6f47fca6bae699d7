// SPDX-License-Identifier: GPL-2.0-only
#include "host/names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int host_list_add(char ***list, size_t *nr, const char *text)
{
	char **bigger = reallocarray(*list, *nr + 1, sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	*list = bigger;
	bigger[*nr] = strdup(text);
	if (!bigger[*nr])
		return -ENOMEM;
	(*nr)++;
	return 0;
}

void host_list_exit(char ***list, size_t *nr)
{
	size_t i;

	for (i = 0; i < *nr; i++)
		free((*list)[i]);
	free(*list);
	*list = NULL;
	*nr = 0;
}

bool host_list_has(char *const *list, size_t nr, const char *text)
{
	size_t i;

	for (i = 0; i < nr; i++)
		if (!strcmp(list[i], text))
			return true;
	return false;
}

char *host_dir_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	if (slash == path)
		return strdup("/");
	return strndup(path, (size_t)(slash - path));
}

const char *host_base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *host_absolute(const char *path)
{
	char *cwd, *out;

	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return NULL;
	if (asprintf(&out, "%s/%s", cwd, path) < 0)
		out = NULL;
	free(cwd);
	return out;
}

bool host_path_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (!strcmp(dir, "/"))
		return true;
	return !strncmp(path, dir, n) && (path[n] == '/' || !path[n]);
}
