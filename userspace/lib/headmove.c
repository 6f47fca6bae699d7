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
#define AT_BACKING    8
#define AT_NAME_LEN   16
#define AT_HEADER_LEN 100

static int no_room(struct qcow_error *err)
{
	return qcow_fail(err, ENOSPC, 0,
			 "the header's extensions and names leave no room to move them; use: "
			 "qemu-img amend");
}

/* Extensions but the feature names and @but, and the end marker. *@end: behind them. */
static int move_extensions(const struct qcow_writer *w, const uint8_t *from, uint32_t but,
			   uint8_t *sector, uint64_t *end, struct qcow_error *err)
{
	uint64_t at = w->h.header_length, len;

	while (at + 8 <= w->h.ext_end) {
		len = 8 + ((qcow_be32(from + at + 4) + 7ull) & ~7ull);
		if (!qcow_be32(from + at) || len > w->h.ext_end - at)
			break;
		if (qcow_be32(from + at) != EXT_NAMES && qcow_be32(from + at) != but) {
			if (*end + len + 8 > SECTOR)
				return no_room(err);
			memcpy(sector + *end, from + at, len);
			*end += len;
		}
		at += len;
	}
	*end += 8;
	return 0;
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

int qcow_head_move(struct qcow_writer *w, const uint8_t *cluster, uint32_t version,
		   uint8_t sector[512], struct qcow_error *err)
{
	uint64_t end = version < 3 ? V2_LENGTH : V3_LENGTH;
	int r;

	memset(sector, 0, SECTOR);
	memcpy(sector, cluster, V2_LENGTH);
	qcow_put_be32(sector + 4, version);
	if (version >= 3)
		qcow_put_be32(sector + AT_HEADER_LEN, V3_LENGTH);
	r = move_extensions(w, cluster, EXT_NAMES, sector, &end, err);
	if (!r && w->h.has_backing)
		r = move_name(w, w->h.backing_name, end, sector, err);
	return r;
}

static int put_format(const char *format, uint8_t *sector, uint64_t *end, struct qcow_error *err)
{
	size_t len = strlen(format), room = 8 + ((len + 7) & ~(size_t)7);

	if (*end + room + 8 > SECTOR)
		return no_room(err);
	qcow_put_be32(sector + *end, EXT_FORMAT);
	qcow_put_be32(sector + *end + 4, (uint32_t)len);
	memcpy(sector + *end + 8, format, len);
	*end += room;
	return 0;
}

static int build_sector(struct qcow_writer *w, const uint8_t *cluster, const char *name,
			const char *format, uint8_t sector[512], struct qcow_error *err)
{
	uint64_t end = w->h.header_length;
	int r = 0;

	memset(sector, 0, SECTOR);
	if (end + 8 > SECTOR)
		return no_room(err);
	memcpy(sector, cluster, end);
	qcow_put_be64(sector + AT_BACKING, 0);
	qcow_put_be32(sector + AT_NAME_LEN, 0);
	if (name && format)
		r = put_format(format, sector, &end, err);
	if (!r)
		r = move_extensions(w, cluster, EXT_FORMAT, sector, &end, err);
	return r < 0 || !name ? r : move_name(w, name, end, sector, err);
}

int qcow_head_set_backing(struct qcow_writer *w, const char *name, const char *format,
			  struct qcow_error *err)
{
	uint8_t sector[512];
	int r;

	if (name && (!*name || strlen(name) > QCOW_MAX_NAME))
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "a backing file's name has 1 to 1023 bytes");
	if (format && strlen(format) > QCOW_MAX_FORMAT)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "no backing format is that long");
	r = meta_read(w, 0, w->cluster, qcow_cluster_size(&w->h), err);
	if (!r)
		r = build_sector(w, w->cluster, name, format, sector, err);
	if (!r)
		r = qcow_barrier(w, QCOW_BARRIER_TABLE, err);
	if (!r)
		r = meta_patch(w, 0, sector, sizeof(sector), err);
	return r < 0 ? r : qcow_barrier(w, QCOW_BARRIER_HEADER, err);
}
