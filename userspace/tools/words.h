/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Options that become words of the table line, for every verb that opens a chain:
 * --backing-dir DIR is the word backing_dir:DIR. One list, so that `qcow map` trusts
 * exactly what `qcow open` trusts.
 */
#ifndef QCOW_TOOLS_WORDS_H
#define QCOW_TOOLS_WORDS_H

#include <getopt.h>
#include <stdbool.h>

#include "host/chain.h"
#include "tools/table.h"

/* getopt's values; a verb's own begin at WORD_OPT_END. */
enum {
	WORD_OPT = 256,
	WORD_OPT_END = WORD_OPT + 16
};

/* For a verb's struct option array: what names files, then what only a device has. */
/* clang-format off */
#define WORD_FILE_OPTIONS \
	{ "backing-dir", required_argument, NULL, WORD_OPT + 0 }, \
	{ "backing", required_argument, NULL, WORD_OPT + 1 }, \
	{ "backing-format", required_argument, NULL, WORD_OPT + 2 }, \
	{ "no-backing", no_argument, NULL, WORD_OPT + 3 }
#define WORD_CHAIN_OPTIONS \
	WORD_FILE_OPTIONS, \
	{ "snapshot", required_argument, NULL, WORD_OPT + 4 }
#define WORD_DEVICE_OPTIONS \
	{ "helper-timeout", required_argument, NULL, WORD_OPT + 5 }, \
	{ "map-budget", required_argument, NULL, WORD_OPT + 6 }, \
	{ "cache-budget", required_argument, NULL, WORD_OPT + 7 }, \
	{ "sector-size", required_argument, NULL, WORD_OPT + 8 }, \
	{ "drop-bitmaps", no_argument, NULL, WORD_OPT + 9 }, \
	{ "no-space-timeout", required_argument, NULL, WORD_OPT + 10 }, \
	{ "low-water", required_argument, NULL, WORD_OPT + 11 }, \
	{ "keep-discarded", no_argument, NULL, WORD_OPT + 12 }, \
	{ "no-discard-passdown", no_argument, NULL, WORD_OPT + 13 }
/* clang-format on */

/* Is @opt one of the above? */
bool word_is(int opt);
/* Adds the word to @line; -ENOMEM or another negative errno. */
int word_add(struct table_line *line, int opt, const char *arg);

/* "raw" or "qcow2", for option @name; -EINVAL: neither, and said so. */
int word_take_format(const char *name, const char *arg, enum host_format *format);

/* Only the folders of @from: for another image beside it. */
int word_copy_dirs(struct table_line *to, const struct table_line *from);

/*
 * Opens what @line describes, with the policy its words make. @flags as for
 * host_chain_open(). Prints the error, if any.
 */
int word_open_chain(const struct table_line *line, unsigned int flags, struct host_chain **hc);
/* The same for a disk that may be raw (UNKNOWN: qcow2). */
int word_open_disk(const struct table_line *line, enum host_format format, unsigned int flags,
		   struct host_chain **hc);

#endif
