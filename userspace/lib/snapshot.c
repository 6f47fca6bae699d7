// SPDX-License-Identifier: GPL-2.0-only
#include "lib/snapshot.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/be.h"
#include "lib/window.h"

struct snapshot_disk {
	uint8_t l1_off[8], l1_size[4], id_len[2], name_len[2], date_sec[4], date_nsec[4],
		vm_clock[8], vm_state[4], extra_len[4];
};
static_assert(sizeof(struct snapshot_disk) == 40, "snapshot table entry");

struct snapshot_extra_disk {
	uint8_t vm_state[8], disk_size[8], icount[8];
};
static_assert(sizeof(struct snapshot_extra_disk) == 24, "snapshot extra data");

struct walk {
	struct qcow_window w;
	const struct qcow_header *h;
	uint64_t off; /* of the next entry */
	uint32_t nr;  /* of the entry, for messages */
};

static void decode(struct qcow_snapshot *s, const struct snapshot_disk *d,
		   const struct qcow_header *h)
{
	memset(s, 0, sizeof(*s));
	s->l1_off = qcow_be64(d->l1_off);
	s->l1_size = qcow_be32(d->l1_size);
	s->date_sec = qcow_be32(d->date_sec);
	s->date_nsec = qcow_be32(d->date_nsec);
	s->vm_clock_nsec = qcow_be64(d->vm_clock);
	s->vm_state_size = qcow_be32(d->vm_state);
	s->disk_size = h->size;
	s->icount = UINT64_MAX;
}

/* Each field is there only if the recorded length covers it. */
static int read_extra(struct walk *k, uint64_t off, uint32_t len, struct qcow_snapshot *s,
		      struct qcow_error *err)
{
	struct snapshot_extra_disk e;
	int r;

	if (len > QCOW_MAX_SNAP_EXTRA)
		return qcow_fail(err, EFBIG, off,
				 "snapshot %u at %#" PRIx64 " has %u bytes of "
				 "extra data, at most %u are possible",
				 k->nr, k->off, len, QCOW_MAX_SNAP_EXTRA);
	r = qcow_window_read(&k->w, &e, len < sizeof(e) ? len : sizeof(e), off, err);
	if (r < 0)
		return r;
	if (len >= 8)
		s->vm_state_size = qcow_be64(e.vm_state);
	s->has_disk_size = len >= 16;
	if (s->has_disk_size)
		s->disk_size = qcow_be64(e.disk_size);
	if (len >= 24)
		s->icount = qcow_be64(e.icount);
	return 0;
}

static int read_name(struct walk *k, uint64_t off, uint32_t len, char *out, size_t room,
		     struct qcow_error *err)
{
	size_t n = len < room - 1 ? len : room - 1;

	out[n] = '\0';
	return qcow_window_read(&k->w, out, n, off, err);
}

static int read_entry(struct walk *k, struct qcow_snapshot *s, struct qcow_error *err)
{
	struct snapshot_disk d;
	uint32_t extra, id, name;
	uint64_t off = k->off;
	int r;

	r = qcow_window_read(&k->w, &d, sizeof(d), off, err);
	if (r < 0)
		return r;
	decode(s, &d, k->h);
	extra = qcow_be32(d.extra_len);
	id = qcow_be16(d.id_len);
	name = qcow_be16(d.name_len);
	off += sizeof(d);
	r = read_extra(k, off, extra, s, err);
	if (r < 0)
		return r;
	off += extra;
	r = read_name(k, off, id, s->id, sizeof(s->id), err);
	if (r < 0)
		return r;
	off += id;
	r = read_name(k, off, name, s->name, sizeof(s->name), err);
	if (r < 0)
		return r;
	s->entry_off = k->off;
	k->off = (off + name + 7) & ~7ull;
	s->entry_len = (uint32_t)(k->off - s->entry_off);
	return 0;
}

int qcow_snapshots_walk(struct qcow_io *io, const struct qcow_header *h,
			int (*visit)(const struct qcow_snapshot *snap, void *arg), void *arg,
			struct qcow_error *err)
{
	struct walk k = { .h = h, .off = h->snapshots_off };
	struct qcow_snapshot s;
	int r;

	qcow_window_init(&k.w, io);
	for (k.nr = 1; k.nr <= h->nr_snapshots; k.nr++) {
		r = read_entry(&k, &s, err);
		if (r < 0)
			return r;
		if (k.off - h->snapshots_off > QCOW_MAX_SNAP_TABLE)
			return qcow_fail(err, EFBIG, h->snapshots_off,
					 "snapshot table at %#" PRIx64 " is longer than 64 MiB",
					 h->snapshots_off);
		r = visit(&s, arg);
		if (r)
			return r < 0 ? r : 0;
	}
	return 0;
}

int qcow_snapshot_check(const struct qcow_snapshot *s, const struct qcow_header *h,
			struct qcow_error *err)
{
	uint32_t span = qcow_l2_span_bits(h);
	uint64_t need = (s->disk_size >> span) + !!(s->disk_size & ((1ull << span) - 1));

	if (s->l1_size > QCOW_MAX_L1_ENTRIES)
		return qcow_fail(
			err, EFBIG, s->l1_off,
			"L1 table of snapshot \"%s\" has %u entries, at most %u are possible",
			s->name, s->l1_size, QCOW_MAX_L1_ENTRIES);
	if (s->l1_off & (qcow_cluster_size(h) - 1) ||
	    s->l1_off > QCOW_HOST_OFF_MAX - s->l1_size * 8ull)
		return qcow_fail(err, EINVAL, s->l1_off,
				 "L1 table of snapshot \"%s\" at %#" PRIx64
				 " is not aligned or past any file's end",
				 s->name, s->l1_off);
	if (s->l1_size < need)
		return qcow_fail(err, EINVAL, s->l1_off,
				 "L1 table of snapshot \"%s\" has %u entries, a disk of %" PRIu64
				 " bytes needs %" PRIu64,
				 s->name, s->l1_size, s->disk_size, need);
	return 0;
}

struct search {
	const char *want;
	bool by_id, found;
	struct qcow_snapshot *out;
};

static int visit_match(const struct qcow_snapshot *s, void *arg)
{
	struct search *q = arg;

	if (strcmp(q->by_id ? s->id : s->name, q->want))
		return 0;
	*q->out = *s;
	q->found = true;
	return 1;
}

int qcow_snapshot_find(struct qcow_io *io, const struct qcow_header *h, const char *id_or_name,
		       enum qcow_snapshot_key key, struct qcow_snapshot *s, struct qcow_error *err)
{
	struct search q = { .want = id_or_name, .out = s, .by_id = key == QCOW_SNAPSHOT_ID_FIRST };
	int r = qcow_snapshots_walk(io, h, visit_match, &q, err);

	q.by_id = !q.by_id;
	if (!r && !q.found)
		r = qcow_snapshots_walk(io, h, visit_match, &q, err);
	if (r < 0 || q.found)
		return r;
	return qcow_fail(err, ENOENT, h->snapshots_off,
			 "no snapshot with id or name \"%s\" among the image's %u", id_or_name,
			 h->nr_snapshots);
}
