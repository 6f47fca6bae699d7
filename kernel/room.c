// SPDX-License-Identifier: GPL-2.0-only
/* What is left below; see room.h. */

#include <linux/blkdev.h>

#include "dm-qcow.h"
#include "genl.h"
#include "room.h"

static u64 device_size(const struct qcow_room *room)
{
	return room->bdev ? bdev_nr_bytes(room->bdev) : 0;
}

/**
 * qcow_room_take() - the helper said how much is left, if it knows
 * @room: of an open image
 * @answer: to OPEN, GRANT or COMMIT
 *
 * Context: process; does not sleep.
 */
void qcow_room_take(struct qcow_room *room, const struct qcow_answer *answer)
{
	bool low, news;

	if (!qcow_answer_has(answer, DM_QCOW_ATTR_ROOM))
		return;
	spin_lock(&room->lock);
	room->known = true;
	room->bytes = answer->room;
	room->size = device_size(room);
	low = room->bytes < room->mark;
	news = low && (!room->was_low || room->size > room->low_size);
	room->was_low = low;
	if (news)
		room->low_size = room->size;
	spin_unlock(&room->lock);
	if (news)
		room->low(room);
}

/**
 * qcow_room_left() - how much is left?
 * @room: of an image that may be closed
 * @bytes: the answer, if there is one
 *
 * Context: process; does not sleep.
 * Return: false if nobody knows.
 */
bool qcow_room_left(struct qcow_room *room, u64 *bytes)
{
	bool known;
	u64 size;

	spin_lock(&room->lock);
	known = room->known;
	*bytes = room->bytes;
	size = device_size(room);
	if (size > room->size)
		*bytes += size - room->size;
	spin_unlock(&room->lock);
	return known;
}

/**
 * qcow_room_open() - another image, or none: nothing is known yet
 * @room: of an image that is being opened or closed
 * @bdev: where it lies; NULL: in a file, or nowhere
 *
 * Context: process; does not sleep.
 */
void qcow_room_open(struct qcow_room *room, struct block_device *bdev)
{
	spin_lock(&room->lock);
	room->bdev = bdev;
	room->known = false;
	room->was_low = false;
	spin_unlock(&room->lock);
}

/**
 * qcow_room_init() - nothing is known
 * @room: zeroed; @room->low and @room->mark are the caller's to set
 *
 * Context: any.
 */
void qcow_room_init(struct qcow_room *room)
{
	spin_lock_init(&room->lock);
}
