// SPDX-License-Identifier: GPL-2.0-only
/* Several layers, and features that change what a block is. */
#include "chainrig.h"

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

/* The mapped device has one sector size; what lies between sectors of the strictest layer is FETCH.
 */
static void test_strictest_layer(void **state)
{
	static struct rig rig;
	uint64_t base;

	(void)state;
	begin(&rig);
	memimg_init(&rig.img[0], 3, 12, DISK);
	memimg_backing(&rig.img[0], "base", "qcow2");
	rig.img[0].io.align = 4096;
	memimg_init(&rig.img[1], 3, 9, 1 << 20);
	memimg_data(&rig.img[1], 100, 1); /* makes the L2 table */
	base = memimg_alloc(&rig.img[1], 9);
	base += 4096 - base % 4096 + 512;
	for (uint32_t i = 0; i < 8; i++)
		memimg_map(&rig.img[1], i, base + i * 512);
	add(&rig, 0);
	add(&rig, 1);
	seal(&rig);
	resolve(&rig, 0, 4096);
	expect(&rig, 0, QCOW_RUN_FETCH, 4096, 0);
	end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_extended_l2),
		cmocka_unit_test(test_short_raw),
		cmocka_unit_test(test_stale_tail),
		cmocka_unit_test(test_small_backing_clusters),
		cmocka_unit_test(test_data_file),
		cmocka_unit_test(test_encrypted),
		cmocka_unit_test(test_too_many_layers),
		cmocka_unit_test(test_deep),
		cmocka_unit_test(test_strictest_layer),
	};

	return cmocka_run_group_tests_name("layers", tests, NULL, NULL);
}
