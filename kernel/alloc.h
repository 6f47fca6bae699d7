/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The pool of leased clusters: their refcount is durably 1, nothing points to them.
 *
 *	IDLE --low water--> PROPOSING --answer, recorded--> GRANTING --answer--> IDLE
 *	                        |                              |  ^
 *	                        v error                        v  | resume, retry
 *	                       IDLE                            HELD
 *
 * HELD: a proposal whose GRANT failed for now (no space, no helper). It is kept, because
 * the helper may have carried it out: said again it is the same GRANT.
 */
#ifndef DM_QCOW_ALLOC_H
#define DM_QCOW_ALLOC_H

#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/dm-qcow.h>

#include "shortage.h"
#include "space.h"
#include "upcall.h"

#define QCOW_TABLES_ASKED	64	/* metadata tables to have in reserve */

struct qcow_layer;
struct qcow_room;

enum qcow_alloc_state {
	QCOW_ALLOC_IDLE,
	QCOW_ALLOC_PROPOSING,
	QCOW_ALLOC_GRANTING,
	QCOW_ALLOC_HELD,
};

/**
 * struct qcow_alloc - the pool
 * @changed: whoever waits for clusters may try again (error 0), or has to fail.
 *	Called in process context, without locks; must not sleep for I/O
 * @cluster_shift: log2 of sectors in a cluster
 * @lease_clusters: how many to ask for at a time
 * @room: gets to know what a GRANT says
 * @layer: the data layer; constant while the image is open, like @identity
 * @identity: the data layer has guest = host offsets, and needs no clusters
 */
struct qcow_alloc {
	struct qcow_upcalls *upcalls;
	void (*changed)(struct qcow_alloc *alloc, int error);
	unsigned int cluster_shift;
	u64 lease_clusters;
	struct qcow_room *room;
	const struct qcow_layer *layer;
	bool identity;
	struct work_struct work;
	struct delayed_work retry;
	wait_queue_head_t settled;	/* state became IDLE or HELD */
	spinlock_t lock;		/* protects what follows */
	enum qcow_alloc_state state;
	bool stopped;
	bool wanted;			/* tables, by who got none */
	u32 nr_tables;			/* pages that may have deltas; see the uapi's TABLES */
	unsigned int smaller;		/* log2 of what a lease has to do with less */
	unsigned int nr_barren;		/* GRANTs in a row that brought no table */
	u64 nr_asked;			/* clusters, by the PROPOSE under way */
	u64 nr_free;			/* clusters */
	struct list_head free;		/* struct qcow_space */
	struct list_head tables;	/* struct qcow_space: the worker's, for ATTACH */
	struct dm_qcow_lease *proposal;	/* DM_QCOW_MAX_LEASES; NULL in a read-only table */
	unsigned int nr_proposal;
	struct qcow_shortage shortage;
	unsigned long nr_leases;
	u64 nr_leaked;			/* clusters that may be lost until a check */
};

int qcow_alloc_init(struct qcow_alloc *alloc, struct qcow_upcalls *upcalls, bool writing);
void qcow_alloc_exit(struct qcow_alloc *alloc);
void qcow_alloc_open(struct qcow_alloc *alloc, const struct qcow_layer *layer, bool identity,
		     u32 nr_tables);
int qcow_alloc_stop(struct qcow_alloc *alloc, unsigned long timeout);
void qcow_alloc_start(struct qcow_alloc *alloc);

unsigned int qcow_alloc_take(struct qcow_alloc *alloc, unsigned int max, sector_t *host_sector,
			     bool *zero);
void qcow_alloc_put(struct qcow_alloc *alloc, sector_t host_sector, u64 nr, bool zero);
void qcow_alloc_want(struct qcow_alloc *alloc);
void qcow_alloc_no_space(struct qcow_alloc *alloc);
void qcow_alloc_space_again(struct qcow_alloc *alloc);
void qcow_alloc_set_tables(struct qcow_alloc *alloc, u32 nr_tables);
void qcow_alloc_leaked(struct qcow_alloc *alloc, u64 nr);

unsigned int qcow_alloc_surplus(struct qcow_alloc *alloc, u64 keep, struct dm_qcow_lease *leases);
unsigned int qcow_alloc_list(struct qcow_alloc *alloc, struct dm_qcow_lease *leases);

/* Between alloc.c and alloc-lease.c. */
int qcow_alloc_take_proposal(struct qcow_alloc *alloc, const struct qcow_answer *a);
bool qcow_alloc_is_proposal(const struct qcow_alloc *alloc, const struct qcow_answer *answer);

#endif
