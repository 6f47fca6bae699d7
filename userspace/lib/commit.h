/* SPDX-License-Identifier: GPL-2.0-only */
/* COMMIT: changes of the guest's map become L1 and L2 entries. FREE: what was lost goes. */
#ifndef QCOW_LIB_COMMIT_H
#define QCOW_LIB_COMMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/writer.h"

enum qcow_delta_type {
	QCOW_DELTA_DATA = 1,	/* at host_off, refcount 1, written and durable */
	QCOW_DELTA_ZERO,	/* reads as zeros; a cluster left without data is lost */
	QCOW_DELTA_ZERO_KEEP,	/* the same, but at host_off a cluster of its own is reserved */
	QCOW_DELTA_UNALLOCATED, /* reads what lies below; whole clusters only */
};

struct qcow_delta {
	uint64_t guest_off; /* multiple of the block size */
	uint64_t len;	    /* bytes, the same, > 0 */
	/*
	 * DATA, ZERO_KEEP: of guest_off; as far into its cluster as that. ZERO_KEEP: 0 is
	 * where the entry points to already, if that is exclusive.
	 */
	uint64_t host_off;
	enum qcow_delta_type type;
};

/* A reference that nothing on disk holds any more; lower its refcount, or keep its cluster. */
struct qcow_lost {
	uint64_t host_off, len; /* whole clusters */
	bool exclusive; /* the guest's own (COPIED): may go back to the kernel's pool as it is */
	bool table;	/* an L2 table that was shared */
};

/* Progress of one commit; zero but for the first three at the start. */
struct qcow_commit {
	const struct qcow_delta *deltas; /* by rising guest_off, not overlapping */
	size_t nr;
	bool keep_exclusive; /* exclusive clusters are the caller's by then: not reported */
	size_t next;	     /* == nr: all is durable */
	uint64_t next_off;
	/* What this step lost; valid until the next call with this writer. */
	const struct qcow_lost *lost;
	size_t nr_lost;
};

/* Puts deltas into the order above; in place, without allocation. */
void qcow_deltas_sort(struct qcow_delta *deltas, size_t nr);

/*
 * Makes the next chunk of deltas durable: call until next == nr. What is on disk
 * already is left alone, so a commit may be said again from its start, by another
 * writer too; then what had been lost is not reported again and leaks.
 *
 * No refcount goes down here; that is qcow_free(), when nobody can read the old
 * place any more. Exclusive ones need no call if their clusters are kept.
 *
 * -EINVAL   deltas that break a rule above or below, nothing was written of them:
 *           DATA that moves a cluster but leaves subclusters behind; parts of a
 *           compressed cluster; a zero over a backing file in version 2
 * -EIO      a damaged table, or a DATA delta that points to metadata
 * -ENOSPC   no cluster for an L2 table, beyond the reserve too: say it again
 */
int qcow_commit_step(struct qcow_writer *w, struct qcow_commit *c, struct qcow_error *err);

/*
 * Lowers refcounts once. Not for saying twice. -EIO for metadata or a refcount of 0:
 * that extent is left alone, the others are done. Not durable, and need not be.
 */
int qcow_free(struct qcow_writer *w, const struct qcow_lost *lost, size_t nr,
	      struct qcow_error *err);

#endif
