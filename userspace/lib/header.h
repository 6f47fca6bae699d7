/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The qcow2 header and its extensions, decoded and checked.
 *
 * Rules are those of QEMU's docs/interop/qcow2.rst ("Header", "Header
 * extensions") plus the limits QEMU itself imposes; where a comment says
 * "QEMU", the specification is silent and QEMU refuses the same.
 */
#ifndef QCOW_LIB_HEADER_H
#define QCOW_LIB_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/io.h"

#define QCOW_MIN_CLUSTER_BITS 9
#define QCOW_MAX_CLUSTER_BITS 21		     /* QEMU: 2 MiB */
#define QCOW_MIN_EXTL2_BITS   14		     /* spec: a subcluster is at least 512 bytes */
#define QCOW_MAX_L1_ENTRIES   ((32u << 20) / 8)	     /* QEMU */
#define QCOW_MAX_REFTABLE     (8u << 20)	     /* bytes; QEMU */
#define QCOW_MAX_SNAPSHOTS    65536u		     /* QEMU */
#define QCOW_MAX_BITMAPS      65535u		     /* QEMU */
#define QCOW_MAX_BITMAP_DIR   ((64ull << 20) - 1024) /* bytes; QEMU */
#define QCOW_MAX_NAME	      1023		     /* backing file name, bytes */
#define QCOW_MAX_FORMAT	      15		     /* backing format name, bytes; QEMU */
#define QCOW_MAX_DATA_NAME    4095		     /* ours: PATH_MAX - 1 */

/* incompatible_features */
#define QCOW_INCOMPAT_DIRTY	  (1ull << 0)
#define QCOW_INCOMPAT_CORRUPT	  (1ull << 1)
#define QCOW_INCOMPAT_DATA_FILE	  (1ull << 2)
#define QCOW_INCOMPAT_COMPRESSION (1ull << 3)
#define QCOW_INCOMPAT_EXTL2	  (1ull << 4)
#define QCOW_INCOMPAT_KNOWN	  0x1full
/* compatible_features */
#define QCOW_COMPAT_LAZY_REFCOUNTS (1ull << 0)
/* autoclear_features */
#define QCOW_AUTOCLEAR_BITMAPS	(1ull << 0)
#define QCOW_AUTOCLEAR_DATA_RAW (1ull << 1)
#define QCOW_AUTOCLEAR_KNOWN	0x3ull

enum qcow_compression {
	QCOW_COMPRESSION_DEFLATE = 0,
	QCOW_COMPRESSION_ZSTD = 1,
};

enum qcow_crypt {
	QCOW_CRYPT_NONE = 0,
	QCOW_CRYPT_AES = 1,
	QCOW_CRYPT_LUKS = 2,
};

/* Everything in host byte order; lengths and offsets in bytes unless named otherwise. */
struct qcow_header {
	uint32_t version;      /* 2 or 3 */
	uint32_t cluster_bits; /* 9..21; >= 14 with extended L2 */
	uint64_t size;	       /* virtual size as recorded: any number of bytes */
	uint32_t crypt_method; /* enum qcow_crypt */
	uint32_t l1_size;      /* entries, <= QCOW_MAX_L1_ENTRIES, enough for size */
	uint64_t l1_off;       /* cluster aligned */
	uint64_t reftable_off; /* cluster aligned */
	uint32_t reftable_clusters;
	uint32_t nr_snapshots;			      /* <= QCOW_MAX_SNAPSHOTS */
	uint64_t snapshots_off;			      /* cluster aligned */
	uint64_t incompatible, compatible, autoclear; /* 0 for version 2 */
	uint32_t refcount_order;		      /* 0..6; 4 for version 2 */
	uint32_t header_length; /* 72 for version 2; extensions start right there */
	enum qcow_compression compression;

	/* Backing file: has_backing false = the other fields are empty. */
	bool has_backing;
	uint64_t backing_off;
	char backing_name[QCOW_MAX_NAME + 1];
	char backing_format[QCOW_MAX_FORMAT + 1]; /* "" = not recorded: never guess */

	/* "" = not recorded; only with QCOW_INCOMPAT_DATA_FILE. */
	char data_file[QCOW_MAX_DATA_NAME + 1];

	/* Bitmaps extension; nr_bitmaps 0 = absent. */
	uint32_t nr_bitmaps;
	uint64_t bitmap_dir_off, bitmap_dir_size;

	/* LUKS header; crypto_len 0 = absent. */
	uint64_t crypto_off, crypto_len;

	/* Feature name table: where its records are; length 0 = absent. */
	uint64_t feature_table_off;
	uint32_t feature_table_len;

	/* Extensions we do not know. They are kept by whoever rewrites the header. */
	uint32_t nr_unknown_ext;
	uint64_t ext_end; /* first byte after the extension area's end marker */
};

/*
 * Reads and checks header and extensions; reads nothing else, so its cost does
 * not depend on the image's size.
 * -EINVAL   damaged, or not a qcow2 image (the text tells them apart)
 * -ENOTSUP  a version, feature or encryption we do not know; the text names it
 *           and, where it helps, the qemu-img command that converts
 * others    I/O
 */
int qcow_header_read(struct qcow_io *io, struct qcow_header *h, struct qcow_error *err);

/* As qcow_header_read(), but takes an image without a refcount table, too: a check can make one. */
int qcow_header_read_to_check(struct qcow_io *io, struct qcow_header *h, struct qcow_error *err);

/* True for a file that starts with the qcow2 magic. Never decides a format: raw is never probed. */
bool qcow_header_has_magic(const void *first_bytes, size_t len);

static inline uint64_t qcow_cluster_size(const struct qcow_header *h)
{
	return 1ull << h->cluster_bits;
}

static inline bool qcow_has_extl2(const struct qcow_header *h)
{
	return h->incompatible & QCOW_INCOMPAT_EXTL2;
}

static inline bool qcow_has_data_file(const struct qcow_header *h)
{
	return h->incompatible & QCOW_INCOMPAT_DATA_FILE;
}

/* log2 of the guest bytes one L2 table maps. */
uint32_t qcow_l2_span_bits(const struct qcow_header *h);

#endif
