/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Finds free host clusters: refcount 0, no known metadata, not proposed already, never
 * cluster 0. Takes nothing.
 */
#ifndef QCOW_LIB_ALLOC_H
#define QCOW_LIB_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/writer.h"

/*
 * The first run of free clusters at or after cluster @from: at most @max, at least
 * one; for @table, what was a table of the reserve once is free too. Only finds what a refcount
 * block covers, and creates missing ones on the way. -ENOSPC: there is none up to the end of the
 * device, or of what the format allows.
 */
int qcow_alloc_find(struct qcow_writer *w, uint64_t from, uint64_t max, bool table, uint64_t *first,
		    uint64_t *nr, struct qcow_error *err);

#endif
