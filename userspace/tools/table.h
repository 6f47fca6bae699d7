/* SPDX-License-Identifier: GPL-2.0-only */
/* Writing the table line of an image: for `qcow open` and `qcow table`. */
#ifndef QCOW_TOOLS_TABLE_H
#define QCOW_TOOLS_TABLE_H

#include <stddef.h>

/* Zero-initialised: no words. */
struct table_line {
	char *image; /* absolute */
	char **words;
	size_t nr_words;
};

/*
 * Absolute, because the helper's working directory is not the caller's. Symlinks
 * stay: names inside the image are relative to the path as written.
 */
int table_line_set_image(struct table_line *line, const char *image);
/* As written: for a verb that opens it itself, and names it to the user. */
int table_line_name(struct table_line *line, const char *image);

/* Adds `name` or `name:value`; with @is_path, @value is made absolute. */
int table_line_add(struct table_line *line, const char *name, const char *value, int is_path);

/*
 * "<path> [<#opts> <opt>...]", malloc'ed. NULL without memory, or with a word that no
 * table can carry: then it has said so.
 */
char *table_line_params(const struct table_line *line);

void table_line_exit(struct table_line *line);

#endif
