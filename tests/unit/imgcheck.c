// SPDX-License-Identifier: GPL-2.0-only
#include "imgcheck.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
	const uint8_t *data;
	uint64_t size;
	struct imgcheck *result;
	uint32_t bits, order, version;
	bool ext, data_file;
	uint64_t reftable, reftable_entries, clusters;
	uint32_t *refs;
};

static uint64_t be(const struct check *c, uint64_t off, int bytes)
{
	uint64_t v = 0;
	int i;

	for (i = 0; i < bytes; i++)
		v = v << 8 | (off + i < c->size ? c->data[off + i] : 0);
	return v;
}

__attribute__((format(printf, 2, 3))) static void corrupt(struct check *c, const char *fmt, ...)
{
	va_list ap;

	if (c->result->corruptions++)
		return;
	va_start(ap, fmt);
	vsnprintf(c->result->first, sizeof(c->result->first), fmt, ap);
	va_end(ap);
}

static uint64_t refcount(const struct check *c, uint64_t cluster)
{
	uint64_t per = (8ull << c->bits) >> c->order, block;
	uint32_t width = 1u << c->order;

	if (cluster / per >= c->reftable_entries)
		return 0;
	block = be(c, c->reftable + cluster / per * 8, 8) & ~511ull;
	if (!block)
		return 0;
	cluster %= per;
	if (width >= 8)
		return be(c, block + cluster * (width / 8), (int)(width / 8));
	return be(c, block + cluster * width / 8, 1) >> (cluster * width % 8) & ((1u << width) - 1);
}

static void refer(struct check *c, uint64_t off, uint64_t len, const char *what)
{
	uint64_t i;

	for (i = off >> c->bits; i <= (off + len - 1) >> c->bits; i++) {
		if (i >= c->clusters) {
			corrupt(c, "%s at %#llx is far away", what, (unsigned long long)off);
			return;
		}
		c->refs[i]++;
	}
}

static void check_copied(struct check *c, uint64_t entry, uint64_t off, const char *what)
{
	uint64_t n = refcount(c, off >> c->bits);

	if ((entry >> 63) != (n == 1))
		corrupt(c, "%s at %#llx: COPIED is %u, refcount %llu", what,
			(unsigned long long)off, (unsigned int)(entry >> 63),
			(unsigned long long)n);
}

static void check_l2_entry(struct check *c, uint64_t e, uint64_t map, bool active)
{
	uint64_t off = e & 0x00fffffffffffe00ull;
	uint32_t shift = 70 - c->bits;

	if (e >> 62 & 1) {
		off = e & ((1ull << shift) - 1);
		refer(c, off, (((e & ~(3ull << 62)) >> shift) + 1) * 512 - (off & 511),
		      "compressed");
		if (e >> 63)
			corrupt(c, "compressed and COPIED");
		return;
	}
	if (c->ext &&
	    ((map & map >> 32 & 0xffffffff) || (!off && map & 0xffffffff && !c->data_file)))
		corrupt(c, "subclusters %#llx of %#llx", (unsigned long long)map,
			(unsigned long long)e);
	if (e & 1 && (c->ext || c->version < 3))
		corrupt(c, "zero flag where there is none");
	if (!off || c->data_file)
		return;
	if (off & ((1ull << c->bits) - 1))
		corrupt(c, "data at %#llx is not aligned", (unsigned long long)off);
	refer(c, off, 1, "data");
	if (active)
		check_copied(c, e, off, "data");
}

static void check_l1(struct check *c, uint64_t l1, uint64_t nr, bool active)
{
	uint64_t i, j, e, off, step = c->ext ? 16 : 8;

	if (nr)
		refer(c, l1, nr * 8, "L1 table");
	for (i = 0; i < nr; i++) {
		e = be(c, l1 + i * 8, 8);
		off = e & 0x00fffffffffffe00ull;
		if (!off)
			continue;
		if (off & ((1ull << c->bits) - 1)) {
			corrupt(c, "L2 table at %#llx is not aligned", (unsigned long long)off);
			continue;
		}
		refer(c, off, 1, "L2 table");
		if (active)
			check_copied(c, e, off, "L2 table");
		for (j = 0; j < 1ull << c->bits && off + j < c->size; j += step)
			check_l2_entry(c, be(c, off + j, 8), c->ext ? be(c, off + j + 8, 8) : 0,
				       active);
	}
}

static void check_snapshots(struct check *c, uint64_t off, uint64_t nr)
{
	uint64_t start = off, i;

	for (i = 0; i < nr; i++) {
		check_l1(c, be(c, off, 8), be(c, off + 8, 4), false);
		off += 40 + be(c, off + 36, 4) + be(c, off + 12, 2) + be(c, off + 14, 2);
		off = (off + 7) & ~7ull;
	}
	if (nr)
		refer(c, start, off - start, "snapshot table");
}

static void check_bitmap(struct check *c, uint64_t table, uint64_t nr)
{
	uint64_t i, off;

	refer(c, table, nr * 8, "bitmap table");
	for (i = 0; i < nr; i++) {
		off = be(c, table + i * 8, 8) & 0x00fffffffffffe00ull;
		if (off)
			refer(c, off, 1, "bitmap");
	}
}

/* Void unless the autoclear bit says otherwise. */
static void check_bitmaps(struct check *c)
{
	uint64_t at = be(c, 100, 4), nr = 0, i, dir = 0;

	if (c->version < 3 || !(be(c, 88, 8) & 1))
		return;
	for (; be(c, at, 4) && at < 1ull << c->bits; at += 8 + ((be(c, at + 4, 4) + 7) & ~7ull)) {
		if (be(c, at, 4) != 0x23852875)
			continue;
		nr = be(c, at + 8, 4);
		dir = be(c, at + 24, 8);
		refer(c, dir, be(c, at + 16, 8), "bitmap directory");
	}
	if (!nr)
		corrupt(c, "bitmaps are valid, but there are none");
	for (i = 0; i < nr; i++) {
		check_bitmap(c, be(c, dir, 8), be(c, dir + 8, 4));
		dir += (24 + be(c, dir + 18, 2) + 7) & ~7ull;
	}
}

static void check_refcounts(struct check *c)
{
	uint64_t i, n, off;

	refer(c, c->reftable, c->reftable_entries * 8, "refcount table");
	for (i = 0; i < c->reftable_entries; i++) {
		off = be(c, c->reftable + i * 8, 8);
		if (off)
			refer(c, off, 1, "refcount block");
	}
	for (i = 0; i < c->clusters; i++) {
		n = refcount(c, i);
		if (n < c->refs[i])
			corrupt(c, "cluster %#llx: refcount %llu, references %u",
				(unsigned long long)i << c->bits, (unsigned long long)n,
				c->refs[i]);
		c->result->leaks += n > c->refs[i];
	}
}

void imgcheck(const uint8_t *data, uint64_t size, struct imgcheck *result)
{
	struct check c = { .data = data, .size = size, .result = result };

	memset(result, 0, sizeof(*result));
	c.bits = (uint32_t)be(&c, 20, 4);
	c.version = (uint32_t)be(&c, 4, 4);
	c.order = c.version > 2 ? (uint32_t)be(&c, 96, 4) : 4;
	c.ext = c.version > 2 && be(&c, 72, 8) & 16;
	c.data_file = c.version > 2 && be(&c, 72, 8) & 4;
	c.reftable = be(&c, 48, 8);
	c.reftable_entries = (be(&c, 56, 4) << c.bits) / 8;
	if (be(&c, 0, 4) != 0x514649fb || c.bits < 9 || c.bits > 21) {
		corrupt(&c, "no header");
		return;
	}
	c.clusters = ((size + (1 << 20)) >> c.bits) + 8;
	c.refs = calloc(c.clusters, sizeof(*c.refs));
	refer(&c, 0, 1, "header");
	check_l1(&c, be(&c, 40, 8), be(&c, 36, 4), true);
	check_snapshots(&c, be(&c, 64, 8), be(&c, 60, 4));
	check_bitmaps(&c);
	check_refcounts(&c);
	free(c.refs);
}
