/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How much can still be allocated below: as the helper said last, and what a device has
 * grown since. Less than a mark is low, and told once: again only when there was
 * more in between, or when the device has grown and it is still too little.
 */
#ifndef DM_QCOW_ROOM_H
#define DM_QCOW_ROOM_H

#include <linux/spinlock.h>
#include <linux/types.h>

struct block_device;
struct qcow_answer;

/**
 * struct qcow_room - how much is left
 * @low: called when it has become low, in process context, without locks; must not sleep
 * @mark: bytes; 0: nothing is low. Constant, like @low
 * @bdev: where the image lies; NULL: in a file. Constant while the image is open
 */
struct qcow_room {
	void (*low)(struct qcow_room *room);
	u64 mark;
	struct block_device *bdev;
	spinlock_t lock;		/* protects what follows */
	bool known;
	bool was_low;			/* when the helper said it, and with a device of ... */
	u64 low_size;			/* ... this size */
	u64 bytes;			/* as the helper said, */
	u64 size;			/* of the device then */
};

void qcow_room_init(struct qcow_room *room);
void qcow_room_open(struct qcow_room *room, struct block_device *bdev);
void qcow_room_take(struct qcow_room *room, const struct qcow_answer *answer);
bool qcow_room_left(struct qcow_room *room, u64 *bytes);

#endif
