/* SPDX-License-Identifier: GPL-2.0-only */
/* -o NAME=VALUE,... of the verbs that make an image: the names of qemu-img create. */
#ifndef QCOW_TOOLS_CREATEOPTS_H
#define QCOW_TOOLS_CREATEOPTS_H

#include <stdbool.h>

#include "lib/create.h"

struct create_options {
	struct qcow_create_params p;
	bool has_size;
};

#define CREATE_OPTIONS_DEFAULT                                                \
	{                                                                     \
		.p = {.version = 3, .cluster_bits = 16, .refcount_order = 4 } \
	}

/* Cuts @text up; the values stay in it. Says what is wrong; negative then. */
int create_options_parse(struct create_options *o, char *text);

/* Single values; -EINVAL: not one. */
int create_options_version(const char *value, uint32_t *version);
int create_options_prealloc(const char *value, enum qcow_prealloc *prealloc);

#endif
