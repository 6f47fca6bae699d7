// SPDX-License-Identifier: GPL-2.0-only
/*
 * LOAD: extents of bytes become runs of whole blocks of layer 0.
 *
 * A block is DATA only if the kernel can read and write any sector of it where it
 * lies. Everything odd becomes FETCH; being wrong in that direction costs time,
 * in the other one it costs data.
 */
#include <errno.h>

#include "lib/chain-priv.h"

/* The kernel's map holds host offsets below this. */
#define HOST_OFF_LIMIT (1ull << 56)
/* No block device has larger ones. */
#define MAX_SECTOR 4096

struct resolve {
	struct qcow_chain *c;
	struct qcow_scratch *s;
	uint64_t block;
	struct qcow_run *runs;
	size_t nr, max;
};

static bool mergeable(const struct qcow_run *a, const struct qcow_run *b)
{
	if (a->type != b->type || a->reserved != b->reserved || a->forbidden != b->forbidden)
		return false;
	if (a->reserved && a->reserved_off + a->len != b->reserved_off)
		return false;
	return a->type != QCOW_RUN_DATA || (a->layer == b->layer && a->writable == b->writable &&
					    a->host_off + a->len == b->host_off);
}

/* False: no room. */
static bool append(struct resolve *v, const struct qcow_run *run)
{
	if (v->nr && mergeable(&v->runs[v->nr - 1], run)) {
		v->runs[v->nr - 1].len += run->len;
		return true;
	}
	if (v->nr == v->max)
		return false;
	v->runs[v->nr++] = *run;
	return true;
}

/*
 * A regular file may be read and written past its end, a block device may not; but one
 * that is written to may have been made larger meanwhile.
 */
static uint64_t end_of(const struct resolve *v, uint32_t layer, uint64_t wanted)
{
	const struct chain_layer *l = &v->c->layers[layer];
	uint64_t end = l->end, now;

	if (!l->io->fixed_end)
		return HOST_OFF_LIMIT;
	if (wanted > end && v->c->writer && !qcow_io_size(l->io, &now, NULL) && now > end)
		end = now;
	return end < HOST_OFF_LIMIT ? end : HOST_OFF_LIMIT;
}

/*
 * How many of @len bytes, in whole blocks, the kernel can read or write at host_off.
 * The alignment is that of the strictest layer: the mapped device has one sector size,
 * and any sector of it may be asked for.
 */
static uint64_t direct_len(const struct resolve *v, uint32_t layer, uint64_t host_off, uint64_t len)
{
	uint64_t align = v->c->max_align > 512 ? v->c->max_align : 512, end;

	/* A block smaller than a sector could not be read alone. */
	if ((host_off | v->block) & (align - 1) || align > MAX_SECTOR || host_off >= HOST_OFF_LIMIT)
		return 0;
	end = end_of(v, layer, host_off + len);
	if (host_off >= end)
		return 0;
	return len <= end - host_off ? len : (end - host_off) & ~(v->block - 1);
}

/* Splits what the kernel cannot read off a DATA run. */
static bool append_data(struct resolve *v, struct qcow_run *run)
{
	uint64_t direct = direct_len(v, run->layer, run->host_off, run->len);
	struct qcow_run fetch = {
		.guest_off = run->guest_off + direct,
		.len = run->len - direct,
		.type = QCOW_RUN_FETCH,
		.reserved = run->reserved,
		.reserved_off = run->reserved_off + direct,
	};

	run->len = direct;
	if (direct && !append(v, run))
		return false;
	return !fetch.len || append(v, &fetch);
}

/* The walk has asked the writer whether "copied" is true, and of whom. */
static bool is_writable(const struct resolve *v, const struct qcow_extent *e)
{
	return v->c->writer && !e->depth && e->copied;
}

/* A reserved place that the kernel cannot write to is none; the run ends where it begins. */
static void put_place(const struct resolve *v, const struct qcow_extent *e, struct qcow_run *run)
{
	uint64_t direct, len = (e->len + v->block - 1) & ~(v->block - 1);

	if (!e->reserved)
		return;
	direct = direct_len(v, (uint32_t)qcow_chain_data_layer(v->c),
			    e->reserved_off & ~(v->block - 1), len);
	if (!direct)
		return;
	run->reserved = true;
	run->reserved_off = e->reserved_off;
	if (direct < len)
		run->len = direct;
}

static void to_run(const struct resolve *v, const struct qcow_extent *e, struct qcow_run *run)
{
	*run = (struct qcow_run){ .guest_off = e->guest_off, .len = e->len };
	put_place(v, e, run);
	switch (e->type) {
	case QCOW_EXTENT_UNALLOCATED:
	case QCOW_EXTENT_ZERO:
		run->type = QCOW_RUN_ZERO;
		return;
	case QCOW_EXTENT_DATA:
		run->type = QCOW_RUN_DATA;
		run->layer = e->layer;
		run->host_off = e->host_off;
		run->writable = is_writable(v, e);
		return;
	case QCOW_EXTENT_COMPRESSED:
	case QCOW_EXTENT_BROKEN:
		break;
	}
	run->forbidden = e->forbidden;
	run->type = QCOW_RUN_FETCH;
}

/*
 * One block that is made of several extents, the first of which is @run: the
 * same kind throughout, or FETCH.
 */
static int gather(struct resolve *v, struct qcow_run *run, uint64_t disk_end,
		  struct qcow_error *err)
{
	uint64_t end = run->guest_off + v->block;
	struct qcow_run piece;
	struct qcow_extent e;
	int r;

	while (run->guest_off + run->len < end && run->guest_off + run->len < disk_end) {
		r = qcow_walk(v->c, run->guest_off + run->len, end - run->guest_off - run->len, &e,
			      v->s, err);
		if (r < 0)
			return r;
		to_run(v, &e, &piece);
		if (!mergeable(run, &piece))
			run->type = QCOW_RUN_FETCH;
		run->len += piece.len;
	}
	run->len = v->block;
	return 0;
}

/* The next run, in whole blocks; [guest_off, end) is left to do. */
static int next_run(struct resolve *v, uint64_t guest_off, uint64_t end, struct qcow_run *run,
		    struct qcow_error *err)
{
	uint64_t disk_end = v->c->nodes[0].size;
	struct qcow_extent e;
	int r;

	r = qcow_walk(v->c, guest_off, end - guest_off, &e, v->s, err);
	if (r < 0)
		return r;
	to_run(v, &e, run);
	/* Nobody reads between the disk's end and its last block's: it takes any kind. */
	if (guest_off < disk_end && guest_off + run->len == disk_end)
		run->len = (run->len + v->block - 1) & ~(v->block - 1);
	if (run->len < v->block)
		return gather(v, run, disk_end, err);
	run->len &= ~(v->block - 1);
	return 0;
}

int qcow_chain_resolve(struct qcow_chain *c, uint64_t guest_off, uint64_t len,
		       struct qcow_run *runs, size_t max, size_t *nr, struct qcow_scratch *s,
		       struct qcow_error *err)
{
	struct resolve v = {
		.c = c, .s = s, .runs = runs, .max = max, .block = 1ull << qcow_chain_block_bits(c)
	};
	uint64_t end = guest_off + len;
	struct qcow_run run;
	int r;

	*nr = 0;
	if (!len || end < guest_off || (guest_off | len) & (v.block - 1) || !max)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "range to resolve is not in blocks");
	qcow_walk_begin(s);
	while (guest_off < end) {
		r = next_run(&v, guest_off, end, &run, err);
		if (r < 0)
			return r;
		guest_off += run.len;
		if (!(run.type == QCOW_RUN_DATA ? append_data(&v, &run) : append(&v, &run)))
			break;
	}
	/* Broken entries left their reason; their FETCH will give it again. */
	qcow_error_clear(err);
	*nr = v.nr;
	return 0;
}
