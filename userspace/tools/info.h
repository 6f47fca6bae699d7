/* SPDX-License-Identifier: GPL-2.0-only */
/* What `qcow info` prints. */
#ifndef QCOW_TOOLS_INFO_H
#define QCOW_TOOLS_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/chain.h"

/* Every layer of @hc but data files. @as_list: a JSON array even of one. */
int info_print_json(struct host_chain *hc, bool as_list, struct qcow_error *err);
int info_print_human(struct host_chain *hc, struct qcow_error *err);

/* The snapshots, as a table (nothing if there are none) or into a JSON array. */
int info_print_snapshots(struct qcow_io *io, const struct qcow_header *h, struct qcow_error *err);
struct json_object;
int info_add_snapshots(struct json_object *list, struct qcow_io *io, const struct qcow_header *h,
		       struct qcow_error *err);

/* The bitmaps, into a JSON array. */
int info_add_bitmaps(struct json_object *list, struct qcow_io *io, const struct qcow_header *h,
		     struct qcow_error *err);

/* "3.83 MiB": three significant digits, as qemu-img rounds. */
void info_size_text(uint64_t bytes, char *out, size_t room);

#endif
