// SPDX-License-Identifier: GPL-2.0-only
#include "tools/createopts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/size.h"

int create_options_complain(const char *name, const char *value)
{
	fprintf(stderr, "qcow: option %s cannot be '%s'\n", name, value ? value : "");
	return -EINVAL;
}

static int pick(const char *value, const char *const *words)
{
	int i;

	for (i = 0; words[i]; i++)
		if (!strcmp(value, words[i]))
			return i;
	return -EINVAL;
}

static int on_off(const char *value, bool *out)
{
	static const char *const words[] = { "off", "on", NULL };
	int i = pick(value, words);

	*out = i == 1;
	return i < 0 ? i : 0;
}

/* log2 of a power of two. */
static int power(const char *value, uint32_t *out)
{
	uint64_t n;
	int r = size_parse(value, &n);

	if (r < 0 || !n || n & (n - 1))
		return -EINVAL;
	*out = (uint32_t)__builtin_ctzll(n);
	return 0;
}

static int set_compat(struct create_options *o, const char *value)
{
	static const char *const words[] = { "0.10", "v2", "1.1", "v3", NULL };
	int i = pick(value, words);

	o->p.version = i < 2 ? 2 : 3;
	return i;
}

static int set_compression(struct create_options *o, const char *value)
{
	static const char *const words[] = { "zlib", "zstd", NULL };
	int i = pick(value, words);

	o->p.compression = i == 1 ? QCOW_COMPRESSION_ZSTD : QCOW_COMPRESSION_DEFLATE;
	return i;
}

static int set_prealloc(struct create_options *o, const char *value)
{
	static const char *const words[] = { "off", "metadata", "falloc", "full", NULL };
	int i = pick(value, words);

	o->p.prealloc = (enum qcow_prealloc)i;
	return i;
}

static int set_text(const char **out, const char *value)
{
	*out = value;
	return 0;
}

static int set_size(struct create_options *o, const char *value)
{
	o->has_size = true;
	return size_parse(value, &o->p.size);
}

static int set_option(struct create_options *o, int which, const char *value)
{
	switch (which) {
	case 0:
		return power(value, &o->p.cluster_bits);
	case 1:
		return set_compat(o, value);
	case 2:
		return power(value, &o->p.refcount_order);
	case 3:
		return on_off(value, &o->p.extl2);
	case 4:
		return on_off(value, &o->p.lazy_refcounts);
	case 5:
		return set_compression(o, value);
	case 6:
		return set_prealloc(o, value);
	case 7:
		return set_text(&o->p.data_file, value);
	case 8:
		return on_off(value, &o->p.data_raw);
	case 9:
		return set_text(&o->p.backing_name, value);
	case 10:
		return set_text(&o->p.backing_format, value);
	}
	return set_size(o, value);
}

/* Cuts @text up; the values stay in it. */
int create_options_parse(struct create_options *o, char *text)
{
	static char *const names[] = { "cluster_size",
				       "compat",
				       "refcount_bits",
				       "extended_l2",
				       "lazy_refcounts",
				       "compression_type",
				       "preallocation",
				       "data_file",
				       "data_file_raw",
				       "backing_file",
				       "backing_fmt",
				       "size",
				       NULL };
	char *value, *word;
	int which;

	while (*text) {
		word = text;
		which = getsubopt(&text, names, &value);
		if (which < 0) {
			fprintf(stderr, "qcow: unknown option '%s'\n", word);
			return -EINVAL;
		}
		if (!value || set_option(o, which, value) < 0)
			return create_options_complain(names[which], value);
	}
	return 0;
}
