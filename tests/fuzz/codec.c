// SPDX-License-Identifier: GPL-2.0-only
/*
 * One compressed cluster. The input's first byte chooses method and cluster size.
 * What inflates must be what zlib, or zstd as a stream, makes of the same bytes.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "lib/codec.h"

/* libdeflate lets some damage pass that zlib sees; what both take must be the same. */
static void judge_zlib(const uint8_t *in, size_t in_len, const uint8_t *got, uint8_t *want,
		       size_t len)
{
	z_stream z = { 0 };
	int r;

	FUZZ_ASSERT(inflateInit2(&z, -15) == Z_OK);
	z.next_in = (z_const Bytef *)in;
	z.avail_in = (uInt)in_len;
	z.next_out = want;
	z.avail_out = (uInt)len;
	r = inflate(&z, Z_FINISH);
	FUZZ_ASSERT(r != Z_STREAM_END || !z.avail_out);
	if ((r == Z_STREAM_END || r == Z_BUF_ERROR) && !z.avail_out)
		FUZZ_ASSERT(!memcmp(got, want, len));
	inflateEnd(&z);
}

static void judge_zstd(const uint8_t *in, size_t in_len, const uint8_t *got, uint8_t *want,
		       size_t len)
{
	ZSTD_DStream *s = ZSTD_createDStream();
	ZSTD_inBuffer from = { in, in_len, 0 };
	ZSTD_outBuffer to = { want, len, 0 };
	size_t r = 1;

	while (to.pos < to.size && !ZSTD_isError(r)) {
		if (from.pos == from.size)
			break;
		r = ZSTD_decompressStream(s, &to, &from);
	}
	/* A stream may refuse a window that needs no buffer frame by frame. */
	if (!ZSTD_isError(r) && to.pos == to.size)
		FUZZ_ASSERT(!memcmp(got, want, len));
	ZSTD_freeDStream(s);
}

int fuzz_codec(const uint8_t *data, size_t size)
{
	enum qcow_compression type;
	struct qcow_codec *codec;
	uint8_t *got, *want;
	size_t len;

	if (!size)
		return 0;
	type = data[0] & 1 ? QCOW_COMPRESSION_ZSTD : QCOW_COMPRESSION_DEFLATE;
	len = 1ul << (9 + (data[0] >> 1) % 8);
	codec = qcow_codec_create();
	got = malloc(len);
	want = calloc(1, len);
	if (codec && got && want &&
	    !qcow_codec_inflate(codec, type, data + 1, size - 1, got, len)) {
		if (type == QCOW_COMPRESSION_ZSTD)
			judge_zstd(data + 1, size - 1, got, want, len);
		else
			judge_zlib(data + 1, size - 1, got, want, len);
	}
	free(got);
	free(want);
	qcow_codec_destroy(codec);
	return 0;
}
