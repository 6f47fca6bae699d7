/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The words of a dm table line after the image path, and the same words behind
 * the options of `qcow open`, `qcow table`, `qcow info` and `qcow map`. A word is
 * a flag, or `name:value` (the value may contain more colons).
 *
 * All words go to the helper as well as to the kernel; each acts on its own and
 * accepts the other's, so that one list in one table line serves both.
 *
 *   helper   backing_dir:DIR  (repeatable)  backing:FILE  backing_format:raw|qcow2
 *            no_backing       snapshot:ID_OR_NAME  drop_bitmaps
 *   kernel   helper_timeout:SECONDS  map_budget:KIB  cache_budget:KIB
 *            sector_size:512|4096
 */
#ifndef QCOW_HOST_OPTIONS_H
#define QCOW_HOST_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/error.h"

enum host_format {
	HOST_FORMAT_UNKNOWN = 0,
	HOST_FORMAT_RAW,
	HOST_FORMAT_QCOW2,
};

/* All strings are owned copies. */
struct host_options {
	char **backing_dirs;
	size_t nr_backing_dirs;
	char *backing; /* pins the image's backing file; NULL = as recorded */
	enum host_format backing_format;
	bool no_backing;
	char *snapshot;	   /* NULL = the active state */
	bool drop_bitmaps; /* they may become void by writing */
};

/*
 * @words is not NULL terminated. -EINVAL names the word that is unknown, lacks a
 * value, has one it cannot have, or contradicts another. On error @o is empty.
 */
int host_options_parse(struct host_options *o, size_t nr, char *const *words,
		       struct qcow_error *err);
void host_options_exit(struct host_options *o);

/* "raw", "qcow2" or NULL. */
const char *host_format_name(enum host_format format);
/* HOST_FORMAT_UNKNOWN for any other name; the caller says which formats it reads. */
enum host_format host_format_parse(const char *name);

#endif
