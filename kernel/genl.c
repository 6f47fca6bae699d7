// SPDX-License-Identifier: GPL-2.0-only
/* The links to the helper's sockets, and sending; see genl.h. */

#include <linux/netlink.h>
#include <linux/notifier.h>
#include <linux/xarray.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>

#include "dm-qcow.h"
#include "genl.h"
#include "genl-ops.h"

/* Targets' links by id. Never reused: a late message must not reach a new target. */
static DEFINE_XARRAY_FLAGS(links, XA_FLAGS_ALLOC1);
static u32 next_id;

static struct qcow_link supervisor;

static void link_init(struct qcow_link *link, const struct qcow_link_ops *ops)
{
	memset(link, 0, sizeof(*link));
	link->ops = ops;
	refcount_set(&link->users, 1);
	init_completion(&link->unused);
	spin_lock_init(&link->lock);
}

/**
 * qcow_link_get() - find a link and keep it from going away
 * @id: TARGET, 0 for the supervisor's
 *
 * Context: process; does not sleep.
 * Return: the link, to be given to qcow_link_put(), or NULL.
 */
struct qcow_link *qcow_link_get(u32 id)
{
	struct qcow_link *link;

	if (!id)
		return refcount_inc_not_zero(&supervisor.users) ? &supervisor : NULL;
	rcu_read_lock();
	link = xa_load(&links, id);
	if (link && !refcount_inc_not_zero(&link->users))
		link = NULL;
	rcu_read_unlock();
	return link;
}

/**
 * qcow_link_next() - walk all targets' links
 * @id: where to begin; becomes the id that was found
 *
 * Context: process; does not sleep.
 * Return: the link, to be given to qcow_link_put(), or NULL at the end.
 */
struct qcow_link *qcow_link_next(unsigned long *id)
{
	struct qcow_link *link;

	rcu_read_lock();
	do {
		link = xa_find(&links, id, U32_MAX, XA_PRESENT);
		if (!link || refcount_inc_not_zero(&link->users))
			break;
		(*id)++;
	} while (true);
	rcu_read_unlock();
	return link;
}

/**
 * qcow_link_put() - undo qcow_link_get() or qcow_link_next()
 * @link: the link
 *
 * Context: any.
 */
void qcow_link_put(struct qcow_link *link)
{
	if (refcount_dec_and_test(&link->users))
		complete(&link->unused);
}

/**
 * qcow_link_register() - a target enters the world
 * @link: embedded in the target; detached, with a new id
 * @ops: the target's
 *
 * Context: process; may sleep.
 * Return: 0 or -ENOMEM.
 */
int qcow_link_register(struct qcow_link *link, const struct qcow_link_ops *ops)
{
	int r;

	link_init(link, ops);
	r = xa_alloc_cyclic(&links, &link->id, link, xa_limit_32b, &next_id, GFP_KERNEL);
	return r < 0 ? r : 0;
}

/* Takes the socket away from a link. Returns false if there was none. */
static bool detach(struct qcow_link *link)
{
	struct net *net = NULL;

	spin_lock(&link->lock);
	if (link->state != QCOW_LINK_DETACHED)
		net = link->net;
	link->state = QCOW_LINK_DETACHED;
	link->net = NULL;
	link->portid = 0;
	spin_unlock(&link->lock);
	if (net)
		put_net(net);
	return net;
}

/**
 * qcow_link_unregister() - a target leaves the world
 * @link: its link; no callback is running or will run when this returns
 *
 * Tells the worker and the supervisor.
 *
 * Context: process; waits for doits at work, which wait for nobody.
 */
void qcow_link_unregister(struct qcow_link *link)
{
	struct sk_buff *msg;
	void *header;

	xa_erase(&links, link->id);
	msg = qcow_msg_create(link, DM_QCOW_CMD_GONE, 0, &header);
	if (msg) {
		genlmsg_end(msg, header);
		qcow_link_send(link, msg);
	}
	qcow_supervisor_notify(link, DM_QCOW_CMD_GONE);
	qcow_link_put(link);
	wait_for_completion(&link->unused);
	detach(link);
	/* qcow_link_get() may still look at the reference count. */
	synchronize_rcu();
}

/**
 * qcow_link_attached() - is there a worker?
 * @link: the link
 *
 * Context: process; does not sleep. Old news as soon as it is returned.
 * Return: true if so.
 */
bool qcow_link_attached(struct qcow_link *link)
{
	bool attached;

	spin_lock(&link->lock);
	attached = link->state == QCOW_LINK_ATTACHED;
	spin_unlock(&link->lock);
	return attached;
}

/**
 * qcow_link_epoch() - how often a worker has attached
 * @link: the link
 *
 * Context: process; does not sleep.
 * Return: the count.
 */
u32 qcow_link_epoch(struct qcow_link *link)
{
	u32 epoch;

	spin_lock(&link->lock);
	epoch = link->epoch;
	spin_unlock(&link->lock);
	return epoch;
}

/**
 * qcow_link_send() - send a message to a link's socket, now or never
 * @link: the link
 * @msg: finished; consumed whatever happens
 *
 * Context: process; does not sleep.
 * Return: 0; -ENOTCONN nobody is attached; -EAGAIN the socket is full;
 * -ECONNREFUSED it is just closing.
 */
int qcow_link_send(struct qcow_link *link, struct sk_buff *msg)
{
	struct net *net = NULL;
	u32 portid = 0;
	int r;

	spin_lock(&link->lock);
	if (link->state == QCOW_LINK_ATTACHED) {
		net = get_net(link->net);
		portid = link->portid;
	}
	spin_unlock(&link->lock);
	if (!net) {
		nlmsg_free(msg);
		return -ENOTCONN;
	}
	r = genlmsg_unicast(net, msg, portid);
	put_net(net);
	return r;
}

/**
 * qcow_msg_create() - begin a message from the kernel
 * @link: the target it is about
 * @cmd: enum dm_qcow_cmd
 * @room: bytes of attributes to come, TARGET aside
 * @header: for genlmsg_end()
 *
 * Context: process; may sleep, without I/O.
 * Return: the message with TARGET in it, or NULL without memory.
 */
struct sk_buff *qcow_msg_create(struct qcow_link *link, u8 cmd, size_t room, void **header)
{
	size_t size = nla_total_size(sizeof(u32)) + room;
	struct sk_buff *msg = genlmsg_new(size, GFP_NOIO | __GFP_NOWARN);

	if (!msg)
		return NULL;
	*header = genlmsg_put(msg, 0, 0, &qcow_genl_family, 0, cmd);
	if (*header && !nla_put_u32(msg, DM_QCOW_ATTR_TARGET, link->id))
		return msg;
	nlmsg_free(msg);
	return NULL;
}

/**
 * qcow_supervisor_notify() - tell the supervisor something about a target
 * @link: the target's
 * @cmd: DM_QCOW_CMD_START, _HUNG or _GONE
 *
 * Context: process; may sleep, without I/O.
 * Return: 0; -ENOTCONN there is no supervisor; another errno: it was not told, and
 * will learn it from its next LIST.
 */
int qcow_supervisor_notify(struct qcow_link *link, u8 cmd)
{
	struct sk_buff *msg;
	void *header;
	int r;

	if (!qcow_link_attached(&supervisor))
		return -ENOTCONN;
	msg = qcow_msg_create(link, cmd, QCOW_DESCRIPTION_ROOM, &header);
	if (!msg)
		return -ENOMEM;
	r = cmd == DM_QCOW_CMD_START ? link->ops->describe(link, msg) : 0;
	if (r) {
		nlmsg_free(msg);
		return r;
	}
	genlmsg_end(msg, header);
	return qcow_link_send(&supervisor, msg);
}

/**
 * qcow_supervisor_attached() - is qcowd running?
 *
 * Context: process; does not sleep.
 * Return: true if so.
 */
bool qcow_supervisor_attached(void)
{
	return qcow_link_attached(&supervisor);
}

/**
 * qcow_link_begin_attach() - a socket wants to be the link's
 * @link: the link
 * @net: the socket's network namespace
 * @portid: the socket
 * @epoch: the new epoch
 *
 * Context: process; does not sleep.
 * Return: 0 and the caller owes qcow_link_end_attach(); -EBUSY.
 */
int qcow_link_begin_attach(struct qcow_link *link, struct net *net, u32 portid, u32 *epoch)
{
	int r = -EBUSY;

	spin_lock(&link->lock);
	if (link->state == QCOW_LINK_DETACHED) {
		link->state = QCOW_LINK_ATTACHING;
		link->net = get_net(net);
		link->portid = portid;
		*epoch = ++link->epoch;
		r = 0;
	}
	spin_unlock(&link->lock);
	return r;
}

/**
 * qcow_link_end_attach() - the answer to ATTACH was sent, or could not be
 * @link: the link
 * @ok: which of the two
 *
 * Context: process; may sleep.
 */
void qcow_link_end_attach(struct qcow_link *link, bool ok)
{
	if (!ok) {
		detach(link);
		return;
	}
	spin_lock(&link->lock);
	link->state = QCOW_LINK_ATTACHED;
	spin_unlock(&link->lock);
	if (link->ops)
		link->ops->attached(link);
}

/**
 * qcow_link_believes() - is this the link's worker speaking?
 * @link: the link
 * @net: the sender's network namespace
 * @portid: the sender's socket
 * @epoch: what the sender thinks the epoch is
 *
 * Context: process; does not sleep.
 * Return: true if so.
 */
bool qcow_link_believes(struct qcow_link *link, struct net *net, u32 portid, u32 epoch)
{
	bool ok;

	spin_lock(&link->lock);
	ok = link->state == QCOW_LINK_ATTACHED && link->net == net &&
	     link->portid == portid && link->epoch == epoch;
	spin_unlock(&link->lock);
	return ok;
}

static bool owns(struct qcow_link *link, const struct netlink_notify *n)
{
	bool mine;

	spin_lock(&link->lock);
	mine = link->state != QCOW_LINK_DETACHED && link->net == n->net &&
	       link->portid == n->portid;
	spin_unlock(&link->lock);
	return mine;
}

static void lose(struct qcow_link *link)
{
	if (detach(link) && link->ops)
		link->ops->lost(link);
}

/* A socket closed. Its sends are over: each held the file open. */
static int socket_closed(struct notifier_block *nb, unsigned long event, void *data)
{
	const struct netlink_notify *n = data;
	struct qcow_link *link;
	unsigned long id = 1;

	if (event != NETLINK_URELEASE || n->protocol != NETLINK_GENERIC)
		return NOTIFY_DONE;
	if (owns(&supervisor, n))
		lose(&supervisor);
	while ((link = qcow_link_next(&id))) {
		if (owns(link, n))
			lose(link);
		qcow_link_put(link);
		id++;
	}
	return NOTIFY_OK;
}

static struct notifier_block socket_notifier = {
	.notifier_call = socket_closed,
};

/**
 * qcow_genl_init() - register the family
 *
 * Context: module init.
 * Return: 0 or a negative errno.
 */
int qcow_genl_init(void)
{
	int r;

	link_init(&supervisor, NULL);
	r = netlink_register_notifier(&socket_notifier);
	if (r)
		return r;
	r = genl_register_family(&qcow_genl_family);
	if (r)
		netlink_unregister_notifier(&socket_notifier);
	return r;
}

/**
 * qcow_genl_exit() - undo qcow_genl_init()
 *
 * Context: module exit; there are no targets.
 */
void qcow_genl_exit(void)
{
	genl_unregister_family(&qcow_genl_family);
	netlink_unregister_notifier(&socket_notifier);
	detach(&supervisor);
	xa_destroy(&links);
}
