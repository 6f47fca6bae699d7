// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/broker.h"

#include "daemon/util.h"
#include "daemon/worker.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BROKER_STACK (256 << 10)

/* Fixed size on both sides: nothing to measure, nothing to mistake. */
struct broker_request {
	uint8_t role;
	uint8_t write;
	uint8_t lock;
	uint8_t probe_only;
	char path[PATH_MAX];
};

struct broker_answer {
	int32_t r;
	struct qcow_error err;
};

/* ---- the worker's side -------------------------------------------------------- */

static int take_fd(struct msghdr *msg)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	int fd;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
	    c->cmsg_len != CMSG_LEN(sizeof(fd)))
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static ssize_t receive_answer(int sock, struct broker_answer *answer, int *fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { answer, sizeof(*answer) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

	*fd = n == sizeof(*answer) ? take_fd(&msg) : -1;
	return n;
}

static int ask(void *arg, const struct host_request *req, int *fd, struct qcow_error *err)
{
	struct broker_client *client = arg;
	struct broker_request wire = {
		.role = (uint8_t)req->role,
		.write = req->write,
		.lock = (uint8_t)req->lock,
		.probe_only = req->probe_only,
	};
	struct broker_answer answer;
	size_t len = strlen(req->path);

	if (len >= sizeof(wire.path))
		return qcow_fail(err, ENAMETOOLONG, QCOW_NO_OFF, "%.80s...: name too long",
				 req->path);
	memcpy(wire.path, req->path, len);
	/*
	 * A supervisor that dies takes us with it, after its sockets: an answer of ours
	 * in between would fail an OPEN that the next worker could have done.
	 */
	if (send(client->fd, &wire, sizeof(wire), MSG_NOSIGNAL) != sizeof(wire) ||
	    receive_answer(client->fd, &answer, fd) != sizeof(answer))
		_exit(WORKER_EXIT_FAILED);
	if (answer.r && err)
		*err = answer.err;
	if (!answer.r && *fd < 0)
		return qcow_fail(err, EMFILE, QCOW_NO_OFF, "%s: too many open files", req->path);
	return answer.r;
}

struct host_opener broker_opener(struct broker_client *client)
{
	return (struct host_opener){ .open = ask, .arg = client };
}

/* ---- the supervisor's side ----------------------------------------------------- */

struct broker {
	int fd;
	const struct table *table;
	const char *conf;
	struct host_policy policy; /* of the walk that the last request for the image began */
	bool has_policy;
	unsigned int nr_opened; /* in this walk */
};

static void forget_policy(struct broker *b)
{
	if (b->has_policy)
		host_policy_exit(&b->policy);
	b->has_policy = false;
	b->nr_opened = 0;
}

/* Afresh for each walk: the admin may have edited the configuration meanwhile. */
static int renew_policy(struct broker *b, struct qcow_error *err)
{
	struct host_options options;
	int r;

	forget_policy(b);
	r = table_options(b->table, &options, err);
	if (r)
		return r;
	r = host_policy_init(&b->policy, b->table->path, &options, b->conf, b->table->device, err);
	host_options_exit(&options);
	b->has_policy = !r;
	return r;
}

static bool sane_request(const struct broker *b, const struct broker_request *wire)
{
	/* A data file that is not the image's own comes later in the walk, if at all. */
	bool writable = !(b->table->flags & DM_QCOW_FLAG_READ_ONLY) &&
			(wire->role == HOST_ROLE_IMAGE ||
			 (wire->role == HOST_ROLE_DATA_FILE && b->nr_opened == 1));

	return memchr(wire->path, 0, sizeof(wire->path)) && wire->path[0] == '/' &&
	       wire->role >= HOST_ROLE_IMAGE && wire->role <= HOST_ROLE_DATA_FILE &&
	       wire->write <= writable && wire->probe_only <= 1 && wire->lock <= HOST_LOCK_WRITER &&
	       (wire->lock != HOST_LOCK_WRITER || writable);
}

static int open_for(struct broker *b, const struct broker_request *wire, int *fd,
		    struct qcow_error *err)
{
	struct host_request req = {
		.role = wire->role,
		.path = wire->path,
		.write = wire->write,
		.lock = wire->lock,
		.probe_only = wire->probe_only,
	};
	int r;

	if (req.probe_only && b->table->replaces)
		req.lock = HOST_LOCK_NONE;
	if (!sane_request(b, wire))
		return qcow_fail(err, EPERM, QCOW_NO_OFF, "request refused by the supervisor");
	if (req.role == HOST_ROLE_IMAGE) {
		if (strcmp(req.path, b->table->path))
			return qcow_fail(err, EPERM, QCOW_NO_OFF, "not the image of this table");
		r = renew_policy(b, err);
		if (r)
			return r;
	}
	if (!b->has_policy || b->nr_opened++ >= QCOW_MAX_LAYERS)
		return qcow_fail(err, EPERM, QCOW_NO_OFF, "request refused by the supervisor");
	return host_open_layer(&b->policy, &req, fd, err);
}

static bool send_answer(int sock, const struct broker_answer *answer, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (void *)answer, sizeof(*answer) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (fd >= 0) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == sizeof(*answer);
}

static bool serve_one(struct broker *b)
{
	struct broker_answer answer = { 0 };
	struct broker_request wire;
	int fd __cleanup(cleanup_close) = -1;

	/* recv(), not recvmsg(): descriptors that the worker might send are dropped. */
	if (recv(b->fd, &wire, sizeof(wire), 0) != sizeof(wire))
		return false;
	answer.r = open_for(b, &wire, &fd, &answer.err);
	return send_answer(b->fd, &answer, answer.r ? -1 : fd);
}

void broker_serve(int fd, const struct table *table, const char *conf)
{
	struct broker b = { .fd = fd, .table = table, .conf = conf };

	while (serve_one(&b))
		;
	forget_policy(&b);
}

struct broker_job {
	int fd;
	struct table table;
	const char *conf;
};

static void destroy_job(struct broker_job *job)
{
	close(job->fd);
	table_exit(&job->table);
	free(job);
}

static void *run_job(void *arg)
{
	struct broker_job *job = arg;

	broker_serve(job->fd, &job->table, job->conf);
	destroy_job(job);
	return NULL;
}

int broker_start(int fd, const struct table *table, const char *conf)
{
	struct broker_job *job = calloc(1, sizeof(*job));
	int r;

	if (!job || table_copy(&job->table, table)) {
		free(job);
		close(fd);
		return -ENOMEM;
	}
	job->fd = fd;
	job->conf = conf;
	r = thread_detached(run_job, job, BROKER_STACK);
	if (r)
		destroy_job(job);
	return r;
}
