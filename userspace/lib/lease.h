/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Leases: host clusters whose refcount is durably 1 and which nothing points to. The
 * kernel's pool to hand out, and the reserve for the L2 tables its commits need.
 *
 *   PROPOSE     free     -> proposed   nothing of it is on disk; the kernel records it
 *   GRANT       proposed -> leased     refcounts durably 1; said again, the same again
 *   commit      leased   -> in use     an L2 entry points to it; refcount stays
 *   lost        in use   -> leased     exclusive, after COMMIT and the fence; refcount stays
 *   RETURN      leased   -> free
 *
 * A kill between any two loses nothing, because the kernel has the extents and
 * tells the next writer (qcow_lease_adopt); a power cut leaks what was leased.
 */
#ifndef QCOW_LIB_LEASE_H
#define QCOW_LIB_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/writer.h"

struct qcow_lease_extent {
	uint64_t host_off, len; /* bytes, whole clusters, len > 0 */
	bool table;		/* for the metadata reserve, not for data */
	bool zero;		/* GRANT's answer: durably reads as zeros */
};

/*
 * Picks clusters for @bytes of data and for @nr_tables L2 tables, tables first, in at
 * most @max extents. May make refcount blocks or a bigger refcount table, which are
 * complete by themselves. Less than asked for is a success as long as it is anything:
 * the extents say. -ENOSPC nothing is free; -EBUSY too many proposals are not granted.
 */
int qcow_lease_propose(struct qcow_writer *w, uint64_t bytes, uint32_t nr_tables,
		       struct qcow_lease_extent *ext, size_t max, size_t *nr,
		       struct qcow_error *err);

/*
 * How many tables a proposal of @bytes should bring, so that whatever the kernel puts
 * there can be committed: one per cluster, but not more than there are L1 entries
 * without a table of their own, less what is in reserve.
 */
uint32_t qcow_lease_tables_for(const struct qcow_writer *w, uint64_t bytes);

/* How many of @nr tables are worth proposing: there is a use and room for them. */
uint32_t qcow_lease_tables_wanted(const struct qcow_writer *w, uint32_t nr);

/*
 * In how many L2 tables that do not exist, or are shared, commits may put something
 * before they need another lease. UINT32_MAX: in all there can be.
 */
uint32_t qcow_lease_tables_left(const struct qcow_writer *w);

/*
 * Refcounts are durably 1 afterwards; tables are in reserve; ->zero is filled. Said of
 * what was granted already it changes nothing, and ->zero is not known any more.
 * -ENOSPC: the proposal is forgotten; propose less, or again when there is space.
 * -ESTALE: nobody proposed it. -EEXIST or -EIO: not free, or metadata.
 */
int qcow_lease_grant(struct qcow_writer *w, struct qcow_lease_extent *ext, size_t nr,
		     struct qcow_error *err);

/* A proposal that will not be granted. */
void qcow_lease_forget(struct qcow_writer *w, const struct qcow_lease_extent *ext, size_t nr);
/* All of them. */
void qcow_lease_forget_all(struct qcow_writer *w);

/*
 * First thing after a re-attach, also with nothing: what the kernel holds, proposed or
 * leased. Makes durable what the dead worker wrote, since it is read now. Tables that an L1 entry
 * points to by now are in use; the others go to the reserve.
 */
int qcow_lease_adopt(struct qcow_writer *w, const struct qcow_lease_extent *ext, size_t nr,
		     struct qcow_error *err);

/* Unused leases: refcounts back to 0. Durable with the next barrier. */
int qcow_lease_return(struct qcow_writer *w, const struct qcow_lease_extent *ext, size_t nr,
		      struct qcow_error *err);

#endif
