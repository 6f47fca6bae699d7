/* SPDX-License-Identifier: GPL-2.0-only */
/* Do two disks show the same? On several threads, as far as the first difference. */
#ifndef QCOW_LIB_COMPARE_H
#define QCOW_LIB_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/chain.h"
#include "lib/error.h"
#include "lib/watch.h"

struct qcow_compare {
	struct qcow_chain *a, *b; /* sealed; the shorter one ends in zeros */
	bool strict;		  /* what is a hole must be one in both */
	unsigned int nr_threads;
	struct qcow_watch watch;

	/* Out: the first sector that differs, and whether only in being a hole. */
	bool differ, only_kind;
	uint64_t at;
};

int qcow_compare(struct qcow_compare *c, struct qcow_error *err);

#endif
