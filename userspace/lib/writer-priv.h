/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by the files behind writer.h, refcount.h, alloc.h, lease.h and commit.h. */
#ifndef QCOW_LIB_WRITER_PRIV_H
#define QCOW_LIB_WRITER_PRIV_H

#include <pthread.h>

#include "lib/commit.h"
#include "lib/lease.h"
#include "lib/metaset.h"
#include "lib/refcount.h"
#include "lib/writer.h"

#define META_PAGE QCOW_MCACHE_PAGE
/* L2 tables held ready, L2 tables made by one step of a commit, proposals not yet granted. */
#define MAX_RESERVE 1024
#define MAX_FRESH   64
#define MAX_PENDING 1024
/* Lost pointers one step of a commit can report. */
#define MAX_LOST 4096

/* One page of metadata being changed; what changed is written in whole sectors. */
struct qcow_edit {
	uint8_t *page; /* META_PAGE, aligned */
	uint64_t off;  /* host offset of page; QCOW_NO_OFF = none */
	uint8_t dirty; /* bit n: the n-th 512 bytes were changed */
	bool lost;     /* a write failed, and what was to be written is forgotten */
};

struct reserve_table {
	uint64_t off;
	bool zeroed; /* reads as zeros, durably */
};

struct fresh_table {
	uint32_t slot;
	uint64_t off;
	bool was_zero; /* an entry of it that is lost reads as unallocated, as before */
};

struct qcow_writer {
	struct qcow_image *img;
	struct qcow_io *io;
	struct qcow_header h;
	struct qcow_mcache *cache, *own_cache;
	uint32_t layer;
	uint32_t unit; /* bytes: smallest write; >= 512, <= cluster size */
	bool failed, finished;
	struct qcow_write_test *test;

	struct qcow_metaset meta;

	/* The refcount table, host order, entries it has on disk. */
	pthread_rwlock_t reftable_lock; /* may_write() reads beside the writer */
	uint64_t *reftable;
	uint64_t nr_reftable, max_reftable;    /* entries */
	uint32_t refblock_bits;		       /* log2 of refcounts in a block */
	uint64_t old_table_off, old_table_len; /* bytes: one that was replaced, still counted */

	uint64_t *l1;	  /* the active one, host order, as on disk */
	bool l1_backed;	  /* it has space where it lies */
	uint32_t nr_bare; /* its entries without an L2 table of their own */

	uint64_t free_from; /* every cluster below is in use */
	uint64_t data_end;  /* no cluster from here on was the guest's and is not any more */
	uint64_t host_end;  /* clusters there can ever be */
	uint64_t nr_used;   /* of them, those with a refcount; once they were counted: */
	bool used_known;
	uint64_t first_size; /* bytes in the file when it was opened */
	struct qcow_lease_extent pending[MAX_PENDING];
	size_t nr_pending;

	struct reserve_table reserve[MAX_RESERVE];
	size_t nr_reserve;
	struct fresh_table fresh[MAX_FRESH];
	size_t nr_fresh;
	bool unpublished; /* ... are these of an earlier step: there was no space for the L1 entries
			   */
	struct qcow_lost lost[MAX_LOST];
	size_t nr_lost;

	struct qcow_edit ref_edit, l2_edit;
	uint8_t *page;	  /* META_PAGE: bounce of reads */
	uint8_t *cluster; /* one cluster, at least META_PAGE, aligned */
};

/* ---- meta.c: the only place that writes metadata ------------------------------ */

int meta_read(struct qcow_writer *w, uint64_t host_off, void *buf, size_t len,
	      struct qcow_error *err);
/* @host_off and @len in units. */
int meta_write(struct qcow_writer *w, uint64_t host_off, const void *buf, size_t len,
	       struct qcow_error *err);
/*
 * Zeroes whole clusters, and has space behind them: by writing if there is no other
 * way. Uses w->cluster.
 */
int meta_zero(struct qcow_writer *w, uint64_t host_off, uint64_t len, struct qcow_error *err);
/* @len bytes inside one sector, wherever they are. */
int meta_patch(struct qcow_writer *w, uint64_t host_off, const void *bytes, size_t len,
	       struct qcow_error *err);

/* *@p: where @host_off is in the edit's page, which is written out and changed as needed. */
int edit_at(struct qcow_writer *w, struct qcow_edit *e, uint64_t host_off, uint8_t **p,
	    struct qcow_error *err);
/* What is at the place edit_at() gave was changed; it does not cross a sector. */
void edit_touch(struct qcow_edit *e, const uint8_t *p);
int edit_finish(struct qcow_writer *w, struct qcow_edit *e, struct qcow_error *err);
/* Forgets the page: something else may write there. */
void edit_forget(struct qcow_edit *e);

/* -EIO with the reason if the writer has failed or finished. */
int writer_check(const struct qcow_writer *w, struct qcow_error *err);

/* The file reaches at least to @end, in whole clusters. -ENOSPC on a device that does not. */
int writer_extend(struct qcow_writer *w, uint64_t end, struct qcow_error *err);

/* ---- commit.c: what a step that met -ENOSPC has left to do ------------------------- */

int commit_leftover(struct qcow_writer *w, struct qcow_error *err);

/* ---- refcount.c ------------------------------------------------------------------ */

/* As qcow_ref_update() of one cluster, but left in ref_edit: edit_finish() writes it. */
int ref_update_one(struct qcow_writer *w, enum qcow_ref_op op, uint64_t cluster,
		   struct qcow_error *err);

/* ---- refgrow.c: the refcounts of a table that was replaced go down ------------------ */

int ref_free_old_table(struct qcow_writer *w, struct qcow_error *err);

/* ---- load.c: what create reads -------------------------------------------------- */

/* Where host clusters end; a device may have been made larger since. */
int writer_find_end(struct qcow_writer *w, struct qcow_error *err);
int load_tables(struct qcow_writer *w, bool drop_bitmaps, struct qcow_error *err);

static inline uint64_t cluster_of(const struct qcow_writer *w, uint64_t host_off)
{
	return host_off >> w->h.cluster_bits;
}

static inline uint64_t round_up_cluster(const struct qcow_writer *w, uint64_t bytes)
{
	uint64_t mask = qcow_cluster_size(&w->h) - 1;

	return (bytes + mask) & ~mask;
}

/* A guest had, or will have, what is below @end: no table goes there if it can be helped. */
static inline void writer_note_data(struct qcow_writer *w, uint64_t end)
{
	if (w->data_end < cluster_of(w, end))
		w->data_end = cluster_of(w, end);
}

#endif
