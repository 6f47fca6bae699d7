// SPDX-License-Identifier: GPL-2.0-only
/* Words of a table line, one a line; the last word is also a name from an image. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "host/options.h"
#include "host/trust.h"

#define MAX_WORDS 16

static void check_name(const char *name)
{
	char *path;

	if (host_join_name("/dir/image", name, &path, NULL))
		return;
	FUZZ_ASSERT(path[0] == '/' && strncmp(name, "json:", 5));
	free(path);
}

int fuzz_options(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *rest = text, *words[MAX_WORDS];
	struct qcow_error err = { 0 };
	struct host_options o;
	size_t nr = 0;
	int r;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	while (nr < MAX_WORDS && rest)
		words[nr++] = strsep(&rest, "\n");
	check_name(words[nr - 1]);
	r = host_options_parse(&o, nr, words, &err);
	FUZZ_ASSERT(r <= 0 && (!r || err.code == -r));
	if (!r)
		host_options_exit(&o);
	free(text);
	return 0;
}
