/* SPDX-License-Identifier: GPL-2.0-only */
/* The bitmaps of an image in memory, on their way to other ones. */
#ifndef QCOW_LIB_BITSET_H
#define QCOW_LIB_BITSET_H

#include "lib/bitmap.h"
#include "lib/txn.h"

struct bitset_one {
	struct qcow_bitmap b;
	uint64_t *table; /* b.table_size entries, host order; NULL = as on disk */
	bool fresh;	 /* has no table on disk */
	uint64_t old_off;
	uint32_t old_size;
};

struct bitset {
	struct qcow_txn *t;
	struct bitset_one *one;
	size_t nr;
	uint64_t size; /* bytes: of the disk */
	struct qcow_error *err;
};

int bitset_load(struct bitset *s, struct qcow_txn *t, struct qcow_error *err);
void bitset_exit(struct bitset *s);
/* Writes what has changed and a new directory; the transaction's header names it. */
int bitset_store(struct bitset *s);

struct bitset_one *bitset_find(struct bitset *s, const char *name);
int bitset_add(struct bitset *s, const char *name, uint32_t granularity_bits);
int bitset_remove(struct bitset *s, struct bitset_one *one);
/* Each table entry becomes @value: 0 or 1, all bits are that. */
int bitset_fill(struct bitset *s, struct bitset_one *one, uint64_t value);
int bitset_resize(struct bitset *s, struct bitset_one *one, uint64_t size);

/* Bytes that the bits need; table entries that those need. */
uint64_t bitset_bytes(uint64_t size, uint32_t granularity_bits);
/* All bits, whole clusters; free() it. */
int bitset_read(struct qcow_io *io, const struct qcow_header *h, const struct qcow_bitmap *b,
		uint8_t **bits, struct qcow_error *err);
/* The same as earlier steps left it; and the other way round. */
int bitset_get(struct bitset *s, struct bitset_one *one, uint8_t **bits);
int bitset_write(struct bitset *s, struct bitset_one *one, const uint8_t *bits);

#endif
