/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A worker with a kernel made of a socketpair: the same messages, the same process,
 * so descriptors and addresses mean the same on both ends. The broker runs in a
 * thread as it does in the supervisor.
 */
#ifndef QCOW_TESTS_RIG_H
#define QCOW_TESTS_RIG_H

#include "daemon/broker.h"
#include "daemon/worker.h"

/* cmocka.h needs these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define RIG_FAMILY 42
#define RIG_TARGET 7
#define RIG_EPOCH  3
#define RIG_LANES  3

/*
 * The images in rig_dir: a.qcow2; overlay.qcow2 on it; astray.qcow2 on /etc/passwd;
 * dangling.qcow2 on nothing; text, which is none. Each has its own copy of
 * NR_MAPPED clusters, of the letters a, b, c, d; the last one is compressed. The
 * entry of block 100 is broken.
 */
#define CLUSTER	   4096
#define IMAGE_SIZE (2 * 512 * CLUSTER + 512) /* two full map pages and a bit */
#define NR_MAPPED  4
#define COMPRESSED 3 /* index of the compressed cluster */

extern char rig_dir[64];

/* Group set-up and tear-down, for cmocka. */
int rig_setup(void **state);
int rig_teardown(void **state);

/* @backing NULL: none. */
void rig_write_image(const char *name, const char *backing);

struct rig;

struct rig_served {
	struct rig *rig;
	unsigned int lane;
};

struct rig {
	struct worker worker;
	struct broker_client client;
	struct table table; /* the broker's copy: the supervisor's */
	pthread_t threads[RIG_LANES];
	struct rig_served served[RIG_LANES];
	pthread_t broker;
	int kernel;	/* our end of the worker's link */
	int broker_end; /* the supervisor's end of the broker's pair */
	uint64_t cookie;
	char buf[QNL_BUF_SIZE] __attribute__((aligned(8)));
	struct qnl_msg reply; /* points into buf */
};

/* A worker that has attached to the read-only table "<image> [<word>]"; not serving yet. */
struct rig *rig_create(const char *image, const char *word);
/* The table is for writing. */
struct rig *rig_create_rw(const char *image, const char *word);
void rig_serve(struct rig *rig);
/* It ends like a worker whose socket broke. */
void rig_destroy(struct rig *rig);

/* Sends a message as the kernel would, as it is. */
void rig_send(struct rig *rig, const struct qnl_msg *msg);
/* NLMSG_ERROR: the kernel refuses an answer. */
void rig_send_refusal(struct rig *rig, int error);

/* Sends an upcall, with TARGET and a new COOKIE; takes any answer; both. */
void rig_upcall(struct rig *rig, struct qnl_msg *up);
void rig_take_answer(struct rig *rig);
const struct qnl_msg *rig_ask(struct rig *rig, struct qnl_msg *up);
const struct qnl_msg *rig_call(struct rig *rig, uint8_t cmd);
const struct qnl_msg *rig_load(struct rig *rig, uint64_t page);
const struct qnl_msg *rig_fetch(struct rig *rig, uint64_t offset, uint32_t length);

void assert_answer_ok(const struct qnl_msg *reply);
void assert_answer_error(const struct qnl_msg *reply, int error, const char *text);

#endif
