/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Commits: flushes, and the generations of deltas they make durable.
 *
 * Order on disk; the rows that are the kernel's (the helper's are in its writer.h).
 * What is named left is done before what is named right is begun. A test can have a
 * row left out by its name (drop.h), and must then fail.
 *
 *	row	before					comes
 *	------	---------------------------------------	---------------------------------
 *	seal	the sealing of a generation		the flush of the data layer: what
 *							completes later is of the next one
 *	flush	that flush (not if all of the		COMMIT
 *		generation lies in clusters that read
 *		as zeros, under blocks that did: then
 *		the helper's one flush does)
 *	zero	a cluster was used: it does not count	it is handed out again
 *		as one that reads as zeros any more
 *	answer	COMMIT's answer				the end of the flushes that wait
 *	reuse	COMMIT's answer				a cluster that lost its pointer is
 *							handed out
 *	punch	the same				it is punched
 *	free	the same				FREE
 *	fence	a fence begun after that answer		all three
 *
 * One commit at a time, FREE included: so a FREE never speaks of what a later
 * COMMIT lost, whose fence has not passed.
 */
#ifndef DM_QCOW_COMMIT_H
#define DM_QCOW_COMMIT_H

#include <linux/bio.h>
#include <linux/mutex.h>
#include <linux/workqueue.h>
#include <linux/dm-qcow.h>

struct qcow_disk;
struct qcow_map_page;

#define QCOW_DELTAS_MAX		32768	/* blocks of a generation */

/**
 * struct qcow_commit - flushes and generations
 * @passdown: punch what the guest discarded
 * @mutex: one commit at a time; protects the sealed generation
 * @deltas: the sealed generation, room for QCOW_DELTAS_MAX; NULL in a read-only table
 * @nr_deltas: in it; 0: there is none
 * @busy: there is one, or one is being sealed; see qcow_commit_idle()
 * @pressed: a cell waits for room: for a commit, or for a claim to end
 * @exposing: it needs its data flushed first
 * @freed: clusters whose pointer goes with it (struct qcow_space)
 * @unfenced: those of earlier ones that wait for a fence
 * @broken: what ended commits for good, a negative errno; 0: nothing
 * @lost: clusters that FREE has to speak of, if the worker is still that of
 *	@lost_epoch: only it knows which
 */
struct qcow_commit {
	bool passdown;
	struct work_struct work;
	struct delayed_work background;
	struct mutex mutex;		/* one commit at a time */
	unsigned long patience;		/* mutex; jiffies an upcall may take; 0: as usual */
	struct dm_qcow_delta *deltas;
	unsigned int nr_deltas;
	unsigned int next_delta;
	bool busy;
	bool pressed;
	bool exposing;
	int broken;			/* set with the mutex held */
	struct list_head freed;
	struct list_head unfenced;
	u64 lost;
	u32 lost_epoch;
	spinlock_t lock;		/* protects what follows */
	struct bio_list flushes;
	struct list_head open_freed;
	unsigned int nr_claimed;	/* blocks that cells will make dirty */
	u64 generation;			/* of the sealed one */
	unsigned long nr_commits, nr_committed, nr_flushes;
};

void qcow_commit_init(struct qcow_disk *disk);
int qcow_commit_reserve(struct qcow_disk *disk);
void qcow_commit_exit(struct qcow_disk *disk);
void qcow_commit_pause(struct qcow_disk *disk);
void qcow_commit_stop(struct qcow_disk *disk);

bool qcow_commit_idle(struct qcow_disk *disk);
void qcow_commit_flush(struct qcow_disk *disk, struct bio *bio);
void qcow_commit_end(struct qcow_disk *disk, struct bio *bio);
bool qcow_commit_claim(struct qcow_disk *disk, struct qcow_map_page *page, unsigned int nr);
void qcow_commit_unclaim(struct qcow_disk *disk, unsigned int nr);
void qcow_commit_note(struct qcow_disk *disk);
void qcow_commit_freed(struct qcow_disk *disk, sector_t host_sector, u64 nr);
int qcow_commit_all(struct qcow_disk *disk, unsigned long patience);
int qcow_commit_return_leases(struct qcow_disk *disk, unsigned long patience);

#endif
