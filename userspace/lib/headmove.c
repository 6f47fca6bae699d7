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
#define AT_BACKING    8
#define AT_HEADER_LEN 100

static int no_room(struct qcow_error *err)
{
	return qcow_fail(err, ENOSPC, 0,
			 "the header's extensions and names leave no room to move them; use: "
			 "qemu-img amend");
}

/* Extensions but the feature names, and the end marker. *@end: behind them. */
static int move_extensions(const struct qcow_writer *w, const uint8_t *from, uint8_t *sector,
			   uint64_t *end, struct qcow_error *err)
{
	uint64_t at = w->h.header_length, len;

	while (at + 8 <= w->h.ext_end) {
		len = 8 + ((qcow_be32(from + at + 4) + 7ull) & ~7ull);
		if (!qcow_be32(from + at) || len > w->h.ext_end - at)
			break;
		if (qcow_be32(from + at) != EXT_NAMES) {
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

/* A name that does not fit behind @end: in sectors that the old header does not use. */
static int move_name(struct qcow_writer *w, uint64_t end, uint8_t *sector, struct qcow_error *err)
{
	size_t len = strlen(w->h.backing_name), done, n;
	uint64_t used = w->h.backing_off + len, at = end;
	int r = 0;

	if (end + len <= SECTOR) {
		memcpy(sector + end, w->h.backing_name, len);
	} else {
		if (used < w->h.ext_end)
			used = w->h.ext_end;
		at = (used + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
		if (at + len > qcow_cluster_size(&w->h))
			return no_room(err);
		for (done = 0; done < len && !r; done += n) {
			n = len - done < SECTOR ? len - done : SECTOR;
			r = meta_patch(w, at + done, w->h.backing_name + done, n, err);
		}
	}
	qcow_put_be64(sector + AT_BACKING, at);
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
	r = move_extensions(w, cluster, sector, &end, err);
	if (!r && w->h.has_backing)
		r = move_name(w, end, sector, err);
	return r;
}
