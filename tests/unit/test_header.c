// SPDX-License-Identifier: GPL-2.0-only
/* Header and extensions: what is decoded, and what is refused. */
#include "memimg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/header.h"
#include "lib/image.h"

#define CLUSTER (64u << 10)

static int read_header(struct memimg *m, struct qcow_header *h, struct qcow_error *err)
{
	int r;

	qcow_error_clear(err);
	r = qcow_header_read(&m->io, h, err);
	/* Every refusal has a text and the same code in both places. */
	if (r < 0) {
		assert_int_equal(err->code, -r);
		assert_true(strlen(err->text) > 10);
	}
	return r;
}

static void test_sound(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;

	(void)state;
	memimg_init(&m, 3, 16, 1 << 30);
	memimg_be64(&m, 80, 1);
	memimg_ext(&m, 0x12345678, "unknown", 7);
	memimg_ext(&m, 0xe2792aca, "raw", 3);
	assert_int_equal(read_header(&m, &h, &err), 0);
	assert_int_equal(h.version, 3);
	assert_true(h.size == 1 << 30);
	assert_int_equal(h.l1_size, 4);
	assert_true(h.l1_off == m.l1_off);
	assert_int_equal(h.refcount_order, 4);
	assert_int_equal(h.nr_unknown_ext, 1);
	assert_string_equal(h.backing_format, "raw");
	assert_false(h.has_backing);
	assert_true(h.compatible & QCOW_COMPAT_LAZY_REFCOUNTS);
	memimg_exit(&m);
}

/* Version 2: bytes from 72 on are extensions, whatever they look like. */
static void test_version_2(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;

	(void)state;
	memimg_init(&m, 2, 16, 1 << 20);
	memimg_backing(&m, "base", "qcow2");
	assert_int_equal(read_header(&m, &h, &err), 0);
	assert_true(h.incompatible == 0 && h.autoclear == 0);
	assert_int_equal(h.refcount_order, 4);
	assert_int_equal(h.header_length, 72);
	assert_string_equal(h.backing_name, "base");
	assert_string_equal(h.backing_format, "qcow2");
	memimg_exit(&m);
}

/* Names end where their length says, not at a NUL; what pads an extension is not looked at. */
static void test_padding(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;

	(void)state;
	memimg_init(&m, 3, 16, 1 << 20);
	memimg_ext(&m, 0x12345678, "unknown", 3);
	memimg_put(&m, m.ext_off - 5, "XXXXX", 5);
	memimg_backing(&m, "base", "raw");
	memimg_put(&m, m.ext_off - 5, "XXXXX", 5);
	memimg_put(&m, m.ext_off + 8 + strlen("base"), "XXXX", 4);
	assert_int_equal(read_header(&m, &h, &err), 0);
	assert_string_equal(h.backing_format, "raw");
	assert_string_equal(h.backing_name, "base");
	assert_int_equal(h.nr_unknown_ext, 1);
	memimg_exit(&m);
}

/* A header of 104 bytes has no compression type: what looks like one is the first extension's. */
static void test_no_compression_type(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;

	(void)state;
	memimg_init(&m, 3, 16, 1 << 20);
	memimg_be32(&m, 100, 104);
	m.ext_off = 104;
	memimg_ext(&m, 0xe2792aca, "raw", 3);
	assert_int_equal(read_header(&m, &h, &err), 0);
	assert_int_equal(h.compression, QCOW_COMPRESSION_DEFLATE);
	assert_string_equal(h.backing_format, "raw");
	memimg_exit(&m);
}

struct poke {
	const char *what;
	uint32_t off, width; /* bytes 4 or 8 */
	uint64_t value;
	int want;
};

/* Checklist A and N: one field each in a sound version 3 image of 64 KiB clusters. */
static const struct poke pokes[] = {
	{ "magic", 0, 4, 0x51464900, EINVAL },
	{ "version 1", 4, 4, 1, ENOTSUP },
	{ "version 4", 4, 4, 4, ENOTSUP },
	{ "version huge", 4, 4, 0xffffffff, ENOTSUP },
	{ "backing name outside cluster", 8, 8, CLUSTER + 1, EINVAL },
	{ "backing name far outside", 8, 8, UINT64_MAX, EINVAL },
	{ "cluster_bits 8", 20, 4, 8, EINVAL },
	{ "cluster_bits 22", 20, 4, 22, EINVAL },
	{ "cluster_bits 64", 20, 4, 64, EINVAL },
	{ "cluster_bits 0", 20, 4, 0, EINVAL },
	{ "cluster_bits huge", 20, 4, 0xffffffff, EINVAL },
	{ "size beyond the L1", 24, 8, 1ull << 40, EINVAL },
	{ "size -1", 24, 8, UINT64_MAX, EINVAL },
	{ "size 2^63", 24, 8, 1ull << 63, EINVAL },
	{ "crypt 3", 32, 4, 3, EINVAL },
	{ "crypt LUKS without header", 32, 4, 2, EINVAL },
	{ "l1_size 0", 36, 4, 0, EINVAL },
	{ "l1_size over limit", 36, 4, (4u << 20) + 1, EFBIG },
	{ "l1_size ffffffff", 36, 4, 0xffffffff, EFBIG },
	{ "l1_size 7fffffff", 36, 4, 0x7fffffff, EFBIG },
	{ "l1_off unaligned", 40, 8, 0x1234567890abcdef, EINVAL },
	{ "l1_off negative", 40, 8, 0xffffffffffff0000, EINVAL },
	{ "l1_off where QEMU reads no more", 40, 8, 0x7fffffffffff0000, EINVAL },
	{ "reftable unaligned", 48, 8, 0x1234567890abcdef, EINVAL },
	{ "reftable negative", 48, 8, 0xffffffffffff0000, EINVAL },
	{ "reftable size 0", 56, 4, 0, EINVAL },
	{ "reftable one cluster over 8 MiB", 56, 4, 129, EFBIG },
	{ "reftable over limit", 56, 4, 0x20001, EFBIG },
	{ "reftable ffffffff", 56, 4, 0xffffffff, EFBIG },
	{ "65537 snapshots", 60, 4, 65537, EFBIG },
	{ "snapshots ffffffff", 60, 4, 0xffffffff, EFBIG },
	{ "snapshots_off unaligned", 64, 8, 0x1234567890abcdef, EINVAL },
	{ "snapshots_off negative", 64, 8, 0xffffffffffff0000, EINVAL },
	{ "incompatible bit 5", 72, 8, 1 << 5, ENOTSUP },
	{ "incompatible bit 63", 72, 8, 1ull << 63, ENOTSUP },
	{ "compression bit without type", 72, 8, QCOW_INCOMPAT_COMPRESSION, EINVAL },
	{ "raw data file bit alone", 88, 8, QCOW_AUTOCLEAR_DATA_RAW, EINVAL },
	{ "refcount_order 7", 96, 4, 7, EINVAL },
	{ "refcount_order huge", 96, 4, 0xffffffff, EINVAL },
	{ "header_length 103", 100, 4, 103, EINVAL },
	{ "header_length ffffffff", 100, 4, 0xffffffff, EINVAL },
	{ "header_length 7fffffff", 100, 4, 0x7fffffff, EINVAL },
	{ "header_length past cluster", 100, 4, CLUSTER + 8, EINVAL },
	{ "type without compression bit", 104, 4, 0x01000000, EINVAL },
	{ "extension too long", 116, 4, 0x7fffffff, EINVAL },
	/* and what must pass */
	{ "compatible bit 63", 80, 8, 1ull << 63, 0 },
	{ "autoclear bit 63", 88, 8, 1ull << 63, 0 },
	{ "dirty", 72, 8, QCOW_INCOMPAT_DIRTY, 0 },
	{ "corrupt", 72, 8, QCOW_INCOMPAT_CORRUPT, 0 },
	{ "AES is known", 32, 4, 1, 0 },
	{ "size 0", 24, 8, 0, 0 },
	{ "odd size", 24, 8, 1000, 0 },
	{ "refcount_order 0", 96, 4, 0, 0 },
	{ "refcount_order 6", 96, 4, 6, 0 },
	{ "header_length 105", 100, 4, 105, 0 },
	{ "header_length 120", 100, 4, 120, 0 },
	{ "reftable of 8 MiB", 56, 4, 128, 0 },
	{ "65536 snapshots", 60, 4, 65536, 0 },
	{ "L1 table of 32 MiB", 36, 4, 4u << 20, 0 },
	{ "l1_off at the last cluster", 40, 8, 0x7fffffffbfff0000, 0 },
	{ "an empty snapshot table far away", 64, 8, 0x7fffffffffff0000, 0 },
	{ "tables past the end of file", 40, 8, 1ull << 50, 0 },
};

static void test_pokes(void **state)
{
	const struct poke *p;
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;
	int r;

	(void)state;
	for (p = pokes; p < pokes + sizeof(pokes) / sizeof(*pokes); p++) {
		memimg_init(&m, 3, 16, 1 << 30);
		memimg_be32(&m, 112, 0x01020304); /* an unknown, empty extension */
		if (p->width == 8)
			memimg_be64(&m, p->off, p->value);
		else
			memimg_be32(&m, p->off, (uint32_t)p->value);
		r = read_header(&m, &h, &err);
		if (r != -p->want)
			fail_msg("%s: got %d (%s), want %d", p->what, r, err.text, -p->want);
		memimg_exit(&m);
	}
}

/* 0 without the bit and 1 with it are the only ones that there are. */
static void test_compression_types(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;
	uint32_t type;
	int bit, r;

	(void)state;
	for (type = 0; type < 256; type++) {
		for (bit = 0; bit < 2; bit++) {
			memimg_init(&m, 3, 16, 1 << 30);
			memimg_be64(&m, 72, bit ? QCOW_INCOMPAT_COMPRESSION : 0);
			memimg_be32(&m, 104, type << 24);
			r = read_header(&m, &h, &err);
			if ((r == 0) != (type == (uint32_t)bit))
				fail_msg("type %u, bit %d: %d", type, bit, r);
			memimg_exit(&m);
		}
	}
}

/* Each length up to a whole header: refused or read as zeros, never beyond the buffer. */
static void test_truncated(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;
	size_t size;
	int r;

	(void)state;
	for (size = 0; size < 112; size++) {
		memimg_init(&m, 3, 16, 1 << 30);
		m.size = size;
		r = read_header(&m, &h, &err);
		assert_true(r < 0 || size >= 104);
		memimg_exit(&m);
	}
}

static int with_ext(uint32_t type, const void *data, uint32_t len, uint64_t incompat,
		    uint64_t autoclear, struct qcow_header *h)
{
	struct qcow_error err;
	struct memimg m;
	int r;

	memimg_init(&m, 3, 16, 1 << 20);
	memimg_be64(&m, 72, incompat);
	memimg_be64(&m, 88, autoclear);
	memimg_ext(&m, type, data, len);
	r = read_header(&m, h, &err);
	memimg_exit(&m);
	return r;
}

static void test_extensions(void **state)
{
	uint8_t bitmaps[24] = { 0, 0, 0, 1, 0, 0, 0, 0, [15] = 32, [16 + 5] = 3 };
	char text[4097];
	struct qcow_header h;

	(void)state;
	memset(text, 'x', sizeof(text));
	assert_int_equal(with_ext(0xe2792aca, text, 15, 0, 0, &h), 0);
	assert_int_equal(strlen(h.backing_format), 15);
	assert_int_equal(with_ext(0xe2792aca, text, 16, 0, 0, &h), -EINVAL);
	assert_int_equal(with_ext(0x44415441, text, 4095, 4, 2, &h), 0);
	assert_int_equal(strlen(h.data_file), 4095);
	assert_int_equal(with_ext(0x44415441, text, 4096, 4, 2, &h), -EINVAL);
	text[100] = '\0'; /* padded: the name counts, not the extension */
	assert_int_equal(with_ext(0x44415441, text, 4097, 4, 2, &h), 0);
	assert_int_equal(strlen(h.data_file), 100);
	assert_int_equal(with_ext(0x0537be77, text, 16, 0, 0, &h), -EINVAL);
	assert_int_equal(with_ext(0x23852875, bitmaps, 24, 0, 1, &h), 0);
	assert_int_equal(h.nr_bitmaps, 1);
	assert_true(h.bitmap_dir_off == 0x30000 && h.bitmap_dir_size == 32);
	/* Void without the autoclear bit, but its length is checked. */
	assert_int_equal(with_ext(0x23852875, bitmaps, 24, 0, 0, &h), 0);
	assert_int_equal(h.nr_bitmaps, 0);
	assert_int_equal(with_ext(0x23852875, bitmaps, 23, 0, 0, &h), -EINVAL);
	bitmaps[4] = 1; /* reserved */
	assert_int_equal(with_ext(0x23852875, bitmaps, 24, 0, 1, &h), -EINVAL);
	bitmaps[4] = 0;
	bitmaps[3] = 0; /* none */
	assert_int_equal(with_ext(0x23852875, bitmaps, 24, 0, 1, &h), -EINVAL);
	memcpy(bitmaps, "\0\0\xff\xff", 4); /* as many as there may be */
	bitmaps[13] = 0x20;		    /* 2 MiB of them: an entry has 32 bytes at least */
	assert_int_equal(with_ext(0x23852875, bitmaps, 24, 0, 1, &h), 0);
	assert_int_equal(h.nr_bitmaps, 65535);
	memcpy(bitmaps, "\0\1\0\0", 4);
	assert_int_equal(with_ext(0x23852875, bitmaps, 24, 0, 1, &h), -EINVAL);
	memcpy(bitmaps, "\0\0\0\1", 4);
	bitmaps[13] = 0;
	bitmaps[23] = 1; /* unaligned */
	assert_int_equal(with_ext(0x23852875, bitmaps, 24, 0, 1, &h), -EINVAL);
	bitmaps[23] = 0;
	bitmaps[8] = 0xff; /* huge */
	assert_int_equal(with_ext(0x23852875, bitmaps, 24, 0, 1, &h), -EINVAL);
}

/* No end marker: the area is full, the backing name follows at once. */
static void test_full_area(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;

	(void)state;
	memimg_init(&m, 3, 16, 1 << 20);
	memimg_be32(&m, 112, 0x01020304);
	memimg_be32(&m, 116, 16);
	memimg_be64(&m, 8, 136);
	memimg_be32(&m, 16, 4);
	memcpy(m.bytes + 136, "base", 4);
	assert_int_equal(read_header(&m, &h, &err), 0);
	assert_int_equal(h.nr_unknown_ext, 1);
	assert_string_equal(h.backing_name, "base");
	memimg_be32(&m, 116, 17);
	assert_int_equal(read_header(&m, &h, &err), -EINVAL);
	memimg_exit(&m);
}

static void test_duplicate_extension(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;

	(void)state;
	memimg_init(&m, 3, 16, 1 << 20);
	memimg_ext(&m, 0xe2792aca, "raw", 3);
	memimg_ext(&m, 0xe2792aca, "qcow2", 5);
	assert_int_equal(read_header(&m, &h, &err), -EINVAL);
	memimg_exit(&m);
}

/* A quarter million empty extensions: parsed, and without a read for each. */
static void test_many_extensions(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;
	uint32_t i;

	(void)state;
	memimg_init(&m, 3, 21, 1 << 20);
	for (i = 112; i + 8 <= 2u << 20; i += 8)
		memimg_be32(&m, i, 0x01010101);
	assert_int_equal(read_header(&m, &h, &err), 0);
	assert_int_equal(h.nr_unknown_ext, (2u << 20) / 8 - 14);
	assert_true(m.nr_reads < 1000);
	memimg_exit(&m);
}

static void test_feature_name(void **state)
{
	uint8_t table[96] = { 0, 5 };
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;

	(void)state;
	memcpy(table + 2, "a\033[31mnew feature", 17);
	memimg_init(&m, 3, 16, 1 << 20);
	memimg_ext(&m, 0x6803f857, table, sizeof(table));
	memimg_be64(&m, 72, 1 << 5);
	assert_int_equal(read_header(&m, &h, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "a?[31mnew feature"));
	memimg_exit(&m);
}

static int with_backing_size(uint32_t cluster_bits, uint32_t len, uint64_t off)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;
	int r;

	memimg_init(&m, 3, cluster_bits, 1 << 15);
	memimg_be64(&m, 8, off);
	memimg_be32(&m, 16, len);
	r = read_header(&m, &h, &err);
	memimg_exit(&m);
	return r;
}

static void test_backing_name(void **state)
{
	(void)state;
	assert_int_equal(with_backing_size(9, 100, 400), 0);
	assert_int_equal(with_backing_size(9, 112, 400), 0);
	assert_int_equal(with_backing_size(9, 113, 400), -EINVAL);
	assert_int_equal(with_backing_size(9, 0xffffffff, 400), -EINVAL);
	assert_int_equal(with_backing_size(9, 1, 512), -EINVAL);
	assert_int_equal(with_backing_size(9, 0, 512), 0);
	assert_int_equal(with_backing_size(16, 1023, 0x1000), 0);
	assert_int_equal(with_backing_size(16, 1024, 0x1000), -EINVAL);
	/* Ignored without an offset. */
	assert_int_equal(with_backing_size(9, 0xffffffff, 0), 0);
}

/* The text names the command that converts. */
static void test_foreign(void **state)
{
	static const struct {
		const char *reads; /* the options of the advice */
		size_t off;
		const char *bytes;
	} cases[] = {
		{ "-f vmdk", 0, "KDMV" },
		{ "-f vmdk", 0, "COWD" },
		{ "-f vmdk", 0, "# Disk DescriptorFile" },
		{ "-f vdi", 64, "\x7f\x10\xda\xbe" },
		{ "-f vpc", 0, "conectix" },
		{ "-f vpc", 4096 - 512, "conectix" },
		{ "-f vhdx", 0, "vhdxfile" },
		{ "-f parallels", 0, "WithoutFreeSpace" },
		{ "-f parallels", 0, "WithouFreSpacExt" },
		{ "-f qed", 0, "QED" }, /* and a NUL: the fourth byte */
		{ "--object secret,id=s,file=PASSFILE --image-opts "
		  "driver=luks,key-secret=s,file.filename=OLD",
		  0, "LUKS\xba\xbe" },
	};
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;
	char want[160];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memimg_init_raw(&m, 4096);
		memimg_be32(&m, 0, 0);
		memimg_put(&m, cases[i].off, cases[i].bytes, strlen(cases[i].bytes));
		assert_int_equal(read_header(&m, &h, &err), -ENOTSUP);
		snprintf(want, sizeof(want), "qemu-img convert %s -O qcow2", cases[i].reads);
		assert_non_null(strstr(err.text, want));
		memimg_exit(&m);
	}
}

static void test_io_error(void **state)
{
	struct qcow_header h;
	struct qcow_error err;
	struct memimg m;

	(void)state;
	memimg_init(&m, 3, 16, 1 << 20);
	m.fail_to = 1;
	assert_int_equal(read_header(&m, &h, &err), -EIO);
	memimg_exit(&m);
}

static void test_text(void **state)
{
	struct qcow_error err;

	(void)state;
	qcow_fail(&err, EIO, 5, "a\nb\x7f \xc3\xa9 \xff \xc2\x9b \xe2\x82");
	assert_string_equal(err.text, "a?b? \xc3\xa9 ? ?? ??");
	qcow_error_prefix(&err, "%s", "file\n");
	assert_string_equal(err.text, "file?: a?b? \xc3\xa9 ? ?? ??");
	assert_int_equal(qcow_fail(NULL, EIO, 5, "x"), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sound),		cmocka_unit_test(test_version_2),
		cmocka_unit_test(test_pokes),		cmocka_unit_test(test_compression_types),
		cmocka_unit_test(test_padding),		cmocka_unit_test(test_no_compression_type),
		cmocka_unit_test(test_truncated),	cmocka_unit_test(test_full_area),
		cmocka_unit_test(test_extensions),	cmocka_unit_test(test_duplicate_extension),
		cmocka_unit_test(test_many_extensions), cmocka_unit_test(test_feature_name),
		cmocka_unit_test(test_backing_name),	cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_io_error),	cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests_name("header", tests, NULL, NULL);
}
