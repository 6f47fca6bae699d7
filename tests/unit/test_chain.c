// SPDX-License-Identifier: GPL-2.0-only
/* Tables, layers, resolve and read, on images in memory with each oddity alone. */
#include "memimg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "lib/chain.h"

#define BITS	16
#define CLUSTER (1u << BITS)
#define DISK	(64ull << 20)
#define NR_RUNS 600

struct rig {
	struct memimg img[4];
	struct qcow_chain *chain;
	struct qcow_scratch *s;
	struct qcow_run runs[NR_RUNS];
	size_t nr;
	struct qcow_error err;
};

static void begin(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	assert_int_equal(qcow_chain_create(&rig->chain, NULL, &rig->err), 0);
}

static void add(struct rig *rig, int i)
{
	if (qcow_chain_add_qcow2(rig->chain, &rig->img[i].io, NULL, &rig->err) < 0)
		fail_msg("%s", rig->err.text);
}

static void seal(struct rig *rig)
{
	if (qcow_chain_seal(rig->chain, &rig->err) < 0)
		fail_msg("%s", rig->err.text);
	assert_int_equal(qcow_scratch_create(&rig->s, rig->chain, &rig->err), 0);
}

/* One image; what it holds is set before. */
static void one(struct rig *rig)
{
	struct memimg m = rig->img[0];

	begin(rig);
	rig->img[0] = m;
	add(rig, 0);
	seal(rig);
}

static void end(struct rig *rig)
{
	int i;

	qcow_scratch_destroy(rig->s);
	qcow_chain_destroy(rig->chain);
	for (i = 0; i < 4; i++)
		memimg_exit(&rig->img[i]);
}

static void resolve(struct rig *rig, uint64_t off, uint64_t len)
{
	if (qcow_chain_resolve(rig->chain, off, len, rig->runs, NR_RUNS, &rig->nr, rig->s,
			       &rig->err) < 0)
		fail_msg("%s", rig->err.text);
}

static void expect(const struct rig *rig, size_t i, enum qcow_run_type type, uint64_t len,
		   uint64_t host_off)
{
	assert_true(i < rig->nr);
	assert_int_equal(rig->runs[i].type, type);
	assert_true(rig->runs[i].len == len);
	assert_false(rig->runs[i].writable);
	if (type == QCOW_RUN_DATA)
		assert_true(rig->runs[i].host_off == host_off);
}

static int read_at(struct rig *rig, uint64_t off, uint8_t *buf, size_t len)
{
	return qcow_chain_read(rig->chain, off, buf, len, rig->s, &rig->err);
}

static void expect_bytes(struct rig *rig, uint64_t off, size_t len, uint8_t value)
{
	uint8_t *buf = malloc(len);
	size_t i;

	if (read_at(rig, off, buf, len) < 0)
		fail_msg("%s", rig->err.text);
	for (i = 0; i < len; i++)
		assert_int_equal(buf[i], value);
	free(buf);
}

static void expect_broken(struct rig *rig, uint64_t off, const char *text)
{
	uint8_t buf[512];

	qcow_error_clear(&rig->err);
	assert_int_equal(read_at(rig, off, buf, sizeof(buf)), -EIO);
	assert_int_equal(rig->err.code, EIO);
	if (!strstr(rig->err.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, rig->err.text);
	/* LOAD must not fail: that block alone is FETCH. */
	resolve(rig, off & ~(uint64_t)(CLUSTER - 1), CLUSTER);
	expect(rig, 0, QCOW_RUN_FETCH, CLUSTER, 0);
	assert_int_equal(rig->err.code, 0);
}

static void test_empty(void **state)
{
	static struct rig rig;

	(void)state;
	memimg_init(&rig.img[0], 3, BITS, DISK);
	one(&rig);
	assert_true(qcow_chain_size(rig.chain) == DISK);
	assert_int_equal(qcow_chain_block_bits(rig.chain), BITS);
	resolve(&rig, 0, DISK);
	assert_int_equal(rig.nr, 1);
	expect(&rig, 0, QCOW_RUN_ZERO, DISK, 0);
	expect_bytes(&rig, 12345, 70000, 0);
	/* Past the disk's end: zeros too. */
	resolve(&rig, DISK, 512ull * CLUSTER);
	expect(&rig, 0, QCOW_RUN_ZERO, 512ull * CLUSTER, 0);
	end(&rig);
}

static void test_bad_ranges(void **state)
{
	static struct rig rig;
	uint8_t buf[1];

	(void)state;
	memimg_init(&rig.img[0], 3, BITS, DISK);
	one(&rig);
	assert_int_equal(qcow_chain_resolve(rig.chain, 1, CLUSTER, rig.runs, 1, &rig.nr, rig.s,
					    &rig.err),
			 -EINVAL);
	assert_int_equal(qcow_chain_resolve(rig.chain, 0, 512, rig.runs, 1, &rig.nr, rig.s,
					    &rig.err),
			 -EINVAL);
	assert_int_equal(qcow_chain_resolve(rig.chain, 0, 0, rig.runs, 1, &rig.nr, rig.s, &rig.err),
			 -EINVAL);
	assert_int_equal(qcow_chain_resolve(rig.chain, -(uint64_t)CLUSTER, 2ull * CLUSTER, rig.runs,
					    1, &rig.nr, rig.s, &rig.err),
			 -EINVAL);
	assert_int_equal(read_at(&rig, UINT64_MAX - 1, buf, 1), 0);
	assert_int_equal(qcow_chain_read(rig.chain, UINT64_MAX - 1, buf, 2, rig.s, &rig.err),
			 -EINVAL);
	end(&rig);
}

static void test_runs_merge(void **state)
{
	static struct rig rig;
	uint64_t a, b;

	(void)state;
	memimg_init(&rig.img[0], 3, BITS, DISK);
	memimg_data(&rig.img[0], 0, 1); /* its L2 table comes in between */
	a = memimg_data(&rig.img[0], 1, 2);
	b = memimg_data(&rig.img[0], 2, 3);
	assert_true(b == a + CLUSTER);
	memimg_map(&rig.img[0], 5, 1);	   /* zero flag */
	memimg_map(&rig.img[0], 6, a | 1); /* zero flag with a cluster behind */
	memimg_map(&rig.img[0], 7, a);	   /* shared */
	one(&rig);
	resolve(&rig, 0, 8 * CLUSTER);
	assert_int_equal(rig.nr, 4);
	expect(&rig, 1, QCOW_RUN_DATA, 2 * CLUSTER, a);
	expect(&rig, 2, QCOW_RUN_ZERO, 4 * CLUSTER, 0);
	expect(&rig, 3, QCOW_RUN_DATA, CLUSTER, a);
	expect_bytes(&rig, 2 * CLUSTER + 5, 100, 3);
	expect_bytes(&rig, 6 * CLUSTER, 100, 0);
	end(&rig);
}

/* Too few places for runs: the beginning comes, without loss. */
static void test_few_runs(void **state)
{
	static struct rig rig;
	uint64_t off = 0;
	size_t nr;

	(void)state;
	memimg_init(&rig.img[0], 3, BITS, DISK);
	memimg_data(&rig.img[0], 1, 1);
	memimg_data(&rig.img[0], 3, 1);
	one(&rig);
	while (off < 6 * CLUSTER) {
		assert_int_equal(qcow_chain_resolve(rig.chain, off, 6 * CLUSTER - off, rig.runs, 1,
						    &nr, rig.s, &rig.err),
				 0);
		assert_int_equal(nr, 1);
		assert_true(rig.runs[0].guest_off == off);
		off += rig.runs[0].len;
	}
	assert_true(off == 6 * CLUSTER);
	end(&rig);
}

static void test_broken_entries(void **state)
{
	static struct rig rig;
	struct memimg *m = &rig.img[0];

	(void)state;
	memimg_init(m, 3, BITS, DISK * 32);
	memimg_data(m, 0, 7);
	memimg_map(m, 1, MEMIMG_COPIED | 0x52a00);
	memimg_map(m, 2, 0x52a01);
	memimg_be64(m, m->l1_off + 8, MEMIMG_COPIED | 0x42a00);
	one(&rig);
	expect_bytes(&rig, 0, CLUSTER, 7);
	expect_broken(&rig, CLUSTER, "is not aligned");
	expect_broken(&rig, 2 * CLUSTER + 512, "is not aligned");
	expect_broken(&rig, 512ull << 20, "L2 table at 0x42a00 is not cluster aligned");
	/* The neighbours of a broken block are fine. */
	resolve(&rig, 0, 8 * CLUSTER);
	assert_int_equal(rig.nr, 3);
	expect(&rig, 0, QCOW_RUN_DATA, CLUSTER, rig.runs[0].host_off);
	expect(&rig, 1, QCOW_RUN_FETCH, 2 * CLUSTER, 0);
	end(&rig);
}

static void test_version_2_zero_flag(void **state)
{
	static struct rig rig;

	(void)state;
	memimg_init(&rig.img[0], 2, BITS, DISK);
	memimg_map(&rig.img[0], 0, 1);
	one(&rig);
	expect_broken(&rig, 0, "zero flag, which version 2 does not know");
	end(&rig);
}

/* Tables and data past the file's end are zeros; offsets past any file are an error. */
static void test_past_eof(void **state)
{
	static struct rig rig;
	struct memimg *m = &rig.img[0];

	(void)state;
	memimg_init(m, 3, BITS, DISK * 32);
	memimg_map(m, 0, MEMIMG_COPIED | 1ull << 50);
	memimg_map(m, 1, 0xbfffffffffff0000);
	memimg_be64(m, m->l1_off + 8, MEMIMG_COPIED | 1ull << 51);
	one(&rig);
	expect_bytes(&rig, 0, CLUSTER, 0);
	expect_bytes(&rig, CLUSTER, CLUSTER, 0);
	expect_bytes(&rig, 512ull << 20, CLUSTER, 0);
	resolve(&rig, 0, 2 * CLUSTER);
	/* A file may grow: the kernel reads zeros there itself. */
	expect(&rig, 0, QCOW_RUN_DATA, CLUSTER, 1ull << 50);
	/* The last cluster below 2^56 is the largest offset there is. */
	expect(&rig, 1, QCOW_RUN_DATA, CLUSTER, 0xffffffffff0000);
	end(&rig);
}

/* On a block device nobody can read past the end: FETCH from there on. */
static void test_past_device_end(void **state)
{
	static struct rig rig;
	struct memimg *m = &rig.img[0];
	uint64_t first, off;
	uint8_t buf[CLUSTER];

	(void)state;
	memimg_init(m, 3, BITS, DISK);
	first = memimg_data(m, 0, 1);
	off = memimg_data(m, 1, 2);
	memimg_map(m, 2, (off + CLUSTER) | MEMIMG_COPIED);
	m->io.fixed_end = true;
	m->size -= 512;
	one(&rig);
	resolve(&rig, 0, 4 * CLUSTER);
	assert_int_equal(rig.nr, 3);
	expect(&rig, 0, QCOW_RUN_DATA, CLUSTER, first);
	expect(&rig, 1, QCOW_RUN_FETCH, 2 * CLUSTER, 0);
	expect(&rig, 2, QCOW_RUN_ZERO, CLUSTER, 0);
	assert_int_equal(read_at(&rig, CLUSTER, buf, CLUSTER), 0);
	assert_int_equal(buf[CLUSTER - 513], 2);
	assert_int_equal(buf[CLUSTER - 512], 0);
	end(&rig);
}

/* 512-byte clusters on a device of 4 KiB sectors: no block can be read alone. */
static void test_small_blocks_on_4k(void **state)
{
	static struct rig rig;

	(void)state;
	memimg_init(&rig.img[0], 3, 9, 32 << 10);
	memimg_data(&rig.img[0], 0, 1);
	rig.img[0].io.align = 4096;
	one(&rig);
	resolve(&rig, 0, 1024);
	assert_int_equal(rig.runs[0].type, QCOW_RUN_FETCH);
	expect_bytes(&rig, 0, 512, 1);
	end(&rig);
}

/* An I/O error in a table is not a broken entry: the call fails, and may be tried again. */
static void test_io_error(void **state)
{
	static struct rig rig;
	struct memimg *m = &rig.img[0];
	uint64_t off;

	(void)state;
	memimg_init(m, 3, BITS, DISK);
	off = memimg_data(m, 0, 5);
	one(&rig);
	m->fail_from = off - CLUSTER; /* the L2 table */
	m->fail_to = off;
	assert_int_equal(qcow_chain_resolve(rig.chain, 0, CLUSTER, rig.runs, 1, &rig.nr, rig.s,
					    &rig.err),
			 -EIO);
	m->fail_to = 0;
	expect_bytes(&rig, 0, CLUSTER, 5);
	end(&rig);
}

static void put_deflate(struct memimg *m, uint64_t guest_cluster, const uint8_t *plain, int window,
			uint64_t shift_in_sector)
{
	uint8_t *packed = malloc(2 * CLUSTER);
	z_stream z = { .next_in = (z_const Bytef *)plain,
		       .avail_in = CLUSTER,
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
	put_deflate(m, 0, plain[0], -12, 0);
	put_deflate(m, 1, plain[1], -15, 333); /* a larger window than QEMU writes */
	put_deflate(m, 2, plain[2], -12, 511);
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
	memimg_map(m, 0, 1ull << 62 | 1ull << 52); /* past the end: zeros, no stream */
	memimg_map(m, 1, ~0ull & ~MEMIMG_COPIED);  /* all bits */
	put_deflate(m, 2, plain, -12, 0);
	off = m->size - 2 * CLUSTER;
	memimg_map(m, 3, 1ull << 62 | off); /* one sector only: cut off */
	memset(m->bytes + m->size - 100, 0xff, 100);
	memimg_map(m, 4, 1ull << 62 | (m->size - 100)); /* rubbish at the very end */
	one(&rig);
	expect_broken(&rig, 0, "does not decompress");
	expect_broken(&rig, CLUSTER, "");
	expect_broken(&rig, 3 * CLUSTER, "does not decompress");
	expect_broken(&rig, 4 * CLUSTER, "does not decompress");
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

static void test_extended_l2(void **state)
{
	static struct rig rig;
	struct memimg *m = &rig.img[0];
	uint32_t sub = CLUSTER / 32;
	uint64_t off;

	(void)state;
	memimg_init(m, 3, BITS, DISK);
	memimg_be64(m, 72, QCOW_INCOMPAT_EXTL2);
	off = memimg_alloc(m, 1);
	memset(m->bytes + off, 9, CLUSTER);
	memimg_map2(m, 0, off | MEMIMG_COPIED, 0x00000002fffffff1ull); /* bits 1 zero; 1-3 not */
	memimg_map2(m, 1, off | MEMIMG_COPIED, 0x0000000100000001ull); /* contradiction */
	memimg_map2(m, 2, 0, 1);				       /* allocated, but where? */
	memimg_map2(m, 3, 0, 0xffffffff00000000ull);
	memimg_map2(m, 4, off | MEMIMG_COPIED, 0); /* preallocated */
	one(&rig);
	assert_int_equal(qcow_chain_block_bits(rig.chain), BITS - 5);
	resolve(&rig, 0, CLUSTER);
	assert_int_equal(rig.nr, 3);
	expect(&rig, 0, QCOW_RUN_DATA, sub, off);
	expect(&rig, 1, QCOW_RUN_ZERO, 3 * sub, 0);
	expect(&rig, 2, QCOW_RUN_DATA, 28 * sub, off + 4 * sub);
	resolve(&rig, CLUSTER, 4 * CLUSTER);
	assert_int_equal(rig.nr, 2);
	expect(&rig, 0, QCOW_RUN_FETCH, 2 * CLUSTER, 0);
	expect(&rig, 1, QCOW_RUN_ZERO, 2 * CLUSTER, 0);
	expect_bytes(&rig, 3 * CLUSTER, 2 * CLUSTER, 0);
	end(&rig);
}

/* Raw backing of 96 KiB and 100 bytes under 64 KiB clusters. */
static void test_short_raw(void **state)
{
	static struct rig rig;
	uint8_t buf[CLUSTER];

	(void)state;
	begin(&rig);
	memimg_init(&rig.img[0], 3, BITS, DISK);
	memimg_backing(&rig.img[0], "base", "raw");
	memimg_init_raw(&rig.img[1], 96 * 1024 + 100);
	add(&rig, 0);
	assert_int_equal(qcow_chain_needs(rig.chain), QCOW_NEED_BACKING);
	assert_int_equal(qcow_chain_seal(rig.chain, &rig.err), -EINVAL);
	assert_int_equal(qcow_chain_add_raw(rig.chain, &rig.img[1].io, &rig.err), 0);
	seal(&rig);
	resolve(&rig, 0, 4 * CLUSTER);
	assert_int_equal(rig.nr, 3);
	expect(&rig, 0, QCOW_RUN_DATA, CLUSTER, 0);
	assert_int_equal(rig.runs[0].layer, 1);
	expect(&rig, 1, QCOW_RUN_FETCH, CLUSTER, 0);
	expect(&rig, 2, QCOW_RUN_ZERO, 2 * CLUSTER, 0);
	assert_int_equal(read_at(&rig, CLUSTER, buf, CLUSTER), 0);
	assert_memory_equal(buf, rig.img[1].bytes + CLUSTER, 32 * 1024 + 100);
	assert_int_equal(buf[32 * 1024 + 100], 0);
	assert_int_equal(buf[CLUSTER - 1], 0);
	end(&rig);
}

/* A cluster of the backing image reaches past its disk: those bytes are stale, not data. */
static void test_stale_tail(void **state)
{
	static struct rig rig;

	(void)state;
	begin(&rig);
	memimg_init(&rig.img[0], 3, BITS, DISK);
	memimg_backing(&rig.img[0], "base", "qcow2");
	memimg_init(&rig.img[1], 3, BITS, CLUSTER + 4096);
	memimg_data(&rig.img[1], 0, 1);
	memimg_data(&rig.img[1], 1, 2);
	add(&rig, 0);
	add(&rig, 1);
	seal(&rig);
	resolve(&rig, 0, 3 * CLUSTER);
	expect(&rig, 0, QCOW_RUN_DATA, CLUSTER, rig.runs[0].host_off);
	expect(&rig, 1, QCOW_RUN_FETCH, CLUSTER, 0);
	expect_bytes(&rig, CLUSTER, 4096, 2);
	expect_bytes(&rig, CLUSTER + 4096, CLUSTER - 4096, 0);
	end(&rig);
}

/* Blocks of several backing clusters: DATA only where those are contiguous. */
static void test_small_backing_clusters(void **state)
{
	static struct rig rig;
	uint64_t first = 0;
	uint32_t i;

	(void)state;
	begin(&rig);
	memimg_init(&rig.img[0], 3, 14, DISK);
	memimg_backing(&rig.img[0], "base", "qcow2");
	memimg_init(&rig.img[1], 3, 12, DISK);
	memimg_data(&rig.img[1], 100, 1); /* makes the L2 table */
	for (i = 0; i < 4; i++)
		first = i ? memimg_data(&rig.img[1], i, 1), first : memimg_data(&rig.img[1], 0, 1);
	memimg_data(&rig.img[1], 5, 2);
	memimg_data(&rig.img[1], 4, 2); /* the wrong way round */
	memimg_map(&rig.img[1], 8, 1);
	add(&rig, 0);
	add(&rig, 1);
	seal(&rig);
	resolve(&rig, 0, 4 << 14);
	assert_int_equal(rig.nr, 3);
	expect(&rig, 0, QCOW_RUN_DATA, 1 << 14, first);
	expect(&rig, 1, QCOW_RUN_FETCH, 1 << 14, 0);
	expect(&rig, 2, QCOW_RUN_ZERO, 2 << 14, 0);
	expect_bytes(&rig, 1 << 14, 8192, 2);
	expect_bytes(&rig, (1 << 14) + 8192, 8192, 0);
	end(&rig);
}

static void test_data_file(void **state)
{
	static struct rig rig;
	struct memimg *m = &rig.img[0];

	(void)state;
	begin(&rig);
	memimg_init(m, 3, BITS, DISK);
	memimg_be64(m, 72, QCOW_INCOMPAT_DATA_FILE);
	memimg_map(m, 0, MEMIMG_COPIED); /* cluster 0 at offset 0 */
	memimg_map(m, 1, MEMIMG_COPIED | CLUSTER);
	memimg_map(m, 2, MEMIMG_COPIED | CLUSTER); /* must equal the guest offset */
	memimg_map(m, 3, 1ull << 62 | 512);	   /* compressed: impossible */
	memimg_map(m, 5, 0);
	memimg_init_raw(&rig.img[1], 6 * CLUSTER);
	add(&rig, 0);
	assert_int_equal(qcow_chain_needs(rig.chain), QCOW_NEED_DATA_FILE);
	assert_int_equal(qcow_chain_add_raw(rig.chain, &rig.img[1].io, &rig.err), -EINVAL);
	assert_int_equal(qcow_chain_add_data_file(rig.chain, &rig.img[1].io, &rig.err), 0);
	seal(&rig);
	assert_int_equal(qcow_chain_data_layer(rig.chain), 1);
	resolve(&rig, 0, 6 * CLUSTER);
	assert_int_equal(rig.nr, 3);
	expect(&rig, 0, QCOW_RUN_DATA, 2 * CLUSTER, 0);
	assert_int_equal(rig.runs[0].layer, 1);
	expect(&rig, 1, QCOW_RUN_FETCH, 2 * CLUSTER, 0);
	expect(&rig, 2, QCOW_RUN_ZERO, 2 * CLUSTER, 0);
	expect_broken(&rig, 2 * CLUSTER, "they must be equal");
	expect_broken(&rig, 3 * CLUSTER, "compressed in an image with a data file");
	end(&rig);
}

static void test_encrypted(void **state)
{
	static struct rig rig;

	(void)state;
	begin(&rig);
	memimg_init(&rig.img[0], 3, BITS, DISK);
	memimg_be32(&rig.img[0], 32, 1);
	add(&rig, 0);
	assert_int_equal(qcow_chain_seal(rig.chain, &rig.err), -ENOTSUP);
	assert_non_null(strstr(rig.err.text, "qemu-img convert"));
	end(&rig);
}

static void test_too_many_layers(void **state)
{
	static struct rig rig;
	int i, r = 0;

	(void)state;
	begin(&rig);
	memimg_init(&rig.img[0], 3, BITS, DISK);
	memimg_backing(&rig.img[0], "me", "qcow2");
	for (i = 0; !r && i <= QCOW_MAX_LAYERS; i++)
		r = qcow_chain_add_qcow2(rig.chain, &rig.img[0].io, NULL, &rig.err);
	assert_int_equal(r, -E2BIG);
	assert_int_equal(qcow_chain_nr_layers(rig.chain), QCOW_MAX_LAYERS);
	end(&rig);
}

/* A deep chain with everything in the base: each table entry is decoded once. */
static void test_deep(void **state)
{
	static struct rig rig;
	uint32_t i;

	(void)state;
	begin(&rig);
	memimg_init(&rig.img[0], 3, BITS, DISK);
	memimg_backing(&rig.img[0], "me", "qcow2");
	memimg_init(&rig.img[1], 3, BITS, DISK);
	for (i = 0; i < 512; i += 2)
		memimg_data(&rig.img[1], i, 1);
	for (i = 0; i < 254; i++)
		add(&rig, 0);
	add(&rig, 1);
	seal(&rig);
	resolve(&rig, 0, 512ull * CLUSTER);
	assert_int_equal(rig.nr, 512);
	expect_bytes(&rig, 510 * CLUSTER, CLUSTER, 1);
	expect_bytes(&rig, 511 * CLUSTER, CLUSTER, 0);
	end(&rig);
}

/* Opening must not read tables; resolving one page only what it needs. */
static void test_on_demand(void **state)
{
	static struct rig rig;
	unsigned int opened;

	(void)state;
	memimg_init(&rig.img[0], 3, BITS, 1ull << 40);
	memimg_data(&rig.img[0], 1 << 20, 1);
	one(&rig);
	opened = rig.img[0].nr_reads;
	assert_true(opened < 8);
	resolve(&rig, 1ull << 36, 512ull * CLUSTER);
	expect(&rig, 0, QCOW_RUN_DATA, CLUSTER, rig.runs[0].host_off);
	assert_true(rig.img[0].nr_reads - opened <= 3);
	end(&rig);
}

static void test_extents(void **state)
{
	static struct rig rig;
	struct qcow_extent e;
	uint64_t off;

	(void)state;
	memimg_init(&rig.img[0], 3, BITS, DISK);
	off = memimg_data(&rig.img[0], 1, 1);
	memimg_map(&rig.img[0], 2, off | 1);
	memimg_map(&rig.img[0], 3, 0x52a00);
	one(&rig);
	assert_int_equal(qcow_chain_extent(rig.chain, 512, DISK, &e, rig.s, &rig.err), 0);
	assert_int_equal(e.type, QCOW_EXTENT_UNALLOCATED);
	assert_true(e.len == CLUSTER - 512);
	assert_int_equal(qcow_chain_extent(rig.chain, CLUSTER + 512, DISK, &e, rig.s, &rig.err), 0);
	assert_int_equal(e.type, QCOW_EXTENT_DATA);
	assert_true(e.copied && e.host_off == off + 512 && e.len == CLUSTER - 512);
	assert_int_equal(qcow_chain_extent(rig.chain, 2 * CLUSTER, 100, &e, rig.s, &rig.err), 0);
	assert_int_equal(e.type, QCOW_EXTENT_ZERO);
	assert_true(e.has_host_off && e.host_off == off && e.len == 100);
	assert_int_equal(qcow_chain_extent(rig.chain, 3 * CLUSTER, 100, &e, rig.s, &rig.err), 0);
	assert_int_equal(e.type, QCOW_EXTENT_BROKEN);
	assert_int_equal(rig.err.code, EIO);
	end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_bad_ranges),
		cmocka_unit_test(test_runs_merge),
		cmocka_unit_test(test_few_runs),
		cmocka_unit_test(test_broken_entries),
		cmocka_unit_test(test_version_2_zero_flag),
		cmocka_unit_test(test_past_eof),
		cmocka_unit_test(test_past_device_end),
		cmocka_unit_test(test_small_blocks_on_4k),
		cmocka_unit_test(test_io_error),
		cmocka_unit_test(test_compressed),
		cmocka_unit_test(test_compressed_damage),
		cmocka_unit_test(test_compressed_overlong),
		cmocka_unit_test(test_extended_l2),
		cmocka_unit_test(test_short_raw),
		cmocka_unit_test(test_stale_tail),
		cmocka_unit_test(test_small_backing_clusters),
		cmocka_unit_test(test_data_file),
		cmocka_unit_test(test_encrypted),
		cmocka_unit_test(test_too_many_layers),
		cmocka_unit_test(test_deep),
		cmocka_unit_test(test_on_demand),
		cmocka_unit_test(test_extents),
	};

	return cmocka_run_group_tests_name("chain", tests, NULL, NULL);
}
