// SPDX-License-Identifier: GPL-2.0-only
/*
 * The family's operations: what the helper sends us. Contract and errors are in
 * include/uapi/linux/dm-qcow.h.
 *
 * A doit holds genl's global lock for reading: it claims its upcall, copies, queues
 * work and returns.
 */

#include <linux/capability.h>
#include <linux/file.h>
#include <linux/netlink.h>
#include <linux/slab.h>
#include <net/genetlink.h>
#include <net/sock.h>

#include "dm-qcow.h"
#include "genl.h"
#include "genl-ops.h"

static const struct nla_policy policy[DM_QCOW_ATTR_MAX + 1] = {
	[DM_QCOW_ATTR_VERSION]		= { .type = NLA_U32 },
	[DM_QCOW_ATTR_TARGET]		= { .type = NLA_U32 },
	[DM_QCOW_ATTR_EPOCH]		= { .type = NLA_U32 },
	[DM_QCOW_ATTR_COOKIE]		= { .type = NLA_U64 },
	[DM_QCOW_ATTR_ERROR]		= NLA_POLICY_RANGE(NLA_U32, 1, MAX_ERRNO),
	[DM_QCOW_ATTR_ERROR_TEXT]	= { .type = NLA_NUL_STRING },
	[DM_QCOW_ATTR_SHAPE]		= NLA_POLICY_EXACT_LEN(sizeof(struct dm_qcow_shape)),
	[DM_QCOW_ATTR_DEVICES]		= { .type = NLA_BINARY },
	[DM_QCOW_ATTR_LAYERS]		= { .type = NLA_BINARY },
	[DM_QCOW_ATTR_PAGE]		= { .type = NLA_U64 },
	[DM_QCOW_ATTR_SEQ]		= { .type = NLA_U64 },
	[DM_QCOW_ATTR_RUNS]		= { .type = NLA_BINARY },
	[DM_QCOW_ATTR_OFFSET]		= { .type = NLA_U64 },
	[DM_QCOW_ATTR_LENGTH]		= { .type = NLA_U32 },
	[DM_QCOW_ATTR_ADDR]		= { .type = NLA_U64 },
	[DM_QCOW_ATTR_TABLES]		= { .type = NLA_U32 },
	[DM_QCOW_ATTR_LEASES]		= { .type = NLA_BINARY },
	[DM_QCOW_ATTR_LOST]		= { .type = NLA_U64 },
	[DM_QCOW_ATTR_ROOM]		= { .type = NLA_U64 },
};

/*
 * The layers that an ATTACH hands back: descriptors reserved in the caller, files
 * referenced, nothing visible to the caller before install().
 */
struct handback {
	unsigned int nr;
	struct dm_qcow_layer desc[DM_QCOW_MAX_LAYERS];
	struct file *files[DM_QCOW_MAX_LAYERS];
	unsigned int nr_leases;
	struct dm_qcow_lease leases[DM_QCOW_MAX_LEASES];
};

static void handback_destroy(struct handback *h)
{
	unsigned int i;

	if (!h)
		return;
	for (i = 0; i < h->nr; i++) {
		if (h->desc[i].fd >= 0)
			put_unused_fd(h->desc[i].fd);
		fput(h->files[i]);
	}
	kvfree(h);
}

static void handback_install(struct handback *h)
{
	unsigned int i;

	for (i = 0; i < h->nr; i++)
		fd_install(h->desc[i].fd, h->files[i]);
	kvfree(h);
}

static int handback_create(struct qcow_link *link, struct handback **out)
{
	struct handback *h = kvzalloc(sizeof(*h), GFP_NOIO);
	unsigned int i;
	int fd = 0;

	if (!h)
		return -ENOMEM;
	h->nr = link->ops->get_layers(link, h->desc, h->files);
	for (i = 0; i < h->nr; i++) {
		if (fd >= 0)
			fd = get_unused_fd_flags(O_CLOEXEC);
		h->desc[i].fd = fd;
	}
	if (fd < 0) {
		handback_destroy(h);
		return fd;
	}
	h->nr_leases = link->ops->get_leases(link, h->leases);
	*out = h;
	return 0;
}

static int put_attach(struct sk_buff *msg, struct qcow_link *link, u32 epoch,
		      const struct handback *h)
{
	if (nla_put_u32(msg, DM_QCOW_ATTR_EPOCH, epoch))
		return -EMSGSIZE;
	if (!link->id)
		return 0;
	if (nla_put_u32(msg, DM_QCOW_ATTR_TARGET, link->id) || link->ops->describe(link, msg))
		return -EMSGSIZE;
	if (h->nr && nla_put(msg, DM_QCOW_ATTR_LAYERS, h->nr * sizeof(h->desc[0]), h->desc))
		return -EMSGSIZE;
	if (!h->nr_leases)
		return 0;
	return nla_put(msg, DM_QCOW_ATTR_LEASES, h->nr_leases * sizeof(h->leases[0]), h->leases);
}

static int reply_attach(struct qcow_link *link, struct genl_info *info, u32 epoch,
			const struct handback *h)
{
	size_t room = QCOW_DESCRIPTION_ROOM + sizeof(h->desc) + sizeof(h->leases);
	struct sk_buff *msg = genlmsg_new(room, GFP_NOIO);
	void *header;
	int r = -EMSGSIZE;

	if (!msg)
		return -ENOMEM;
	header = genlmsg_put_reply(msg, info, &qcow_genl_family, 0, DM_QCOW_CMD_ATTACH);
	if (header)
		r = put_attach(msg, link, epoch, h);
	if (r) {
		nlmsg_free(msg);
		return r;
	}
	genlmsg_end(msg, header);
	return genlmsg_reply(msg, info);
}

static int attach(struct qcow_link *link, struct genl_info *info)
{
	struct handback *h = NULL;
	u32 epoch;
	int r;

	r = qcow_link_begin_attach(link, genl_info_net(info), info->snd_portid, &epoch);
	if (r)
		return r;
	if (link->id)
		r = handback_create(link, &h);
	if (!r)
		r = reply_attach(link, info, epoch, h);
	if (r)
		handback_destroy(h);
	else if (h)
		handback_install(h);
	qcow_link_end_attach(link, !r);
	return r;
}

static int attach_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *version = info->attrs[DM_QCOW_ATTR_VERSION];
	struct nlattr *target = info->attrs[DM_QCOW_ATTR_TARGET];
	struct qcow_link *link;
	int r;

	if (!netlink_capable(skb, CAP_SYS_ADMIN))
		return -EPERM;
	if (!version || nla_get_u32(version) != DM_QCOW_VERSION)
		return -EPROTO;
	if (target && !nla_get_u32(target))
		return -ENOENT;
	link = qcow_link_get(target ? nla_get_u32(target) : 0);
	if (!link)
		return -ENOENT;
	r = attach(link, info);
	qcow_link_put(link);
	return r;
}

static int list_one(struct sk_buff *msg, struct netlink_callback *cb, struct qcow_link *link)
{
	void *header = genlmsg_put(msg, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				   &qcow_genl_family, NLM_F_MULTI, DM_QCOW_CMD_LIST);

	if (!header)
		return -EMSGSIZE;
	if (nla_put_u32(msg, DM_QCOW_ATTR_TARGET, link->id) ||
	    nla_put_u32(msg, DM_QCOW_ATTR_ATTACHED, qcow_link_attached(link)) ||
	    link->ops->describe(link, msg)) {
		genlmsg_cancel(msg, header);
		return -EMSGSIZE;
	}
	genlmsg_end(msg, header);
	return 0;
}

static int list_start(struct netlink_callback *cb)
{
	if (!netlink_capable(cb->skb, CAP_SYS_ADMIN))
		return -EPERM;
	/* Or a target with a long path would not fit, and end the dump. */
	cb->min_dump_alloc = QCOW_DESCRIPTION_ROOM + NLMSG_GOODSIZE;
	return 0;
}

static int list_dumpit(struct sk_buff *msg, struct netlink_callback *cb)
{
	unsigned long id = max(cb->args[0], 1L);
	struct qcow_link *link;
	int r = 0;

	while (!r && (link = qcow_link_next(&id))) {
		r = list_one(msg, cb, link);
		qcow_link_put(link);
		if (!r)
			id++;
	}
	cb->args[0] = id;
	/* A full message is sent, and the dump goes on at @id. */
	return msg->len ?: r;
}

/* Points into the message: @size-byte elements, whole ones only. */
static int get_array(struct genl_info *info, int attr, size_t size, const void **data,
		     unsigned int *nr)
{
	struct nlattr *nla = info->attrs[attr];

	if (!nla)
		return 0;
	if (nla_len(nla) % size)
		return -EPROTO;
	*data = nla_data(nla);
	*nr = nla_len(nla) / size;
	return 0;
}

static u64 get_u64(struct genl_info *info, int attr)
{
	return info->attrs[attr] ? nla_get_u64(info->attrs[attr]) : 0;
}

static u32 get_u32(struct genl_info *info, int attr)
{
	return info->attrs[attr] ? nla_get_u32(info->attrs[attr]) : 0;
}

/* What the kernel says to itself (time is up, ask again) no helper says to it. */
static int get_error(struct genl_info *info)
{
	int error = get_u32(info, DM_QCOW_ATTR_ERROR);

	switch (error) {
	case ETIMEDOUT:
	case ERESTART:
	case EINTR:
	case EAGAIN:
		return -EIO;
	default:
		return -error;
	}
}

static int decode(struct genl_info *info, struct qcow_answer *a)
{
	int i, r;

	for (i = 1; i <= DM_QCOW_ATTR_MAX; i++)
		if (info->attrs[i])
			a->present |= BIT_ULL(i);
	a->cmd = info->genlhdr->cmd;
	a->cookie = get_u64(info, DM_QCOW_ATTR_COOKIE);
	a->error = get_error(info);
	a->page = get_u64(info, DM_QCOW_ATTR_PAGE);
	a->seq = get_u64(info, DM_QCOW_ATTR_SEQ);
	a->offset = get_u64(info, DM_QCOW_ATTR_OFFSET);
	a->length = get_u32(info, DM_QCOW_ATTR_LENGTH);
	a->addr = get_u64(info, DM_QCOW_ATTR_ADDR);
	a->tables = get_u32(info, DM_QCOW_ATTR_TABLES);
	a->lost = get_u64(info, DM_QCOW_ATTR_LOST);
	a->room = get_u64(info, DM_QCOW_ATTR_ROOM);
	if (info->attrs[DM_QCOW_ATTR_ERROR_TEXT])
		a->text = nla_data(info->attrs[DM_QCOW_ATTR_ERROR_TEXT]);
	if (info->attrs[DM_QCOW_ATTR_SHAPE])
		nla_memcpy(&a->shape, info->attrs[DM_QCOW_ATTR_SHAPE], sizeof(a->shape));
	r = get_array(info, DM_QCOW_ATTR_DEVICES, sizeof(struct dm_qcow_device), &a->devices,
		      &a->nr_devices);
	r = r ?: get_array(info, DM_QCOW_ATTR_LAYERS, sizeof(struct dm_qcow_layer), &a->layers,
			   &a->nr_layers);
	r = r ?: get_array(info, DM_QCOW_ATTR_RUNS, sizeof(struct dm_qcow_run), &a->runs,
			   &a->nr_runs);
	return r ?: get_array(info, DM_QCOW_ATTR_LEASES, sizeof(struct dm_qcow_lease), &a->leases,
			      &a->nr_leases);
}

/*
 * A worker gives its own privilege away, but not its socket's. When it dies its port id is
 * free a moment before we hear of it, for anybody who waits for just that.
 */
static bool on_privileged_socket(const struct sk_buff *skb)
{
	return file_ns_capable(NETLINK_CB(skb).sk->sk_socket->file, &init_user_ns, CAP_SYS_ADMIN);
}

static int answer_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct qcow_answer a = { };
	struct qcow_link *link;
	int r;

	if (!on_privileged_socket(skb))
		return -EPERM;
	if (!info->attrs[DM_QCOW_ATTR_TARGET] || !info->attrs[DM_QCOW_ATTR_EPOCH] ||
	    !info->attrs[DM_QCOW_ATTR_COOKIE])
		return -EPROTO;
	r = decode(info, &a);
	if (r)
		return r;
	if (!get_u32(info, DM_QCOW_ATTR_TARGET))
		return -ENOENT;
	link = qcow_link_get(get_u32(info, DM_QCOW_ATTR_TARGET));
	if (!link)
		return -ENOENT;
	r = -ESTALE;
	if (qcow_link_believes(link, genl_info_net(info), info->snd_portid,
			       get_u32(info, DM_QCOW_ATTR_EPOCH)))
		r = link->ops->answer(link, &a);
	qcow_link_put(link);
	return r;
}

static const struct genl_ops ops[] = {
	{ .cmd = DM_QCOW_CMD_ATTACH, .doit = attach_doit },
	{ .cmd = DM_QCOW_CMD_LIST, .start = list_start, .dumpit = list_dumpit },
	{ .cmd = DM_QCOW_CMD_PROBE, .doit = answer_doit },
	{ .cmd = DM_QCOW_CMD_OPEN, .doit = answer_doit },
	{ .cmd = DM_QCOW_CMD_LOAD, .doit = answer_doit },
	{ .cmd = DM_QCOW_CMD_FETCH, .doit = answer_doit },
	{ .cmd = DM_QCOW_CMD_CLOSE, .doit = answer_doit },
	{ .cmd = DM_QCOW_CMD_PROPOSE, .doit = answer_doit },
	{ .cmd = DM_QCOW_CMD_GRANT, .doit = answer_doit },
	{ .cmd = DM_QCOW_CMD_COMMIT, .doit = answer_doit },
	{ .cmd = DM_QCOW_CMD_FREE, .doit = answer_doit },
};

struct genl_family qcow_genl_family = {
	.name = DM_QCOW_GENL_NAME,
	.version = DM_QCOW_VERSION,
	.maxattr = DM_QCOW_ATTR_MAX,
	.policy = policy,
	.ops = ops,
	.n_ops = ARRAY_SIZE(ops),
	.netnsok = true,
	.parallel_ops = true,
	.module = THIS_MODULE,
};
