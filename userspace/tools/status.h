/* SPDX-License-Identifier: GPL-2.0-only */
/* The table and status lines of a qcow target, taken apart. */
#ifndef QCOW_TOOLS_STATUS_H
#define QCOW_TOOLS_STATUS_H

#include <stdbool.h>
#include <stddef.h>

struct status_pair {
	const char *key;
	const char *value;
};

struct status {
	const char *mode;   /* RW, RO, FAIL */
	const char *helper; /* attached, lost, none */
	const char *image;  /* open, closed, unclean */
	struct status_pair *pairs;
	size_t nr_pairs;
	char *line; /* what the others point into */
};

/*
 * "<mode> <helper> <image> <nr_pairs> <key> <value>...", blanks in a value escaped. -EINVAL if
 * it is not that.
 */
int status_parse(struct status *status, const char *line);
void status_exit(struct status *status);

/* Something that failed. */
struct status_failure {
	const char *op;	    /* read, write, flush, COMMIT, ... */
	const char *at;	    /* a device or file, or the helper's words; "-" */
	int error;	    /* errno; 0: nothing failed, somebody said so */
	const char *offset; /* bytes into it; NULL: no place in particular */
};

/* Says the status "<name>_op" and what belongs to it? */
bool status_failure(const struct status *status, const char *name, struct status_failure *failure);
/* Is a pair a counter, or does it belong to a failure? */
bool status_is_counter(const struct status_pair *pair);

struct table_words {
	char **words; /* unescaped; the image's path is the first */
	size_t nr;
	char *line;
};

/* "<path> [<#opts> <opt>...]", blanks and backslashes escaped; the count is left out. */
int table_words_parse(struct table_words *table, const char *params);
void table_words_exit(struct table_words *table);

#endif
