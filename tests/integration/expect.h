/* SPDX-License-Identifier: GPL-2.0-only */
/* What a disk should contain: the model that a device is compared with. */
#ifndef TESTS_EXPECT_H
#define TESTS_EXPECT_H

#include "stamp.h"

#include <stdarg.h>
#include <stdlib.h>

#define EXPECT_MAGIC 0x6c65646f6d717771ULL
#define COMPLAINTS   10

/* The sector has one of two versions: two that differ come from a discard or a failed write. */
struct expected {
	uint64_t version;
	uint64_t other;
};

struct expect {
	uint64_t magic;
	uint64_t tag;
	uint64_t nr_sectors;
	uint64_t versions; /* the last one given out */
	struct expected sectors[];
};

__attribute__((format(printf, 1, 2), noreturn)) static inline void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(2);
}

static inline size_t expect_bytes(uint64_t nr_sectors)
{
	return sizeof(struct expect) + nr_sectors * sizeof(struct expected);
}

static inline struct expect *expect_new(uint64_t nr_sectors, unsigned int tag)
{
	struct expect *e = calloc(1, expect_bytes(nr_sectors));

	if (!e)
		die("out of memory");
	e->magic = EXPECT_MAGIC;
	e->tag = tag;
	e->nr_sectors = nr_sectors;
	return e;
}

static inline struct expect *expect_load(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct expect head, *e;

	if (!f || fread(&head, sizeof(head), 1, f) != 1 || head.magic != EXPECT_MAGIC)
		die("%s: no model in there", path);
	e = expect_new(head.nr_sectors, (unsigned int)head.tag);
	e->versions = head.versions;
	if (fread(e->sectors, sizeof(e->sectors[0]), head.nr_sectors, f) != head.nr_sectors)
		die("%s: too short", path);
	fclose(f);
	return e;
}

static inline void expect_save(const struct expect *e, const char *path)
{
	FILE *f = fopen(path, "wb");

	if (!f || fwrite(e, expect_bytes(e->nr_sectors), 1, f) != 1 || fclose(f))
		die("%s: cannot write", path);
}

static inline void expect_write(struct expect *e, uint64_t sector, uint64_t nr, uint64_t version)
{
	for (uint64_t i = sector; i < sector + nr; i++)
		e->sectors[i].version = e->sectors[i].other = version;
}

/* It may have happened or not: version or what was there. What was there must be known. */
static inline void expect_maybe(struct expect *e, uint64_t sector, uint64_t nr, uint64_t version)
{
	for (uint64_t i = sector; i < sector + nr; i++)
		e->sectors[i].other = version;
}

static inline bool expect_is_known(const struct expect *e, uint64_t sector, uint64_t nr)
{
	for (uint64_t i = sector; i < sector + nr; i++)
		if (e->sectors[i].version != e->sectors[i].other)
			return false;
	return true;
}

static inline void expect_complain(const struct expect *e, uint64_t sector, const void *buf)
{
	const struct expected *want = &e->sectors[sector];
	char name[96];

	fprintf(stderr, "sector %llu: %s, not version %llu", (unsigned long long)sector,
		stamp_name(buf, name, sizeof(name)), (unsigned long long)want->version);
	if (want->other != want->version)
		fprintf(stderr, " or %llu", (unsigned long long)want->other);
	fputc('\n', stderr);
}

/* Compares; what was uncertain is certain from now on. Returns how many sectors are wrong. */
static inline uint64_t expect_check(struct expect *e, uint64_t sector, uint64_t nr, const void *buf)
{
	const unsigned char *bytes = buf;
	uint64_t wrong = 0, got;

	for (uint64_t i = 0; i < nr; i++) {
		struct expected *want = &e->sectors[sector + i];

		got = stamp_get(bytes + i * SECTOR, (unsigned int)e->tag, sector + i);
		if (got != want->version && got != want->other) {
			if (wrong++ < COMPLAINTS)
				expect_complain(e, sector + i, bytes + i * SECTOR);
			continue;
		}
		want->version = want->other = got;
	}
	return wrong;
}

#endif
