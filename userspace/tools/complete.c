// SPDX-License-Identifier: GPL-2.0-only
#include "tools/complete.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "man/help.h"
#include "tools/device.h"

static const char *find_help(const char *verb)
{
	const struct help *h;

	for (h = help_verbs; h->verb; h++)
		if (!strcmp(h->verb, verb))
			return h->text;
	return NULL;
}

/* ---- entries: "  TAG   meaning" lines of a help text ---------------------------------- */

struct entry {
	size_t indent;
	const char *tag, *what; /* in the text: neither ends in NUL */
	int tag_len, what_len;
};

#define MAX_INDENT 4 /* of a tag; what is further in goes on with the meaning above */

static void parse_what(struct entry *e, const char *s, const char *end)
{
	while (s < end && *s == ' ')
		s++;
	e->what = s;
	e->what_len = (int)(end - s);
}

/* The next entry from *@at on, which moves behind it. */
static bool next_entry(const char **at, struct entry *e)
{
	const char *line, *end, *s;

	for (line = *at; *line; line = end + 1) {
		end = strchr(line, '\n');
		e->indent = strspn(line, " ");
		if (!e->indent || e->indent > MAX_INDENT)
			continue;
		e->tag = line + e->indent;
		for (s = e->tag; s < end && strncmp(s, "  ", 2); s++)
			;
		e->tag_len = (int)(s - e->tag);
		parse_what(e, s, end);
		/* Behind a long tag the meaning is on the line below. */
		if (!e->what_len && strspn(end + 1, " ") > MAX_INDENT)
			parse_what(e, end + 1, strchr(end + 1, '\n'));
		*at = end + 1;
		return true;
	}
	return false;
}

/* A word of a tag, without the comma behind it. */
struct word {
	const char *s;
	int len;
};

static bool next_word(const struct entry *e, struct word *w)
{
	const char *end = e->tag + e->tag_len;
	const char *s = w->s ? w->s + w->len : e->tag;

	while (s < end && (*s == ' ' || *s == ','))
		s++;
	w->s = s;
	while (s < end && *s != ' ' && !(*s == ',' && s + 1 < end && s[1] == ' '))
		s++;
	w->len = (int)(s - w->s);
	return w->len > 0;
}

static bool word_is_text(const struct word *w, const char *text, size_t len)
{
	return (size_t)w->len == len && !memcmp(w->s, text, len);
}

/* ---- candidates ----------------------------------------------------------------------- */

static void print_word(const char *prefix, int prefix_len, const struct word *w,
		       const struct entry *e)
{
	printf("%.*s%.*s", prefix_len, prefix, w->len, w->s);
	if (e && e->what_len)
		printf("\t%.*s", e->what_len, e->what);
	putchar('\n');
}

/* The first word of each entry that is no option. */
static void print_verbs(void)
{
	const char *at = help_qcow;
	struct entry e;

	while (next_entry(&at, &e)) {
		struct word w = { 0 };

		if (next_word(&e, &w) && *w.s != '-')
			print_word("", 0, &w, &e);
	}
}

static void print_options(const char *help)
{
	static const struct word usage = { "--help", 6 };
	struct entry e;

	while (next_entry(&help, &e)) {
		struct word w = { 0 };

		while (next_word(&e, &w))
			if (*w.s == '-')
				print_word("", 0, &w, &e);
	}
	print_word("", 0, &usage, NULL);
}

/* What a value may be, @like a tag says: on|off, FILE, ... @prefix was typed before it. */
static void print_values(const struct word *like, const char *prefix, int prefix_len)
{
	struct word w = { like->s, 0 };

	if (word_is_text(like, "FILE", 4))
		puts(":files");
	if (word_is_text(like, "DIR", 3))
		puts(":dirs");
	if (*like->s >= 'A' && *like->s <= 'Z')
		return;
	while (w.s < like->s + like->len) {
		w.len = (int)strcspn(w.s, "| ,\n");
		if (w.len > like->s + like->len - w.s)
			w.len = (int)(like->s + like->len - w.s);
		print_word(prefix, prefix_len, &w, NULL);
		w.s += w.len + 1;
	}
}

/* The NAME=VALUE that @help describes further in; for a verb without, those of create. */
static void print_settings(const char *help, const char *typed)
{
	const char *piece = strrchr(typed, ','), *value, *at = help;
	bool found = false;
	struct entry e;

	piece = piece ? piece + 1 : typed;
	value = strchr(piece, '=');
	while (next_entry(&at, &e)) {
		struct word w = { e.tag, (int)strcspn(e.tag, "=") + 1 };
		struct word like = { w.s + w.len, e.tag_len - w.len };

		if (e.indent != MAX_INDENT)
			continue;
		found = true;
		if (!value)
			print_word(typed, (int)(piece - typed), &w, &e);
		else if (word_is_text(&w, piece, (size_t)(value + 1 - piece)))
			print_values(&like, typed, (int)(value + 1 - typed));
	}
	if (!found && help != help_create)
		print_settings(help_create, typed);
}

/*
 * If @option takes a value, prints what it may be, behind @prefix, which was typed; @typed is what
 * there is of it already. False: it takes none.
 */
static bool complete_value(const char *help, const char *option, size_t option_len,
			   const char *prefix, const char *typed)
{
	const char *at = help;
	struct entry e;

	while (next_entry(&at, &e)) {
		struct word w = { 0 };

		while (next_word(&e, &w))
			if (word_is_text(&w, option, option_len))
				break;
		/* -f, --format raw|qcow2: the value stands behind both names. */
		while (w.len && *w.s == '-')
			next_word(&e, &w);
		if (!w.len)
			continue;
		if (word_is_text(&w, "NAME=VALUE[,...]", 16))
			print_settings(help, typed);
		else
			print_values(&w, prefix, (int)strlen(prefix));
		return true;
	}
	return false;
}

/* ---- words that are no options ---------------------------------------------------------- */

static int print_device(const struct device *device, void *arg)
{
	(void)arg;
	puts(device->name);
	return 0;
}

static int print_devices(void)
{
	return device_init() || device_for_each(print_device, NULL) ? 1 : 0;
}

static int complete_argument(const char *verb, int nr_words)
{
	if (!strcmp(verb, "close") || !strcmp(verb, "status"))
		return print_devices();
	/* A new device's name nobody knows. */
	if (strcmp(verb, "open") || nr_words > 2)
		puts(":files");
	return 0;
}

int complete_run(int nr_words, char **words)
{
	const char *typed = nr_words ? words[nr_words - 1] : "", *help, *value;

	if (nr_words < 2) {
		if (*typed == '-')
			print_options(help_qcow);
		else
			print_verbs();
		return 0;
	}
	help = find_help(words[0]);
	if (!help)
		return 1;
	value = strchr(typed, '=');
	if (!strncmp(typed, "--", 2) && value) {
		char prefix[64];

		/* --format=raw */
		snprintf(prefix, sizeof(prefix), "%.*s", (int)(value + 1 - typed), typed);
		complete_value(help, typed, (size_t)(value - typed), prefix, value + 1);
		return 0;
	}
	if (*typed == '-') {
		print_options(help);
		return 0;
	}
	if (nr_words > 2 && *words[nr_words - 2] == '-' &&
	    complete_value(help, words[nr_words - 2], strlen(words[nr_words - 2]), "", typed))
		return 0;
	return complete_argument(words[0], nr_words);
}
