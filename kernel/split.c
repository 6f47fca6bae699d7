// SPDX-License-Identifier: GPL-2.0-only
/* Bios of our own: parts of what waited, and what cells send; see io.h. */

#include "dm-qcow.h"
#include "io.h"

/**
 * qcow_disk_failed() - a bio ends with an error: note where, if it was sent to a device
 * @disk: open
 * @bio: its layer_io.layer was set when it was sent to one, or to NULL
 *
 * What was sent to a file was noted there.
 *
 * Context: any, interrupts included.
 */
void qcow_disk_failed(struct qcow_disk *disk, struct bio *bio)
{
	const struct qcow_layer_io *io = &qcow_io_of(disk, bio)->layer_io;

	if (io->layer && io->layer->bdev)
		qcow_errors_bio(&disk->errors, io->layer, bio, io->pos,
				blk_status_to_errno(bio->bi_status));
}

/**
 * qcow_disk_own() - prepare a bio of our own
 * @disk: open
 * @bio: just allocated from disk->splits or disk->clones
 *
 * Its end_io has to call qcow_disk_leave().
 *
 * Context: any.
 */
void qcow_disk_own(struct qcow_disk *disk, struct bio *bio)
{
	struct qcow_split *split = container_of(bio, struct qcow_split, bio);

	split->disk = disk;
	split->io.layer_io.layer = NULL;
	split->io.epoch = QCOW_EPOCH_NONE;
	split->io.starved = false;
}

/**
 * qcow_disk_leave() - a bio of our own is done
 * @bio: the bio
 *
 * Context: any, interrupts included.
 */
void qcow_disk_leave(struct bio *bio)
{
	struct qcow_split *split = container_of(bio, struct qcow_split, bio);

	qcow_inflight_leave(&split->disk->inflight, split->io.epoch);
}

static void part_end_io(struct bio *part)
{
	struct bio *bio = part->bi_private;

	if (unlikely(part->bi_status))
		qcow_disk_failed(container_of(part, struct qcow_split, bio)->disk, part);
	qcow_disk_leave(part);
	if (part->bi_status && !bio->bi_status)
		bio->bi_status = part->bi_status;
	bio_put(part);
	bio_endio(bio);
}

/**
 * qcow_disk_chain() - have a bio of our own be part of another
 * @disk: open
 * @part: just allocated from disk->splits or disk->clones
 * @bio: does not end before @part has, and gets its error
 *
 * Context: any.
 */
void qcow_disk_chain(struct qcow_disk *disk, struct bio *part, struct bio *bio)
{
	qcow_disk_own(disk, part);
	part->bi_private = bio;
	part->bi_end_io = part_end_io;
	bio_inc_remaining(bio);
}

/**
 * qcow_disk_cut() - split the front off a bio
 * @disk: open
 * @bio: ends when its parts have ended
 * @nr_sectors: of the front
 *
 * Cannot fail: the bio set has a reserve, and each piece is under way before the next
 * is cut.
 *
 * Context: process, never under current->bio_list; may sleep, without I/O.
 * Return: the front.
 */
struct bio *qcow_disk_cut(struct qcow_disk *disk, struct bio *bio, unsigned int nr_sectors)
{
	struct bio *part = bio_split(bio, nr_sectors, GFP_NOIO, &disk->splits);

	qcow_disk_chain(disk, part, bio);
	if (op_is_write(bio_op(bio)))
		qcow_io_of(disk, part)->starved = qcow_io_of(disk, bio)->starved;
	return part;
}
