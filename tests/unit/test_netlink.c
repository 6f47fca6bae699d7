// SPDX-License-Identifier: GPL-2.0-only
/* The message codec, and requests over a socketpair with a peer in this process. */
#include "netlink/client.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define FAMILY 42

static const struct qnl_envelope envelope = { .family = FAMILY, .flags = NLM_F_REQUEST, .seq = 7 };

static int decode_one(const void *buf, size_t len, struct qnl_event *event)
{
	return qnl_decode(&buf, &len, FAMILY, event);
}

static void test_round_trip(void **state)
{
	struct dm_qcow_layer layers[2] = { { 5, DM_QCOW_LAYER_WRITABLE, 1 }, { 6, 0, ~0ULL } };
	struct dm_qcow_run run = { .host_off = 65536, .nr_blocks = 512, .type = DM_QCOW_RUN_DATA };
	struct dm_qcow_layer layer;
	struct dm_qcow_run got;
	struct qnl_msg msg = { .cmd = DM_QCOW_CMD_OPEN };
	struct qnl_event event;
	char buf[4096];
	int len;

	(void)state;
	qnl_set(&msg, TARGET, target, 3);
	qnl_set(&msg, COOKIE, cookie, 0x1122334455667788ULL);
	qnl_set(&msg, PATH, path, "/images/a b.qcow2");
	qnl_set(&msg, OPTIONS, options, ((struct qnl_array){ "no_backing\0x:1", 15 }));
	qnl_set(&msg, LAYERS, layers, ((struct qnl_array){ layers, 2 }));
	qnl_set(&msg, RUNS, runs, ((struct qnl_array){ &run, 1 }));
	msg.shape.virtual_size = 1ULL << 40;
	msg.has |= QNL_BIT(SHAPE);

	len = qnl_encode(&msg, &envelope, buf, sizeof(buf));
	assert_true(len > 0);
	assert_int_equal(decode_one(buf, (size_t)len, &event), 1);
	assert_int_equal(event.kind, QNL_KIND_MSG);
	assert_int_equal(event.seq, 7);
	assert_int_equal(event.msg.cmd, DM_QCOW_CMD_OPEN);
	assert_true(event.msg.has == msg.has);
	assert_int_equal(event.msg.target, 3);
	assert_true(event.msg.cookie == msg.cookie);
	assert_string_equal(event.msg.path, msg.path);
	assert_int_equal(event.msg.options.nr, 15);
	assert_memory_equal(event.msg.options.data, "no_backing\0x:1", 15);
	assert_true(event.msg.shape.virtual_size == 1ULL << 40);
	qnl_array_get(&event.msg.layers, 1, &layer, sizeof(layer));
	assert_int_equal(layer.fd, 6);
	assert_true(layer.tag == ~0ULL);
	qnl_array_get(&event.msg.runs, 0, &got, sizeof(got));
	assert_memory_equal(&got, &run, sizeof(run));
}

/* The largest messages there are, in the buffers there are for them. */
static void test_largest(void **state)
{
	static struct dm_qcow_delta deltas[DM_QCOW_MAX_DELTAS], delta;
	static struct dm_qcow_lease leases[DM_QCOW_MAX_LEASES], lease;
	static struct dm_qcow_layer layers[DM_QCOW_MAX_LAYERS];
	static char path[4096], options[4096], buf[QNL_BUF_SIZE];
	struct qnl_msg commit = { .cmd = DM_QCOW_CMD_COMMIT };
	struct qnl_msg attach = { .cmd = DM_QCOW_CMD_ATTACH };
	struct qnl_event event;
	int len;

	(void)state;
	deltas[DM_QCOW_MAX_DELTAS - 1] = (struct dm_qcow_delta){ 1, 2, 3, DM_QCOW_DELTA_ZERO };
	leases[DM_QCOW_MAX_LEASES - 1] = (struct dm_qcow_lease){ 4, 5, DM_QCOW_LEASE_TABLE };
	qnl_set(&commit, TARGET, target, 3);
	qnl_set(&commit, COOKIE, cookie, 9);
	qnl_set(&commit, GENERATION, generation, 1ULL << 40);
	qnl_set(&commit, FLAGS, flags, DM_QCOW_COMMIT_UNFLUSHED);
	qnl_set(&commit, BYTES, bytes, 1ULL << 41);
	qnl_set(&commit, LOST, lost, 1ULL << 42);
	qnl_set(&commit, TABLES, tables, DM_QCOW_TABLES_ENOUGH);
	qnl_set(&commit, DELTAS, deltas, ((struct qnl_array){ deltas, DM_QCOW_MAX_DELTAS }));
	len = qnl_encode(&commit, &envelope, buf, QNL_SMALL_BUF_SIZE);
	assert_true(len > 0);
	assert_int_equal(decode_one(buf, (size_t)len, &event), 1);
	assert_true(event.msg.has == commit.has && event.msg.generation == 1ULL << 40);
	assert_true(event.msg.bytes == 1ULL << 41 && event.msg.lost == 1ULL << 42);
	assert_true(event.msg.tables == DM_QCOW_TABLES_ENOUGH);
	assert_int_equal(event.msg.deltas.nr, DM_QCOW_MAX_DELTAS);
	qnl_array_get(&event.msg.deltas, DM_QCOW_MAX_DELTAS - 1, &delta, sizeof(delta));
	assert_memory_equal(&delta, &deltas[DM_QCOW_MAX_DELTAS - 1], sizeof(delta));

	memset(path, 'x', sizeof(path) - 1);
	qnl_set(&attach, PATH, path, path);
	qnl_set(&attach, OPTIONS, options, ((struct qnl_array){ options, sizeof(options) }));
	qnl_set(&attach, LAYERS, layers, ((struct qnl_array){ layers, DM_QCOW_MAX_LAYERS }));
	qnl_set(&attach, LEASES, leases, ((struct qnl_array){ leases, DM_QCOW_MAX_LEASES }));
	len = qnl_encode(&attach, &envelope, buf, sizeof(buf));
	assert_true(len > 0);
	assert_int_equal(decode_one(buf, (size_t)len, &event), 1);
	qnl_array_get(&event.msg.leases, DM_QCOW_MAX_LEASES - 1, &lease, sizeof(lease));
	assert_memory_equal(&lease, &leases[DM_QCOW_MAX_LEASES - 1], sizeof(lease));
}

static void test_every_short_buffer_is_refused(void **state)
{
	struct qnl_msg msg = { .cmd = DM_QCOW_CMD_LOAD };
	char *buf;
	int len;

	(void)state;
	qnl_set(&msg, PAGE, page, 1);
	qnl_set(&msg, PATH, path, "/x");
	buf = malloc(4096);
	len = qnl_encode(&msg, &envelope, buf, 4096);
	free(buf);
	assert_true(len > 0);
	for (int size = 0; size < len; size++) {
		buf = malloc((size_t)size + 1);
		assert_int_equal(qnl_encode(&msg, &envelope, buf, (size_t)size), -EMSGSIZE);
		free(buf);
	}
}

/* A copy of exactly @len bytes, so that ASan sees any read past the message. */
static int decode_copy(const void *data, size_t len, struct qnl_event *event)
{
	char *copy = malloc(len ? len : 1);
	int r;

	memcpy(copy, data, len);
	r = decode_one(copy, len, event);
	free(copy);
	return r;
}

static void test_truncated_and_flipped(void **state)
{
	struct qnl_msg msg = { .cmd = DM_QCOW_CMD_ATTACH };
	struct qnl_event event;
	char buf[512];
	int len;

	(void)state;
	qnl_set(&msg, TARGET, target, 3);
	qnl_set(&msg, PATH, path, "/images/x");
	qnl_set(&msg, DEVICE, device, ((struct dm_qcow_device){ 254, 3 }));
	len = qnl_encode(&msg, &envelope, buf, sizeof(buf));
	for (int cut = 1; cut < len; cut++)
		assert_int_equal(decode_copy(buf, (size_t)cut, &event), -EPROTO);
	for (int bit = 0; bit < len * 8; bit++) {
		buf[bit / 8] ^= 1 << (bit % 8);
		(void)decode_copy(buf, (size_t)len, &event);
		buf[bit / 8] ^= 1 << (bit % 8);
	}
}

static int put_raw(char *buf, uint16_t attr, size_t size, const void *data)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = FAMILY;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct genlmsghdr));
	mnl_attr_put(nlh, attr, size, data);
	return (int)nlh->nlmsg_len;
}

static void test_wrong_sizes(void **state)
{
	static const struct {
		uint16_t attr;
		size_t size;
		int r;
	} cases[] = {
		{ DM_QCOW_ATTR_TARGET, 8, -EPROTO },
		{ DM_QCOW_ATTR_TARGET, 0, -EPROTO },
		{ DM_QCOW_ATTR_COOKIE, 4, -EPROTO },
		{ DM_QCOW_ATTR_SHAPE, 8, -EPROTO },
		{ DM_QCOW_ATTR_LAYERS, 15, -EPROTO },
		{ DM_QCOW_ATTR_LAYERS, 32, 1 },
		{ DM_QCOW_ATTR_LEASES, 24, -EPROTO },
		{ DM_QCOW_ATTR_DELTAS, 25, -EPROTO },
		{ DM_QCOW_ATTR_DELTAS, 48, 1 },
		{ DM_QCOW_ATTR_LOST, 4, -EPROTO },
		{ DM_QCOW_ATTR_TABLES, 8, -EPROTO },
		{ DM_QCOW_ATTR_PATH, 0, -EPROTO },
		{ DM_QCOW_ATTR_PATH, 1, 1 },
		{ DM_QCOW_ATTR_PATH, 2, -EPROTO }, /* a NUL inside */
		{ DM_QCOW_ATTR_PAD, 3, 1 },
		{ DM_QCOW_ATTR_MAX + 1, 3, 1 }, /* of a later version: skipped */
		{ 0x3fff, 3, 1 },
	};
	static const char zeros[64];
	struct qnl_event event;
	char buf[256];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int len = put_raw(buf, cases[i].attr, cases[i].size, zeros);

		assert_int_equal(decode_copy(buf, (size_t)len, &event), cases[i].r);
	}
	/* no NUL at the end */
	assert_int_equal(decode_copy(buf, (size_t)put_raw(buf, DM_QCOW_ATTR_PATH, 2, "ab"), &event),
			 -EPROTO);
}

static void test_foreign_family_is_other(void **state)
{
	struct qnl_msg msg = { .cmd = DM_QCOW_CMD_GONE };
	const struct qnl_envelope other = { .family = FAMILY + 1 };
	struct qnl_event event;
	char buf[256];
	int len;

	(void)state;
	len = qnl_encode(&msg, &other, buf, sizeof(buf));
	assert_int_equal(decode_one(buf, (size_t)len, &event), 1);
	assert_int_equal(event.kind, QNL_KIND_OTHER);
}

/* ---- over a socketpair -------------------------------------------------------- */

struct peer {
	struct qnl_link link;
	int fd;
	int busy; /* refuse this many ATTACHes with EBUSY */
	bool noise;
};

static int send_error(int fd, const struct nlmsghdr *to, int error)
{
	char buf[64] = { 0 };
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nlmsgerr *err = mnl_nlmsg_put_extra_header(nlh, sizeof(*err));

	nlh->nlmsg_type = NLMSG_ERROR;
	err->error = error;
	err->msg = *to;
	return send(fd, buf, nlh->nlmsg_len, 0) < 0 ? -errno : 0;
}

static void send_reply(struct peer *peer, uint32_t seq, uint8_t cmd, uint32_t target)
{
	struct qnl_envelope env = { .family = FAMILY, .seq = seq };
	struct qnl_msg msg = { .cmd = cmd };
	char buf[512];
	int len;

	qnl_set(&msg, EPOCH, epoch, 9);
	qnl_set(&msg, TARGET, target, target);
	len = qnl_encode(&msg, &env, buf, sizeof(buf));
	assert_true(len > 0);
	assert_int_equal(send(peer->fd, buf, (size_t)len, 0), len);
}

static void send_done(struct peer *peer, uint32_t seq)
{
	char buf[64] = { 0 };
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = NLMSG_DONE;
	nlh->nlmsg_seq = seq;
	mnl_nlmsg_put_extra_header(nlh, sizeof(int));
	send(peer->fd, buf, nlh->nlmsg_len, 0);
}

static void *run_peer(void *arg)
{
	struct peer *peer = arg;
	struct qnl_event event;
	char buf[4096] __attribute__((aligned(8)));
	ssize_t n;

	while ((n = recv(peer->fd, buf, sizeof(buf), 0)) > 0) {
		struct nlmsghdr nlh = *(struct nlmsghdr *)buf;

		assert_int_equal(decode_one(buf, (size_t)n, &event), 1);
		if (peer->noise)
			send_reply(peer, nlh.nlmsg_seq + 1000, DM_QCOW_CMD_START, 77);
		if (event.msg.cmd == DM_QCOW_CMD_LIST) {
			for (uint32_t t = 0; t < 5; t++)
				send_reply(peer, nlh.nlmsg_seq, DM_QCOW_CMD_LIST, t);
			send_done(peer, nlh.nlmsg_seq);
		} else if (peer->busy > 0) {
			peer->busy--;
			send_error(peer->fd, &nlh, -EBUSY);
		} else {
			send_reply(peer, nlh.nlmsg_seq, event.msg.cmd, event.msg.target);
		}
	}
	return NULL;
}

static pthread_t start_peer(struct peer *peer)
{
	pthread_t thread;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	peer->link = (struct qnl_link){ .fd = sv[0], .family = FAMILY };
	peer->fd = sv[1];
	assert_int_equal(pthread_create(&thread, NULL, run_peer, peer), 0);
	return thread;
}

static void stop_peer(struct peer *peer, pthread_t thread)
{
	qnl_link_exit(&peer->link);
	pthread_join(thread, NULL);
	close(peer->fd);
}

static void test_attach_retries_while_busy(void **state)
{
	struct peer peer = { .busy = 3, .noise = true };
	pthread_t thread = start_peer(&peer);
	struct qnl_msg reply;
	uint32_t target = 12;
	char buf[4096];

	(void)state;
	assert_int_equal(qnl_attach(&peer.link, &target, buf, sizeof(buf), 5000, &reply), 0);
	assert_int_equal(reply.target, 12);
	assert_int_equal(reply.epoch, 9);
	peer.busy = 1;
	assert_int_equal(qnl_attach(&peer.link, &target, buf, sizeof(buf), 0, &reply), -EBUSY);
	stop_peer(&peer, thread);
}

static int count_target(const struct qnl_msg *msg, void *arg)
{
	uint32_t *sum = arg;

	*sum += msg->target + 1;
	return 0;
}

static void test_dump(void **state)
{
	struct qnl_msg req = { .cmd = DM_QCOW_CMD_LIST };
	struct peer peer = { .noise = true };
	pthread_t thread = start_peer(&peer);
	uint32_t sum = 0;
	char buf[4096];

	(void)state;
	assert_int_equal(qnl_dump(&peer.link, &req, buf, sizeof(buf), 5000, count_target, &sum), 0);
	assert_int_equal(sum, 15);
	stop_peer(&peer, thread);
}

static void test_silence_times_out(void **state)
{
	struct qnl_msg req = { .cmd = DM_QCOW_CMD_ATTACH }, reply;
	struct qnl_link link = { .family = FAMILY };
	char buf[4096];
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	link.fd = sv[0];
	assert_int_equal(qnl_request(&link, &req, buf, sizeof(buf), 30, &reply), -ETIMEDOUT);
	assert_true(recv(sv[1], buf, sizeof(buf), 0) > 0);
	close(sv[1]);
	assert_int_equal(qnl_recv(&link, buf, sizeof(buf)), -EPIPE);
	qnl_link_exit(&link);
}

static void test_long_datagram_is_not_taken_for_short(void **state)
{
	struct qnl_link link = { .family = FAMILY };
	char buf[64], big[256] = { 0 };
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	link.fd = sv[0];
	assert_int_equal(send(sv[1], big, sizeof(big), 0), sizeof(big));
	assert_int_equal(qnl_recv(&link, buf, sizeof(buf)), -EMSGSIZE);
	close(sv[1]);
	qnl_link_exit(&link);
}

static void test_without_module(void **state)
{
	struct qnl_link link;
	int r = qnl_link_init(&link);

	(void)state;
	if (!r) {
		qnl_link_exit(&link);
		skip();
	}
	assert_int_equal(r, -ENOENT);
	assert_int_equal(qnl_supervised(), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_largest),
		cmocka_unit_test(test_every_short_buffer_is_refused),
		cmocka_unit_test(test_truncated_and_flipped),
		cmocka_unit_test(test_wrong_sizes),
		cmocka_unit_test(test_foreign_family_is_other),
		cmocka_unit_test(test_attach_retries_while_busy),
		cmocka_unit_test(test_dump),
		cmocka_unit_test(test_silence_times_out),
		cmocka_unit_test(test_long_datagram_is_not_taken_for_short),
		cmocka_unit_test(test_without_module),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
