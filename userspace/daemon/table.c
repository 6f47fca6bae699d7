// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/table.h"

#include "daemon/util.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

static int table_fill(struct table *table, const char *path, const void *words, size_t words_len)
{
	table->path = strdup(path);
	table->words = malloc(words_len + 1);
	table->words_len = words_len;
	if (!table->path || !table->words) {
		table_exit(table);
		return -ENOMEM;
	}
	if (words_len)
		memcpy(table->words, words, words_len);
	return 0;
}

int table_init(struct table *table, const struct qnl_msg *msg)
{
	const char *words = msg->options.data;
	size_t len = msg->options.nr;

	memset(table, 0, sizeof(*table));
	if (!qnl_has(msg, QNL_BIT(PATH)) || (len && words[len - 1]))
		return -EPROTO;
	table->flags = msg->flags;
	if (qnl_has(msg, QNL_BIT(DEVICE)))
		table->device = makedev(msg->device.major, msg->device.minor);
	return table_fill(table, msg->path, words, len);
}

int table_copy(struct table *to, const struct table *from)
{
	*to = *from;
	return table_fill(to, from->path, from->words, from->words_len);
}

void table_exit(struct table *table)
{
	free(table->path);
	free(table->words);
	memset(table, 0, sizeof(*table));
}

static size_t count_words(const struct table *table)
{
	size_t nr = 0;

	for (size_t i = 0; i < table->words_len; i++)
		nr += table->words[i] == 0;
	return nr;
}

int table_options(const struct table *table, struct host_options *options, struct qcow_error *err)
{
	size_t nr = count_words(table);
	char **words __cleanup(cleanup_free) = calloc(nr + 1, sizeof(*words));
	char *word = table->words;

	if (!words)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	for (size_t i = 0; i < nr; i++, word += strlen(word) + 1)
		words[i] = word;
	return host_options_parse(options, nr, words, err);
}
