// SPDX-License-Identifier: GPL-2.0-only
#include "tools/words.h"

#include <stdio.h>
#include <string.h>

#include "tools/verb.h"

static const struct {
	const char *name;
	bool is_path;
} words[] = {
	{ "backing_dir", true },       { "backing", true },
	{ "backing_format", false },   { "no_backing", false },
	{ "snapshot", false },	       { "helper_timeout", false },
	{ "map_budget", false },       { "cache_budget", false },
	{ "sector_size", false },      { "drop_bitmaps", false },
	{ "no_space_timeout", false }, { "low_water", false },
	{ "keep_discarded", false },   { "no_discard_passdown", false },
};

#define NR_WORDS (int)(sizeof(words) / sizeof(*words))

bool word_is(int opt)
{
	return opt >= WORD_OPT && opt < WORD_OPT + NR_WORDS;
}

int word_add(struct table_line *line, int opt, const char *arg)
{
	return table_line_add(line, words[opt - WORD_OPT].name, arg, words[opt - WORD_OPT].is_path);
}

int word_take_format(const char *name, const char *arg, enum host_format *format)
{
	*format = host_format_parse(arg);
	return *format == HOST_FORMAT_UNKNOWN ? verb_complain(name, arg) : 0;
}

int word_copy_dirs(struct table_line *to, const struct table_line *from)
{
	static const char dir[] = "backing_dir:";
	size_t i;
	int r = 0;

	for (i = 0; i < from->nr_words && !r; i++)
		if (!strncmp(from->words[i], dir, strlen(dir)))
			r = table_line_add(to, "backing_dir", from->words[i] + strlen(dir), 0);
	return r;
}

static int open_with(const char *image, const struct host_options *o, enum host_format format,
		     unsigned int flags, struct host_chain **hc, struct qcow_error *err)
{
	struct host_chain_params params = host_chain_params(o, flags);
	struct host_policy policy;
	struct host_opener opener;
	int r;

	params.format = format;
	r = host_policy_init(&policy, image, o, HOST_CONF_PATH, 0, err);
	if (r < 0)
		return r;
	opener = host_opener_local(&policy);
	r = host_chain_open(hc, image, &params, &opener, err);
	host_policy_exit(&policy);
	return r;
}

int word_open_chain(const struct table_line *line, unsigned int flags, struct host_chain **hc)
{
	return word_open_disk(line, HOST_FORMAT_QCOW2, flags, hc);
}

int word_open_disk(const struct table_line *line, enum host_format format, unsigned int flags,
		   struct host_chain **hc)
{
	struct qcow_error err = { 0 };
	struct host_options o;
	int r;

	r = host_options_parse(&o, line->nr_words, line->words, &err);
	if (!r) {
		r = open_with(line->image, &o, format, flags, hc, &err);
		host_options_exit(&o);
	}
	if (r < 0)
		fprintf(stderr, "qcow: %s\n", err.text);
	return r;
}
