/* SPDX-License-Identifier: GPL-2.0-only */
/* Header extensions (qcow2.rst, "Header extensions"). Only header.c calls these. */
#ifndef QCOW_LIB_EXT_H
#define QCOW_LIB_EXT_H

#include "lib/error.h"
#include "lib/header.h"
#include "lib/window.h"

/* Fills the extension fields of @h, whose fixed fields are decoded and bounded. */
int qcow_ext_read(struct qcow_window *w, struct qcow_header *h, struct qcow_error *err);

/* The image's own name for an incompatible bit, or "". */
void qcow_ext_feature_name(struct qcow_window *w, const struct qcow_header *h, unsigned int bit,
			   char name[47]);

#endif
