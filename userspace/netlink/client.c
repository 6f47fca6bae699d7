// SPDX-License-Identifier: GPL-2.0-only
#include "netlink/client.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/*
 * The kernel bounds what it has in flight on a worker's socket; this is well
 * above that bound, and above a burst of notices.
 */
#define RCVBUF_BYTES	   (1 << 20)
#define REQUEST_TIMEOUT_MS 10000
#define ATTACH_RETRY_MS	   20

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- the socket ------------------------------------------------------------ */

static int parse_family_id(const struct nlattr *attr, void *arg)
{
	uint16_t *id = arg;

	if (mnl_attr_get_type(attr) == CTRL_ATTR_FAMILY_ID &&
	    mnl_attr_get_payload_len(attr) == sizeof(*id))
		*id = mnl_attr_get_u16(attr);
	return MNL_CB_OK;
}

static int parse_family(const struct nlmsghdr *nlh, void *arg)
{
	return mnl_attr_parse(nlh, sizeof(struct genlmsghdr), parse_family_id, arg);
}

static int resolve_family(struct qnl_link *link)
{
	char buf[QNL_SMALL_BUF_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct genlmsghdr *genl;
	ssize_t len;

	nlh->nlmsg_type = GENL_ID_CTRL;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	nlh->nlmsg_seq = atomic_fetch_add(&link->seq, 1);
	genl = mnl_nlmsg_put_extra_header(nlh, sizeof(*genl));
	genl->cmd = CTRL_CMD_GETFAMILY;
	genl->version = 1;
	mnl_attr_put_strz(nlh, CTRL_ATTR_FAMILY_NAME, DM_QCOW_GENL_NAME);
	if (send(link->fd, buf, nlh->nlmsg_len, 0) < 0)
		return -errno;
	len = recv(link->fd, buf, sizeof(buf), 0);
	if (len < 0)
		return -errno;
	if (mnl_cb_run(buf, (size_t)len, 0, 0, parse_family, &link->family) < 0)
		return -errno;
	return link->family ? 0 : -EPROTO;
}

static void grow_receive_buffer(int fd)
{
	int bytes = RCVBUF_BYTES;

	/* A smaller buffer loses nothing: what does not fit waits in the kernel. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)))
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
}

int qnl_link_init(struct qnl_link *link)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK };
	int r;

	memset(link, 0, sizeof(*link));
	atomic_init(&link->seq, 1);
	link->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (link->fd < 0)
		return -errno;
	if (bind(link->fd, (const struct sockaddr *)&addr, sizeof(addr))) {
		r = -errno;
		goto out_close;
	}
	grow_receive_buffer(link->fd);
	r = resolve_family(link);
	if (r)
		goto out_close;
	return 0;

out_close:
	qnl_link_exit(link);
	return r;
}

void qnl_link_exit(struct qnl_link *link)
{
	if (link->fd >= 0)
		close(link->fd);
	link->fd = -1;
}

/* ---- one message ------------------------------------------------------------ */

int qnl_send(struct qnl_link *link, const struct qnl_msg *msg, uint16_t nl_flags, void *buf,
	     size_t size, uint32_t *seq)
{
	struct qnl_envelope env = {
		.family = link->family,
		.flags = NLM_F_REQUEST | nl_flags,
		.seq = atomic_fetch_add(&link->seq, 1),
	};
	int len = qnl_encode(msg, &env, buf, size);
	ssize_t n;

	if (len < 0)
		return len;
	if (seq)
		*seq = env.seq;
	do {
		n = send(link->fd, buf, (size_t)len, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/*
 * Anybody with CAP_NET_ADMIN can send to our port; only port 0 is the kernel.
 * A socketpair has no addresses.
 */
static bool from_kernel(const struct sockaddr_nl *from, socklen_t len)
{
	return len < sizeof(*from) || from->nl_family != AF_NETLINK || from->nl_pid == 0;
}

ssize_t qnl_recv(struct qnl_link *link, void *buf, size_t size)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	struct msghdr msg = {
		.msg_name = &from,
		.msg_namelen = sizeof(from),
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	ssize_t n;

	do {
		n = recvmsg(link->fd, &msg, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (!from_kernel(&from, msg.msg_namelen))
		return 0;
	if (n == 0)
		return -EPIPE;
	return msg.msg_flags & MSG_TRUNC ? -EMSGSIZE : n;
}

/* ---- requests ----------------------------------------------------------------- */

struct request {
	struct qnl_link *link;
	void *buf;
	size_t size;
	uint32_t seq;
	int64_t deadline;
};

/* The next event that answers the request. 1, or a negative errno. */
static int next_datagram(struct request *req, const void **pos, size_t *left)
{
	struct pollfd pfd = { .fd = req->link->fd, .events = POLLIN };
	int64_t wait = req->deadline - now_ms();
	ssize_t n;
	int r;

	r = poll(&pfd, 1, wait > 0 ? (int)wait : 0);
	if (r < 0)
		return errno == EINTR ? 0 : -errno;
	if (r == 0)
		return -ETIMEDOUT;
	n = qnl_recv(req->link, req->buf, req->size);
	if (n < 0)
		return (int)n;
	*pos = req->buf;
	*left = (size_t)n;
	return 0;
}

/*
 * Hands the answers in one datagram to @each. Returns 1 when the request is
 * answered, 0 to go on, or a negative errno.
 */
static int take_answers(struct request *req, const void *pos, size_t left, bool dump,
			qnl_each_fn each, void *arg)
{
	struct qnl_event event;
	int r;

	while ((r = qnl_decode(&pos, &left, req->link->family, &event)) > 0) {
		if (event.seq != req->seq || event.kind == QNL_KIND_OTHER)
			continue;
		if (event.kind != QNL_KIND_MSG)
			return event.error ? event.error : 1;
		r = each(&event.msg, arg);
		if (r || !dump)
			return r ? r : 1;
	}
	return r;
}

static int run_request(struct request *req, const struct qnl_msg *msg, bool dump, qnl_each_fn each,
		       void *arg)
{
	const void *pos = NULL;
	size_t left = 0;
	int r;

	r = qnl_send(req->link, msg, dump ? NLM_F_DUMP : 0, req->buf, req->size, &req->seq);
	while (!r) {
		left = 0;
		r = next_datagram(req, &pos, &left);
		if (!r)
			r = take_answers(req, pos, left, dump, each, arg);
	}
	return r < 0 ? r : 0;
}

static int keep_reply(const struct qnl_msg *msg, void *arg)
{
	struct qnl_msg *reply = arg;

	*reply = *msg;
	return 0;
}

int qnl_request(struct qnl_link *link, const struct qnl_msg *msg, void *buf, size_t size,
		int timeout_ms, struct qnl_msg *reply)
{
	struct request req = { link, buf, size, 0, now_ms() + timeout_ms };

	memset(reply, 0, sizeof(*reply));
	return run_request(&req, msg, false, keep_reply, reply);
}

int qnl_dump(struct qnl_link *link, const struct qnl_msg *msg, void *buf, size_t size,
	     int timeout_ms, qnl_each_fn each, void *arg)
{
	struct request req = { link, buf, size, 0, now_ms() + timeout_ms };

	return run_request(&req, msg, true, each, arg);
}

/* ---- the contract's own requests --------------------------------------------- */

int qnl_attach(struct qnl_link *link, const uint32_t *target, void *buf, size_t size,
	       int patience_ms, struct qnl_msg *reply)
{
	const struct timespec pause = { .tv_nsec = ATTACH_RETRY_MS * 1000000L };
	struct qnl_msg req = { .cmd = DM_QCOW_CMD_ATTACH };
	int64_t deadline = now_ms() + patience_ms;
	int r;

	qnl_set(&req, VERSION, version, DM_QCOW_VERSION);
	if (target)
		qnl_set(&req, TARGET, target, *target);
	for (;;) {
		r = qnl_request(link, &req, buf, size, REQUEST_TIMEOUT_MS, reply);
		if (r != -EBUSY || now_ms() >= deadline)
			break;
		nanosleep(&pause, NULL);
	}
	if (!r && !qnl_has(reply, QNL_BIT(EPOCH)))
		r = -EPROTO;
	return r;
}

int qnl_list(qnl_each_fn each, void *arg)
{
	struct qnl_msg req = { .cmd = DM_QCOW_CMD_LIST };
	struct qnl_link link;
	void *buf;
	int r;

	buf = malloc(QNL_BUF_SIZE);
	if (!buf)
		return -ENOMEM;
	r = qnl_link_init(&link);
	if (r)
		goto out_free;
	r = qnl_dump(&link, &req, buf, QNL_BUF_SIZE, REQUEST_TIMEOUT_MS, each, arg);
	qnl_link_exit(&link);
out_free:
	free(buf);
	return r;
}

int qnl_supervised(void)
{
	struct qnl_msg reply;
	struct qnl_link link;
	void *buf;
	int r;

	buf = malloc(QNL_SMALL_BUF_SIZE);
	if (!buf)
		return -ENOMEM;
	r = qnl_link_init(&link);
	if (r)
		goto out_free;
	r = qnl_attach(&link, NULL, buf, QNL_SMALL_BUF_SIZE, 0, &reply);
	qnl_link_exit(&link);
	if (r == -EBUSY)
		r = 1;
out_free:
	free(buf);
	return r;
}
