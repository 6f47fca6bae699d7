/* SPDX-License-Identifier: GPL-2.0-only */
/* What the verbs' command lines and answers have in common. */
#ifndef QCOW_TOOLS_VERB_H
#define QCOW_TOOLS_VERB_H

#include <getopt.h>
#include <stdbool.h>

#include "lib/error.h"

/* getopt's values; a verb's own lie below. */
enum {
	VERB_HELP = 1024,
	VERB_JSON,
	VERB_OUTPUT
};

/* For a verb's struct option array; the first one ends it. */
/* clang-format off */
#define VERB_END_OPTIONS \
	{ "help", no_argument, NULL, VERB_HELP }, \
	{ NULL, 0, NULL, 0 }
#define VERB_JSON_OPTIONS \
	{ "json", no_argument, NULL, VERB_JSON }, \
	{ "output", required_argument, NULL, VERB_OUTPUT }
/* clang-format on */

struct verb {
	const char *usage;
	const char *letters; /* getopt's short options; NULL = none */
	const struct option *options;
	/* @opt's argument is in optarg. Negative: no, and it has said why. */
	int (*take)(void *request, int opt);
	int min_words, max_words; /* besides options */
	int failed;		  /* exit status if that is wrong; 0 = 1 */
};

/* -1 to go on with argv[optind] and so on, or an exit status. */
int verb_parse(const struct verb *v, int argc, char **argv, void *request);
/* Shows how it is to be used; the exit status. */
int verb_usage(const struct verb *v);

/* "option NAME cannot be 'VALUE'", -EINVAL */
int verb_complain(const char *name, const char *value);
/* VERB_JSON and VERB_OUTPUT. */
int verb_take_output(int opt, bool *json);
/* -f of a verb for qcow2 images only. */
int verb_take_qcow2(const char *format);
/* The position of @value in @words, which NULL ends; -EINVAL: not there. */
int verb_pick(const char *value, const char *const *words);
/* "on" or "off"; -EINVAL: neither. */
int verb_on_off(const char *value, bool *on);

struct json_object;
/* Prints and frees it. */
void verb_print_json(struct json_object *o);

/* The exit status for @r; the line about @path if there is one in @err. */
int verb_report(const char *path, int r, const struct qcow_error *err);

#endif
