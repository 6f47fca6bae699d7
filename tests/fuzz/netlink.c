// SPDX-License-Identifier: GPL-2.0-only
/* What a socket may bring: decoded, looked at, encoded again, and the same. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/table.h"
#include "netlink/message.h"

static void touch(const struct qnl_array *a, size_t size)
{
	char element[64];
	uint32_t i;

	for (i = 0; i < a->nr; i++)
		qnl_array_get(a, i, element, size);
}

static void look(const struct qnl_msg *msg)
{
	struct host_options options;
	struct table table;

	touch(&msg->devices, sizeof(struct dm_qcow_device));
	touch(&msg->layers, sizeof(struct dm_qcow_layer));
	touch(&msg->runs, sizeof(struct dm_qcow_run));
	touch(&msg->leases, sizeof(struct dm_qcow_lease));
	touch(&msg->deltas, sizeof(struct dm_qcow_delta));
	touch(&msg->options, 1);
	if (table_init(&table, msg))
		return;
	if (!table_options(&table, &options, NULL))
		host_options_exit(&options);
	table_exit(&table);
}

static void again(const struct qnl_msg *msg)
{
	static _Alignas(8) char buf[QNL_BUF_SIZE];
	const struct qnl_envelope env = { .family = 30 };
	struct qnl_event back;
	const void *p = buf;
	size_t len;
	int r = qnl_encode(msg, &env, buf, sizeof(buf));

	if (r < 0)
		return;
	len = (size_t)r;
	FUZZ_ASSERT(qnl_decode(&p, &len, 30, &back) == 1 && back.kind == QNL_KIND_MSG);
	FUZZ_ASSERT(back.msg.has == msg->has && back.msg.cmd == msg->cmd && !len);
	FUZZ_ASSERT(back.msg.cookie == msg->cookie && back.msg.runs.nr == msg->runs.nr);
}

int fuzz_netlink(const uint8_t *data, size_t size)
{
	size_t left = size;
	struct qnl_event event;
	const void *p;
	void *copy;
	int r;

	/* A receive buffer is aligned; and of exactly this length, so that a step too far shows. */
	if (posix_memalign(&copy, 8, size ? size : 1))
		return 0;
	memcpy(copy, data, size);
	p = copy;
	while ((r = qnl_decode(&p, &left, 0, &event)) == 1) {
		if (event.kind != QNL_KIND_MSG)
			continue;
		look(&event.msg);
		again(&event.msg);
	}
	FUZZ_ASSERT(!left);
	free(copy);
	return 0;
}
