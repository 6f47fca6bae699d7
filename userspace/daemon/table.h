/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel says of a target's table line: in START, LIST and ATTACH. */
#ifndef QCOW_DAEMON_TABLE_H
#define QCOW_DAEMON_TABLE_H

#include "host/options.h"
#include "netlink/message.h"

#include <stdbool.h>
#include <sys/types.h>

struct table {
	char *path;
	char *words; /* strings, each with its NUL */
	size_t words_len;
	uint32_t flags; /* DM_QCOW_FLAG_* */
	dev_t device;	/* the target's own */
	/*
	 * Another table of the same device has a worker. It is closed before this one
	 * is opened, so its locks are no reason not to load this one.
	 */
	bool replaces;
};

/* -EPROTO if @msg lacks PATH or its path or options are malformed. */
int table_init(struct table *table, const struct qnl_msg *msg);
int table_copy(struct table *to, const struct table *from);
void table_exit(struct table *table);

/* The options as host/ understands them. Errors as host_options_parse(). */
int table_options(const struct table *table, struct host_options *options, struct qcow_error *err);

#endif
