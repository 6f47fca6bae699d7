// SPDX-License-Identifier: GPL-2.0-only
#include "tools/table.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int make_absolute(const char *path, char **out)
{
	char *cwd;
	int n;

	if (path[0] == '/') {
		*out = strdup(path);
		return *out ? 0 : -ENOMEM;
	}
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return -errno;
	n = asprintf(out, "%s/%s", strcmp(cwd, "/") ? cwd : "", path);
	free(cwd);
	return n < 0 ? -ENOMEM : 0;
}

int table_line_set_image(struct table_line *line, const char *image)
{
	return make_absolute(image, &line->image);
}

int table_line_name(struct table_line *line, const char *image)
{
	line->image = strdup(image);
	return line->image ? 0 : -ENOMEM;
}

static int push_word(struct table_line *line, char *word)
{
	char **words = realloc(line->words, (line->nr_words + 1) * sizeof(*words));

	if (!words) {
		free(word);
		return -ENOMEM;
	}
	line->words = words;
	words[line->nr_words++] = word;
	return 0;
}

int table_line_add(struct table_line *line, const char *name, const char *value, int is_path)
{
	char *word = NULL, *path = NULL;
	int n, r;

	if (value && is_path) {
		r = make_absolute(value, &path);
		if (r)
			return r;
		value = path;
	}
	n = asprintf(&word, "%s%s%s", name, value ? ":" : "", value ? value : "");
	free(path);
	return n < 0 ? -ENOMEM : push_word(line, word);
}

/* The kernel takes a table for Latin-1, with its no-break space. */
static bool is_blank(char c)
{
	return isspace((unsigned char)c) || (unsigned char)c == 0xa0;
}

/*
 * dm splits a table at white space unless a backslash stands before it; and
 * libdevmapper doubles all backslashes. Between them nothing gets a blank through.
 */
static bool can_be_passed(const char *word)
{
	const char *c = word;

	while (*c && *c != '\\' && !is_blank(*c))
		c++;
	if (*c)
		fprintf(stderr,
			"qcow: %s: blanks, backslashes and the byte 0xa0 (some letters of UTF-8 "
			"have it) cannot be passed to the device mapper; use a symlink, or a "
			"snapshot's id\n",
			word);
	return !*c;
}

static size_t room_for(const struct table_line *line)
{
	size_t room = strlen(line->image) + 32;

	for (size_t i = 0; i < line->nr_words; i++)
		room += strlen(line->words[i]) + 1;
	return room;
}

static bool check_words(const struct table_line *line)
{
	bool ok = can_be_passed(line->image);

	for (size_t i = 0; i < line->nr_words && ok; i++)
		ok = can_be_passed(line->words[i]);
	return ok;
}

char *table_line_params(const struct table_line *line)
{
	char *params, *out;

	if (!check_words(line))
		return NULL;
	params = malloc(room_for(line));
	if (!params)
		return NULL;
	out = params + sprintf(params, "%s", line->image);
	if (line->nr_words)
		out += sprintf(out, " %zu", line->nr_words);
	for (size_t i = 0; i < line->nr_words; i++)
		out += sprintf(out, " %s", line->words[i]);
	return params;
}

void table_line_exit(struct table_line *line)
{
	for (size_t i = 0; i < line->nr_words; i++)
		free(line->words[i]);
	free(line->words);
	free(line->image);
	memset(line, 0, sizeof(*line));
}
