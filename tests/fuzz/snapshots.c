// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of snapshots. The input's first 8 bytes choose the header around it:
 * version, cluster bits, nothing, number of snapshots, size of the disk in MiB.
 */
#include "fuzz.h"

#include <string.h>

#include "lib/be.h"
#include "lib/snapshot.h"

static int visit(const struct qcow_snapshot *s, void *arg)
{
	const struct qcow_header *h = arg;

	FUZZ_ASSERT(strlen(s->id) < sizeof(s->id) && strlen(s->name) < sizeof(s->name));
	if (!qcow_snapshot_check(s, h, NULL)) {
		FUZZ_ASSERT(s->l1_size <= QCOW_MAX_L1_ENTRIES);
		FUZZ_ASSERT(!(s->l1_off & (qcow_cluster_size(h) - 1)));
	}
	return 0;
}

int fuzz_snapshots(const uint8_t *data, size_t size)
{
	struct qcow_error err = { 0 };
	struct qcow_header h = { 0 };
	struct fuzzio m;
	int r;

	if (size < 8)
		return 0;
	fuzzio_init(&m, data + 8, size - 8);
	h.version = 2 + (data[0] & 1);
	h.cluster_bits = QCOW_MIN_CLUSTER_BITS + data[1] % 13;
	h.nr_snapshots = data[3]; /* more only take longer */
	h.size = (uint64_t)qcow_be32(data + 4) << 20;
	r = qcow_snapshots_walk(&m.io, &h, visit, &h, &err);
	FUZZ_ASSERT(r <= 0 && (!r || err.code == -r));
	return 0;
}
