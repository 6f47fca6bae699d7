// SPDX-License-Identifier: GPL-2.0-only
#include "lib/pack.h"

#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

/* QEMU inflates with a window of 4 KiB: what needs more it cannot read. */
#define QEMU_WINDOW (-12)
#define MEM_LEVEL   9

struct qcow_packer {
	enum qcow_compression type;
	z_stream zlib;
	ZSTD_CCtx *zstd;
};

static int init(struct qcow_packer *p)
{
	if (p->type == QCOW_COMPRESSION_ZSTD) {
		p->zstd = ZSTD_createCCtx();
		return p->zstd ? 0 : -1;
	}
	return deflateInit2(&p->zlib, Z_DEFAULT_COMPRESSION, Z_DEFLATED, QEMU_WINDOW, MEM_LEVEL,
			    Z_DEFAULT_STRATEGY) == Z_OK
		       ? 0
		       : -1;
}

struct qcow_packer *qcow_packer_create(enum qcow_compression type)
{
	struct qcow_packer *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->type = type;
	if (init(p) == 0)
		return p;
	free(p);
	return NULL;
}

void qcow_packer_destroy(struct qcow_packer *p)
{
	if (!p)
		return;
	if (p->type == QCOW_COMPRESSION_ZSTD)
		ZSTD_freeCCtx(p->zstd);
	else
		deflateEnd(&p->zlib);
	free(p);
}

static size_t pack_deflate(z_stream *z, const void *in, size_t len, void *out, size_t room)
{
	deflateReset(z);
	z->next_in = (z_const Bytef *)in;
	z->avail_in = (uInt)len;
	z->next_out = out;
	z->avail_out = (uInt)room;
	return deflate(z, Z_FINISH) == Z_STREAM_END ? room - z->avail_out : 0;
}

size_t qcow_pack(struct qcow_packer *p, const void *in, size_t len, void *out, size_t room)
{
	size_t n;

	if (p->type == QCOW_COMPRESSION_DEFLATE)
		return pack_deflate(&p->zlib, in, len, out, room);
	n = ZSTD_compress2(p->zstd, out, room, in, len);
	return ZSTD_isError(n) ? 0 : n;
}
