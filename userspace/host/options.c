// SPDX-License-Identifier: GPL-2.0-only
#include "host/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct option_word {
	const char *name;
	bool has_value;
	/* NULL: the kernel's, accepted and left to it. */
	int (*set)(struct host_options *o, const char *value, struct qcow_error *err);
};

static int no_memory(struct qcow_error *err)
{
	return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
}

static int set_string(char **to, const char *value, const char *name, struct qcow_error *err)
{
	if (*to)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "option %s is given twice", name);
	*to = strdup(value);
	return *to ? 0 : no_memory(err);
}

static int set_backing_dir(struct host_options *o, const char *value, struct qcow_error *err)
{
	char **dirs = reallocarray(o->backing_dirs, o->nr_backing_dirs + 1, sizeof(*dirs));

	if (!dirs)
		return no_memory(err);
	o->backing_dirs = dirs;
	dirs[o->nr_backing_dirs] = strdup(value);
	if (!dirs[o->nr_backing_dirs])
		return no_memory(err);
	o->nr_backing_dirs++;
	return 0;
}

static int set_backing(struct host_options *o, const char *value, struct qcow_error *err)
{
	return set_string(&o->backing, value, "backing", err);
}

static int set_snapshot(struct host_options *o, const char *value, struct qcow_error *err)
{
	return set_string(&o->snapshot, value, "snapshot", err);
}

static int set_backing_format(struct host_options *o, const char *value, struct qcow_error *err)
{
	o->backing_format = host_format_parse(value);
	if (o->backing_format == HOST_FORMAT_UNKNOWN)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "backing_format:%s: the formats are raw and qcow2", value);
	return 0;
}

static int set_no_backing(struct host_options *o, const char *value, struct qcow_error *err)
{
	(void)value;
	(void)err;
	o->no_backing = true;
	return 0;
}

static int set_drop_bitmaps(struct host_options *o, const char *value, struct qcow_error *err)
{
	(void)value;
	(void)err;
	o->drop_bitmaps = true;
	return 0;
}

static const struct option_word option_words[] = {
	{ "backing_dir", true, set_backing_dir },
	{ "backing", true, set_backing },
	{ "backing_format", true, set_backing_format },
	{ "no_backing", false, set_no_backing },
	{ "snapshot", true, set_snapshot },
	{ "drop_bitmaps", false, set_drop_bitmaps },
	{ "helper_timeout", true, NULL },
	{ "map_budget", true, NULL },
	{ "cache_budget", true, NULL },
	{ "sector_size", true, NULL },
	{ "no_space_timeout", true, NULL },
	{ "low_water", true, NULL },
	{ "keep_discarded", false, NULL },
	{ "no_discard_passdown", false, NULL },
};

static const struct option_word *find_word(const char *word, size_t name_len)
{
	const struct option_word *w;
	size_t i;

	for (i = 0; i < sizeof(option_words) / sizeof(*option_words); i++) {
		w = &option_words[i];
		if (strlen(w->name) == name_len && !memcmp(w->name, word, name_len))
			return w;
	}
	return NULL;
}

static int parse_word(struct host_options *o, const char *word, struct qcow_error *err)
{
	size_t name_len = strcspn(word, ":");
	const char *value = word[name_len] ? word + name_len + 1 : NULL;
	const struct option_word *w = find_word(word, name_len);

	if (!w)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "unknown option \"%s\"", word);
	if (w->has_value && (!value || !*value))
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "option %s needs a value: %s:VALUE",
				 w->name, w->name);
	if (!w->has_value && value)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "option %s takes no value", w->name);
	return w->set ? w->set(o, value, err) : 0;
}

int host_options_parse(struct host_options *o, size_t nr, char *const *words,
		       struct qcow_error *err)
{
	size_t i;
	int r;

	memset(o, 0, sizeof(*o));
	for (i = 0; i < nr; i++) {
		r = parse_word(o, words[i], err);
		if (r < 0)
			goto out_exit;
	}
	if (o->no_backing && (o->backing || o->backing_dirs)) {
		r = qcow_fail(err, EINVAL, QCOW_NO_OFF,
			      "no_backing contradicts backing and backing_dir");
		goto out_exit;
	}
	return 0;

out_exit:
	host_options_exit(o);
	return r;
}

void host_options_exit(struct host_options *o)
{
	size_t i;

	for (i = 0; i < o->nr_backing_dirs; i++)
		free(o->backing_dirs[i]);
	free(o->backing_dirs);
	free(o->backing);
	free(o->snapshot);
	memset(o, 0, sizeof(*o));
}

const char *host_format_name(enum host_format format)
{
	switch (format) {
	case HOST_FORMAT_RAW:
		return "raw";
	case HOST_FORMAT_QCOW2:
		return "qcow2";
	case HOST_FORMAT_UNKNOWN:
		break;
	}
	return NULL;
}

enum host_format host_format_parse(const char *name)
{
	if (!strcmp(name, "raw"))
		return HOST_FORMAT_RAW;
	if (!strcmp(name, "qcow2"))
		return HOST_FORMAT_QCOW2;
	return HOST_FORMAT_UNKNOWN;
}
