// SPDX-License-Identifier: GPL-2.0-only
#include "tools/createopts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/size.h"
#include "tools/verb.h"

int create_options_version(const char *value, uint32_t *version)
{
	static const char *const words[] = { "0.10", "v2", "1.1", "v3", NULL };
	int i = verb_pick(value, words);

	*version = i < 2 ? 2 : 3;
	return i < 0 ? i : 0;
}

static int set_compression(struct create_options *o, const char *value)
{
	static const char *const words[] = { "zlib", "zstd", NULL };
	int i = verb_pick(value, words);

	o->p.compression = i == 1 ? QCOW_COMPRESSION_ZSTD : QCOW_COMPRESSION_DEFLATE;
	return i;
}

int create_options_prealloc(const char *value, enum qcow_prealloc *prealloc)
{
	static const char *const words[] = { "off", "metadata", "falloc", "full", NULL };
	int i = verb_pick(value, words);

	*prealloc = (enum qcow_prealloc)i;
	return i < 0 ? i : 0;
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
		return size_parse_power(value, &o->p.cluster_bits);
	case 1:
		return create_options_version(value, &o->p.version);
	case 2:
		return size_parse_power(value, &o->p.refcount_order);
	case 3:
		return verb_on_off(value, &o->p.extl2);
	case 4:
		return verb_on_off(value, &o->p.lazy_refcounts);
	case 5:
		return set_compression(o, value);
	case 6:
		return create_options_prealloc(value, &o->p.prealloc);
	case 7:
		return set_text(&o->p.data_file, value);
	case 8:
		return verb_on_off(value, &o->p.data_raw);
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
			return verb_complain(names[which], value);
	}
	return 0;
}
