// SPDX-License-Identifier: GPL-2.0-only
#include "rig.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

char rig_dir[64];

/* ---- a small image --------------------------------------------------------------------- */

/* Clusters: 0 header, 1 refcount table, 2 refcount block, 3 L1, 4 L2, 5.. data. */
struct image_file {
	uint8_t bytes[10 * CLUSTER];
	size_t len;
};

static void put32(uint8_t *at, uint32_t value)
{
	value = htobe32(value);
	memcpy(at, &value, sizeof(value));
}

static void put64(uint8_t *at, uint64_t value)
{
	value = htobe64(value);
	memcpy(at, &value, sizeof(value));
}

static void fill_header(uint8_t *h, const char *backing)
{
	put32(h, 0x514649fb);
	put32(h + 4, 3);
	put64(h + 8, backing ? 512 : 0);
	put32(h + 16, backing ? (uint32_t)strlen(backing) : 0);
	put32(h + 20, 12); /* cluster_bits */
	put64(h + 24, IMAGE_SIZE);
	put32(h + 36, 3);	    /* l1_size */
	put64(h + 40, 3 * CLUSTER); /* l1_table_offset */
	put64(h + 48, CLUSTER);	    /* refcount_table_offset */
	put32(h + 56, 1);	    /* refcount_table_clusters */
	put32(h + 96, 4);	    /* refcount_order */
	put32(h + 100, 104);	    /* header_length */
	if (!backing)
		return;
	put32(h + 104, 0xe2792aca); /* backing format */
	put32(h + 108, 5);
	memcpy(h + 112, "qcow2", 5);
	memcpy(h + 512, backing, strlen(backing));
}

static size_t deflate_cluster(uint8_t *out, size_t room, const uint8_t *in)
{
	z_stream z = { 0 };

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (uint8_t *)in;
	z.avail_in = CLUSTER;
	z.next_out = out;
	z.avail_out = (unsigned int)room;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static void fill_data(struct image_file *f)
{
	uint8_t plain[CLUSTER], *l2 = f->bytes + 4 * CLUSTER;
	size_t csize;

	put64(f->bytes + CLUSTER, 2 * CLUSTER);
	put64(f->bytes + 3 * CLUSTER, 4 * CLUSTER | 1ULL << 63);
	for (int i = 0; i < COMPRESSED; i++) {
		put64(l2 + 8 * i, (uint64_t)(5 + i) * CLUSTER | 1ULL << 63);
		memset(f->bytes + (5 + i) * CLUSTER, 'a' + i, CLUSTER);
	}
	memset(plain, 'a' + COMPRESSED, CLUSTER);
	csize = deflate_cluster(f->bytes + 8 * CLUSTER, CLUSTER, plain);
	assert_true(csize < 512);
	put64(l2 + 8 * COMPRESSED, 8 * CLUSTER | 1ULL << 62);
	/* One entry is broken: an offset inside a cluster. */
	put64(l2 + 8 * 100, 5 * CLUSTER + 512);
	f->len = 9 * CLUSTER;
}

void rig_write_image(const char *name, const char *backing)
{
	static struct image_file f;
	char path[128];
	int fd;

	memset(&f, 0, sizeof(f));
	fill_header(f.bytes, backing);
	fill_data(&f);
	snprintf(path, sizeof(path), "%s/%s", rig_dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, f.bytes, f.len), f.len);
	close(fd);
}

/* ---- the other end ------------------------------------------------------------------------ */

static void *serve(void *arg)
{
	struct rig_served *s = arg;
	struct worker *w = &s->rig->worker;

	worker_serve(w, &w->image.lanes[s->lane]);
	return NULL;
}

static void *run_broker(void *arg)
{
	struct rig *rig = arg;

	broker_serve(rig->broker_end, &rig->table, "/nonexistent/qcow.conf");
	close(rig->broker_end);
	return NULL;
}

static void describe(struct qnl_msg *msg, const char *path, const char *word, uint32_t flags)
{
	memset(msg, 0, sizeof(*msg));
	qnl_set(msg, TARGET, target, RIG_TARGET);
	qnl_set(msg, PATH, path, path);
	qnl_set(msg, FLAGS, flags, flags);
	if (word)
		qnl_set(msg, OPTIONS, options,
			((struct qnl_array){ word, (uint32_t)strlen(word) + 1 }));
}

static struct rig *create(const char *name, const char *word, uint32_t flags)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct host_opener opener;
	struct qnl_msg attached;
	char path[128];
	int sv[2];

	snprintf(path, sizeof(path), "%s/%s", rig_dir, name);
	describe(&attached, path, word, flags);
	assert_int_equal(table_init(&rig->table, &attached), 0);

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	rig->client.fd = sv[0];
	rig->broker_end = sv[1];
	assert_int_equal(pthread_create(&rig->broker, NULL, run_broker, rig), 0);

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	rig->worker.link = (struct qnl_link){ .fd = sv[0], .family = RIG_FAMILY };
	rig->kernel = sv[1];
	rig->worker.target = RIG_TARGET;
	rig->worker.epoch = RIG_EPOCH;
	opener = broker_opener(&rig->client);
	assert_int_equal(image_init(&rig->worker.image, &attached, &opener, RIG_LANES), 0);
	return rig;
}

struct rig *rig_create(const char *name, const char *word)
{
	return create(name, word, DM_QCOW_FLAG_READ_ONLY);
}

struct rig *rig_create_rw(const char *name, const char *word)
{
	return create(name, word, 0);
}

void rig_serve(struct rig *rig)
{
	for (unsigned int i = 0; i < RIG_LANES; i++) {
		rig->served[i] = (struct rig_served){ rig, i };
		assert_int_equal(pthread_create(&rig->threads[i], NULL, serve, &rig->served[i]), 0);
	}
}

void rig_destroy(struct rig *rig)
{
	shutdown(rig->kernel, SHUT_RDWR);
	for (unsigned int i = 0; i < RIG_LANES; i++)
		pthread_join(rig->threads[i], NULL);
	close(rig->client.fd);
	pthread_join(rig->broker, NULL);
	close(rig->kernel);
	qnl_link_exit(&rig->worker.link);
	image_exit(&rig->worker.image);
	table_exit(&rig->table);
	free(rig);
}

void rig_send(struct rig *rig, const struct qnl_msg *msg)
{
	const struct qnl_envelope env = { .family = RIG_FAMILY };
	static char buf[QNL_SMALL_BUF_SIZE];
	int len = qnl_encode(msg, &env, buf, sizeof(buf));

	assert_true(len > 0);
	assert_int_equal(send(rig->kernel, buf, (size_t)len, 0), len);
}

void rig_upcall(struct rig *rig, struct qnl_msg *up)
{
	qnl_set(up, TARGET, target, RIG_TARGET);
	qnl_set(up, COOKIE, cookie, ++rig->cookie);
	rig_send(rig, up);
}

void rig_take_answer(struct rig *rig)
{
	struct qnl_event event;
	const void *pos = rig->buf;
	ssize_t n = recv(rig->kernel, rig->buf, sizeof(rig->buf), 0);
	size_t len = (size_t)n;

	assert_true(n > 0);
	assert_int_equal(qnl_decode(&pos, &len, RIG_FAMILY, &event), 1);
	assert_int_equal(event.kind, QNL_KIND_MSG);
	rig->reply = event.msg;
	assert_int_equal(rig->reply.target, RIG_TARGET);
	assert_int_equal(rig->reply.epoch, RIG_EPOCH);
}

const struct qnl_msg *rig_ask(struct rig *rig, struct qnl_msg *up)
{
	rig_upcall(rig, up);
	rig_take_answer(rig);
	assert_int_equal(rig->reply.cmd, up->cmd);
	assert_true(rig->reply.cookie == rig->cookie);
	return &rig->reply;
}

const struct qnl_msg *rig_call(struct rig *rig, uint8_t cmd)
{
	struct qnl_msg up = { .cmd = cmd };

	return rig_ask(rig, &up);
}

const struct qnl_msg *rig_load(struct rig *rig, uint64_t page)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_LOAD };

	qnl_set(&up, PAGE, page, page);
	qnl_set(&up, SEQ, seq, 77);
	return rig_ask(rig, &up);
}

const struct qnl_msg *rig_fetch(struct rig *rig, uint64_t offset, uint32_t length)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_FETCH };

	qnl_set(&up, OFFSET, offset, offset);
	qnl_set(&up, LENGTH, length, length);
	return rig_ask(rig, &up);
}

void assert_answer_ok(const struct qnl_msg *reply)
{
	if (qnl_has(reply, QNL_BIT(ERROR)))
		print_error("%s\n", reply->error_text);
	assert_false(qnl_has(reply, QNL_BIT(ERROR)));
}

void assert_answer_error(const struct qnl_msg *reply, int error, const char *text)
{
	if (!qnl_has(reply, QNL_BIT(ERROR)))
		print_error("no error, wanted %d: %s\n", error, text);
	assert_true(qnl_has(reply, QNL_BIT(ERROR) | QNL_BIT(ERROR_TEXT)));
	if (!strstr(reply->error_text, text))
		print_error("%s\n", reply->error_text);
	assert_int_equal(reply->error, error);
	assert_non_null(strstr(reply->error_text, text));
}

void rig_send_refusal(struct rig *rig, int error)
{
	char buf[64] = { 0 };
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nlmsgerr *err = mnl_nlmsg_put_extra_header(nlh, sizeof(*err));

	nlh->nlmsg_type = NLMSG_ERROR;
	err->error = error;
	assert_true(send(rig->kernel, buf, nlh->nlmsg_len, 0) > 0);
}

static void write_text(const char *name)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", rig_dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	for (int i = 0; i < 1000; i++)
		fputs("this is no image\n", f);
	fclose(f);
}

int rig_setup(void **state)
{
	(void)state;
	/* Not /tmp: tmpfs has no direct I/O on older kernels. */
	strcpy(rig_dir, "/var/tmp/qcow-worker-XXXXXX");
	assert_non_null(mkdtemp(rig_dir));
	rig_write_image("a.qcow2", NULL);
	rig_write_image("overlay.qcow2", "a.qcow2");
	rig_write_image("astray.qcow2", "/etc/passwd");
	rig_write_image("dangling.qcow2", "nowhere.qcow2");
	write_text("text");
	return 0;
}

int rig_teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", rig_dir);
	return system(command);
}
