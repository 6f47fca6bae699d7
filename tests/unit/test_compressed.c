// SPDX-License-Identifier: GPL-2.0-only
/* Compressed clusters, sound and damaged. */
#include "chainrig.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static void put_deflate(struct memimg *m, uint64_t guest_cluster, const uint8_t *plain, size_t len,
			int window, uint64_t shift_in_sector)
{
	uint8_t *packed = malloc(2 * CLUSTER);
	z_stream z = { .next_in = (z_const Bytef *)plain,
		       .avail_in = (uInt)len,
		       .next_out = packed,
		       .avail_out = 2 * CLUSTER };
	uint64_t off = memimg_alloc(m, 2) + shift_in_sector, sectors;

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, window, 9, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	memimg_put(m, off, packed, z.total_out);
	sectors = (off % 512 + z.total_out + 511) / 512;
	memimg_map(m, guest_cluster, 1ull << 62 | (sectors - 1) << (62 - (BITS - 8)) | off);
	deflateEnd(&z);
	free(packed);
}

static void fill_text(uint8_t *plain, unsigned int seed)
{
	size_t i;

	for (i = 0; i < CLUSTER; i++)
		plain[i] = i % 64 < 40 ? (uint8_t)rand_r(&seed) : (uint8_t)(i / 64);
}

static void test_compressed(void **state)
{
	static struct rig rig;
	static uint8_t plain[3][CLUSTER], got[3 * CLUSTER];
	struct memimg *m = &rig.img[0];
	unsigned int before;
	int i;

	(void)state;
	for (i = 0; i < 3; i++)
		fill_text(plain[i], 7u + (unsigned int)i);
	memimg_init(m, 3, BITS, DISK);
	put_deflate(m, 0, plain[0], CLUSTER, -12, 0);
	put_deflate(m, 1, plain[1], CLUSTER, -15, 333); /* a larger window than QEMU writes */
	put_deflate(m, 2, plain[2], CLUSTER, -12, 511);
	one(&rig);
	resolve(&rig, 0, 4 * CLUSTER);
	expect(&rig, 0, QCOW_RUN_FETCH, 3 * CLUSTER, 0);
	expect(&rig, 1, QCOW_RUN_ZERO, CLUSTER, 0);
	assert_int_equal(read_at(&rig, 0, got, sizeof(got)), 0);
	assert_memory_equal(got, plain, sizeof(got));
	/* Parts: the cluster is inflated once. */
	assert_int_equal(read_at(&rig, CLUSTER + 100, got, 50), 0);
	before = m->nr_reads;
	assert_int_equal(read_at(&rig, CLUSTER + 4096, got, 4096), 0);
	assert_memory_equal(got, plain[1] + 4096, 4096);
	assert_int_equal(m->nr_reads, before);
	/* Across a boundary, neither part whole. */
	assert_int_equal(read_at(&rig, CLUSTER - 10, got, 20), 0);
	assert_memory_equal(got, plain[0] + CLUSTER - 10, 10);
	assert_memory_equal(got + 10, plain[1], 10);
	end(&rig);
}

static void test_compressed_damage(void **state)
{
	static struct rig rig;
	static uint8_t plain[CLUSTER];
	struct memimg *m = &rig.img[0];
	uint64_t off;

	(void)state;
	fill_text(plain, 1);
	memimg_init(m, 3, BITS, DISK);
	memimg_map(m, 0, 1ull << 62 | 1ull << 52);     /* past the end: zeros, no stream */
	memimg_map(m, 1, ~0ull & ~MEMIMG_COPIED);      /* all bits */
	put_deflate(m, 5, plain, CLUSTER - 1, -12, 0); /* a whole stream, of too little */
	put_deflate(m, 2, plain, CLUSTER, -12, 0);
	off = m->size - 2 * CLUSTER;
	memimg_map(m, 3, 1ull << 62 | off); /* one sector only: cut off */
	memset(m->bytes + m->size - 100, 0xff, 100);
	memimg_map(m, 4, 1ull << 62 | (m->size - 100)); /* rubbish at the very end */
	one(&rig);
	expect_broken(&rig, 0, "does not decompress");
	expect_broken(&rig, CLUSTER, "");
	expect_broken(&rig, 3 * CLUSTER, "does not decompress");
	expect_broken(&rig, 4 * CLUSTER, "does not decompress");
	expect_broken(&rig, 5 * CLUSTER, "does not decompress");
	assert_int_equal(read_at(&rig, 2 * CLUSTER, plain, 10), 0);
	end(&rig);
}

/* QEMU accepts a stream that goes on after the cluster is full; so do we. */
static void test_compressed_overlong(void **state)
{
	static struct rig rig;
	static uint8_t stream[CLUSTER + 4096], got[CLUSTER];
	struct memimg *m = &rig.img[0];
	uint32_t len, pos = 0, done = 0;
	uint64_t off;

	(void)state;
	/* Stored blocks of 0xabab...: 5 bytes of header, never a final one. */
	while (done <= CLUSTER) {
		len = 32768;
		stream[pos++] = 0;
		stream[pos++] = (uint8_t)len;
		stream[pos++] = (uint8_t)(len >> 8);
		stream[pos++] = (uint8_t)~len;
		stream[pos++] = (uint8_t)(~len >> 8);
		if (pos + len > sizeof(stream))
			len = (uint32_t)sizeof(stream) - pos;
		memset(stream + pos, 0xab, len);
		pos += len;
		done += len;
		if (pos == sizeof(stream))
			break;
	}
	memimg_init(m, 3, BITS, DISK);
	off = memimg_alloc(m, 2);
	memimg_put(m, off, stream, pos);
	memimg_map(m, 0, 1ull << 62 | ((pos + 511ull) / 512 - 1) << (62 - (BITS - 8)) | off);
	one(&rig);
	expect_bytes(&rig, 0, CLUSTER, 0xab);
	assert_int_equal(read_at(&rig, 0, got, CLUSTER), 0);
	end(&rig);
}

static void put_stream(struct memimg *m, uint64_t guest_cluster, const void *bytes, size_t len)
{
	uint64_t off = memimg_alloc(m, 2);

	memimg_put(m, off, bytes, len);
	memimg_map(m, guest_cluster,
		   1ull << 62 | ((len + 511) / 512 - 1) << (62 - (BITS - 8)) | off);
}

static size_t frame(uint8_t *out, size_t room, const void *in, size_t len)
{
	size_t n = ZSTD_compress(out, room, in, len, 3);

	assert_false(ZSTD_isError(n));
	return n;
}

/* One cluster in frames of a half, empty ones and skippable ones among them; and frames that lie.
 */
static void test_zstd_frames(void **state)
{
	static const uint8_t skippable[12] = { 0x50, 0x2a, 0x4d, 0x18, 4 };
	static struct rig rig;
	static uint8_t plain[2 * CLUSTER], stream[4 * CLUSTER], got[CLUSTER];
	struct memimg *m = &rig.img[0];
	size_t len;

	(void)state;
	fill_text(plain, 3);
	memimg_init(m, 3, BITS, DISK);
	memimg_be64(m, 72, QCOW_INCOMPAT_COMPRESSION);
	m->bytes[104] = QCOW_COMPRESSION_ZSTD;
	len = frame(stream, sizeof(stream), plain, CLUSTER / 2);
	len += frame(stream + len, sizeof(stream) - len, plain, 0);
	memcpy(stream + len, skippable, sizeof(skippable));
	len += sizeof(skippable);
	len += frame(stream + len, sizeof(stream) - len, plain + CLUSTER / 2, CLUSTER / 2);
	put_stream(m, 0, stream, len);
	/* Too little comes out; too much; the second frame is cut off. */
	put_stream(m, 1, stream, frame(stream, sizeof(stream), plain, CLUSTER - 1));
	put_stream(m, 2, stream, frame(stream, sizeof(stream), plain, CLUSTER + 1));
	len = frame(stream, sizeof(stream), plain, CLUSTER / 2);
	len += frame(stream + len, sizeof(stream) - len, plain, CLUSTER / 2);
	put_stream(m, 3, stream, len - 600);
	one(&rig);
	assert_int_equal(read_at(&rig, 0, got, CLUSTER), 0);
	assert_memory_equal(got, plain, CLUSTER);
	expect_broken(&rig, CLUSTER, "does not decompress");
	expect_broken(&rig, 2 * CLUSTER, "does not decompress");
	expect_broken(&rig, 3 * CLUSTER, "does not decompress");
	end(&rig);
}

/* A frame of 64 KiB of 0x5a that declares a window: RFC 8878's descriptor byte. */
static size_t windowed(uint8_t *out, uint8_t window, bool says_size)
{
	uint8_t *p = out;

	memcpy(p, "\x28\xb5\x2f\xfd", 4);
	p += 4;
	*p++ = says_size ? 0x40 : 0x00;
	*p++ = window;
	if (says_size) { /* less 256 */
		*p++ = 0x00;
		*p++ = 0xff;
	}
	memcpy(p, (uint8_t[]){ 0x03, 0x00, 0x08, 0x5a }, 4); /* RLE block, the last */
	return (size_t)(p + 4 - out);
}

/* No more than 64 MiB of addresses beyond what there are now. */
static void limit_memory(struct rlimit *before)
{
	struct rlimit tight;
	unsigned long pages;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	assert_int_equal(getrlimit(RLIMIT_AS, before), 0);
	tight = *before;
	tight.rlim_cur = pages * (rlim_t)sysconf(_SC_PAGESIZE) + (64 << 20);
	assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
}

/* The largest window that QEMU takes is no reason to allocate it; larger ones it refuses. */
static void test_zstd_window(void **state)
{
	static struct rig rig;
	static uint8_t stream[2 * CLUSTER], got[CLUSTER];
	struct memimg *m = &rig.img[0];
	struct rlimit before;
	size_t len;
	int r;

	(void)state;
	memimg_init(m, 3, BITS, DISK);
	memimg_be64(m, 72, QCOW_INCOMPAT_COMPRESSION);
	m->bytes[104] = QCOW_COMPRESSION_ZSTD;
	put_stream(m, 0, stream, windowed(stream, 0x88, false)); /* 2^27 */
	put_stream(m, 1, stream, windowed(stream, 0x89, false)); /* and an eighth */
	put_stream(m, 2, stream, windowed(stream, 0xa8, false)); /* 2^31 */
	memset(got, 0x77, CLUSTER / 2);
	len = frame(stream, sizeof(stream), got, CLUSTER / 2);
	put_stream(m, 3, stream, len + windowed(stream + len, 0xa8, false));
	/* With the size that comes out a window is not needed, and not looked at. */
	put_stream(m, 4, stream, windowed(stream, 0xa8, true));
	one(&rig);
	limit_memory(&before);
	r = read_at(&rig, 0, got, CLUSTER);
	assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
	assert_int_equal(r, 0);
	expect_bytes(&rig, 0, CLUSTER, 0x5a);
	expect_broken(&rig, CLUSTER, "does not decompress");
	expect_broken(&rig, 2 * CLUSTER, "does not decompress");
	expect_broken(&rig, 3 * CLUSTER, "does not decompress");
	expect_bytes(&rig, 4 * CLUSTER, CLUSTER, 0x5a);
	end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compressed),
		cmocka_unit_test(test_compressed_damage),
		cmocka_unit_test(test_compressed_overlong),
		cmocka_unit_test(test_zstd_frames),
		cmocka_unit_test(test_zstd_window),
	};

	return cmocka_run_group_tests_name("compressed", tests, NULL, NULL);
}
