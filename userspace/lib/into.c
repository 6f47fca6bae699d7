// SPDX-License-Identifier: GPL-2.0-only
#include "lib/into.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/chain-priv.h"
#include "lib/fill.h"
#include "lib/zeros.h"

struct qcow_into {
	struct qcow_chain *chain;
	struct qcow_scratch *s;
	struct qcow_fill *fill;
	uint8_t *tail; /* a cluster */
	uint64_t unit, size;
};

int qcow_into_create(struct qcow_into **out, struct qcow_chain *chain, struct qcow_error *err)
{
	size_t data = qcow_chain_data_layer(chain);
	struct qcow_into *i = calloc(1, sizeof(*i));
	int r;

	if (!i)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	i->chain = chain;
	i->size = qcow_chain_size(chain);
	i->unit = qcow_cluster_size(node_header(chain, &chain->nodes[0]));
	r = qcow_scratch_create(&i->s, chain, err);
	if (!r)
		r = qcow_fill_create(&i->fill, chain->writer, data ? chain->layers[data].io : NULL,
				     err);
	i->tail = aligned_alloc(4096, i->unit < 4096 ? 4096 : i->unit);
	if (!r && !i->tail)
		r = qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	if (r < 0)
		qcow_into_destroy(i);
	else
		*out = i;
	return r;
}

void qcow_into_destroy(struct qcow_into *i)
{
	if (!i)
		return;
	qcow_fill_destroy(i->fill);
	qcow_scratch_destroy(i->s);
	free(i->tail);
	free(i);
}

size_t qcow_into_unit(const struct qcow_into *i)
{
	return i->unit;
}

static int put_in_place(struct qcow_into *i, uint64_t off, const uint8_t *buf, bool *done,
			struct qcow_error *err)
{
	struct qcow_extent e;
	int r;

	*done = false;
	if (off + i->unit > i->size)
		return 0;
	r = qcow_chain_extent(i->chain, off, i->unit, &e, i->s, err);
	if (r < 0 || e.type != QCOW_EXTENT_DATA || e.depth || !e.copied || e.len < i->unit)
		return r;
	*done = true;
	return qcow_io_pwrite(i->chain->layers[e.layer].io, buf, i->unit, e.host_off, err);
}

static int put_cluster(struct qcow_into *i, uint64_t off, const uint8_t *buf,
		       struct qcow_error *err)
{
	bool done;
	int r;

	if (qcow_is_zero(buf, i->unit))
		return qcow_fill_zero(i->fill, off, err);
	r = put_in_place(i, off, buf, &done, err);
	return r < 0 || done ? r : qcow_fill_data(i->fill, off, buf, err);
}

static int check_end(const struct qcow_into *i, uint64_t end, struct qcow_error *err)
{
	if (end <= i->size)
		return 0;
	return qcow_fail(err, ENOSPC, QCOW_NO_OFF, "the image's disk is too small");
}

int qcow_into_put(struct qcow_into *i, uint64_t guest_off, uint8_t *buf, size_t len,
		  struct qcow_error *err)
{
	uint64_t disk = i->size - guest_off < i->unit ? i->size - guest_off : i->unit;
	int r = check_end(i, guest_off + len, err);

	if (r < 0)
		return r;
	if (len < i->unit)
		memset(buf + len, 0, i->unit - len);
	if (len < disk)
		r = qcow_chain_read(i->chain, guest_off + len, buf + len, disk - len, i->s, err);
	return r < 0 ? r : put_cluster(i, guest_off, buf, err);
}

int qcow_into_zero(struct qcow_into *i, uint64_t guest_off, uint64_t len, struct qcow_error *err)
{
	uint64_t end = guest_off + len, next;
	struct qcow_extent e;
	int r = check_end(i, end, err);

	for (; guest_off < end && !r; guest_off = next) {
		r = qcow_chain_next(i->chain, guest_off, end - guest_off, &e, i->s, err);
		if (r < 0)
			return r;
		/* What reads as zeros may stay as it is: as far as whole clusters go. */
		next = guest_off + e.len;
		if (next < end)
			next &= ~(i->unit - 1);
		if (qcow_extent_is_zero(&e) && next > guest_off)
			continue;
		next = guest_off + i->unit;
		if (end - guest_off >= i->unit || end >= i->size) {
			r = qcow_fill_zero(i->fill, guest_off, err);
		} else {
			memset(i->tail, 0, i->unit);
			r = qcow_into_put(i, guest_off, i->tail, end - guest_off, err);
		}
	}
	return r;
}

int qcow_into_finish(struct qcow_into *i, int r, struct qcow_error *err)
{
	int r2 = qcow_fill_finish(i->fill, r ? NULL : err);

	r = r ? r : r2;
	if (!r)
		r = qcow_chain_flush_data_file(i->chain, err);
	/* Tables in reserve go back, whatever happened. */
	r2 = qcow_writer_finish(i->chain->writer, r ? NULL : err);
	return r ? r : r2;
}
