// SPDX-License-Identifier: GPL-2.0-only
#include "lib/bitmap.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/be.h"
#include "lib/window.h"

struct bitmap_disk {
	uint8_t table_off[8], table_size[4], flags[4], type, granularity_bits, name_len[2],
		extra_len[4];
};
static_assert(sizeof(struct bitmap_disk) == 24, "bitmap directory entry");

#define FLAG_IN_USE	(1u << 0)
#define FLAG_AUTO	(1u << 1)
#define FLAGS_KNOWN	0x7u /* and: extra data is compatible */
#define TYPE_DIRTY	1
#define MIN_GRANULARITY 9
#define MAX_GRANULARITY 31

static bool entry_valid(const struct qcow_header *h, const struct bitmap_disk *d)
{
	uint64_t off = qcow_be64(d->table_off);
	uint32_t size = qcow_be32(d->table_size), name = qcow_be16(d->name_len);

	return d->type == TYPE_DIRTY && !(qcow_be32(d->flags) & ~FLAGS_KNOWN) &&
	       !qcow_be32(d->extra_len) && d->granularity_bits >= MIN_GRANULARITY &&
	       d->granularity_bits <= MAX_GRANULARITY && name && name <= QCOW_MAX_BITMAP_NAME &&
	       size && size <= QCOW_MAX_BITMAP_TABLE && off &&
	       !(off & (qcow_cluster_size(h) - 1)) && off <= QCOW_HOST_OFF_MAX - size * 8ull;
}

static int read_entry(struct qcow_window *w, const struct qcow_header *h, uint64_t *off,
		      uint64_t end, struct qcow_bitmap *b, struct qcow_error *err)
{
	struct bitmap_disk d;
	uint64_t len;
	int r;

	if (end - *off < sizeof(d))
		goto out_short;
	r = qcow_window_read(w, &d, sizeof(d), *off, err);
	if (r < 0)
		return r;
	if (!entry_valid(h, &d))
		return qcow_fail(err, EINVAL, *off,
				 "bitmap directory entry at %#" PRIx64 " is damaged", *off);
	len = (sizeof(d) + qcow_be16(d.name_len) + 7) & ~7ull;
	if (end - *off < len)
		goto out_short;
	*b = (struct qcow_bitmap){
		.table_off = qcow_be64(d.table_off),
		.table_size = qcow_be32(d.table_size),
		.in_use = qcow_be32(d.flags) & FLAG_IN_USE,
		.enabled = qcow_be32(d.flags) & FLAG_AUTO,
		.granularity_bits = d.granularity_bits,
	};
	r = qcow_window_read(w, b->name, qcow_be16(d.name_len), *off + sizeof(d), err);
	*off += len;
	return r;

out_short:
	return qcow_fail(err, EINVAL, *off,
			 "bitmap directory ends in the middle of the entry at %#" PRIx64, *off);
}

int qcow_bitmaps_walk(struct qcow_io *io, const struct qcow_header *h,
		      int (*visit)(const struct qcow_bitmap *bitmap, void *arg), void *arg,
		      struct qcow_error *err)
{
	uint64_t off = h->bitmap_dir_off, end = off + h->bitmap_dir_size;
	struct qcow_bitmap b;
	struct qcow_window w;
	uint32_t i;
	int r;

	qcow_window_init(&w, io);
	for (i = 0; i < h->nr_bitmaps; i++) {
		r = read_entry(&w, h, &off, end, &b, err);
		if (r < 0)
			return r;
		r = visit(&b, arg);
		if (r)
			return r < 0 ? r : 0;
	}
	if (off != end)
		return qcow_fail(err, EINVAL, off,
				 "bitmap directory at %#" PRIx64 " is longer than its %u entries",
				 h->bitmap_dir_off, h->nr_bitmaps);
	return 0;
}
