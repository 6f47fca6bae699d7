// SPDX-License-Identifier: GPL-2.0-only
/* Header and extensions: the input is the file. */
#include "fuzz.h"

#include <string.h>

#include "lib/header.h"

static void check(const struct qcow_header *h)
{
	uint64_t mask = qcow_cluster_size(h) - 1;

	FUZZ_ASSERT(h->cluster_bits >= QCOW_MIN_CLUSTER_BITS &&
		    h->cluster_bits <= QCOW_MAX_CLUSTER_BITS);
	FUZZ_ASSERT(h->version == 2 || h->version == 3);
	FUZZ_ASSERT(!((h->l1_off | h->reftable_off | h->snapshots_off) & mask));
	FUZZ_ASSERT(h->l1_size <= QCOW_MAX_L1_ENTRIES && h->refcount_order <= 6);
	FUZZ_ASSERT(h->nr_snapshots <= QCOW_MAX_SNAPSHOTS && h->nr_bitmaps <= QCOW_MAX_BITMAPS);
	FUZZ_ASSERT(!(h->incompatible & ~QCOW_INCOMPAT_KNOWN));
	FUZZ_ASSERT(strlen(h->backing_name) <= QCOW_MAX_NAME);
	FUZZ_ASSERT(strlen(h->backing_format) <= QCOW_MAX_FORMAT);
	FUZZ_ASSERT(strlen(h->data_file) <= QCOW_MAX_DATA_NAME);
	FUZZ_ASSERT(h->has_backing == (h->backing_name[0] != 0));
}

int fuzz_header(const uint8_t *data, size_t size)
{
	struct qcow_error err = { 0 };
	struct qcow_header h;
	struct fuzzio m;
	int r;

	fuzzio_init(&m, data, size);
	r = qcow_header_read(&m.io, &h, &err);
	if (!r)
		check(&h);
	else
		FUZZ_ASSERT(r < 0 && err.code == -r && err.text[0] && !strchr(err.text, '\n'));
	return 0;
}
