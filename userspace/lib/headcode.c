// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <string.h>

#include "lib/be.h"
#include "lib/create.h"

#define V2_LENGTH      72
#define V3_LENGTH      112
#define RECORD_LENGTH  48
#define NAMES_MIN_BITS 13 /* QEMU names features only where a cluster has room to spare */

/* Writes fields one after the other; past the end it only counts. */
struct cursor {
	uint8_t *buf;
	size_t at, size;
};

static void put(struct cursor *c, const void *bytes, size_t len)
{
	if (c->at + len <= c->size)
		memcpy(c->buf + c->at, bytes, len);
	c->at += len;
}

static void put32(struct cursor *c, uint64_t v)
{
	uint8_t b[4];

	qcow_put_be32(b, (uint32_t)v);
	put(c, b, sizeof(b));
}

static void put64(struct cursor *c, uint64_t v)
{
	uint8_t b[8];

	qcow_put_be64(b, v);
	put(c, b, sizeof(b));
}

static void put_ext(struct cursor *c, uint32_t type, const void *bytes, size_t len)
{
	put32(c, type);
	put32(c, len);
	put(c, bytes, len);
	/* The padding is zero already. */
	c->at = (c->at + 7) & ~(size_t)7;
}

static void put_names(struct cursor *c)
{
	static const struct {
		uint8_t type, bit;
		char name[46];
	} names[] = {
		{ 0, 0, "dirty bit" },
		{ 0, 1, "corrupt bit" },
		{ 0, 2, "external data file" },
		{ 0, 3, "compression type" },
		{ 0, 4, "extended L2 entries" },
		{ 1, 0, "lazy refcounts" },
		{ 2, 0, "bitmaps" },
		{ 2, 1, "raw external data" },
	};
	_Static_assert(sizeof(names[0]) == RECORD_LENGTH, "feature name record");

	put_ext(c, 0x6803f857, names, sizeof(names));
}

static void put_v2(struct cursor *c, const struct qcow_header *h, uint64_t backing_off,
		   uint64_t backing_len)
{
	put(c, "QFI\xfb", 4);
	put32(c, h->version);
	put64(c, backing_off);
	put32(c, backing_len);
	put32(c, h->cluster_bits);
	put64(c, h->size);
	put32(c, h->crypt_method);
	put32(c, h->l1_size);
	put64(c, h->l1_off);
	put64(c, h->reftable_off);
	put32(c, h->reftable_clusters);
	put32(c, h->nr_snapshots);
	put64(c, h->snapshots_off);
}

static void put_v3(struct cursor *c, const struct qcow_header *h)
{
	uint8_t tail[8] = { (uint8_t)h->compression };

	put64(c, h->incompatible);
	put64(c, h->compatible);
	put64(c, h->autoclear);
	put32(c, h->refcount_order);
	put32(c, V3_LENGTH);
	put(c, tail, sizeof(tail));
}

static void put_extensions(struct cursor *c, const struct qcow_header *h)
{
	if (h->has_backing && h->backing_format[0])
		put_ext(c, 0xe2792aca, h->backing_format, strlen(h->backing_format));
	if (h->data_file[0])
		put_ext(c, 0x44415441, h->data_file, strlen(h->data_file));
	if (h->version >= 3 && h->cluster_bits >= NAMES_MIN_BITS)
		put_names(c);
	put_ext(c, 0, "", 0);
}

int qcow_header_encode(const struct qcow_header *h, void *out, struct qcow_error *err)
{
	struct cursor c = { .buf = out, .size = qcow_cluster_size(h) };
	size_t len = h->has_backing ? strlen(h->backing_name) : 0, name_off;

	/* Where the name goes is known once the extensions are placed. */
	c.at = h->version >= 3 ? V3_LENGTH : V2_LENGTH;
	put_extensions(&c, h);
	name_off = c.at;
	put(&c, h->backing_name, len);
	if (c.at > c.size)
		return qcow_fail(
			err, ENOSPC, 0,
			"the names of other files do not fit the header cluster of %zu bytes",
			c.size);
	c.at = 0;
	put_v2(&c, h, len ? name_off : 0, len);
	if (h->version >= 3)
		put_v3(&c, h);
	return 0;
}
