// SPDX-License-Identifier: GPL-2.0-only
/* What failed last; see errors.h. */

#include <linux/blkdev.h>
#include <linux/ctype.h>
#include <linux/fs.h>

#include "dm-qcow.h"
#include "errors.h"
#include "layer.h"

/* As a user sees it who waits for a bio. */
static int user_error(int error)
{
	return blk_status_to_errno(errno_to_blk_status(error));
}

static const char *bio_word(const struct bio *bio)
{
	if (bio->bi_opf & REQ_PREFLUSH)
		return "flush";
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		return "read";
	case REQ_OP_WRITE:
		return "write";
	case REQ_OP_DISCARD:
		return "discard";
	default:
		return "write-zeroes";
	}
}

static const char *upcall_word(u8 cmd)
{
	static const char *const words[] = {
		[DM_QCOW_CMD_PROBE] = "PROBE",
		[DM_QCOW_CMD_OPEN] = "OPEN",
		[DM_QCOW_CMD_LOAD] = "LOAD",
		[DM_QCOW_CMD_FETCH] = "FETCH",
		[DM_QCOW_CMD_CLOSE] = "CLOSE",
		[DM_QCOW_CMD_PROPOSE] = "PROPOSE",
		[DM_QCOW_CMD_GRANT] = "GRANT",
		[DM_QCOW_CMD_COMMIT] = "COMMIT",
		[DM_QCOW_CMD_FREE] = "FREE",
	};

	return cmd < ARRAY_SIZE(words) && words[cmd] ? words[cmd] : "upcall";
}

/* Words from outside: they go into a line. */
static void clean(char *text)
{
	for (; *text; text++)
		if (!isascii(*text) || !isprint(*text))
			*text = '?';
}

static void set_locked(struct qcow_failure *f, const char *op, int error, u64 off, const char *at)
{
	f->op = op;
	f->error = error;
	f->off = off;
	strscpy(f->at, at && *at ? at : "-", sizeof(f->at));
	clean(f->at);
}

static void name_layer(char *name, size_t size, const struct qcow_layer *layer)
{
	if (layer->bdev)
		snprintf(name, size, "%pg", layer->bdev);
	else
		snprintf(name, size, "%pD4", layer->file);
}

/**
 * qcow_errors_bio() - a bio that was sent to a layer failed
 * @e: the target's
 * @layer: where to
 * @bio: ended
 * @off: where in the layer it began, or what was left of it, bytes
 * @error: a negative errno
 *
 * That there is no space is no error yet: mostly it waits for some.
 *
 * Context: any, interrupts included.
 */
void qcow_errors_bio(struct qcow_errors *e, const struct qcow_layer *layer,
		     const struct bio *bio, u64 off, int error)
{
	const char *op = bio_word(bio);
	unsigned long flags;
	char name[64];

	if (error == -ENOSPC)
		return;
	name_layer(name, sizeof(name), layer);
	spin_lock_irqsave(&e->lock, flags);
	set_locked(&e->last, op, user_error(error),
		   bio->bi_opf & REQ_PREFLUSH ? QCOW_NO_OFF : off, name);
	spin_unlock_irqrestore(&e->lock, flags);
	if (bio->bi_opf & REQ_PREFLUSH)
		DMERR_LIMIT("%s: %s: flush failed: %d", e->image, name, error);
	else
		DMERR_LIMIT("%s: %s: %s at byte %llu failed: %d", e->image, name, op, off, error);
}

/**
 * qcow_errors_flush() - what was written to a layer could not be made durable
 * @e: the target's
 * @layer: which
 * @error: a negative errno
 *
 * Context: any.
 */
void qcow_errors_flush(struct qcow_errors *e, const struct qcow_layer *layer, int error)
{
	unsigned long flags;
	char name[64];

	name_layer(name, sizeof(name), layer);
	spin_lock_irqsave(&e->lock, flags);
	set_locked(&e->last, "flush", user_error(error), QCOW_NO_OFF, name);
	e->meta = e->last;
	spin_unlock_irqrestore(&e->lock, flags);
	DMERR("%s: %s: flush failed: %d", e->image, name, error);
}

/**
 * qcow_errors_upcall() - the helper could not do what it was asked for
 * @e: the target's
 * @cmd: enum dm_qcow_cmd
 * @error: a negative errno
 * @text: why, one line; or NULL
 *
 * Context: any.
 */
void qcow_errors_upcall(struct qcow_errors *e, u8 cmd, int error, const char *text)
{
	unsigned long flags;

	spin_lock_irqsave(&e->lock, flags);
	set_locked(&e->last, upcall_word(cmd), user_error(error), QCOW_NO_OFF, text);
	if (cmd != DM_QCOW_CMD_LOAD && cmd != DM_QCOW_CMD_FETCH)
		e->meta = e->last;
	spin_unlock_irqrestore(&e->lock, flags);
	if (cmd == DM_QCOW_CMD_LOAD || cmd == DM_QCOW_CMD_FETCH)
		DMERR_LIMIT("%s: %.*s", e->image, DM_QCOW_MAX_TEXT, text ?: "no reason given");
	else
		DMERR("%s: %.*s", e->image, DM_QCOW_MAX_TEXT, text ?: "no reason given");
}

static const char *why_ended(int error)
{
	switch (error) {
	case -ETIMEDOUT:
		return "the helper did not answer";
	case -ENOSPC:
		return "no space left below";
	default:
		return "refused";
	}
}

/**
 * qcow_errors_seen() - a user's bio ends with an error
 * @e: the target's
 * @bio: the bio
 * @error: a negative errno
 *
 * Mostly what failed for it was noted. Else nothing failed, but was not done in time.
 *
 * Context: any, interrupts included.
 */
void qcow_errors_seen(struct qcow_errors *e, const struct bio *bio, int error)
{
	unsigned long flags;

	spin_lock_irqsave(&e->lock, flags);
	if (!e->last.op || e->last.error != error)
		set_locked(&e->last, bio_word(bio), error, QCOW_NO_OFF, why_ended(error));
	spin_unlock_irqrestore(&e->lock, flags);
}

/**
 * qcow_errors_mode() - the mode is about to change
 * @e: the target's
 * @op: what was done
 * @error: 0 or a negative errno
 * @at: why; or NULL: what failed last of writing metadata, if with the same error
 *
 * What comes later does not count: the first reason is the one that explains.
 *
 * Context: any.
 */
void qcow_errors_mode(struct qcow_errors *e, const char *op, int error, const char *at)
{
	unsigned long flags;

	if (error)
		error = user_error(error);
	spin_lock_irqsave(&e->lock, flags);
	if (e->mode.op)
		;
	else if (!at && e->meta.op && e->meta.error == error)
		e->mode = e->meta;
	else
		set_locked(&e->mode, op, error, QCOW_NO_OFF, at);
	spin_unlock_irqrestore(&e->lock, flags);
}

/**
 * qcow_errors_init() - nothing has failed
 * @e: zeroed
 * @image: its path; stays
 *
 * Context: any.
 */
void qcow_errors_init(struct qcow_errors *e, const char *image)
{
	e->image = image;
	spin_lock_init(&e->lock);
}
