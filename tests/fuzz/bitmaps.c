// SPDX-License-Identifier: GPL-2.0-only
/* The directory of bitmaps. The input's first 8 bytes: cluster bits, number, length of the
 * directory. */
#include "fuzz.h"

#include <string.h>

#include "lib/be.h"
#include "lib/bitmap.h"

static int visit(const struct qcow_bitmap *b, void *arg)
{
	const struct qcow_header *h = arg;

	FUZZ_ASSERT(b->name[0] == 0 || strlen(b->name) <= QCOW_MAX_BITMAP_NAME);
	FUZZ_ASSERT(b->table_size && b->table_size <= QCOW_MAX_BITMAP_TABLE);
	FUZZ_ASSERT(!(b->table_off & (qcow_cluster_size(h) - 1)));
	FUZZ_ASSERT(b->granularity_bits >= 9 && b->granularity_bits <= 31);
	return 0;
}

int fuzz_bitmaps(const uint8_t *data, size_t size)
{
	struct qcow_error err = { 0 };
	struct qcow_header h = { .version = 3, .autoclear = QCOW_AUTOCLEAR_BITMAPS };
	struct fuzzio m;
	int r;

	if (size < 8)
		return 0;
	fuzzio_init(&m, data + 8, size - 8);
	h.cluster_bits = QCOW_MIN_CLUSTER_BITS + data[0] % 13;
	h.nr_bitmaps = qcow_be16(data + 2);
	h.bitmap_dir_size = qcow_be32(data + 4) % (QCOW_MAX_BITMAP_DIR + 1);
	r = qcow_bitmaps_walk(&m.io, &h, visit, &h, &err);
	FUZZ_ASSERT(r <= 0 && (!r || err.code == -r));
	return 0;
}
