// SPDX-License-Identifier: GPL-2.0-only
/* Cells; see cell.h. */

#include <linux/slab.h>

#include "cell.h"
#include "dm-qcow.h"
#include "io.h"
#include "write.h"

#define CELLS_MIN	16

static struct kmem_cache *cell_cache;

static u64 cluster_of(const struct qcow_disk *disk, sector_t sector)
{
	return sector >> disk->alloc.cluster_shift;
}

static struct qcow_cell *find_locked(struct qcow_cells *cells, u64 first, u64 last)
{
	struct rb_node *node = cells->tree.rb_node;

	while (node) {
		struct qcow_cell *cell = rb_entry(node, struct qcow_cell, node);

		if (last < cell->first)
			node = node->rb_left;
		else if (first > cell->last)
			node = node->rb_right;
		else
			return cell;
	}
	return NULL;
}

static void insert_locked(struct qcow_cells *cells, struct qcow_cell *new)
{
	struct rb_node **link = &cells->tree.rb_node, *parent = NULL;

	while (*link) {
		struct qcow_cell *cell = rb_entry(*link, struct qcow_cell, node);

		parent = *link;
		link = new->last < cell->first ? &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&new->node, parent, link);
	rb_insert_color(&new->node, &cells->tree);
}

/* Anew, with whatever the map says now. */
static void start(struct qcow_cell *cell)
{
	struct qcow_cells *cells = &cell->disk->cells;

	spin_lock(&cells->lock);
	cell->nr_resumes = cells->nr_resumes;
	spin_unlock(&cells->lock);
	qcow_write_run(cell);
}

static void run(struct work_struct *work)
{
	start(container_of(work, struct qcow_cell, work));
}

static struct qcow_cell *create(struct qcow_disk *disk, struct bio *bio)
{
	struct qcow_cell *cell = mempool_alloc(&disk->cells.pool, GFP_NOIO);

	*cell = (struct qcow_cell){
		.disk = disk,
		.bio = bio,
		.first = cluster_of(disk, bio->bi_iter.bi_sector),
		.last = cluster_of(disk, bio_end_sector(bio) - 1),
	};
	INIT_LIST_HEAD(&cell->wait_node);
	bio_list_init(&cell->waiting);
	return cell;
}

/**
 * qcow_cell_enter() - have a bio work on its clusters, now or later
 * @disk: open for writing
 * @bio: given away; within one map page
 *
 * Context: process; may sleep, without I/O. No epoch is held.
 */
void qcow_cell_enter(struct qcow_disk *disk, struct bio *bio)
{
	struct qcow_cells *cells = &disk->cells;
	struct qcow_cell *cell = create(disk, bio), *other;

	spin_lock(&cells->lock);
	other = find_locked(cells, cell->first, cell->last);
	if (other)
		bio_list_add(&other->waiting, bio);
	else
		insert_locked(cells, cell);
	spin_unlock(&cells->lock);
	if (other)
		mempool_free(cell, &cells->pool);
	else
		start(cell);
}

/**
 * qcow_cell_shrink() - give up the clusters behind
 * @cell: the cell
 * @last: the last cluster to keep
 *
 * Context: process; does not sleep.
 */
void qcow_cell_shrink(struct qcow_cell *cell, u64 last)
{
	struct qcow_cells *cells = &cell->disk->cells;

	spin_lock(&cells->lock);
	cell->last = last;
	spin_unlock(&cells->lock);
}

/**
 * qcow_cell_release() - others may have the clusters
 * @cell: freed
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_cell_release(struct qcow_cell *cell)
{
	struct qcow_disk *disk = cell->disk;
	struct bio *bio;

	spin_lock(&disk->cells.lock);
	rb_erase(&cell->node, &disk->cells.tree);
	spin_unlock(&disk->cells.lock);
	while ((bio = bio_list_pop(&cell->waiting)))
		qcow_disk_defer(disk, bio);
	mempool_free(cell, &disk->cells.pool);
}

/**
 * qcow_cell_go_on() - run the cell's work, when its I/O is done
 * @cell: with nothing under way; its work must not sleep
 *
 * Context: any, interrupts included; does not sleep. File systems complete much in
 * workers of their own: no need for another one then. A driver may complete in a task
 * too, with RCU or a lock held, and nobody can tell.
 */
void qcow_cell_go_on(struct qcow_cell *cell)
{
	if (in_task() && !irqs_disabled())
		cell->work.func(&cell->work);
	else
		queue_work(qcow_wq, &cell->work);
}

static void end_with(struct qcow_cell *cell, int error)
{
	struct bio_list bios;

	bio_list_init(&bios);
	bio_list_add(&bios, cell->bio);
	qcow_cell_release(cell);
	qcow_bios_end(&bios, error);
}

/**
 * qcow_cell_wait() - the cell cannot go on for now
 * @cell: with nothing under way and nothing held; qcow_write_run() comes again
 *
 * Context: process; does not sleep.
 */
void qcow_cell_wait(struct qcow_cell *cell)
{
	struct qcow_cells *cells = &cell->disk->cells;
	bool again;
	int refuse;

	INIT_WORK(&cell->work, run);
	spin_lock(&cells->lock);
	refuse = cells->refuse;
	/* What it found missing may have come meanwhile: nobody would wake it. */
	again = cell->nr_resumes != cells->nr_resumes;
	if (!refuse && !again) {
		list_add_tail(&cell->wait_node, &cells->waiting);
		cells->nr_waits++;
	}
	spin_unlock(&cells->lock);
	if (refuse)
		end_with(cell, refuse);
	else if (again)
		queue_work(qcow_dispatch_wq, &cell->work);
}

static struct qcow_cell *pop_waiting(struct qcow_cells *cells, struct list_head *list)
{
	struct qcow_cell *cell;

	spin_lock(&cells->lock);
	cell = list_first_entry_or_null(list, struct qcow_cell, wait_node);
	if (cell)
		list_del_init(&cell->wait_node);
	spin_unlock(&cells->lock);
	return cell;
}

/* Whoever is just about to wait looks again: this was for it, too. */
static void take_waiting(struct qcow_cells *cells, struct list_head *list)
{
	spin_lock(&cells->lock);
	cells->nr_resumes++;
	list_splice_init(&cells->waiting, list);
	spin_unlock(&cells->lock);
}

/**
 * qcow_cells_resume() - something came: let cells that wait try again
 * @disk: open for writing
 *
 * Context: process; does not sleep.
 */
void qcow_cells_resume(struct qcow_disk *disk)
{
	struct qcow_cell *cell;
	LIST_HEAD(list);

	take_waiting(&disk->cells, &list);
	while ((cell = pop_waiting(&disk->cells, &list)))
		queue_work(qcow_dispatch_wq, &cell->work);
}

/**
 * qcow_cells_fail() - end the bios of cells that wait
 * @disk: open for writing
 * @error: for qcow_bios_end()
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_cells_fail(struct qcow_disk *disk, int error)
{
	struct qcow_cell *cell;
	LIST_HEAD(list);

	take_waiting(&disk->cells, &list);
	while ((cell = pop_waiting(&disk->cells, &list)))
		end_with(cell, error);
}

/**
 * qcow_cells_refuse() - let no cell wait
 * @disk: open for writing
 * @error: for qcow_bios_end(); 0: they may wait again
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_cells_refuse(struct qcow_disk *disk, int error)
{
	spin_lock(&disk->cells.lock);
	disk->cells.refuse = error;
	spin_unlock(&disk->cells.lock);
	if (error)
		qcow_cells_fail(disk, error);
}

/**
 * qcow_cells_init() - no cells
 * @cells: zeroed
 *
 * Context: any.
 */
void qcow_cells_init(struct qcow_cells *cells)
{
	spin_lock_init(&cells->lock);
	cells->tree = RB_ROOT;
	INIT_LIST_HEAD(&cells->waiting);
}

/**
 * qcow_cells_reserve() - set memory aside for cells
 * @cells: of a table that allows writing
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_cells_reserve(struct qcow_cells *cells)
{
	return mempool_init_slab_pool(&cells->pool, CELLS_MIN, cell_cache);
}

/**
 * qcow_cells_exit() - undo qcow_cells_init()
 * @cells: none left
 *
 * Context: process.
 */
void qcow_cells_exit(struct qcow_cells *cells)
{
	mempool_exit(&cells->pool);
}

/**
 * qcow_cell_module_init() - make the slab cache of cells
 *
 * Context: module init.
 * Return: 0 or -ENOMEM.
 */
int qcow_cell_module_init(void)
{
	cell_cache = KMEM_CACHE(qcow_cell, 0);
	return cell_cache ? 0 : -ENOMEM;
}

/**
 * qcow_cell_module_exit() - undo qcow_cell_module_init()
 *
 * Context: module exit.
 */
void qcow_cell_module_exit(void)
{
	kmem_cache_destroy(cell_cache);
}
