// SPDX-License-Identifier: GPL-2.0-only
#include "lib/headmove.h"

#include <errno.h>
#include <string.h>

#include "lib/be.h"
#include "lib/writer-priv.h"

#define SECTOR	      512u
#define V2_LENGTH     72u
#define V3_LENGTH     112u
#define EXT_NAMES     0x6803f857u
#define EXT_FORMAT    0xe2792acau
#define EXT_DATA_FILE 0x44415441u
#define EXT_BITMAPS   0x23852875u
#define BITMAPS_LEN   24u
#define AT_BACKING    8
#define AT_NAME_LEN   16
#define AT_HEADER_LEN 100

static int no_room(struct qcow_error *err)
{
	return qcow_fail(err, ENOSPC, 0,
			 "the header's extensions and names leave no room to move them; use "
			 "qemu-img");
}

/* *@end: where extensions begin. Fields that we do not know stay, but not in another version. */
static int move_fields(const struct qcow_writer *w, const uint8_t *cluster,
		       const struct qcow_header *h, uint8_t *sector, uint64_t *end,
		       struct qcow_error *err)
{
	bool same = h->version == w->h.version;

	*end = same ? w->h.header_length : h->version < 3 ? V2_LENGTH : V3_LENGTH;
	if (*end + 8 > SECTOR)
		return no_room(err);
	memset(sector, 0, SECTOR);
	memcpy(sector, cluster, same ? *end : V2_LENGTH);
	qcow_put_be32(sector + 4, h->version);
	qcow_put_be64(sector + AT_BACKING, 0);
	qcow_put_be32(sector + AT_NAME_LEN, 0);
	if (h->version >= 3)
		qcow_put_be32(sector + AT_HEADER_LEN, (uint32_t)*end);
	return 0;
}

static int put_ext(uint32_t type, const void *bytes, size_t len, uint8_t *sector, uint64_t *end,
		   struct qcow_error *err)
{
	size_t room = 8 + ((len + 7) & ~(size_t)7);

	if (*end + room + 8 > SECTOR)
		return no_room(err);
	qcow_put_be32(sector + *end, type);
	qcow_put_be32(sector + *end + 4, (uint32_t)len);
	memcpy(sector + *end + 8, bytes, len);
	*end += room;
	return 0;
}

static int put_format(const struct qcow_header *h, uint8_t *sector, uint64_t *end,
		      struct qcow_error *err)
{
	if (!h->has_backing || !h->backing_format[0])
		return 0;
	return put_ext(EXT_FORMAT, h->backing_format, strlen(h->backing_format), sector, end, err);
}

static int put_bitmaps(const struct qcow_header *h, uint8_t *sector, uint64_t *end,
		       struct qcow_error *err)
{
	uint8_t bitmaps[BITMAPS_LEN] = { 0 };

	if (!h->nr_bitmaps)
		return 0;
	qcow_put_be32(bitmaps, h->nr_bitmaps);
	qcow_put_be64(bitmaps + 8, h->bitmap_dir_size);
	qcow_put_be64(bitmaps + 16, h->bitmap_dir_off);
	return put_ext(EXT_BITMAPS, bitmaps, sizeof(bitmaps), sector, end, err);
}

static bool is_data_file(uint32_t type)
{
	return type == EXT_DATA_FILE;
}

static bool is_other(uint32_t type)
{
	return type != EXT_NAMES && type != EXT_FORMAT && type != EXT_BITMAPS &&
	       !is_data_file(type);
}

/* Those that are @wanted, as they are. */
static int move_extensions(bool (*wanted)(uint32_t type), const struct qcow_writer *w,
			   const uint8_t *from, uint8_t *sector, uint64_t *end,
			   struct qcow_error *err)
{
	uint64_t at = w->h.header_length, len;
	int r = 0;

	while (at + 8 <= w->h.ext_end && !r) {
		len = qcow_be32(from + at + 4);
		if (!qcow_be32(from + at) || len > w->h.ext_end - at - 8)
			break;
		if (wanted(qcow_be32(from + at)))
			r = put_ext(qcow_be32(from + at), from + at + 8, len, sector, end, err);
		at += 8 + ((len + 7) & ~7ull);
	}
	return r;
}

/* In the order in which QEMU writes them, and the end marker, for which put_ext() leaves room. */
static int put_extensions(const struct qcow_writer *w, const uint8_t *from,
			  const struct qcow_header *h, uint8_t *sector, uint64_t *end,
			  struct qcow_error *err)
{
	int r = put_format(h, sector, end, err);

	if (!r)
		r = move_extensions(is_data_file, w, from, sector, end, err);
	if (!r)
		r = put_bitmaps(h, sector, end, err);
	if (!r)
		r = move_extensions(is_other, w, from, sector, end, err);
	*end += 8;
	return r;
}

/* Sectors after the first that the header of now does not use. */
static uint64_t free_place(const struct qcow_writer *w, size_t len)
{
	uint64_t name = w->h.backing_off, used = name + strlen(w->h.backing_name);

	if (w->h.ext_end <= SECTOR && (used <= SECTOR || name >= SECTOR + len))
		return SECTOR;
	if (used < w->h.ext_end)
		used = w->h.ext_end;
	return (used + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
}

/* A name that does not fit behind @end: in sectors that the old header does not use. */
static int move_name(struct qcow_writer *w, const char *name, uint64_t end, uint8_t *sector,
		     struct qcow_error *err)
{
	size_t len = strlen(name), done, n;
	uint64_t at = end;
	int r = 0;

	if (end + len <= SECTOR) {
		memcpy(sector + end, name, len);
	} else {
		at = free_place(w, len);
		if (at + len > qcow_cluster_size(&w->h))
			return no_room(err);
		for (done = 0; done < len && !r; done += n) {
			n = len - done < SECTOR ? len - done : SECTOR;
			r = meta_patch(w, at + done, name + done, n, err);
		}
	}
	qcow_put_be64(sector + AT_BACKING, at);
	qcow_put_be32(sector + AT_NAME_LEN, (uint32_t)len);
	return r;
}

int qcow_head_move(struct qcow_writer *w, const uint8_t *cluster, const struct qcow_header *h,
		   uint8_t sector[512], struct qcow_error *err)
{
	uint64_t end;
	int r = move_fields(w, cluster, h, sector, &end, err);

	if (!r)
		r = put_extensions(w, cluster, h, sector, &end, err);
	if (!r && h->has_backing)
		r = move_name(w, h->backing_name, end, sector, err);
	return r;
}

static int check_backing(const char *name, const char *format, struct qcow_error *err)
{
	if (name && (!*name || strlen(name) > QCOW_MAX_NAME))
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "a backing file's name has 1 to 1023 bytes");
	if (format && strlen(format) > QCOW_MAX_FORMAT)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "no backing format is that long");
	return 0;
}

int qcow_head_set_backing(struct qcow_writer *w, const char *name, const char *format,
			  struct qcow_error *err)
{
	struct qcow_header h = w->h;
	uint8_t sector[512];
	int r = check_backing(name, format, err);

	if (r < 0)
		return r;
	h.has_backing = name != NULL;
	strcpy(h.backing_name, name ? name : "");
	strcpy(h.backing_format, name && format ? format : "");
	r = meta_read(w, 0, w->cluster, qcow_cluster_size(&w->h), err);
	if (!r)
		r = qcow_head_move(w, w->cluster, &h, sector, err);
	if (!r)
		r = qcow_barrier(w, QCOW_BARRIER_TABLE, err);
	if (!r)
		r = meta_patch(w, 0, sector, sizeof(sector), err);
	return r < 0 ? r : qcow_barrier(w, QCOW_BARRIER_HEADER, err);
}
