// SPDX-License-Identifier: GPL-2.0-only
#include "lib/room.h"

#include <errno.h>

#include "lib/refcount.h"
#include "lib/writer-priv.h"

/* Past the metadata cache, which is for what is needed again. */
static int count_block(struct qcow_writer *w, uint64_t block, uint64_t *nr, struct qcow_error *err)
{
	uint64_t first = block << w->refblock_bits, per = 1ull << w->refblock_bits, i;
	int r = qcow_io_pread(w->io, w->cluster, qcow_cluster_size(&w->h), w->reftable[block], err);

	for (i = 0; !r && i < per && first + i < w->host_end; i++)
		*nr += qcow_ref_decode(w->cluster, w->h.refcount_order, i) != 0;
	return r;
}

static int count_used(struct qcow_writer *w, struct qcow_error *err)
{
	uint64_t block, nr = 0;
	int r = edit_finish(w, &w->ref_edit, err);

	for (block = 0; !r && block < w->nr_reftable; block++)
		if (w->reftable[block] && block << w->refblock_bits < w->host_end)
			r = count_block(w, block, &nr, err);
	if (r < 0)
		return r;
	w->nr_used = nr;
	w->used_known = true;
	return 0;
}

static int device_room(struct qcow_writer *w, uint64_t *bytes, struct qcow_error *err)
{
	int r = writer_find_end(w, err);

	if (!r && !w->used_known)
		r = count_used(w, err);
	if (!r)
		*bytes = (w->host_end > w->nr_used ? w->host_end - w->nr_used : 0)
			 << w->h.cluster_bits;
	return r;
}

int qcow_writer_room(struct qcow_writer *w, uint64_t *bytes, struct qcow_error *err)
{
	int r = writer_check(w, err);

	if (r < 0)
		return r;
	return w->io->fixed_end ? device_room(w, bytes, err) : qcow_io_room(w->io, bytes, err);
}
