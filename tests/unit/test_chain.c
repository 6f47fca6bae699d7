// SPDX-License-Identifier: GPL-2.0-only
/* Tables of one image: what resolves to what, and what is refused. */
#include "chainrig.h"

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
		cmocka_unit_test(test_on_demand),
		cmocka_unit_test(test_extents),
	};

	return cmocka_run_group_tests_name("chain", tests, NULL, NULL);
}
