// SPDX-License-Identifier: GPL-2.0-only
#include "lib/measure.h"

#include <errno.h>
#include <string.h>

#include "lib/bitmap.h"

#define DIR_ENTRY 24 /* bytes before a bitmap's name */

static uint64_t div_up(uint64_t n, uint64_t by)
{
	return n / by + !!(n % by);
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return div_up(n, to) * to;
}

/* Refcount table and blocks that count @clusters and themselves; in clusters. */
static uint64_t refcount_clusters(uint64_t clusters, const struct qcow_create_params *p)
{
	uint64_t per_block = 1ull << (p->cluster_bits + 3 - p->refcount_order);
	uint64_t blocks = 0, table = 0, before;

	do {
		before = blocks + table;
		blocks = div_up(clusters + before, per_block);
		table = div_up(blocks * 8, 1ull << p->cluster_bits);
	} while (blocks + table != before);
	return before;
}

static uint64_t full_size(const struct qcow_create_params *p, uint64_t disk)
{
	uint64_t cluster = 1ull << p->cluster_bits, meta = 1, l2;

	l2 = div_up((disk >> p->cluster_bits) * (p->extl2 ? 16 : 8), cluster);
	meta += l2 + div_up(l2 * 8, cluster);
	meta += refcount_clusters(meta + (disk >> p->cluster_bits), p);
	return (meta << p->cluster_bits) + disk;
}

/* Bytes of the clusters that have data. */
static int count_data(const struct qcow_create_params *p, struct qcow_chain *src, uint64_t *bytes,
		      struct qcow_error *err)
{
	uint64_t off, end, size = qcow_chain_size(src), cluster = 1ull << p->cluster_bits;
	uint64_t counted = 0;
	struct qcow_scratch *s;
	struct qcow_extent e;
	int r = qcow_scratch_create(&s, src, err);

	*bytes = 0;
	for (off = 0; off < size && !r; off += e.len) {
		r = qcow_chain_next(src, off, size - off, &e, s, err);
		if (r < 0)
			break;
		if (qcow_extent_is_zero(&e))
			continue;
		end = round_up(off + e.len, cluster);
		if (counted < off / cluster * cluster)
			counted = off / cluster * cluster;
		*bytes += end > counted ? end - counted : 0;
		counted = end > counted ? end : counted;
	}
	qcow_scratch_destroy(s);
	return r;
}

struct sum {
	uint64_t disk, cluster, bytes, dir;
};

static int visit_bitmap(const struct qcow_bitmap *b, void *arg)
{
	struct sum *s = arg;
	uint64_t clusters;

	if (b->in_use)
		return 0;
	clusters = div_up(div_up(div_up(s->disk, 1ull << b->granularity_bits), 8), s->cluster);
	s->bytes += clusters * s->cluster + round_up(clusters * 8, s->cluster);
	s->dir += round_up(DIR_ENTRY + strlen(b->name), 8);
	return 0;
}

static int count_bitmaps(const struct qcow_create_params *p, struct qcow_chain *src,
			 uint64_t *bytes, struct qcow_error *err)
{
	const struct qcow_image *img = qcow_chain_layer_image(src, 0);
	struct sum s = { .disk = qcow_chain_size(src), .cluster = 1ull << p->cluster_bits };
	int r;

	*bytes = 0;
	if (!img)
		return 0;
	r = qcow_bitmaps_walk(qcow_image_io(img), qcow_image_header(img), visit_bitmap, &s, err);
	*bytes = s.bytes + round_up(s.dir, s.cluster);
	return r;
}

int qcow_measure(const struct qcow_create_params *p, struct qcow_chain *src, struct qcow_measure *m,
		 struct qcow_error *err)
{
	uint64_t disk, data = 0;
	int r = qcow_create_check(p, err);

	*m = (struct qcow_measure){ 0 };
	if (r < 0)
		return r;
	disk = round_up(p->size, 1ull << p->cluster_bits);
	/* What of it a backing file will have is not known. */
	if (p->backing_name || p->prealloc >= QCOW_PREALLOC_FALLOC)
		data = disk;
	else if (src)
		r = count_data(p, src, &data, err);
	m->full = full_size(p, disk);
	m->required = m->full - disk + data;
	return r < 0 || !src ? r : count_bitmaps(p, src, &m->bitmaps, err);
}
