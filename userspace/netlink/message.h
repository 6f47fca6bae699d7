/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Messages of the dm-qcow netlink family, as structs.
 *
 * One struct holds any message of the contract; a bit per attribute says which
 * fields are there. Encoding and decoding work on buffers and know no socket,
 * so that tests can play either end. What a decoded message points to lies in
 * the buffer it was decoded from.
 */
#ifndef QCOW_NETLINK_MESSAGE_H
#define QCOW_NETLINK_MESSAGE_H

#include <linux/dm-qcow.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Large enough for the largest message either side sends: an ATTACH answer
 * with a path, options and 256 layers, or a dump's batch of LIST entries.
 */
#define QNL_BUF_SIZE (64U << 10)
/* Any upcall (a COMMIT with 1024 deltas), any answer, or the error for one fits in this. */
#define QNL_SMALL_BUF_SIZE (32U << 10)

/* An array or blob inside a message; its elements may be misaligned. */
struct qnl_array {
	const void *data;
	uint32_t nr;
};

struct qnl_msg {
	uint64_t has; /* QNL_BIT() of each attribute that is present */
	uint8_t cmd;
	uint32_t version;
	uint32_t target;
	uint32_t epoch;
	uint32_t error;
	uint32_t flags;
	uint32_t state;
	uint32_t attached;
	uint32_t timeout;
	uint32_t length;
	uint32_t tables;
	uint64_t cookie;
	uint64_t page;
	uint64_t seq;
	uint64_t offset;
	uint64_t addr;
	uint64_t bytes;
	uint64_t generation;
	uint64_t lost;
	uint64_t room;
	const char *error_text;
	const char *path;
	struct dm_qcow_device device;
	struct dm_qcow_shape shape;
	struct qnl_array options; /* of bytes: strings, each with its NUL */
	struct qnl_array devices; /* of struct dm_qcow_device */
	struct qnl_array layers;  /* of struct dm_qcow_layer */
	struct qnl_array runs;	  /* of struct dm_qcow_run */
	struct qnl_array leases;  /* of struct dm_qcow_lease */
	struct qnl_array deltas;  /* of struct dm_qcow_delta */
};

#define QNL_BIT(attr) (1ULL << DM_QCOW_ATTR_##attr)

/* qnl_set(&msg, TARGET, target, 7): the field and its presence, together. */
#define qnl_set(msg, attr, field, value)                   \
	do {                                               \
		(msg)->field = (value);                    \
		(msg)->has |= 1ULL << DM_QCOW_ATTR_##attr; \
	} while (0)

static inline bool qnl_has(const struct qnl_msg *msg, uint64_t bits)
{
	return (msg->has & bits) == bits;
}

/* Copies element @i of an array of @size-byte elements to @out. */
void qnl_array_get(const struct qnl_array *array, uint32_t i, void *out, size_t size);

enum qnl_kind {
	QNL_KIND_MSG,	/* a message of the family */
	QNL_KIND_ERROR, /* the kernel refused, or acknowledged, what we sent */
	QNL_KIND_DONE,	/* the end of a dump */
	QNL_KIND_OTHER, /* of another family, or netlink's own noise */
};

struct qnl_event {
	enum qnl_kind kind;
	uint32_t seq;	 /* netlink's sequence number, not DM_QCOW_ATTR_SEQ */
	int error;	 /* ERROR, DONE: 0 or a negative errno */
	uint8_t refused; /* ERROR: the command that was refused, if known */
	struct qnl_msg msg;
};

struct qnl_envelope {
	uint16_t family;
	uint16_t flags; /* NLM_F_* */
	uint32_t seq;
};

/* Returns the length of the message in @buf, or -EMSGSIZE. */
int qnl_encode(const struct qnl_msg *msg, const struct qnl_envelope *env, void *buf, size_t size);

/*
 * Takes the next message off the @len bytes at @buf, both of which move on.
 * Returns 1; 0 at the end; -EPROTO for a malformed message, which ends the
 * buffer too. @family 0 accepts any family.
 */
int qnl_decode(const void **buf, size_t *len, uint16_t family, struct qnl_event *event);

#endif
