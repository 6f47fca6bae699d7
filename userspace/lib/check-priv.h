/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by check.c, checkwalk.c, checkrefs.c and checkfix.c. */
#ifndef QCOW_LIB_CHECK_PRIV_H
#define QCOW_LIB_CHECK_PRIV_H

#include "lib/check.h"
#include "lib/codec.h"
#include "lib/header.h"
#include "lib/mcache.h"

#define REFS_CHUNK (1ull << 16)
#define REFS_FULL  255

/* References counted for the clusters [first, first + nr): bytes, in chunks made on demand. */
struct ref_counts {
	uint64_t first, nr;
	uint8_t **chunk;
	size_t nr_chunks;
	struct ref_big {
		uint64_t cluster, count;
	} * big; /* what a byte cannot hold: a hash table, count 0 where nothing is */
	size_t nr_big, max_big; /* max_big: a power of two, or 0 */
	bool shared;		/* some cluster was counted twice */
};

int refs_init(struct ref_counts *r, uint64_t window);
void refs_exit(struct ref_counts *r);
void refs_begin(struct ref_counts *r, uint64_t first);
/* Where no chunk is yet, or a byte does not suffice. */
int refs_add_slow(struct ref_counts *r, uint64_t cluster);

/* Outside of the window: nothing. -ENOMEM. */
static inline int refs_add(struct ref_counts *r, uint64_t cluster)
{
	uint64_t i = cluster - r->first;
	uint8_t *chunk;

	if (cluster < r->first || i >= r->nr)
		return 0;
	chunk = r->chunk[i / REFS_CHUNK];
	if (!chunk || chunk[i % REFS_CHUNK] == REFS_FULL)
		return refs_add_slow(r, cluster);
	r->shared |= ++chunk[i % REFS_CHUNK] > 1;
	return 0;
}

/*
 * The bytes of the clusters from @cluster on, at most *@nr, which becomes how many; NULL:
 * all are 0. REFS_FULL stands for more, too.
 */
const uint8_t *refs_run(const struct ref_counts *r, uint64_t cluster, uint64_t *nr);
uint64_t refs_get(const struct ref_counts *r, uint64_t cluster);
/* One less; a cluster that was not counted stays so. */
void refs_drop(struct ref_counts *r, uint64_t cluster);

struct check {
	struct qcow_io *io;
	struct qcow_header h;
	const struct qcow_check_params *params;
	struct qcow_check_result *result;
	struct qcow_error *err, why;
	struct qcow_mcache *cache; /* of refcount blocks */
	struct ref_counts refs;
	uint64_t *reftable; /* host order, reserved bits cleared; 0 where impossible */
	uint64_t nr_reftable;
	uint32_t refblock_bits;
	uint64_t file_size, file_clusters;
	uint64_t page_off;		    /* which page of a refcount block c->block_page holds */
	uint8_t *table, *page, *block_page; /* one cluster; two cache pages */
	uint8_t *comp, *plain;		    /* with params->data: two clusters and margin; one */
	struct qcow_codec *codec;
	uint64_t next_off;    /* where an unfragmented table would go on */
	enum qcow_repair fix; /* of this scan */
	bool quiet;	      /* findings were counted in an earlier window of this scan */
	bool silent;	      /* findings were reported in an earlier scan */
	bool counted;	      /* refs covers the file, and agreed with what is recorded */
	bool all_copied;      /* every pointer of the active state says that it is the only one */
	bool fix_copied;      /* of this scan: COPIED flags are corrected */
	bool rebuild;	      /* refcount blocks are missing or impossible */
	uint64_t steps, nr_steps; /* progress */
};

/* A finding; the reporting is skipped when quiet. */
void found(struct check *c, uint64_t *counter, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- checkwalk.c ----------------------------------------------------------------- */

/* Counts every reference into c->refs; findings only if not quiet. */
int walk_all(struct check *c);
/* Compares the COPIED flags of the active state with the refcounts; sets them in a fix. */
int walk_copied(struct check *c);

/* ---- check.c ----------------------------------------------------------------------- */

/* As recorded; 0 where no block is. */
int recorded(struct check *c, uint64_t cluster, uint64_t *value);

/* ---- checkfix.c -------------------------------------------------------------------- */

int fix_refcount(struct check *c, uint64_t cluster, uint64_t value);
/* All refcounts from c->refs, which covers the whole file. */
int fix_rebuild(struct check *c);
int fix_header(struct check *c);
/* Writes to @host_off and to the cache. */
int fix_write(struct check *c, uint64_t host_off, const void *buf, size_t len);
/* Bytes within one sector. */
int fix_patch(struct check *c, uint64_t host_off, const void *bytes, size_t len);

#endif
