/* SPDX-License-Identifier: GPL-2.0-only */
/* Lists of strings and pieces of paths, for the trust policy. */
#ifndef QCOW_HOST_NAMES_H
#define QCOW_HOST_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* Appends a copy. 0 or -ENOMEM. */
int host_list_add(char ***list, size_t *nr, const char *text);
void host_list_exit(char ***list, size_t *nr);
bool host_list_has(char *const *list, size_t nr, const char *text);

/* malloc'ed directory part, "." if there is none, "/" for "/x"; NULL: no memory. */
char *host_dir_name(const char *path);
/* What follows the last slash. */
const char *host_base_name(const char *path);
/* malloc'ed @path, made absolute by the working directory if it is not; symlinks stay. */
char *host_absolute(const char *path);
/* @dir and @path canonical: is @path @dir or below it? */
bool host_path_below(const char *path, const char *dir);

#endif
