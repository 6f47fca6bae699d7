// SPDX-License-Identifier: GPL-2.0-only
/* FETCH: bytes of the disk, through everything. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/chain-priv.h"

/* The compressed bytes, read as one aligned window of the file. */
static int read_compressed(struct qcow_chain *c, const struct qcow_extent *e,
			   struct qcow_scratch *s, const uint8_t **bytes, struct qcow_error *err)
{
	struct qcow_io *io = c->layers[e->layer].io;
	uint64_t mask = io->align - 1;
	uint64_t start = e->host_off & ~mask;
	uint64_t end = (e->host_off + e->csize + mask) & ~mask;
	int r;

	r = qcow_io_pread(io, s->comp, end - start, start, err);
	if (r < 0)
		return r;
	*bytes = s->comp + (e->host_off - start);
	return 0;
}

static int inflate_to(struct qcow_chain *c, const struct qcow_extent *e, void *out,
		      struct qcow_scratch *s, struct qcow_error *err)
{
	const struct qcow_header *h = qcow_image_header(c->layers[e->layer].img);
	const uint8_t *bytes;
	int r;

	r = read_compressed(c, e, s, &bytes, err);
	if (r < 0)
		return r;
	r = qcow_codec_inflate(s->codec, h->compression, bytes, e->csize, out,
			       qcow_cluster_size(h));
	if (r < 0)
		return qcow_fail(err, EIO, e->host_off,
				 "compressed cluster of guest offset %#" PRIx64 " at %#" PRIx64
				 " of layer %u does not decompress to a cluster",
				 e->guest_off, e->host_off, e->layer);
	return 0;
}

/*
 * A part of a cluster. The cluster stays in the scratch: an image of small
 * clusters over a compressed one of large clusters asks for it again and again.
 * Valid as long as nobody reuses the host cluster: in a writable chain, for one call.
 */
static int read_part(struct qcow_chain *c, const struct qcow_extent *e, void *buf, size_t len,
		     struct qcow_scratch *s, struct qcow_error *err)
{
	struct chain_memo want = { true, e->layer, e->csize, e->host_off };
	struct chain_memo *m = &s->memo;
	int r;

	if (!m->valid || m->layer != want.layer || m->host_off != want.host_off ||
	    m->csize != want.csize) {
		m->valid = false;
		r = inflate_to(c, e, s->cluster, s, err);
		if (r < 0)
			return r;
		*m = want;
	}
	memcpy(buf, s->cluster + e->in_cluster, len);
	return 0;
}

static int read_extent(struct qcow_chain *c, const struct qcow_extent *e, void *buf,
		       struct qcow_scratch *s, struct qcow_error *err)
{
	switch (e->type) {
	case QCOW_EXTENT_UNALLOCATED:
	case QCOW_EXTENT_ZERO:
		memset(buf, 0, e->len);
		return 0;
	case QCOW_EXTENT_DATA:
		return qcow_io_pread(c->layers[e->layer].io, buf, e->len, e->host_off, err);
	case QCOW_EXTENT_COMPRESSED:
		if (e->len == qcow_cluster_size(qcow_image_header(c->layers[e->layer].img)))
			return inflate_to(c, e, buf, s, err);
		return read_part(c, e, buf, e->len, s, err);
	case QCOW_EXTENT_BROKEN:
		break;
	}
	return -EIO; /* the walk left the reason */
}

int qcow_chain_read(struct qcow_chain *c, uint64_t guest_off, void *buf, size_t len,
		    struct qcow_scratch *s, struct qcow_error *err)
{
	struct qcow_extent e;
	uint8_t *out = buf;
	int r;

	if (len > UINT64_MAX - guest_off)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "impossible guest range");
	qcow_walk_begin(s);
	if (c->writer)
		s->memo.valid = false;
	while (len) {
		r = qcow_walk(c, guest_off, len, &e, s, err);
		if (r < 0)
			return r;
		r = read_extent(c, &e, out, s, err);
		if (r < 0)
			return r;
		out += e.len;
		guest_off += e.len;
		len -= e.len;
	}
	return 0;
}
