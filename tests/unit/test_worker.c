// SPDX-License-Identifier: GPL-2.0-only
/*
 * The worker's loop against a kernel made of a socketpair: the same messages, the
 * same process, so descriptors and addresses mean the same on both ends. The
 * broker runs in a thread as it does in the supervisor.
 */
#include "daemon/broker.h"
#include "daemon/worker.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <cmocka.h>

#define FAMILY	   42
#define TARGET_ID  7
#define EPOCH_NR   3
#define NR_LANES   3
#define CLUSTER	   4096
#define IMAGE_SIZE (2 * 512 * CLUSTER + 512) /* two full map pages and a bit */
#define NR_MAPPED  4
#define COMPRESSED 3 /* index of the compressed cluster */

static char dir[64];

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

static void write_image(const char *name, const char *backing)
{
	static struct image_file f;
	char path[128];
	int fd;

	memset(&f, 0, sizeof(f));
	fill_header(f.bytes, backing);
	fill_data(&f);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, f.bytes, f.len), f.len);
	close(fd);
}

/* ---- the other end ------------------------------------------------------------------------ */

struct rig {
	struct worker worker;
	struct broker_client client;
	struct table table; /* the broker's copy: the supervisor's */
	pthread_t threads[NR_LANES];
	pthread_t broker;
	int results[NR_LANES];
	int kernel;	/* our end of the worker's link */
	int broker_end; /* the supervisor's end of the broker's pair */
	uint64_t cookie;
	char buf[QNL_BUF_SIZE] __attribute__((aligned(8)));
	struct qnl_msg reply; /* points into buf */
};

struct served {
	struct rig *rig;
	unsigned int lane;
};

static struct served served[NR_LANES];

static void *serve(void *arg)
{
	struct served *s = arg;
	struct worker *w = &s->rig->worker;

	s->rig->results[s->lane] = worker_serve(w, &w->image.lanes[s->lane]);
	return NULL;
}

static void *run_broker(void *arg)
{
	struct rig *rig = arg;

	broker_serve(rig->broker_end, &rig->table, "/nonexistent/qcow.conf");
	close(rig->broker_end);
	return NULL;
}

static void describe(struct qnl_msg *msg, const char *path, const char *word)
{
	memset(msg, 0, sizeof(*msg));
	qnl_set(msg, TARGET, target, TARGET_ID);
	qnl_set(msg, PATH, path, path);
	qnl_set(msg, FLAGS, flags, DM_QCOW_FLAG_READ_ONLY);
	if (word)
		qnl_set(msg, OPTIONS, options,
			((struct qnl_array){ word, (uint32_t)strlen(word) + 1 }));
}

static struct rig *rig_create(const char *name, const char *word)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct host_opener opener;
	struct qnl_msg attached;
	char path[128];
	int sv[2];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	describe(&attached, path, word);
	assert_int_equal(table_init(&rig->table, &attached), 0);

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	rig->client.fd = sv[0];
	rig->broker_end = sv[1];
	assert_int_equal(pthread_create(&rig->broker, NULL, run_broker, rig), 0);

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	rig->worker.link = (struct qnl_link){ .fd = sv[0], .family = FAMILY };
	rig->kernel = sv[1];
	rig->worker.target = TARGET_ID;
	rig->worker.epoch = EPOCH_NR;
	opener = broker_opener(&rig->client);
	assert_int_equal(image_init(&rig->worker.image, &attached, &opener, NR_LANES), 0);
	return rig;
}

static void rig_serve(struct rig *rig)
{
	for (unsigned int i = 0; i < NR_LANES; i++) {
		served[i] = (struct served){ rig, i };
		assert_int_equal(pthread_create(&rig->threads[i], NULL, serve, &served[i]), 0);
	}
}

/* Ends like a worker whose socket broke. */
static void rig_destroy(struct rig *rig)
{
	shutdown(rig->kernel, SHUT_RDWR);
	for (unsigned int i = 0; i < NR_LANES; i++)
		pthread_join(rig->threads[i], NULL);
	close(rig->client.fd);
	pthread_join(rig->broker, NULL);
	close(rig->kernel);
	qnl_link_exit(&rig->worker.link);
	image_exit(&rig->worker.image);
	table_exit(&rig->table);
	free(rig);
}

static void upcall(struct rig *rig, struct qnl_msg *up)
{
	const struct qnl_envelope env = { .family = FAMILY };
	char buf[512];
	int len;

	qnl_set(up, TARGET, target, TARGET_ID);
	qnl_set(up, COOKIE, cookie, ++rig->cookie);
	len = qnl_encode(up, &env, buf, sizeof(buf));
	assert_true(len > 0);
	assert_int_equal(send(rig->kernel, buf, (size_t)len, 0), len);
}

static void take_answer(struct rig *rig)
{
	struct qnl_event event;
	const void *pos = rig->buf;
	ssize_t n = recv(rig->kernel, rig->buf, sizeof(rig->buf), 0);
	size_t len = (size_t)n;

	assert_true(n > 0);
	assert_int_equal(qnl_decode(&pos, &len, FAMILY, &event), 1);
	assert_int_equal(event.kind, QNL_KIND_MSG);
	rig->reply = event.msg;
	assert_int_equal(rig->reply.target, TARGET_ID);
	assert_int_equal(rig->reply.epoch, EPOCH_NR);
}

static const struct qnl_msg *call_msg(struct rig *rig, struct qnl_msg *up)
{
	upcall(rig, up);
	take_answer(rig);
	assert_int_equal(rig->reply.cmd, up->cmd);
	assert_true(rig->reply.cookie == rig->cookie);
	return &rig->reply;
}

static const struct qnl_msg *call(struct rig *rig, uint8_t cmd)
{
	struct qnl_msg up = { .cmd = cmd };

	return call_msg(rig, &up);
}

static const struct qnl_msg *load(struct rig *rig, uint64_t page)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_LOAD };

	qnl_set(&up, PAGE, page, page);
	qnl_set(&up, SEQ, seq, 77);
	return call_msg(rig, &up);
}

static const struct qnl_msg *fetch(struct rig *rig, uint64_t offset, uint32_t length)
{
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_FETCH };

	qnl_set(&up, OFFSET, offset, offset);
	qnl_set(&up, LENGTH, length, length);
	return call_msg(rig, &up);
}

static void assert_ok(const struct qnl_msg *reply)
{
	if (qnl_has(reply, QNL_BIT(ERROR)))
		print_error("%s\n", reply->error_text);
	assert_false(qnl_has(reply, QNL_BIT(ERROR)));
}

static void assert_error(const struct qnl_msg *reply, int error, const char *text)
{
	if (!qnl_has(reply, QNL_BIT(ERROR)))
		print_error("no error, wanted %d: %s\n", error, text);
	assert_true(qnl_has(reply, QNL_BIT(ERROR) | QNL_BIT(ERROR_TEXT)));
	if (!strstr(reply->error_text, text))
		print_error("%s\n", reply->error_text);
	assert_int_equal(reply->error, error);
	assert_non_null(strstr(reply->error_text, text));
}

static struct dm_qcow_run run_at(const struct qnl_msg *reply, uint32_t i)
{
	struct dm_qcow_run run;

	assert_true(i < reply->runs.nr);
	qnl_array_get(&reply->runs, i, &run, sizeof(run));
	return run;
}

static struct dm_qcow_layer layer_at(const struct qnl_msg *reply, uint32_t i)
{
	struct dm_qcow_layer layer;

	assert_true(i < reply->layers.nr);
	qnl_array_get(&reply->layers, i, &layer, sizeof(layer));
	return layer;
}

/* ---- tests --------------------------------------------------------------------------------- */

static void test_probe(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	const struct qnl_msg *reply;

	(void)state;
	rig_serve(rig);
	reply = call(rig, DM_QCOW_CMD_PROBE);
	assert_ok(reply);
	assert_true(qnl_has(reply, QNL_BIT(SHAPE)));
	assert_false(qnl_has(reply, QNL_BIT(DEVICES)));
	assert_int_equal(reply->shape.virtual_size, IMAGE_SIZE);
	assert_int_equal(reply->shape.cluster_size, CLUSTER);
	assert_int_equal(reply->shape.block_size, CLUSTER);
	assert_int_equal(reply->shape.nr_layers, 1);
	assert_true(reply->shape.logical_block_size >= 512);
	assert_true(reply->shape.identity[1] != 0);
	/* A probe leaves it closed. */
	assert_error(load(rig, 0), EIO, "is not open");
	rig_destroy(rig);
}

static void check_first_page(struct rig *rig)
{
	const struct qnl_msg *reply = load(rig, 0);
	uint32_t nr = 0;

	assert_ok(reply);
	assert_int_equal(reply->page, 0);
	assert_int_equal(reply->seq, 77);
	assert_int_equal(run_at(reply, 0).type, DM_QCOW_RUN_DATA);
	assert_int_equal(run_at(reply, 0).nr_blocks, COMPRESSED);
	assert_int_equal(run_at(reply, 0).host_off, 5 * CLUSTER);
	assert_int_equal(run_at(reply, 0).flags, 0);
	assert_int_equal(run_at(reply, 1).type, DM_QCOW_RUN_FETCH);
	assert_int_equal(run_at(reply, 1).nr_blocks, 1);
	assert_int_equal(run_at(reply, 2).type, DM_QCOW_RUN_ZERO);
	for (uint32_t i = 0; i < reply->runs.nr; i++)
		nr += run_at(reply, i).nr_blocks;
	assert_int_equal(nr, DM_QCOW_PAGE_BLOCKS);
}

static void check_fetches(struct rig *rig)
{
	const struct qnl_msg *reply;

	for (int i = 0; i < NR_MAPPED; i++) {
		const uint8_t *bytes;

		reply = fetch(rig, (uint64_t)i * CLUSTER, CLUSTER);
		assert_ok(reply);
		assert_true(reply->offset == (uint64_t)i * CLUSTER);
		assert_int_equal(reply->length, CLUSTER);
		bytes = (const uint8_t *)(uintptr_t)reply->addr;
		for (int j = 0; j < CLUSTER; j++)
			assert_int_equal(bytes[j], 'a' + i);
	}
}

static void test_open_load_fetch_close(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	const struct qnl_msg *reply;
	struct stat st;
	int fd;

	(void)state;
	rig_serve(rig);
	reply = call(rig, DM_QCOW_CMD_OPEN);
	assert_ok(reply);
	assert_true(qnl_has(reply, QNL_BIT(SHAPE) | QNL_BIT(LAYERS)));
	assert_int_equal(reply->layers.nr, 1);
	assert_int_equal(layer_at(reply, 0).flags, 0);
	fd = layer_at(reply, 0).fd;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(reply->shape.identity[1], st.st_ino);

	check_first_page(rig);
	check_fetches(rig);
	/* The end of the disk is inside its last block, the page's is far beyond. */
	reply = load(rig, 2);
	assert_ok(reply);
	assert_int_equal(run_at(reply, reply->runs.nr - 1).type, DM_QCOW_RUN_ZERO);
	assert_ok(fetch(rig, 2 * 512 * CLUSTER, 512));
	assert_ok(load(rig, 1000));
	assert_int_equal(run_at(&rig->reply, 0).nr_blocks, DM_QCOW_PAGE_BLOCKS);

	assert_ok(call(rig, DM_QCOW_CMD_CLOSE));
	assert_int_equal(fstat(fd, &st), -1);
	assert_error(load(rig, 0), EIO, "is not open");
	assert_error(fetch(rig, 0, CLUSTER), EIO, "is not open");
	assert_ok(call(rig, DM_QCOW_CMD_CLOSE));
	assert_ok(call(rig, DM_QCOW_CMD_OPEN));
	check_fetches(rig);
	assert_ok(call(rig, DM_QCOW_CMD_OPEN)); /* asked again after a timeout, say */
	check_fetches(rig);
	rig_destroy(rig);
}

static void test_one_broken_entry_spoils_one_block(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	const struct qnl_msg *reply;
	uint32_t block = 0, i;

	(void)state;
	rig_serve(rig);
	assert_ok(call(rig, DM_QCOW_CMD_OPEN));
	reply = load(rig, 0);
	assert_ok(reply);
	for (i = 0; block + run_at(reply, i).nr_blocks <= 100; i++)
		block += run_at(reply, i).nr_blocks;
	assert_int_equal(block, 100);
	assert_int_equal(run_at(reply, i).type, DM_QCOW_RUN_FETCH);
	assert_int_equal(run_at(reply, i).nr_blocks, 1);
	assert_error(fetch(rig, 100 * CLUSTER, CLUSTER), EIO, "");
	assert_ok(fetch(rig, 99 * CLUSTER, CLUSTER));
	rig_destroy(rig);
}

static void test_malformed_upcalls(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	struct qnl_msg up = { .cmd = DM_QCOW_CMD_FETCH };

	(void)state;
	rig_serve(rig);
	assert_ok(call(rig, DM_QCOW_CMD_OPEN));
	assert_error(call(rig, DM_QCOW_CMD_LOAD), EPROTO, "malformed");
	assert_error(call(rig, DM_QCOW_CMD_FETCH), EPROTO, "malformed");
	assert_error(load(rig, UINT64_MAX), EPROTO, "malformed");
	assert_error(fetch(rig, 0, 2 * CLUSTER), EPROTO, "malformed");
	assert_error(fetch(rig, 0, 0), EPROTO, "malformed");
	assert_error(fetch(rig, UINT64_MAX - 511, 512), EPROTO, "malformed");
	assert_error(call(rig, 99), EOPNOTSUPP, "older than the module");
	/* For another target: no answer; the next call would get it. */
	qnl_set(&up, COOKIE, cookie, 5);
	qnl_set(&up, TARGET, target, TARGET_ID + 1);
	{
		const struct qnl_envelope env = { .family = FAMILY };
		char buf[256];
		int len = qnl_encode(&up, &env, buf, sizeof(buf));

		assert_int_equal(send(rig->kernel, buf, (size_t)len, 0), len);
	}
	assert_int_equal(send(rig->kernel, "rubbish", 7, 0), 7);
	check_fetches(rig);
	rig_destroy(rig);
}

static void test_refusals(void **state)
{
	static const struct {
		const char *image, *word;
		int error;
		const char *text;
	} cases[] = {
		{ "missing.qcow2", NULL, ENOENT, "missing.qcow2" },
		{ "text", NULL, EINVAL, "" },
		{ "a.qcow2", "no_such_option", EINVAL, "no_such_option" },
		{ "overlay.qcow2", "no_backing", EACCES, "" },
		{ "astray.qcow2", NULL, EACCES, "backing-dir" },
		{ "dangling.qcow2", NULL, ENOENT, "nowhere.qcow2" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rig *rig = rig_create(cases[i].image, cases[i].word);

		rig_serve(rig);
		assert_error(call(rig, DM_QCOW_CMD_PROBE), cases[i].error, cases[i].text);
		assert_error(call(rig, DM_QCOW_CMD_OPEN), cases[i].error, cases[i].text);
		assert_error(load(rig, 0), EIO, "is not open");
		rig_destroy(rig);
	}
}

static void test_chain(void **state)
{
	struct rig *rig = rig_create("overlay.qcow2", NULL);
	const struct qnl_msg *reply;

	(void)state;
	rig_serve(rig);
	assert_int_equal(call(rig, DM_QCOW_CMD_PROBE)->shape.nr_layers, 2);
	reply = call(rig, DM_QCOW_CMD_OPEN);
	assert_ok(reply);
	assert_int_equal(reply->layers.nr, 2);
	assert_true(layer_at(reply, 0).fd != layer_at(reply, 1).fd);
	check_fetches(rig);
	rig_destroy(rig);
}

/* As QEMU's writer does: read locks on its bytes, by another open file description. */
static int lock_as_writer(const char *name)
{
	static const int bytes[] = { 100, 101, 103, 201, 203 };
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		struct flock lock = { .l_type = F_RDLCK, .l_start = bytes[i], .l_len = 1 };

		assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	}
	return fd;
}

static bool writer_would_conflict(const char *name)
{
	struct flock lock = { .l_type = F_WRLCK, .l_start = 201, .l_len = 1 };
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
	close(fd);
	return lock.l_type != F_UNLCK;
}

static void test_locks(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	int writer = lock_as_writer("a.qcow2");

	(void)state;
	rig_serve(rig);
	assert_error(call(rig, DM_QCOW_CMD_PROBE), EBUSY, "a.qcow2");
	assert_error(call(rig, DM_QCOW_CMD_OPEN), EBUSY, "a.qcow2");
	close(writer);
	assert_ok(call(rig, DM_QCOW_CMD_PROBE));
	assert_false(writer_would_conflict("a.qcow2")); /* a probe holds nothing */
	assert_ok(call(rig, DM_QCOW_CMD_OPEN));
	assert_true(writer_would_conflict("a.qcow2"));
	assert_ok(call(rig, DM_QCOW_CMD_CLOSE));
	assert_false(writer_would_conflict("a.qcow2"));
	rig_destroy(rig);
}

/* Takes what the kernel takes of an OPEN answer: its own references. */
static uint32_t keep_layers(const struct qnl_msg *reply, struct dm_qcow_layer *layers)
{
	for (uint32_t i = 0; i < reply->layers.nr; i++) {
		layers[i] = layer_at(reply, i);
		layers[i].fd = fcntl(layers[i].fd, F_DUPFD_CLOEXEC, 0);
		assert_true(layers[i].fd >= 0);
	}
	return reply->layers.nr;
}

static void test_reattach_opens_nothing(void **state)
{
	struct dm_qcow_layer layers[2];
	struct qcow_error err = { 0 };
	struct rig *rig;
	char path[128];
	uint32_t nr;

	(void)state;
	write_image("doomed.qcow2", "a.qcow2");
	rig = rig_create("doomed.qcow2", NULL);
	rig_serve(rig);
	nr = keep_layers(call(rig, DM_QCOW_CMD_OPEN), layers);
	assert_int_equal(nr, 2);
	rig_destroy(rig);
	assert_true(writer_would_conflict("doomed.qcow2")); /* the kernel keeps the lock */
	snprintf(path, sizeof(path), "%s/doomed.qcow2", dir);
	unlink(path);

	rig = rig_create("doomed.qcow2", NULL);
	assert_int_equal(image_adopt(&rig->worker.image, &(struct qnl_array){ layers, nr }, &err),
			 0);
	rig_serve(rig);
	check_first_page(rig);
	check_fetches(rig);
	assert_ok(call(rig, DM_QCOW_CMD_CLOSE));
	assert_int_equal(fcntl(layers[0].fd, F_GETFD), -1); /* the descriptors were ours */
	rig_destroy(rig);
}

static void test_failed_adoption_answers(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	struct dm_qcow_layer layer = { .fd = open("/dev/null", O_RDONLY), .tag = ~0ULL };
	struct qcow_error err = { 0 };

	(void)state;
	assert_true(image_adopt(&rig->worker.image, &(struct qnl_array){ &layer, 1 }, &err) < 0);
	assert_int_equal(fcntl(layer.fd, F_GETFD), -1);
	rig_serve(rig);
	assert_error(load(rig, 0), EIO, "suspend and resume");
	assert_error(fetch(rig, 0, CLUSTER), EIO, "suspend and resume");
	assert_ok(call(rig, DM_QCOW_CMD_CLOSE));
	assert_ok(call(rig, DM_QCOW_CMD_OPEN));
	check_fetches(rig);
	rig_destroy(rig);
}

static void send_refusal(struct rig *rig, int error)
{
	char buf[64] = { 0 };
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nlmsgerr *err = mnl_nlmsg_put_extra_header(nlh, sizeof(*err));

	nlh->nlmsg_type = NLMSG_ERROR;
	err->error = error;
	assert_true(send(rig->kernel, buf, nlh->nlmsg_len, 0) > 0);
}

static void test_when_the_worker_leaves(void **state)
{
	const struct qnl_envelope env = { .family = FAMILY };
	struct qnl_msg gone = { .cmd = DM_QCOW_CMD_GONE };
	struct rig *rig = rig_create("a.qcow2", NULL);
	char buf[256];
	int len;

	(void)state;
	rig_serve(rig);
	send_refusal(rig, -ENOENT);
	send_refusal(rig, -EINVAL);
	assert_ok(call(rig, DM_QCOW_CMD_PROBE));
	qnl_set(&gone, TARGET, target, TARGET_ID);
	len = qnl_encode(&gone, &env, buf, sizeof(buf));
	assert_int_equal(send(rig->kernel, buf, (size_t)len, 0), len);
	send_refusal(rig, -ESTALE);
	rig_destroy(rig);
}

/* What a subverted worker might ask. */
static void test_broker_refuses(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	struct host_opener opener = broker_opener(&rig->client);
	char image[128], other[128];
	const struct {
		struct host_request req;
		int r;
	} cases[] = {
		/* before the image, nothing */
		{ { .role = HOST_ROLE_BACKING, .path = other }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = other }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = "/etc/passwd" }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = "a.qcow2" }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = "" }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = image, .write = true }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = image, .lock = HOST_LOCK_WRITER }, -EPERM },
		{ { .role = 0, .path = image }, -EPERM },
		{ { .role = 200, .path = image }, -EPERM },
		{ { .role = HOST_ROLE_IMAGE, .path = image }, 0 },
		/* after it, what the policy says */
		{ { .role = HOST_ROLE_BACKING, .path = other }, 0 },
		{ { .role = HOST_ROLE_BACKING, .path = "/etc/passwd" }, -EACCES },
		{ { .role = HOST_ROLE_DATA_FILE, .path = "/etc/passwd" }, -EACCES },
		{ { .role = HOST_ROLE_PINNED, .path = "/etc/passwd" }, -EACCES },
		{ { .role = HOST_ROLE_BACKING, .path = other, .write = true }, -EPERM },
		{ { .role = HOST_ROLE_DATA_FILE, .path = other, .write = true }, -EPERM },
	};

	(void)state;
	rig_serve(rig);
	snprintf(image, sizeof(image), "%s/a.qcow2", dir);
	snprintf(other, sizeof(other), "%s/overlay.qcow2", dir);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qcow_error err = { 0 };
		int fd = -1;
		int r = opener.open(opener.arg, &cases[i].req, &fd, &err);

		if (r != cases[i].r)
			print_error("case %zu: %s\n", i, err.text);
		assert_int_equal(r, cases[i].r);
		if (!r)
			close(fd);
		else
			assert_true(err.text[0]);
	}
	rig_destroy(rig);
}

static void test_broker_bounds_one_walk(void **state)
{
	struct rig *rig = rig_create("a.qcow2", NULL);
	struct host_opener opener = broker_opener(&rig->client);
	char image[128], other[128];
	struct host_request req = { .role = HOST_ROLE_IMAGE, .path = image };
	int fd, nr = 0, r;

	(void)state;
	rig_serve(rig);
	snprintf(image, sizeof(image), "%s/a.qcow2", dir);
	snprintf(other, sizeof(other), "%s/overlay.qcow2", dir);
	while (!(r = opener.open(opener.arg, &req, &fd, NULL))) {
		close(fd);
		nr++;
		req = (struct host_request){ .role = HOST_ROLE_BACKING, .path = other };
	}
	assert_int_equal(r, -EPERM);
	assert_int_equal(nr, QCOW_MAX_LAYERS);
	assert_int_equal(send(rig->client.fd, "short", 5, 0), 5); /* ends the service */
	req.path = image;
	assert_int_equal(opener.open(opener.arg, &req, &fd, NULL), -EIO);
	rig_destroy(rig);
}

/* Threads at work at once, FETCH and LOAD mixed, each answer its own. */
static void test_many_at_once(void **state)
{
	struct rig *rig = rig_create("overlay.qcow2", NULL);
	bool seen[64] = { false };
	uint64_t first;

	(void)state;
	rig_serve(rig);
	assert_ok(call(rig, DM_QCOW_CMD_OPEN));
	first = rig->cookie + 1;
	for (int i = 0; i < 64; i++) {
		struct qnl_msg up = { .cmd = i % 2 ? DM_QCOW_CMD_LOAD : DM_QCOW_CMD_FETCH };

		qnl_set(&up, PAGE, page, (uint64_t)(i % 3));
		qnl_set(&up, SEQ, seq, (uint64_t)i);
		qnl_set(&up, OFFSET, offset, (uint64_t)(i % NR_MAPPED) * CLUSTER);
		qnl_set(&up, LENGTH, length, CLUSTER);
		upcall(rig, &up);
	}
	for (int i = 0; i < 64; i++) {
		take_answer(rig);
		assert_ok(&rig->reply);
		assert_true(rig->reply.cookie >= first && rig->reply.cookie < first + 64);
		assert_false(seen[rig->reply.cookie - first]);
		seen[rig->reply.cookie - first] = true;
	}
	rig_destroy(rig);
}

static void write_text(const char *name)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	for (int i = 0; i < 1000; i++)
		fputs("this is no image\n", f);
	fclose(f);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/qcow-worker-XXXXXX");
	assert_non_null(mkdtemp(dir));
	write_image("a.qcow2", NULL);
	write_image("overlay.qcow2", "a.qcow2");
	write_image("astray.qcow2", "/etc/passwd");
	write_image("dangling.qcow2", "nowhere.qcow2");
	write_text("text");
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_open_load_fetch_close),
		cmocka_unit_test(test_one_broken_entry_spoils_one_block),
		cmocka_unit_test(test_malformed_upcalls),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_reattach_opens_nothing),
		cmocka_unit_test(test_failed_adoption_answers),
		cmocka_unit_test(test_when_the_worker_leaves),
		cmocka_unit_test(test_broker_refuses),
		cmocka_unit_test(test_broker_bounds_one_walk),
		cmocka_unit_test(test_many_at_once),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
