// SPDX-License-Identifier: GPL-2.0-only
/* The table line; see args.h. */

#include <linux/ctype.h>
#include <linux/device-mapper.h>
#include <linux/limits.h>
#include <linux/slab.h>

#include "args.h"
#include "dm-qcow.h"

/* One option of the form name:number that the kernel itself uses. */
struct number {
	const char *name;
	unsigned int min, max;
	size_t offset;
};

static const struct number numbers[] = {
	{ "helper_timeout:", 1, 86400, offsetof(struct qcow_args, helper_timeout) },
	{ "map_budget:", 4, 64U << 20, offsetof(struct qcow_args, map_kib) },
	{ "cache_budget:", 0, 1U << 20, offsetof(struct qcow_args, cache_kib) },
	{ "no_space_timeout:", 0, 86400, offsetof(struct qcow_args, no_space_timeout) },
	{ "low_water:", 0, 64U << 20, offsetof(struct qcow_args, low_water_mib) },
	{ "sector_size:", 512, 4096, offsetof(struct qcow_args, sector_size) },
};

static int take_number(struct qcow_args *args, struct dm_target *ti, const char *word)
{
	unsigned int i, value;

	for (i = 0; i < ARRAY_SIZE(numbers); i++) {
		const struct number *n = &numbers[i];
		size_t len = strlen(n->name);

		if (strncmp(word, n->name, len))
			continue;
		if (kstrtouint(word + len, 10, &value) || value < n->min || value > n->max) {
			DMERR("option %s: want a number from %u to %u", word, n->min, n->max);
			ti->error = "An option is out of range";
			return -EINVAL;
		}
		*(unsigned int *)((char *)args + n->offset) = value;
	}
	return 0;
}

static int keep_option(struct qcow_args *args, struct dm_target *ti, const char *word)
{
	size_t len = strlen(word) + 1;

	/* The uapi promises the helper that they fit into one message. */
	if (len > PATH_MAX - args->options_size) {
		ti->error = "The options are too long";
		return -E2BIG;
	}
	memcpy(args->options + args->options_size, word, len);
	args->options_size += len;
	args->nr_options++;
	args->keep_discarded |= !strcmp(word, "keep_discarded");
	args->no_discard_passdown |= !strcmp(word, "no_discard_passdown");
	return take_number(args, ti, word);
}

static int take_options(struct qcow_args *args, struct dm_target *ti, struct dm_arg_set *as)
{
	static const struct dm_arg group = {
		0, 255, "Wrong number of options"
	};
	unsigned int nr;
	int r;

	r = dm_read_arg_group(&group, as, &nr, &ti->error);
	while (!r && nr--)
		r = keep_option(args, ti, dm_shift_arg(as));
	return r;
}

static int take_path(struct qcow_args *args, struct dm_target *ti, const char *path)
{
	if (!path || path[0] != '/') {
		ti->error = "The image path must be absolute";
		return -EINVAL;
	}
	if (strlen(path) >= PATH_MAX) {
		ti->error = "The image path is too long";
		return -ENAMETOOLONG;
	}
	args->path = kstrdup(path, GFP_KERNEL);
	args->options = kzalloc(PATH_MAX, GFP_KERNEL);
	if (args->path && args->options)
		return 0;
	ti->error = "Out of memory";
	return -ENOMEM;
}

static int parse(struct qcow_args *args, struct dm_target *ti, struct dm_arg_set *as)
{
	int r;

	r = take_path(args, ti, as->argc ? dm_shift_arg(as) : NULL);
	if (!r && as->argc)
		r = take_options(args, ti, as);
	if (r)
		return r;
	if (as->argc) {
		ti->error = "Words behind the options; is their number wrong?";
		return -EINVAL;
	}
	if (args->sector_size != 512 && args->sector_size != 4096) {
		ti->error = "sector_size must be 512 or 4096";
		return -EINVAL;
	}
	return 0;
}

/**
 * qcow_args_parse() - read a table line
 * @args: to be filled
 * @ti: gets ->error on failure
 * @argc: number of words
 * @argv: words
 *
 * Context: constructor.
 * Return: 0, and the caller owes qcow_args_free(); or a negative errno.
 */
int qcow_args_parse(struct qcow_args *args, struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	int r;

	memset(args, 0, sizeof(*args));
	args->helper_timeout = QCOW_DEFAULT_TIMEOUT;
	args->map_kib = QCOW_DEFAULT_MAP_KIB;
	args->cache_kib = QCOW_DEFAULT_CACHE_KIB;
	args->sector_size = SECTOR_SIZE;
	args->no_space_timeout = QCOW_DEFAULT_NO_SPACE;
	args->low_water_mib = QCOW_DEFAULT_LOW_WATER;
	r = parse(args, ti, &as);
	if (r)
		qcow_args_free(args);
	return r;
}

/**
 * qcow_args_free() - undo qcow_args_parse()
 * @args: parsed
 *
 * Context: process.
 */
void qcow_args_free(struct qcow_args *args)
{
	kfree(args->path);
	kfree(args->options);
}

/**
 * qcow_args_print_word() - write a word of a table or status line
 * @word: dm splits a line at blanks unless a backslash stands before them
 * @result: where to
 * @maxlen: its size
 * @sz: how much of it is used
 *
 * Context: any.
 * Return: how much of it is used now.
 */
unsigned int qcow_args_print_word(const char *word, char *result, unsigned int maxlen,
				  unsigned int sz)
{
	for (; *word; word++)
		DMEMIT("%s%c", *word == '\\' || isspace(*word) ? "\\" : "", *word);
	return sz;
}

/**
 * qcow_args_print() - write the table line so that it can be loaded again
 * @args: parsed
 * @result: where to
 * @maxlen: its size
 *
 * Context: any.
 * Return: the length of what was written.
 */
unsigned int qcow_args_print(const struct qcow_args *args, char *result, unsigned int maxlen)
{
	const char *word = args->options;
	unsigned int i, sz = 0;

	sz = qcow_args_print_word(args->path, result, maxlen, sz);
	if (args->nr_options)
		DMEMIT(" %u", args->nr_options);
	for (i = 0; i < args->nr_options; i++, word += strlen(word) + 1) {
		DMEMIT(" ");
		sz = qcow_args_print_word(word, result, maxlen, sz);
	}
	return sz;
}
