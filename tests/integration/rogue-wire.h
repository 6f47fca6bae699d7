/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rogue's own netlink, by hand: it must be able to say what no library lets it say.
 */
#ifndef ROGUE_WIRE_H
#define ROGUE_WIRE_H

#include <errno.h>
#include <linux/dm-qcow.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_SAVED 64
#define PATIENCE  60000 /* ms; a machine may be busy */

/* A message from the kernel. */
struct event {
	bool is_ack;
	int error; /* of an ack: 0 or a positive errno */
	uint32_t seq;
	uint8_t cmd;
	uint64_t has; /* a bit for each attribute */
	uint32_t target, epoch, state, length, tables;
	uint64_t cookie, page, map_seq, offset, bytes;
	uint32_t nr_layers, nr_leases, nr_deltas;
	struct dm_qcow_layer layers[DM_QCOW_MAX_LAYERS];
	struct dm_qcow_lease leases[DM_QCOW_MAX_LEASES];
	struct dm_qcow_delta delta; /* the first */
};

struct nl {
	int fd;
	uint16_t family;
	uint32_t seq, port;
	struct event saved[MAX_SAVED]; /* upcalls that came while an ack was waited for */
	unsigned int nr_saved;
	_Alignas(8) char out[128 << 10];
	size_t len;
};

static void die(const char *what)
{
	printf("FAIL rogue: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void begin_raw(struct nl *nl, uint16_t type, uint8_t cmd, uint16_t flags)
{
	struct nlmsghdr *h = (struct nlmsghdr *)nl->out;
	struct genlmsghdr *g = NLMSG_DATA(h);

	memset(nl->out, 0, NLMSG_HDRLEN + GENL_HDRLEN);
	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	h->nlmsg_seq = ++nl->seq;
	g->cmd = cmd;
	g->version = 1;
	nl->len = NLMSG_HDRLEN + GENL_HDRLEN;
}

static void begin(struct nl *nl, uint8_t cmd)
{
	begin_raw(nl, nl->family, cmd, NLM_F_ACK);
}

static void put(struct nl *nl, uint16_t attr, const void *data, size_t len)
{
	struct nlattr *a = (struct nlattr *)(nl->out + nl->len);
	size_t room = NLA_ALIGN(len);

	if (nl->len + NLA_HDRLEN + room > sizeof(nl->out))
		die("message too long");
	a->nla_type = attr;
	a->nla_len = (uint16_t)(NLA_HDRLEN + len);
	memset((char *)a + NLA_HDRLEN, 0, room);
	if (len)
		memcpy((char *)a + NLA_HDRLEN, data, len);
	nl->len += NLA_HDRLEN + room;
}

static void put_u32(struct nl *nl, uint16_t attr, uint32_t value)
{
	put(nl, attr, &value, sizeof(value));
}

static void put_u64(struct nl *nl, uint16_t attr, uint64_t value)
{
	put(nl, attr, &value, sizeof(value));
}

/* 0 or a positive errno. */
static int send_out(struct nl *nl)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct nlmsghdr *h = (struct nlmsghdr *)nl->out;

	h->nlmsg_len = (uint32_t)nl->len;
	return sendto(nl->fd, nl->out, nl->len, 0, (void *)&kernel, sizeof(kernel)) < 0 ? errno : 0;
}

static void take_attr(struct event *e, uint16_t type, const void *data, size_t len)
{
	static const struct {
		size_t off, len;
	} fields[DM_QCOW_ATTR_MAX + 1] = {
#define FIELD(attr, name) \
	[attr] = { offsetof(struct event, name), sizeof(((struct event *)0)->name) }
		FIELD(DM_QCOW_ATTR_TARGET, target), FIELD(DM_QCOW_ATTR_EPOCH, epoch),
		FIELD(DM_QCOW_ATTR_STATE, state),   FIELD(DM_QCOW_ATTR_LENGTH, length),
		FIELD(DM_QCOW_ATTR_COOKIE, cookie), FIELD(DM_QCOW_ATTR_PAGE, page),
		FIELD(DM_QCOW_ATTR_SEQ, map_seq),   FIELD(DM_QCOW_ATTR_OFFSET, offset),
		FIELD(DM_QCOW_ATTR_BYTES, bytes),   FIELD(DM_QCOW_ATTR_TABLES, tables),
	};

	if (type > DM_QCOW_ATTR_MAX)
		return;
	e->has |= 1ull << type;
	if (type == DM_QCOW_ATTR_LAYERS && len <= sizeof(e->layers)) {
		memcpy(e->layers, data, len);
		e->nr_layers = (uint32_t)(len / sizeof(e->layers[0]));
	} else if (type == DM_QCOW_ATTR_LEASES && len <= sizeof(e->leases)) {
		memcpy(e->leases, data, len);
		e->nr_leases = (uint32_t)(len / sizeof(e->leases[0]));
	} else if (type == DM_QCOW_ATTR_DELTAS && len >= sizeof(e->delta)) {
		memcpy(&e->delta, data, sizeof(e->delta));
		e->nr_deltas = (uint32_t)(len / sizeof(e->delta));
	} else if (fields[type].len && fields[type].len == len) {
		memcpy((char *)e + fields[type].off, data, len);
	}
}

static void take_message(struct event *e, const struct nlmsghdr *h)
{
	const struct genlmsghdr *g = NLMSG_DATA(h);
	size_t pos = NLMSG_HDRLEN + GENL_HDRLEN;
	const struct nlattr *a;

	memset(e, 0, sizeof(*e));
	e->seq = h->nlmsg_seq;
	e->is_ack = h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE;
	if (e->is_ack) {
		e->error = -*(const int *)NLMSG_DATA(h);
		return;
	}
	e->cmd = g->cmd;
	for (; pos + NLA_HDRLEN <= h->nlmsg_len; pos += NLA_ALIGN(a->nla_len)) {
		a = (const struct nlattr *)((const char *)h + pos);
		if (a->nla_len < NLA_HDRLEN)
			break;
		take_attr(e, a->nla_type & NLA_TYPE_MASK, (const char *)a + NLA_HDRLEN,
			  a->nla_len - NLA_HDRLEN);
	}
}

/* The first message of the next datagram; false: none came in time. (Dumps are not looked into.) */
static bool receive(struct nl *nl, struct event *e, int timeout_ms)
{
	static _Alignas(8) char in[128 << 10];
	struct pollfd p = { .fd = nl->fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, timeout_ms) != 1)
		return false;
	n = recv(nl->fd, in, sizeof(in), 0);
	if (n < (ssize_t)NLMSG_HDRLEN)
		return false;
	take_message(e, (struct nlmsghdr *)in);
	return true;
}

/* Sends, and returns what the kernel says to it; @reply gets the answer that came before, if any.
 */
static int ask(struct nl *nl, struct event *reply)
{
	uint32_t seq = nl->seq;
	struct event e;
	int r = send_out(nl);

	if (reply)
		memset(reply, 0, sizeof(*reply));
	while (!r) {
		if (!receive(nl, &e, PATIENCE))
			return ETIME;
		if (e.is_ack && e.seq == seq)
			return e.error;
		if (e.seq == seq && reply)
			*reply = e;
		else if (!e.is_ack && !e.seq && nl->nr_saved < MAX_SAVED)
			nl->saved[nl->nr_saved++] = e;
	}
	return r;
}

/* The next upcall or notice. */
static bool await_any(struct nl *nl, struct event *e, int timeout_ms)
{
	if (nl->nr_saved) {
		*e = nl->saved[0];
		memmove(nl->saved, nl->saved + 1, --nl->nr_saved * sizeof(*e));
		return true;
	}
	while (receive(nl, e, timeout_ms))
		if (!e->is_ack)
			return true;
	return false;
}

/* The next one with this command; others are dropped. */
static bool await(struct nl *nl, uint8_t cmd, struct event *e, int timeout_ms)
{
	while (await_any(nl, e, timeout_ms))
		if (e->cmd == cmd)
			return true;
	return false;
}

static void find_family(struct nl *nl)
{
	_Alignas(8) char in[8192];
	size_t pos = NLMSG_HDRLEN + GENL_HDRLEN;
	struct nlattr *a;
	ssize_t n;

	begin_raw(nl, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	put(nl, CTRL_ATTR_FAMILY_NAME, DM_QCOW_GENL_NAME, sizeof(DM_QCOW_GENL_NAME));
	if (send_out(nl))
		die("send");
	n = recv(nl->fd, in, sizeof(in), 0);
	for (; n > 0 && pos + NLA_HDRLEN <= (size_t)n; pos += NLA_ALIGN(a->nla_len)) {
		a = (struct nlattr *)(in + pos);
		if (a->nla_type == CTRL_ATTR_FAMILY_ID)
			nl->family = *(uint16_t *)(in + pos + NLA_HDRLEN);
		if (a->nla_len < NLA_HDRLEN)
			break;
	}
	if (!nl->family)
		die("no such family: is the module loaded?");
}

/* @port 0: any. */
static void nl_open(struct nl *nl, uint32_t port)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK, .nl_pid = port };
	socklen_t len = sizeof(addr);

	memset(nl, 0, sizeof(*nl));
	nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (nl->fd < 0 || bind(nl->fd, (void *)&addr, sizeof(addr)) ||
	    getsockname(nl->fd, (void *)&addr, &len))
		die("socket");
	nl->port = addr.nl_pid;
	find_family(nl);
}

#endif
