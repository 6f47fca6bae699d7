// SPDX-License-Identifier: GPL-2.0-only
/*
 * Layers that are regular files: direct kiocbs over the bio's own pages.
 *
 * Bios are queued per CPU and submitted from a workqueue in batches under one
 * plug: ->map must not call into a file system (its stack, and current->bio_list,
 * belong to whoever is above us), and a batch costs one wake-up.
 *
 * Writes have a queue of their own: they may wait for the file system (space, a
 * journal, a freeze), and reads must not wait behind them.
 *
 * The kiocb completes in whatever context the file system likes, interrupts
 * included. A full read or write ends the bio there; a short one goes back to the queue.
 */

#include <linux/blkdev.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/uio.h>
#include <linux/workqueue.h>

#include "dm-qcow.h"
#include "errors.h"
#include "layer.h"

/* Tags asked for at a time: they must be adjacent, and shallow queues have few that are. */
#define TAG_BATCH	8

/* A frozen file system is asked again this often. */
#define THAW_DELAY	(HZ / 10)

struct lane {
	struct llist_head bios;		/* lock-free; newest first */
	struct work_struct work;
};

struct qcow_file_queue {
	struct lane reads, writes;
	struct lane written;		/* whose completion needs a task */
	struct delayed_work thaw;	/* starts the writes again */
};

/* Bios of one CPU wait here; the work runs wherever the workqueue likes. */
static void enqueue(struct qcow_layer_io *io)
{
	struct qcow_file_queue *q = raw_cpu_ptr(io->queues);
	bool write = op_is_write(bio_op(io->bio));
	struct lane *lane = write ? &q->writes : &q->reads;

	/* Only who finds the list empty wakes the worker: it takes all there is. */
	if (llist_add(&io->node, &lane->bios))
		queue_work(write ? qcow_write_wq : qcow_read_wq, &lane->work);
}

/* Is what is left of the bio behind everything the file has? */
static bool past_eof(const struct qcow_layer_io *io, long last)
{
	/*
	 * A direct read stops only at the end of the file, or where the file system
	 * ran into something it reports when asked again. Nothing at all, or an end
	 * inside a sector, is the end of the file.
	 */
	return !last || !IS_ALIGNED(io->pos, SECTOR_SIZE) ||
	       io->pos >= i_size_read(file_inode(io->layer->file));
}

/* Any context, interrupts included. */
static void fail(struct qcow_layer_io *io, int error)
{
	io->bio->bi_status = errno_to_blk_status(error);
	qcow_errors_bio(io->layer->errors, io->layer, io->bio, io->pos, error);
}

/* Any context, interrupts included. @r is what the read returned. */
static void complete_read(struct qcow_layer_io *io, long r)
{
	struct bio *bio = io->bio;

	if (unlikely(r < 0)) {
		fail(io, r);
	} else if (unlikely(r < bio->bi_iter.bi_size)) {
		bio_advance(bio, r);
		io->pos += r;
		if (!past_eof(io, r)) {
			enqueue(io);
			return;
		}
		zero_fill_bio(bio);
	}
	bio_endio(bio);
}

static void read_done(struct kiocb *iocb, long r)
{
	complete_read(container_of(iocb, struct qcow_layer_io, iocb), r);
}

static unsigned int count_bvecs(struct bio *bio)
{
	struct bvec_iter iter;
	struct bio_vec bv;
	unsigned int nr = 0;

	bio_for_each_bvec(bv, bio, iter)
		nr++;
	return nr;
}

/* How far into its first vector the bio has got. */
static unsigned int first_skip(struct bio *bio)
{
	return mp_bvec_iter_offset(bio->bi_io_vec, bio->bi_iter) -
	       __bvec_iter_bvec(bio->bi_io_vec, bio->bi_iter)->bv_offset;
}

/* The kiocb, and an iterator over what is left of the bio. */
static void prepare(struct qcow_layer_io *io, struct iov_iter *iter, unsigned int direction,
		    int flags, void (*done)(struct kiocb *iocb, long r))
{
	struct bio *bio = io->bio;

	io->iocb = (struct kiocb) {
		.ki_filp = io->layer->file,
		.ki_pos = io->pos,
		.ki_flags = IOCB_DIRECT | flags,
		.ki_ioprio = bio->bi_ioprio,
		.ki_complete = done,
	};
	iov_iter_bvec(iter, direction, __bvec_iter_bvec(bio->bi_io_vec, bio->bi_iter),
		      count_bvecs(bio), bio->bi_iter.bi_size);
	iter->iov_offset = first_skip(bio);
}

static void submit_read(struct qcow_layer_io *io)
{
	struct iov_iter iter;
	ssize_t r;

	prepare(io, &iter, ITER_DEST, 0, read_done);
	r = io->iocb.ki_filp->f_op->read_iter(&io->iocb, &iter);
	if (r != -EIOCBQUEUED)
		complete_read(io, r);
}

/* How many are next, at most TAG_BATCH. */
static unsigned short count_ios(const struct qcow_layer_io *io)
{
	const struct llist_node *node = &io->node;
	unsigned short nr = 0;

	for (; node && nr < TAG_BATCH; node = node->next)
		nr++;
	return nr;
}

static void end_write(struct file *file)
{
	struct super_block *sb = file_inode(file)->i_sb;

	/* Taken by another task than the one that releases it: see start_write(). */
	__sb_writers_acquired(sb, SB_FREEZE_WRITE);
	sb_end_write(sb);
}

/* False if the file system is frozen. */
static bool start_write(struct file *file)
{
	struct super_block *sb = file_inode(file)->i_sb;

	if (!sb_start_write_trylock(sb))
		return false;
	/* Whoever completes the write releases it: nothing lockdep could follow. */
	__sb_writers_release(sb, SB_FREEZE_WRITE);
	return true;
}

/* Any context, interrupts included. */
static void starve(struct qcow_layer_io *io)
{
	if (llist_add(&io->node, &io->starved->bios))
		queue_work(qcow_wq, &io->starved->work);
}

/* Any context, interrupts included. @r is what the write returned. */
static void complete_write(struct qcow_layer_io *io, long r)
{
	struct bio *bio = io->bio;

	end_write(io->layer->file);
	/* A quota that is used up is as good as a full file system. */
	if (unlikely(r == -EDQUOT))
		r = -ENOSPC;
	if (unlikely(r == -ENOSPC) && io->starved) {
		starve(io);
		return;
	}
	if (unlikely(r <= 0)) {
		fail(io, r ?: -EIO);
	} else if (unlikely(r < bio->bi_iter.bi_size)) {
		bio_advance(bio, r);
		io->pos += r;
		enqueue(io);
		return;
	}
	bio_endio(bio);
}

static void write_done(struct kiocb *iocb, long r)
{
	struct qcow_layer_io *io = container_of(iocb, struct qcow_layer_io, iocb);
	struct lane *lane = &raw_cpu_ptr(io->queues)->written;

	if (!iocb_wants_task(iocb))
		complete_write(io, r);
	else if (llist_add(&io->node, &lane->bios))
		queue_work(qcow_written_wq, &lane->work);
}

/*
 * As many as there are, instead of one work item each. Nothing here waits for the inode:
 * whoever holds it may wait for these.
 */
static void complete_writes(struct work_struct *work)
{
	struct lane *lane = container_of(work, struct lane, work);
	struct llist_node *bios = llist_reverse_order(llist_del_all(&lane->bios));
	struct qcow_layer_io *io, *next;

	llist_for_each_entry_safe(io, next, bios, node)
		complete_write(io, iocb_complete_in_task(&io->iocb));
}

static void submit_write(struct qcow_layer_io *io)
{
	int sync = io->bio->bi_opf & REQ_FUA ? IOCB_DSYNC : 0;
	struct iov_iter iter;
	ssize_t r;

	prepare(io, &iter, ITER_SOURCE, IOCB_WRITE | IOCB_DIO_CALLER_COMP | sync, write_done);
	r = io->iocb.ki_filp->f_op->write_iter(&io->iocb, &iter);
	if (r != -EIOCBQUEUED)
		complete_write(io, r);
}

/* As loop does: our writes must not be throttled behind those they clean up. */
static unsigned int become_writer(void)
{
	unsigned int flags = current->flags;

	current->flags |= PF_LOCAL_THROTTLE | PF_MEMALLOC_NOIO;
	return flags;
}

static void end_as_writer(unsigned int flags)
{
	current_restore_flags(flags, PF_LOCAL_THROTTLE | PF_MEMALLOC_NOIO);
}

static void submit_writes(struct work_struct *work)
{
	struct qcow_file_queue *q = container_of(work, struct qcow_file_queue, writes.work);
	unsigned int flags = become_writer();
	struct llist_node *bios = llist_reverse_order(llist_del_all(&q->writes.bios));
	struct qcow_layer_io *io, *next;
	struct blk_plug plug;
	unsigned int i = 0;

	blk_start_plug(&plug);
	llist_for_each_entry_safe(io, next, bios, node) {
		if (i++ % TAG_BATCH == 0)
			plug.nr_ios = count_ios(io);
		if (start_write(io->layer->file)) {
			submit_write(io);
			continue;
		}
		llist_add(&io->node, &q->writes.bios);
		queue_delayed_work(qcow_write_wq, &q->thaw, THAW_DELAY);
	}
	blk_finish_plug(&plug);
	end_as_writer(flags);
}

static void thaw(struct work_struct *work)
{
	struct qcow_file_queue *q = container_of(to_delayed_work(work), struct qcow_file_queue,
						 thaw);

	queue_work(qcow_write_wq, &q->writes.work);
}

static void submit_reads(struct work_struct *work)
{
	struct qcow_file_queue *q = container_of(work, struct qcow_file_queue, reads.work);
	/* The file system may allocate; that must not wait for our own writes. */
	unsigned int noio = memalloc_noio_save();
	struct llist_node *bios = llist_reverse_order(llist_del_all(&q->reads.bios));
	struct qcow_layer_io *io, *next;
	struct blk_plug plug;
	unsigned int i = 0;

	blk_start_plug(&plug);
	llist_for_each_entry_safe(io, next, bios, node) {
		/* Tags come several at a time if the plug is told how many to expect. */
		if (i++ % TAG_BATCH == 0)
			plug.nr_ios = count_ios(io);
		submit_read(io);
	}
	blk_finish_plug(&plug);
	memalloc_noio_restore(noio);
}

/**
 * qcow_file_queues_create() - the per-CPU queues of one target
 *
 * Context: process; may sleep.
 * Return: the queues, or NULL without memory.
 */
struct qcow_file_queue __percpu *qcow_file_queues_create(void)
{
	struct qcow_file_queue __percpu *queues = alloc_percpu(struct qcow_file_queue);
	int cpu;

	if (!queues)
		return NULL;
	for_each_possible_cpu(cpu) {
		struct qcow_file_queue *q = per_cpu_ptr(queues, cpu);

		init_llist_head(&q->reads.bios);
		init_llist_head(&q->writes.bios);
		init_llist_head(&q->written.bios);
		INIT_WORK(&q->reads.work, submit_reads);
		INIT_WORK(&q->writes.work, submit_writes);
		INIT_WORK(&q->written.work, complete_writes);
		INIT_DELAYED_WORK(&q->thaw, thaw);
	}
	return queues;
}

/**
 * qcow_file_queues_destroy() - undo qcow_file_queues_create()
 * @queues: with no bio in them
 *
 * Context: process; waits for a worker that is just leaving.
 */
void qcow_file_queues_destroy(struct qcow_file_queue __percpu *queues)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct qcow_file_queue *q = per_cpu_ptr(queues, cpu);

		flush_delayed_work(&q->thaw);
		flush_work(&q->writes.work);
		flush_work(&q->written.work);
		flush_work(&q->reads.work);
	}
	free_percpu(queues);
}

static void init(struct qcow_layer_io *io, struct qcow_file_queue __percpu *queues,
		 struct qcow_layer *layer, struct bio *bio, sector_t host_sector)
{
	io->layer = layer;
	io->bio = bio;
	io->pos = (loff_t)host_sector << SECTOR_SHIFT;
	io->queues = queues;
}

/**
 * qcow_file_submit() - read a bio from a regular file, or write it there
 * @queues: the target's
 * @layer: open, a regular file
 * @bio: ended with bio_endio() when done, from any context
 * @io: the bio's own, until then; @io->starved is the caller's to set. What goes there
 *	has not ended, and its bi_iter is what is left to do
 * @host_sector: where in the file
 *
 * Context: any; does not sleep.
 */
void qcow_file_submit(struct qcow_file_queue __percpu *queues, struct qcow_layer *layer,
		      struct bio *bio, struct qcow_layer_io *io, sector_t host_sector)
{
	init(io, queues, layer, bio, host_sector);
	enqueue(io);
}

/**
 * qcow_file_write() - write a bio to a regular file, here and now
 * @queues: the target's
 * @layer: open, a regular file
 * @bio: ended with bio_endio() when done, from any context; perhaps before this returns
 * @io: as for qcow_file_submit()
 * @host_sector: where in the file
 *
 * Context: process, a worker's; waits for whatever the file system waits for, but not
 * for it to be thawed.
 */
void qcow_file_write(struct qcow_file_queue __percpu *queues, struct qcow_layer *layer,
		     struct bio *bio, struct qcow_layer_io *io, sector_t host_sector)
{
	unsigned int flags = become_writer();

	init(io, queues, layer, bio, host_sector);
	if (start_write(layer->file))
		submit_write(io);
	else
		enqueue(io);
	end_as_writer(flags);
}
