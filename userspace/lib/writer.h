/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one writer of an image's metadata: the daemon's thread that serialises GRANT,
 * COMMIT and FREE, or a command line verb.
 *
 * Order on disk. Each row is a barrier: what is named left is durable before what is
 * named right is written. A barrier is one flush of the image, has a name, and goes
 * through qcow_barrier(); a test can drop one by its name, and must then fail.
 *
 *   barrier         durable before                      what comes after
 *   AUTOCLEAR       autoclear bits are cleared          any other write, of data too
 *   REFBLOCK        a new refcount block                the table entry that names it
 *   REFTABLE        a new refcount table, its blocks    the header that names it
 *   REFTABLE_USED   that header                         the old table's refcounts go down
 *   GRANT           refcounts of a lease are 1          anything points to its clusters
 *   DATA            the data (the caller's: the kernel  the L2 entries that point to it
 *                   flushes before it says COMMIT)
 *   L2_TABLE        a new L2 table (not needed if it    the L1 entry that names it
 *                   durably reads as zeros)
 *   ADOPT           all a killed worker wrote           whatever builds on having read it
 *   COMMIT          L1 and L2 entries                   the answer; thus reuse and punching of
 *                                                       what lost its pointer, and its refcount
 *                                                       going down
 *   CLOSE           everything                          the image is unlocked
 *   TABLE           a new L1 or snapshot table, copied  the header that names it
 *                   L2 tables, raised refcounts
 *   HEADER          a header that names another table   the old table's refcounts go down
 *
 * Every update of an existing table is one write of whole sectors, each of which may
 * be lost or kept by a crash on its own; an entry never crosses a sector.
 *
 * A failed flush, or a failed write for any reason but ENOSPC, leaves unknown what
 * is on disk: the writer is then failed for good, and every call says -EIO. -ENOSPC
 * is not fatal, since each operation may be said again.
 *
 * Not thread safe, except qcow_writer_may_write(). All memory is taken by create:
 * nothing below allocates, because the caller may be what memory is waiting for.
 */
#ifndef QCOW_LIB_WRITER_H
#define QCOW_LIB_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/image.h"
#include "lib/io.h"
#include "lib/mcache.h"

enum qcow_barrier {
	QCOW_BARRIER_AUTOCLEAR,
	QCOW_BARRIER_REFBLOCK,
	QCOW_BARRIER_REFTABLE,
	QCOW_BARRIER_REFTABLE_USED,
	QCOW_BARRIER_GRANT,
	QCOW_BARRIER_DATA,
	QCOW_BARRIER_L2_TABLE,
	QCOW_BARRIER_COMMIT,
	QCOW_BARRIER_ADOPT,
	QCOW_BARRIER_CLOSE,
	QCOW_BARRIER_TABLE,
	QCOW_BARRIER_HEADER,
	QCOW_NR_BARRIERS
};

const char *qcow_barrier_name(enum qcow_barrier barrier);

/* For tests only. */
struct qcow_write_test {
	uint32_t drop;		       /* bit n: barrier n does nothing */
	uint32_t nr[QCOW_NR_BARRIERS]; /* counts those asked for, dropped ones too */
};

struct qcow_writer;

struct qcow_writer_params {
	/* The cache that readers of this image use, and the image's layer in it; NULL = an own one.
	 */
	struct qcow_mcache *cache;
	uint32_t layer;
	/* Bitmaps become void (autoclear), instead of the image being refused. */
	bool drop_bitmaps;
	/* The caller keeps bitmaps right, or changes no guest data. */
	bool keep_bitmaps;
	struct qcow_write_test *test; /* NULL outside of tests */
};

/*
 * The refusals of create that the header and the io suffice for.
 * @bitmaps_ok: drop_bitmaps or keep_bitmaps, below.
 */
int qcow_writer_check(const struct qcow_image *img, bool bitmaps_ok, struct qcow_error *err);

/*
 * Makes @img writable: reads its L1 and refcount tables and where all other metadata
 * is, and clears durably the autoclear bits nobody here maintains. @img must be
 * locked for writing, be the active state, and outlive the writer.
 * -EROFS    dirty or corrupt, or has bitmaps; the text names the remedy
 * -ENOTSUP  encrypted; or a cluster is smaller than what direct I/O can write
 * -EIO      a table is damaged or lies on another
 * -ENOMEM, I/O
 */
int qcow_writer_create(struct qcow_writer **w, struct qcow_image *img,
		       const struct qcow_writer_params *params, struct qcow_error *err);
/* Writes nothing: what was not finished stays for a later worker. NULL is fine. */
void qcow_writer_destroy(struct qcow_writer *w);

/*
 * Gives the metadata reserve back, cuts off what the file has grown in vain, and
 * makes all durable. Leases must have been returned. The writer is then only good
 * for destroy.
 */
int qcow_writer_finish(struct qcow_writer *w, struct qcow_error *err);

/*
 * finish leaves the file at least @size bytes long, as an earlier writer found it;
 * else as long as create found it.
 */
void qcow_writer_keep_size(struct qcow_writer *w, uint64_t size);

/* A write of metadata failed for good: the image is read-only from now on. */
bool qcow_writer_failed(const struct qcow_writer *w);

/* The header as it is now: refcount table and snapshot table may have moved. */
const struct qcow_header *qcow_writer_header(const struct qcow_writer *w);

/* For data that the caller writes to what he leased. */
struct qcow_io *qcow_writer_io(const struct qcow_writer *w);

/*
 * The barrier. 0, or -EIO and failed for good. @barrier DATA is for callers that
 * write data through the same qcow_io.
 */
int qcow_barrier(struct qcow_writer *w, enum qcow_barrier barrier, struct qcow_error *err);

enum qcow_may_write {
	QCOW_MAY_WRITE = 1,
	QCOW_MAY_NOT,	      /* shared: copy on write */
	QCOW_MAY_WRITE_NEVER, /* it is metadata, or free: the image is damaged, or hostile */
};

/*
 * May a guest write in place to [host_off, host_off + len), which an L2 entry
 * marked COPIED points to? Asks the refcounts too: a cluster that is free now would
 * be handed out later, as an L2 table perhaps. Safe in any thread beside the writer;
 * @page: QCOW_MCACHE_PAGE bytes of that thread. Negative: I/O error.
 */
int qcow_writer_may_write(struct qcow_writer *w, uint64_t host_off, uint64_t len, void *page,
			  struct qcow_error *err);

#endif
