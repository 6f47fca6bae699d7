/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table line: <image path> [<#opts> <opt>...].
 *
 * The kernel knows the options that are its own and keeps the rest for the helper,
 * which refuses those it does not know.
 */
#ifndef DM_QCOW_ARGS_H
#define DM_QCOW_ARGS_H

#include <linux/types.h>

struct dm_target;

struct qcow_args {
	char *path;			/* absolute */
	char *options;			/* all of them, each with its NUL */
	unsigned int nr_options;
	size_t options_size;		/* bytes of @options, at most PATH_MAX */
	unsigned int helper_timeout;	/* seconds, 1 .. 86400 */
	unsigned int map_kib;		/* budget of the map */
	unsigned int cache_kib;		/* budget of the cache of fetched blocks */
	unsigned int no_space_timeout;	/* seconds to wait for space; 0: error at once */
	unsigned int low_water_mib;	/* less left below is low; 0: never */
	bool keep_discarded;		/* the guest's clusters stay allocated */
	bool no_discard_passdown;	/* nor are they punched below */
	unsigned int sector_size;	/* 512 or 4096: what the guest sees at least */
};

int qcow_args_parse(struct qcow_args *args, struct dm_target *ti, unsigned int argc, char **argv);
void qcow_args_free(struct qcow_args *args);
unsigned int qcow_args_print_word(const char *word, char *result, unsigned int maxlen,
				  unsigned int sz);
unsigned int qcow_args_print(const struct qcow_args *args, char *result, unsigned int maxlen);

#endif
