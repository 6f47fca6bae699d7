// SPDX-License-Identifier: GPL-2.0-only
#include "lib/codec.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

/* inflateInit2 needs some 7 KiB, and up to 32 KiB of window on the first odd stream. */
#define ARENA_SIZE (64u << 10)
/* QEMU writes with a window of 4 KiB, but nothing forbids others the full 32 KiB. */
#define RAW_DEFLATE (-15)

struct qcow_codec {
#ifdef HAVE_LIBDEFLATE
	struct libdeflate_decompressor *deflate;
#endif
	z_stream zlib;
	ZSTD_DCtx *zstd;
	size_t arena_used;
	_Alignas(64) uint8_t arena[ARENA_SIZE];
};

/* zlib allocates in the middle of a read; here it gets memory taken beforehand. */
static voidpf arena_alloc(voidpf opaque, uInt items, uInt size)
{
	struct qcow_codec *c = opaque;
	size_t need = ((size_t)items * size + 63) & ~(size_t)63;
	void *p;

	if (need > ARENA_SIZE - c->arena_used)
		return Z_NULL;
	p = c->arena + c->arena_used;
	c->arena_used += need;
	return p;
}

static void arena_free(voidpf opaque, voidpf address)
{
	(void)opaque;
	(void)address;
}

struct qcow_codec *qcow_codec_create(void)
{
	struct qcow_codec *c = aligned_alloc(64, sizeof(*c));

	if (!c)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->zlib.zalloc = arena_alloc;
	c->zlib.zfree = arena_free;
	c->zlib.opaque = c;
	if (inflateInit2(&c->zlib, RAW_DEFLATE) != Z_OK)
		goto out_free;
	c->zstd = ZSTD_createDCtx();
	if (!c->zstd)
		goto out_free;
#ifdef HAVE_LIBDEFLATE
	c->deflate = libdeflate_alloc_decompressor();
	if (!c->deflate)
		goto out_free_zstd;
#endif
	return c;

#ifdef HAVE_LIBDEFLATE
out_free_zstd:
	ZSTD_freeDCtx(c->zstd);
#endif
out_free:
	free(c);
	return NULL;
}

void qcow_codec_destroy(struct qcow_codec *c)
{
	if (!c)
		return;
#ifdef HAVE_LIBDEFLATE
	libdeflate_free_decompressor(c->deflate);
#endif
	ZSTD_freeDCtx(c->zstd);
	inflateEnd(&c->zlib);
	free(c);
}

/*
 * A stream that does not end where the cluster does is good enough if the
 * cluster is full: QEMU accepts the same (Z_BUF_ERROR with no room left).
 */
static int inflate_zlib(struct qcow_codec *c, const void *in, size_t in_len, void *out,
			size_t out_len)
{
	z_stream *z = &c->zlib;
	int r;

	inflateReset(z);
	z->next_in = (z_const Bytef *)in;
	z->avail_in = (uInt)in_len;
	z->next_out = out;
	z->avail_out = (uInt)out_len;
	r = inflate(z, Z_FINISH);
	if ((r == Z_STREAM_END || r == Z_BUF_ERROR) && !z->avail_out)
		return 0;
	return -EIO;
}

static int inflate_deflate(struct qcow_codec *c, const void *in, size_t in_len, void *out,
			   size_t out_len)
{
#ifdef HAVE_LIBDEFLATE
	/* No place for the true length: then it must be out_len. */
	if (libdeflate_deflate_decompress(c->deflate, in, in_len, out, out_len, NULL) ==
	    LIBDEFLATE_SUCCESS)
		return 0;
#endif
	return inflate_zlib(c, in, in_len, out, out_len);
}

/*
 * What zstd refuses unless told otherwise, and QEMU with it: a window of more than
 * 2^27 bytes. It does not ask a frame that says how much comes out and fits, for that
 * needs no window; a frame that does not say has its window in byte 5 (RFC 8878):
 * exponent - 10 in the upper five bits, eighths in the lower three.
 */
static bool window_too_large(const uint8_t *frame, size_t len)
{
	return len > 5 && !memcmp(frame, "\x28\xb5\x2f\xfd", 4) &&
	       ZSTD_getFrameContentSize(frame, len) == ZSTD_CONTENTSIZE_UNKNOWN &&
	       frame[5] > (27 - 10) << 3;
}

/*
 * Frame by frame, each straight into @out: that needs no window buffer, so a
 * frame cannot make us allocate whatever window it declares.
 */
static int inflate_zstd(struct qcow_codec *c, const uint8_t *in, size_t in_len, uint8_t *out,
			size_t out_len)
{
	size_t frame, n;

	while (out_len) {
		frame = ZSTD_findFrameCompressedSize(in, in_len);
		if (ZSTD_isError(frame) || window_too_large(in, frame))
			return -EIO;
		n = ZSTD_decompressDCtx(c->zstd, out, out_len, in, frame);
		if (ZSTD_isError(n))
			return -EIO;
		in += frame;
		in_len -= frame;
		out += n;
		out_len -= n;
	}
	return 0;
}

int qcow_codec_inflate(struct qcow_codec *c, enum qcow_compression type, const void *in,
		       size_t in_len, void *out, size_t out_len)
{
	if (type == QCOW_COMPRESSION_ZSTD)
		return inflate_zstd(c, in, in_len, out, out_len);
	return inflate_deflate(c, in, in_len, out, out_len);
}
