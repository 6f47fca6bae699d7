// SPDX-License-Identifier: GPL-2.0-only
#include "lib/ext.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/be.h"

enum {
	EXT_END = 0x00000000,
	EXT_FEATURES = 0x6803f857,
	EXT_BITMAPS = 0x23852875,
	EXT_CRYPTO = 0x0537be77,
	EXT_DATA_FILE = 0x44415441,
};
#define EXT_BACKING_FORMAT 0xe2792acau

/* Bits of ext_walk.seen */
enum {
	SEEN_BACKING = 1,
	SEEN_FEATURES = 2,
	SEEN_BITMAPS = 4,
	SEEN_CRYPTO = 8,
	SEEN_DATA = 16
};

struct ext_disk {
	uint8_t type[4], len[4];
};
static_assert(sizeof(struct ext_disk) == 8, "header extension");

struct bitmaps_disk {
	uint8_t nr[4], reserved[4], dir_size[8], dir_off[8];
};
static_assert(sizeof(struct bitmaps_disk) == 24, "bitmaps extension");

struct crypto_disk {
	uint8_t off[8], len[8];
};
static_assert(sizeof(struct crypto_disk) == 16, "encryption header pointer");

struct feature_disk {
	uint8_t type, bit;
	char name[46];
};
static_assert(sizeof(struct feature_disk) == 48, "feature name record");

struct ext_walk {
	struct qcow_window *w;
	struct qcow_header *h;
	unsigned int seen;
	uint64_t off; /* of the data */
	uint32_t len;
};

/*
 * Strings are not terminated on disk; a NUL inside ends them, as for QEMU. @out has
 * @max + 1 bytes. @by_len: the recorded length counts, not that of what ends early.
 */
static int read_string(struct ext_walk *x, char *out, uint32_t max, bool by_len, const char *what,
		       struct qcow_error *err)
{
	uint32_t len = x->len <= max ? x->len : max + 1;
	int r;

	r = qcow_window_read(x->w, out, len, x->off, err);
	if (r < 0)
		return r;
	if (x->len > max && (by_len || strnlen(out, len) == len))
		return qcow_fail(err, EINVAL, x->off,
				 "%s in the header extension at %#" PRIx64
				 " is %u bytes long, at most %u are possible",
				 what, x->off, x->len, max);
	if (x->len <= max)
		out[len] = '\0';
	return 0;
}

static int check_len(const struct ext_walk *x, uint32_t want, const char *what,
		     struct qcow_error *err)
{
	if (x->len == want)
		return 0;
	return qcow_fail(err, EINVAL, x->off,
			 "%s header extension at %#" PRIx64 " is %u bytes long, not %u", what,
			 x->off, x->len, want);
}

static int read_bitmaps(struct ext_walk *x, struct qcow_error *err)
{
	struct bitmaps_disk d;
	struct qcow_header *h = x->h;
	int r;

	r = check_len(x, sizeof(d), "bitmaps", err);
	if (r < 0)
		return r;
	/* Without the autoclear bit what it points to is void: a writer ignored it. */
	if (!(h->autoclear & QCOW_AUTOCLEAR_BITMAPS))
		return 0;
	r = qcow_window_read(x->w, &d, sizeof(d), x->off, err);
	if (r < 0)
		return r;
	h->nr_bitmaps = qcow_be32(d.nr);
	h->bitmap_dir_size = qcow_be64(d.dir_size);
	h->bitmap_dir_off = qcow_be64(d.dir_off);
	if (qcow_be32(d.reserved) || !h->nr_bitmaps || h->nr_bitmaps > QCOW_MAX_BITMAPS ||
	    h->bitmap_dir_size > QCOW_MAX_BITMAP_DIR ||
	    h->bitmap_dir_off & (qcow_cluster_size(h) - 1) ||
	    h->bitmap_dir_off > QCOW_HOST_OFF_MAX - h->bitmap_dir_size)
		return qcow_fail(err, EINVAL, x->off,
				 "bitmaps header extension at %#" PRIx64
				 " is damaged (%u bitmaps, directory of %" PRIu64
				 " bytes at %#" PRIx64 ")",
				 x->off, h->nr_bitmaps, h->bitmap_dir_size, h->bitmap_dir_off);
	return 0;
}

static int read_crypto(struct ext_walk *x, struct qcow_error *err)
{
	struct crypto_disk d;
	struct qcow_header *h = x->h;
	int r;

	if (h->crypt_method != QCOW_CRYPT_LUKS)
		return qcow_fail(err, EINVAL, x->off,
				 "encryption header extension at %#" PRIx64
				 " in an image that is not LUKS encrypted",
				 x->off);
	r = check_len(x, sizeof(d), "encryption", err);
	if (r < 0)
		return r;
	r = qcow_window_read(x->w, &d, sizeof(d), x->off, err);
	if (r < 0)
		return r;
	h->crypto_off = qcow_be64(d.off);
	h->crypto_len = qcow_be64(d.len);
	if (h->crypto_off & (qcow_cluster_size(h) - 1))
		return qcow_fail(err, EINVAL, x->off,
				 "encryption header at %#" PRIx64 " is not cluster aligned",
				 h->crypto_off);
	return 0;
}

static int read_known(struct ext_walk *x, uint32_t type, struct qcow_error *err)
{
	struct qcow_header *h = x->h;

	switch (type) {
	case EXT_BACKING_FORMAT:
		return read_string(x, h->backing_format, QCOW_MAX_FORMAT, true,
				   "backing file format", err);
	case EXT_DATA_FILE:
		return read_string(x, h->data_file, QCOW_MAX_DATA_NAME, false, "data file name",
				   err);
	case EXT_BITMAPS:
		return read_bitmaps(x, err);
	case EXT_CRYPTO:
		return read_crypto(x, err);
	case EXT_FEATURES:
		h->feature_table_off = x->off;
		h->feature_table_len = x->len;
		return 0;
	}
	return 0;
}

static unsigned int seen_bit(uint32_t type)
{
	switch (type) {
	case EXT_BACKING_FORMAT:
		return SEEN_BACKING;
	case EXT_FEATURES:
		return SEEN_FEATURES;
	case EXT_BITMAPS:
		return SEEN_BITMAPS;
	case EXT_CRYPTO:
		return SEEN_CRYPTO;
	case EXT_DATA_FILE:
		return SEEN_DATA;
	}
	return 0;
}

/* Spec: each known extension at most once. QEMU takes the last; which one is meant is a guess. */
static int read_one(struct ext_walk *x, uint32_t type, struct qcow_error *err)
{
	unsigned int bit = seen_bit(type);

	if (!bit) {
		x->h->nr_unknown_ext++;
		return 0;
	}
	if (x->seen & bit)
		return qcow_fail(err, EINVAL, x->off,
				 "header extension %#x at %#" PRIx64 " appears twice", type,
				 x->off);
	x->seen |= bit;
	return read_known(x, type, err);
}

int qcow_ext_read(struct qcow_window *w, struct qcow_header *h, struct qcow_error *err)
{
	struct ext_walk x = { .w = w, .h = h };
	uint64_t end = h->backing_off ? h->backing_off : qcow_cluster_size(h);
	uint64_t off = h->header_length;
	struct ext_disk d;
	uint32_t type;
	int r;

	/* The end marker may be missing if the area ends right there. */
	while (off < end) {
		if (end - off < sizeof(d))
			return qcow_fail(err, EINVAL, off,
					 "header extension at %#" PRIx64 " is cut off", off);
		r = qcow_window_read(w, &d, sizeof(d), off, err);
		if (r < 0)
			return r;
		off += sizeof(d);
		type = qcow_be32(d.type);
		x.off = off;
		x.len = qcow_be32(d.len);
		/* QEMU asks this of an end marker too. */
		if (x.len > end - off)
			return qcow_fail(err, EINVAL, off,
					 "header extension %#x at %#" PRIx64
					 " is %u bytes long but only %" PRIu64 " are left",
					 type, off, x.len, end - off);
		if (type == EXT_END)
			break;
		r = read_one(&x, type, err);
		if (r < 0)
			return r;
		off += ((uint64_t)x.len + 7) & ~7ull;
	}
	h->ext_end = off;
	return 0;
}

void qcow_ext_feature_name(struct qcow_window *w, const struct qcow_header *h, unsigned int bit,
			   char name[47])
{
	struct feature_disk f;
	uint32_t pos;

	name[0] = '\0';
	for (pos = 0; pos + sizeof(f) <= h->feature_table_len; pos += sizeof(f)) {
		if (qcow_window_read(w, &f, sizeof(f), h->feature_table_off + pos, NULL) < 0)
			return;
		if (f.type != 0 || f.bit != bit)
			continue;
		memcpy(name, f.name, sizeof(f.name));
		name[sizeof(f.name)] = '\0';
		return;
	}
}
