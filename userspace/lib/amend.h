/* SPDX-License-Identifier: GPL-2.0-only */
/* Changes of what an image is: its version, the width of its refcounts. One transaction (txn.h). */
#ifndef QCOW_LIB_AMEND_H
#define QCOW_LIB_AMEND_H

#include <stdint.h>

#include "lib/error.h"
#include "lib/writer.h"

struct qcow_amend_params {
	uint32_t version; /* 2 or 3 */
	uint32_t refcount_order;
	bool lazy_refcounts, data_raw; /* data_raw: may only be taken away */
};

/* What the image is now. */
void qcow_amend_init(struct qcow_amend_params *p, const struct qcow_header *h);

/*
 * -EINVAL     a combination the format does not have
 * -EOVERFLOW  refcounts would be too narrow for what the image has
 * -ENOTSUP    version 2 cannot express the image; the text says what
 */
int qcow_amend(struct qcow_writer *w, const struct qcow_amend_params *p, struct qcow_error *err);

#endif
