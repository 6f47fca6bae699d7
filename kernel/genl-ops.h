/* SPDX-License-Identifier: GPL-2.0-only */
/* Between the links (genl.c) and the family's operations (genl-ops.c) only. */
#ifndef DM_QCOW_GENL_OPS_H
#define DM_QCOW_GENL_OPS_H

#include <linux/limits.h>
#include <linux/types.h>

struct genl_family;
struct net;
struct qcow_link;

/* A path, options and some integers: what ops->describe() may add. */
#define QCOW_DESCRIPTION_ROOM	(2 * PATH_MAX + 256)

extern struct genl_family qcow_genl_family;

struct qcow_link *qcow_link_get(u32 id);
struct qcow_link *qcow_link_next(unsigned long *id);
void qcow_link_put(struct qcow_link *link);
int qcow_link_begin_attach(struct qcow_link *link, struct net *net, u32 portid, u32 *epoch);
void qcow_link_end_attach(struct qcow_link *link, bool ok);
bool qcow_link_believes(struct qcow_link *link, struct net *net, u32 portid, u32 epoch);

#endif
