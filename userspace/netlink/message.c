// SPDX-License-Identifier: GPL-2.0-only
#include "netlink/message.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <string.h>

enum attr_kind {
	KIND_NONE,
	KIND_FIXED,  /* exactly .size bytes, copied to the field */
	KIND_STRING, /* ends with its only NUL; the field is a const char * */
	KIND_ARRAY,  /* elements of .size bytes; the field is a struct qnl_array */
};

static const struct attr_rule {
	uint8_t kind;
	uint8_t size;
	uint16_t field;
} rules[DM_QCOW_ATTR_MAX + 1] = {
#define FIELD(name)		offsetof(struct qnl_msg, name)
#define SIZE(name)		sizeof(((struct qnl_msg *)NULL)->name)
#define FIXED(attr, name)	[DM_QCOW_ATTR_##attr] = { KIND_FIXED, SIZE(name), FIELD(name) }
#define STRING(attr, name)	[DM_QCOW_ATTR_##attr] = { KIND_STRING, 1, FIELD(name) }
#define ARRAY(attr, name, elem) [DM_QCOW_ATTR_##attr] = { KIND_ARRAY, sizeof(elem), FIELD(name) }
	FIXED(VERSION, version),
	FIXED(TARGET, target),
	FIXED(EPOCH, epoch),
	FIXED(COOKIE, cookie),
	FIXED(ERROR, error),
	STRING(ERROR_TEXT, error_text),
	STRING(PATH, path),
	ARRAY(OPTIONS, options, char),
	FIXED(FLAGS, flags),
	FIXED(STATE, state),
	FIXED(ATTACHED, attached),
	FIXED(DEVICE, device),
	FIXED(TIMEOUT, timeout),
	FIXED(SHAPE, shape),
	ARRAY(DEVICES, devices, struct dm_qcow_device),
	ARRAY(LAYERS, layers, struct dm_qcow_layer),
	FIXED(PAGE, page),
	FIXED(SEQ, seq),
	ARRAY(RUNS, runs, struct dm_qcow_run),
	FIXED(OFFSET, offset),
	FIXED(LENGTH, length),
	FIXED(ADDR, addr),
	FIXED(BYTES, bytes),
	FIXED(TABLES, tables),
	ARRAY(LEASES, leases, struct dm_qcow_lease),
	FIXED(GENERATION, generation),
	ARRAY(DELTAS, deltas, struct dm_qcow_delta),
	FIXED(LOST, lost),
	FIXED(ROOM, room),
};

_Static_assert(DM_QCOW_ATTR_MAX < 64, "qnl_msg.has holds one bit per attribute");

void qnl_array_get(const struct qnl_array *array, uint32_t i, void *out, size_t size)
{
	memcpy(out, (const char *)array->data + i * size, size);
}

/* ---- encode -------------------------------------------------------------- */

static bool put_attr(struct nlmsghdr *nlh, size_t size, uint16_t attr, const struct qnl_msg *msg)
{
	const struct attr_rule *rule = &rules[attr];
	const char *field = (const char *)msg + rule->field;
	const struct qnl_array *array;

	switch (rule->kind) {
	case KIND_FIXED:
		return mnl_attr_put_check(nlh, size, attr, rule->size, field);
	case KIND_STRING:
		return mnl_attr_put_strz_check(nlh, size, attr, *(const char *const *)field);
	case KIND_ARRAY:
		array = (const struct qnl_array *)field;
		if (array->nr > (UINT16_MAX - MNL_ATTR_HDRLEN) / rule->size)
			return false;
		return mnl_attr_put_check(nlh, size, attr, (size_t)array->nr * rule->size,
					  array->data);
	default:
		return true;
	}
}

int qnl_encode(const struct qnl_msg *msg, const struct qnl_envelope *env, void *buf, size_t size)
{
	struct genlmsghdr *genl;
	struct nlmsghdr *nlh;

	if (size < MNL_NLMSG_HDRLEN + MNL_ALIGN(sizeof(*genl)))
		return -EMSGSIZE;
	nlh = mnl_nlmsg_put_header(buf);
	nlh->nlmsg_type = env->family;
	nlh->nlmsg_flags = env->flags;
	nlh->nlmsg_seq = env->seq;
	genl = mnl_nlmsg_put_extra_header(nlh, sizeof(*genl));
	genl->cmd = msg->cmd;
	genl->version = DM_QCOW_VERSION;
	for (uint16_t attr = 0; attr <= DM_QCOW_ATTR_MAX; attr++)
		if ((msg->has & (1ULL << attr)) && !put_attr(nlh, size, attr, msg))
			return -EMSGSIZE;
	return (int)nlh->nlmsg_len;
}

/* ---- decode -------------------------------------------------------------- */

static int get_attr(const struct nlattr *attr, struct qnl_msg *msg)
{
	uint16_t type = mnl_attr_get_type(attr);
	size_t len = mnl_attr_get_payload_len(attr);
	const char *data = mnl_attr_get_payload(attr);
	const struct attr_rule *rule;
	char *field;

	if (type > DM_QCOW_ATTR_MAX || rules[type].kind == KIND_NONE)
		return 0;
	rule = &rules[type];
	field = (char *)msg + rule->field;
	switch (rule->kind) {
	case KIND_FIXED:
		if (len != rule->size)
			return -EPROTO;
		memcpy(field, data, len);
		break;
	case KIND_STRING:
		if (!len || memchr(data, 0, len) != data + len - 1)
			return -EPROTO;
		*(const char **)field = data;
		break;
	case KIND_ARRAY:
		if (len % rule->size)
			return -EPROTO;
		*(struct qnl_array *)field = (struct qnl_array){ data, len / rule->size };
		break;
	}
	msg->has |= 1ULL << type;
	return 0;
}

static int get_msg(const struct nlmsghdr *nlh, struct qnl_msg *msg)
{
	const struct genlmsghdr *genl = mnl_nlmsg_get_payload(nlh);
	size_t len = mnl_nlmsg_get_payload_len(nlh);
	const void *attrs = genl + 1;
	const struct nlattr *attr;
	int r;

	if (len < sizeof(*genl))
		return -EPROTO;
	msg->cmd = genl->cmd;
	/* mnl_attr_for_each() rounds the message's end up: an attribute could reach past it. */
	mnl_attr_for_each_payload(attrs, len - sizeof(*genl)) {
		r = get_attr(attr, msg);
		if (r)
			return r;
	}
	return 0;
}

/* NLMSG_ERROR carries an errno and the header, perhaps all, of what we sent. */
static int get_error(const struct nlmsghdr *nlh, struct qnl_event *event)
{
	const struct nlmsgerr *err = mnl_nlmsg_get_payload(nlh);
	size_t len = mnl_nlmsg_get_payload_len(nlh);

	if (len < sizeof(*err))
		return -EPROTO;
	event->kind = QNL_KIND_ERROR;
	event->error = err->error;
	event->seq = err->msg.nlmsg_seq;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED) && len >= sizeof(*err) + sizeof(struct genlmsghdr))
		event->refused = ((const struct genlmsghdr *)(err + 1))->cmd;
	return 0;
}

/* NLMSG_DONE carries what the dump returned, if anything. */
static int get_done(const struct nlmsghdr *nlh, struct qnl_event *event)
{
	event->kind = QNL_KIND_DONE;
	if (mnl_nlmsg_get_payload_len(nlh) >= sizeof(int))
		event->error = *(const int *)mnl_nlmsg_get_payload(nlh);
	return 0;
}

static int get_event(const struct nlmsghdr *nlh, uint16_t family, struct qnl_event *event)
{
	event->seq = nlh->nlmsg_seq;
	if (nlh->nlmsg_type == NLMSG_ERROR)
		return get_error(nlh, event);
	if (nlh->nlmsg_type == NLMSG_DONE)
		return get_done(nlh, event);
	if (nlh->nlmsg_type < NLMSG_MIN_TYPE || (family && nlh->nlmsg_type != family)) {
		event->kind = QNL_KIND_OTHER;
		return 0;
	}
	event->kind = QNL_KIND_MSG;
	return get_msg(nlh, &event->msg);
}

int qnl_decode(const void **buf, size_t *len, uint16_t family, struct qnl_event *event)
{
	const struct nlmsghdr *nlh = *buf;
	size_t step;
	int r;

	if (!*len)
		return 0;
	memset(event, 0, sizeof(*event));
	/* mnl_nlmsg_ok() compares signed: a length of 2^31 and more would pass. */
	if (*len > INT32_MAX || !mnl_nlmsg_ok(nlh, (int)*len) || nlh->nlmsg_len > *len) {
		*len = 0;
		return -EPROTO;
	}
	r = get_event(nlh, family, event);
	step = MNL_ALIGN(nlh->nlmsg_len);
	if (r || step > *len)
		step = *len;
	*buf = (const char *)nlh + step;
	*len -= step;
	return r ? r : 1;
}
