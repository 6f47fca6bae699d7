/* SPDX-License-Identifier: GPL-2.0-only */
/* How large an image would be: as QEMU counts, so that scripts get the same answer. */
#ifndef QCOW_LIB_MEASURE_H
#define QCOW_LIB_MEASURE_H

#include <stdint.h>

#include "lib/chain.h"
#include "lib/create.h"
#include "lib/error.h"

struct qcow_measure {
	uint64_t required, full; /* bytes; at most, and with every cluster allocated */
	uint64_t bitmaps;	 /* bytes, were the source's bitmaps to be kept */
};

/* Of @p->size bytes; @src: with this content, else empty. Errors as qcow_create_check(). */
int qcow_measure(const struct qcow_create_params *p, struct qcow_chain *src, struct qcow_measure *m,
		 struct qcow_error *err);

#endif
