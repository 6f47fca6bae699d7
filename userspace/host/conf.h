/* SPDX-License-Identifier: GPL-2.0-only */
/* The configuration file that trust.h describes. */
#ifndef QCOW_HOST_CONF_H
#define QCOW_HOST_CONF_H

#include "host/trust.h"
#include "lib/error.h"

/* Adds the file's rules. No file is no rules; -EINVAL names the line. */
int host_conf_read(struct host_policy *p, const char *path, struct qcow_error *err);

#endif
