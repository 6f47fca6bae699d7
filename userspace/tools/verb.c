// SPDX-License-Identifier: GPL-2.0-only
#include "tools/verb.h"

#include <errno.h>
#include <json.h>
#include <stdio.h>
#include <string.h>

static int failed(const struct verb *v)
{
	return v->failed ? v->failed : 1;
}

int verb_usage(const struct verb *v)
{
	fputs(v->usage, stderr);
	return failed(v);
}

int verb_parse(const struct verb *v, int argc, char **argv, void *request)
{
	const char *letters = v->letters ? v->letters : "";
	int opt;

	while ((opt = getopt_long(argc, argv, letters, v->options, NULL)) != -1) {
		if (opt == VERB_HELP) {
			fputs(v->usage, stdout);
			return 0;
		}
		/* What getopt does not know it has complained of. */
		if (opt == '?' || v->take(request, opt) < 0)
			return failed(v);
	}
	if (argc - optind < v->min_words || argc - optind > v->max_words)
		return verb_usage(v);
	return -1;
}

int verb_complain(const char *name, const char *value)
{
	fprintf(stderr, "qcow: option %s cannot be '%s'\n", name, value ? value : "");
	return -EINVAL;
}

int verb_take_output(int opt, bool *json)
{
	*json = opt == VERB_JSON || !strcmp(optarg, "json");
	if (*json || !strcmp(optarg, "human"))
		return 0;
	fprintf(stderr, "qcow: --output is human or json, not '%s'\n", optarg);
	return -EINVAL;
}

int verb_take_qcow2(const char *format)
{
	if (!strcmp(format, "qcow2"))
		return 0;
	fprintf(stderr, "qcow: this is for qcow2 images only, not for '%s'\n", format);
	return -EINVAL;
}

int verb_pick(const char *value, const char *const *words)
{
	int i;

	for (i = 0; words[i]; i++)
		if (!strcmp(value, words[i]))
			return i;
	return -EINVAL;
}

int verb_on_off(const char *value, bool *on)
{
	static const char *const words[] = { "off", "on", NULL };
	int i = verb_pick(value, words);

	*on = i == 1;
	return i < 0 ? i : 0;
}

void verb_print_json(struct json_object *o)
{
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY |
						       JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

int verb_report(const char *path, int r, const struct qcow_error *err)
{
	/* Opening a chain says itself what is wrong. */
	if (r < 0 && err->code)
		fprintf(stderr, "qcow: %s: %s\n", path, err->text);
	return r < 0 ? 1 : 0;
}
