/* SPDX-License-Identifier: GPL-2.0-only */
/* What `qcow convert` does once it knows what is wanted. */
#ifndef QCOW_TOOLS_COPY_H
#define QCOW_TOOLS_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/createopts.h"
#include "tools/words.h"

enum copy_cache {
	COPY_WRITEBACK = 0,
	COPY_NONE,
	COPY_UNSAFE,
};

struct copy_request {
	char **sources; /* one behind the other */
	size_t nr_sources;
	struct table_line words; /* for the sources' chains */
	const char *target;
	enum host_format from, to;
	struct create_options o;
	uint64_t min_sparse, rate;
	unsigned int threads, flags; /* threads 0: as many as are useful */
	enum copy_cache source_cache, target_cache;
	bool has_options, compress, keep, is_zero, progress, quiet, bitmaps, skip_broken, salvage;
};

/* The standard input or output. */
bool copy_is_stream(const char *name);

/* Exit status; says what is wrong. */
int copy_run(struct copy_request *q);

#endif
