// SPDX-License-Identifier: GPL-2.0-only
#include "tools/status.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Cuts the next word out of *@line, undoing backslashes in place as dm does when
 * it splits a table. NULL at the end.
 */
static char *next_word(char **line)
{
	char *in = *line + strspn(*line, " \t\n"), *out = in, *word = in;

	if (!*in)
		return NULL;
	while (*in && !isspace((unsigned char)*in)) {
		if (*in == '\\' && in[1])
			in++;
		*out++ = *in++;
	}
	*line = *in ? in + 1 : in;
	*out = 0;
	return word;
}

static int split(const char *text, char **line, char ***words, size_t *nr)
{
	char *pos, *word;

	*nr = 0;
	*line = strdup(text);
	*words = calloc(strlen(text) / 2 + 2, sizeof(**words));
	if (!*line || !*words)
		return -ENOMEM;
	pos = *line;
	while ((word = next_word(&pos)))
		(*words)[(*nr)++] = word;
	return 0;
}

/* How many words a count of them announces; -EINVAL unless they are all that is left. */
static int check_count(const char *word, size_t per_item, size_t left, size_t *nr)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(word, &end, 10);
	if (errno || end == word || *end || n > left || n * per_item != left)
		return -EINVAL;
	*nr = n;
	return 0;
}

static int fill(struct status *status, char **words, size_t nr)
{
	int r;

	if (nr < 4)
		return -EINVAL;
	r = check_count(words[3], 2, nr - 4, &status->nr_pairs);
	if (r)
		return r;
	status->pairs = calloc(status->nr_pairs + 1, sizeof(*status->pairs));
	if (!status->pairs)
		return -ENOMEM;
	status->mode = words[0];
	status->helper = words[1];
	status->image = words[2];
	for (size_t i = 0; i < status->nr_pairs; i++)
		status->pairs[i] = (struct status_pair){ words[4 + 2 * i], words[5 + 2 * i] };
	return 0;
}

int status_parse(struct status *status, const char *line)
{
	char **words;
	size_t nr;
	int r;

	memset(status, 0, sizeof(*status));
	r = split(line, &status->line, &words, &nr);
	if (!r)
		r = fill(status, words, nr);
	free(words);
	if (r)
		status_exit(status);
	return r;
}

void status_exit(struct status *status)
{
	free(status->pairs);
	free(status->line);
	memset(status, 0, sizeof(*status));
}

/* The value of "<name>_<what>", or NULL. */
static const char *failure_value(const struct status *status, const char *name, const char *what)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < status->nr_pairs; i++) {
		const char *key = status->pairs[i].key;

		if (!strncmp(key, name, len) && key[len] == '_' && !strcmp(key + len + 1, what))
			return status->pairs[i].value;
	}
	return NULL;
}

bool status_failure(const struct status *status, const char *name, struct status_failure *failure)
{
	const char *error = failure_value(status, name, "errno");
	const char *offset = failure_value(status, name, "offset");

	failure->op = failure_value(status, name, "op");
	failure->at = failure_value(status, name, "at");
	failure->error = error ? atoi(error) : 0;
	failure->offset = offset && isdigit((unsigned char)*offset) ? offset : NULL;
	return failure->op && failure->at;
}

bool status_is_counter(const struct status_pair *pair)
{
	return strncmp(pair->key, "last_", 5) && strncmp(pair->key, "mode_", 5);
}

int table_words_parse(struct table_words *table, const char *params)
{
	size_t nr = 0;
	int r;

	memset(table, 0, sizeof(*table));
	r = split(params, &table->line, &table->words, &table->nr);
	if (!r && !table->nr)
		r = -EINVAL;
	if (!r && table->nr > 1) {
		r = check_count(table->words[1], 1, table->nr - 2, &nr);
		memmove(table->words + 1, table->words + 2, nr * sizeof(*table->words));
		table->nr = 1 + nr;
	}
	if (r)
		table_words_exit(table);
	return r;
}

void table_words_exit(struct table_words *table)
{
	free(table->words);
	free(table->line);
	memset(table, 0, sizeof(*table));
}
