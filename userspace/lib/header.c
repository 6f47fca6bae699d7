// SPDX-License-Identifier: GPL-2.0-only
#include "lib/header.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "lib/be.h"
#include "lib/ext.h"
#include "lib/foreign.h"
#include "lib/window.h"

/* qcow2.rst, "Header"; all big endian. */
struct header_disk {
	uint8_t magic[4], version[4], backing_off[8], backing_len[4], cluster_bits[4], size[8],
		crypt_method[4], l1_size[4], l1_off[8], reftable_off[8], reftable_clusters[4],
		nr_snapshots[4], snapshots_off[8];
	/* version 3 */
	uint8_t incompatible[8], compatible[8], autoclear[8], refcount_order[4], header_length[4];
	uint8_t compression, padding[7];
};
static_assert(offsetof(struct header_disk, incompatible) == 72, "version 2 header");
static_assert(offsetof(struct header_disk, compression) == 104, "version 3 header");
static_assert(sizeof(struct header_disk) == 112, "header");

#define V2_LENGTH   72
#define V3_LENGTH   104
#define MAX_VERSION 3

bool qcow_header_has_magic(const void *first_bytes, size_t len)
{
	return len >= 4 && !memcmp(first_bytes, "QFI\xfb", 4);
}

static void decode_v2(struct qcow_header *h, const struct header_disk *d)
{
	h->backing_off = qcow_be64(d->backing_off);
	h->cluster_bits = qcow_be32(d->cluster_bits);
	h->size = qcow_be64(d->size);
	h->crypt_method = qcow_be32(d->crypt_method);
	h->l1_size = qcow_be32(d->l1_size);
	h->l1_off = qcow_be64(d->l1_off);
	h->reftable_off = qcow_be64(d->reftable_off);
	h->reftable_clusters = qcow_be32(d->reftable_clusters);
	h->nr_snapshots = qcow_be32(d->nr_snapshots);
	h->snapshots_off = qcow_be64(d->snapshots_off);
	h->refcount_order = 4;
	h->header_length = V2_LENGTH;
}

/* Bytes 72 and up of a version 2 file are extensions, never feature bits. */
static void decode_v3(struct qcow_header *h, const struct header_disk *d)
{
	h->incompatible = qcow_be64(d->incompatible);
	h->compatible = qcow_be64(d->compatible);
	h->autoclear = qcow_be64(d->autoclear);
	h->refcount_order = qcow_be32(d->refcount_order);
	h->header_length = qcow_be32(d->header_length);
	/* An int for now: check_features() sees values that are no enum member. */
	if (h->header_length > V3_LENGTH)
		h->compression = d->compression;
}

static int check_magic(const struct header_disk *d, uint64_t file_size, struct qcow_io *io,
		       struct qcow_error *err)
{
	uint32_t version = qcow_be32(d->version);

	if (!qcow_header_has_magic(d->magic, sizeof(d->magic)))
		return qcow_foreign_fail(io, err);
	if (file_size < V2_LENGTH)
		return qcow_fail(err, EINVAL, 0,
				 "qcow2 header is cut off: the file has %" PRIu64 " bytes",
				 file_size);
	if (version == 1)
		return qcow_fail(err, ENOTSUP, 4,
				 "qcow version 1 is not supported; convert it with: "
				 "qemu-img convert -f qcow -O qcow2 OLD NEW");
	if (version < 2 || version > MAX_VERSION)
		return qcow_fail(err, ENOTSUP, 4, "qcow2 version %u is not supported", version);
	return 0;
}

/* The fields that bound every later computation; must come first. */
static int check_shape(const struct qcow_header *h, struct qcow_error *err)
{
	if (h->cluster_bits < QCOW_MIN_CLUSTER_BITS || h->cluster_bits > QCOW_MAX_CLUSTER_BITS)
		return qcow_fail(err, EINVAL, 20, "cluster size 2^%u is not within 2^%u and 2^%u",
				 h->cluster_bits, QCOW_MIN_CLUSTER_BITS, QCOW_MAX_CLUSTER_BITS);
	if (h->version >= 3 &&
	    (h->header_length < V3_LENGTH || h->header_length > qcow_cluster_size(h)))
		return qcow_fail(err, EINVAL, 100,
				 "header length %u is not within %u and the cluster size",
				 h->header_length, V3_LENGTH);
	if (h->backing_off > qcow_cluster_size(h))
		return qcow_fail(err, EINVAL, 8,
				 "backing file name at %#" PRIx64 " is outside the first cluster",
				 h->backing_off);
	return 0;
}

static int check_unknown_bits(struct qcow_window *w, const struct qcow_header *h,
			      struct qcow_error *err)
{
	uint64_t unknown = h->incompatible & ~QCOW_INCOMPAT_KNOWN;
	unsigned int bit;
	char name[47];

	if (!unknown)
		return 0;
	bit = (unsigned int)__builtin_ctzll(unknown);
	qcow_ext_feature_name(w, h, bit, name);
	return qcow_fail(err, ENOTSUP, 72, "incompatible feature bit %u (%s) is not supported", bit,
			 name[0] ? name : "the image does not name it");
}

static int check_features(const struct qcow_header *h, struct qcow_error *err)
{
	bool flag = h->incompatible & QCOW_INCOMPAT_COMPRESSION;
	unsigned int type = h->compression;

	if (flag != (type != 0))
		return qcow_fail(err, EINVAL, 104,
				 "compression type %u contradicts the compression feature bit",
				 type);
	if (type > QCOW_COMPRESSION_ZSTD)
		return qcow_fail(err, ENOTSUP, 104, "compression type %u is not supported", type);
	if (h->refcount_order > 6)
		return qcow_fail(err, EINVAL, 96, "refcounts of 2^%u bits are not possible",
				 h->refcount_order);
	if (h->crypt_method > QCOW_CRYPT_LUKS)
		return qcow_fail(err, EINVAL, 32, "encryption method %u is not known",
				 h->crypt_method);
	if (h->crypt_method == QCOW_CRYPT_LUKS && !h->crypto_len)
		return qcow_fail(err, EINVAL, 32, "the LUKS encryption header is missing");
	if (qcow_has_extl2(h) && h->cluster_bits < QCOW_MIN_EXTL2_BITS)
		return qcow_fail(
			err, EINVAL, 20,
			"extended L2 entries need clusters of 16 KiB, these are 2^%u bytes",
			h->cluster_bits);
	if (h->autoclear & QCOW_AUTOCLEAR_DATA_RAW && !qcow_has_data_file(h))
		return qcow_fail(
			err, EINVAL, 88,
			"the raw data file bit is set, but there is no external data file");
	return 0;
}

/* A table of @bytes at @off: aligned, and its end is representable. */
static int check_table(const struct qcow_header *h, uint64_t off, uint64_t bytes, uint64_t max,
		       const char *what, struct qcow_error *err)
{
	if (bytes > max)
		return qcow_fail(err, EFBIG, off,
				 "%s has %" PRIu64 " bytes, at most %" PRIu64 " are possible", what,
				 bytes, max);
	if (off & (qcow_cluster_size(h) - 1))
		return qcow_fail(err, EINVAL, off, "%s at %#" PRIx64 " is not cluster aligned",
				 what, off);
	/* Where an empty table lies is nobody's concern. */
	if (off > (bytes ? QCOW_HOST_OFF_MAX : (uint64_t)INT64_MAX) - bytes)
		return qcow_fail(err, EINVAL, off, "%s at %#" PRIx64 " is past any file's end",
				 what, off);
	return 0;
}

uint32_t qcow_l2_span_bits(const struct qcow_header *h)
{
	/* A table is one cluster of 8 byte (extended: 16 byte) entries. */
	return h->cluster_bits + h->cluster_bits - (qcow_has_extl2(h) ? 4 : 3);
}

static int check_tables(const struct qcow_header *h, struct qcow_error *err)
{
	uint32_t span = qcow_l2_span_bits(h);
	uint64_t need = (h->size >> span) + !!(h->size & ((1ull << span) - 1));
	int r;

	r = check_table(h, h->reftable_off, (uint64_t)h->reftable_clusters << h->cluster_bits,
			QCOW_MAX_REFTABLE, "refcount table", err);
	if (r < 0)
		return r;
	/* 40 bytes is the smallest entry; the true table is checked entry by entry. */
	r = check_table(h, h->snapshots_off, h->nr_snapshots * 40ull, QCOW_MAX_SNAPSHOTS * 40ull,
			"snapshot table", err);
	if (r < 0)
		return r;
	r = check_table(h, h->l1_off, h->l1_size * 8ull, QCOW_MAX_L1_ENTRIES * 8ull, "L1 table",
			err);
	if (r < 0)
		return r;
	if (h->l1_size < need)
		return qcow_fail(err, EINVAL, h->l1_off,
				 "L1 table has %u entries, a disk of %" PRIu64
				 " bytes needs %" PRIu64,
				 h->l1_size, h->size, need);
	return 0;
}

static int read_backing_name(struct qcow_window *w, struct qcow_header *h, uint32_t len,
			     struct qcow_error *err)
{
	uint64_t room = qcow_cluster_size(h) - h->backing_off;
	int r;

	if (!h->backing_off)
		return 0;
	if (len > room || len > QCOW_MAX_NAME)
		return qcow_fail(err, EINVAL, h->backing_off,
				 "backing file name at %#" PRIx64
				 " is %u bytes long, at most %u fit",
				 h->backing_off, len,
				 (unsigned int)(room < QCOW_MAX_NAME ? room : QCOW_MAX_NAME));
	r = qcow_window_read(w, h->backing_name, len, h->backing_off, err);
	if (r < 0)
		return r;
	h->backing_name[len] = '\0';
	h->has_backing = h->backing_name[0] != '\0';
	return 0;
}

static int check_all(struct qcow_window *w, struct qcow_header *h, uint32_t backing_len,
		     struct qcow_error *err)
{
	int r;

	r = check_shape(h, err);
	if (r < 0)
		return r;
	r = qcow_ext_read(w, h, err);
	if (r < 0)
		return r;
	r = check_unknown_bits(w, h, err);
	if (r < 0)
		return r;
	r = check_features(h, err);
	if (r < 0)
		return r;
	r = check_tables(h, err);
	if (r < 0)
		return r;
	return read_backing_name(w, h, backing_len, err);
}

int qcow_header_read_to_check(struct qcow_io *io, struct qcow_header *h, struct qcow_error *err)
{
	struct qcow_window w;
	struct header_disk d;
	uint64_t size;
	int r;

	memset(h, 0, sizeof(*h));
	qcow_window_init(&w, io);
	r = qcow_io_size(io, &size, err);
	if (r < 0)
		return r;
	r = qcow_window_read(&w, &d, sizeof(d), 0, err);
	if (r < 0)
		return r;
	r = check_magic(&d, size, io, err);
	if (r < 0)
		return r;
	h->version = qcow_be32(d.version);
	decode_v2(h, &d);
	if (h->version >= 3)
		decode_v3(h, &d);
	return check_all(&w, h, qcow_be32(d.backing_len), err);
}

int qcow_header_read(struct qcow_io *io, struct qcow_header *h, struct qcow_error *err)
{
	int r = qcow_header_read_to_check(io, h, err);

	if (!r && !h->reftable_clusters)
		return qcow_fail(err, EINVAL, 56,
				 "there is no refcount table; qcow check -r all rebuilds it");
	return r;
}
