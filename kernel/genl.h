/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The wire: the generic netlink family, and the links to the helper's sockets.
 *
 * A link is the kernel's end of one helper socket: one for the supervisor, one in
 * every target for its worker. Its states:
 *
 *	DETACHED  --ATTACH received-->  ATTACHING   begin_attach()
 *	ATTACHING --answer sent------>  ATTACHED    end_attach()
 *	ATTACHING --out of memory...->  DETACHED    end_attach()
 *	ATTACHED  --socket closed---->  DETACHED    lose()
 *
 * Nothing is sent but in ATTACHED, so that the answer to ATTACH always comes first.
 */
#ifndef DM_QCOW_GENL_H
#define DM_QCOW_GENL_H

#include <linux/completion.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/dm-qcow.h>

struct file;
struct net;
struct sk_buff;
struct qcow_link;

/**
 * struct qcow_answer - a worker's answer, decoded
 * @cookie: the upcall's
 * @cmd: enum dm_qcow_cmd
 * @error: 0 or a negative errno
 * @text: one line for the user, or NULL
 * @present: bit n is set if attribute n came
 *
 * The arrays may be unaligned and, like everything here, are gone when the call
 * that got the answer returns.
 */
struct qcow_answer {
	u64 cookie;
	u8 cmd;
	int error;
	const char *text;
	u64 present;
	struct dm_qcow_shape shape;
	const void *devices;
	unsigned int nr_devices;
	const void *layers;
	unsigned int nr_layers;
	const void *runs;
	unsigned int nr_runs;
	u64 page;
	u64 seq;
	u64 offset;
	u32 length;
	u64 addr;
	const void *leases;
	unsigned int nr_leases;
	u32 tables;
	u64 lost;
	u64 room;
};

static inline bool qcow_answer_has(const struct qcow_answer *a, enum dm_qcow_attr attr)
{
	return a->present & BIT_ULL(attr);
}

/**
 * struct qcow_link_ops - what the owner of a link does
 * @describe: add PATH, OPTIONS, FLAGS, DEVICE, STATE, TIMEOUT to a message
 * @get_layers: fill @desc (but ->fd) and @files, with a reference each, for at most
 *	DM_QCOW_MAX_LAYERS layers; returns their number
 * @get_leases: fill @leases with at most DM_QCOW_MAX_LEASES; returns their number
 * @attached: upcalls may go out
 * @lost: the worker is dead
 * @answer: a worker's answer; what is returned goes back to it. May sleep
 *
 * All are called in process context with no lock held.
 */
struct qcow_link_ops {
	int (*describe)(struct qcow_link *link, struct sk_buff *msg);
	unsigned int (*get_layers)(struct qcow_link *link, struct dm_qcow_layer *desc,
				   struct file **files);
	unsigned int (*get_leases)(struct qcow_link *link, struct dm_qcow_lease *leases);
	void (*attached)(struct qcow_link *link);
	void (*lost)(struct qcow_link *link);
	int (*answer)(struct qcow_link *link, const struct qcow_answer *answer);
};

enum qcow_link_state {
	QCOW_LINK_DETACHED,
	QCOW_LINK_ATTACHING,
	QCOW_LINK_ATTACHED,
};

struct qcow_link {
	const struct qcow_link_ops *ops;
	u32 id;				/* TARGET; 0 is the supervisor */
	refcount_t users;		/* doits at work, and the owner */
	struct completion unused;
	spinlock_t lock;		/* protects what follows */
	enum qcow_link_state state;
	struct net *net;		/* counted while not DETACHED */
	u32 portid;
	u32 epoch;
};

int qcow_genl_init(void);
void qcow_genl_exit(void);

int qcow_link_register(struct qcow_link *link, const struct qcow_link_ops *ops);
void qcow_link_unregister(struct qcow_link *link);
bool qcow_link_attached(struct qcow_link *link);
u32 qcow_link_epoch(struct qcow_link *link);
int qcow_link_send(struct qcow_link *link, struct sk_buff *msg);

struct sk_buff *qcow_msg_create(struct qcow_link *link, u8 cmd, size_t room, void **header);
int qcow_supervisor_notify(struct qcow_link *link, u8 cmd);
bool qcow_supervisor_attached(void);

#endif
