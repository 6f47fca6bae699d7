// SPDX-License-Identifier: GPL-2.0-only
#include "lib/metaset.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* An image that has more tables than this is refused: 2^23 of 64 KiB map 4 PiB. */
#define MAX_CLUSTERS (8u << 20)
#define MIN_SLOTS    1024

int qcow_metaset_init(struct qcow_metaset *s, uint32_t cluster_bits)
{
	*s = (struct qcow_metaset){ .cluster_bits = cluster_bits, .nr_slots = MIN_SLOTS };
	s->slots = calloc(s->nr_slots, sizeof(*s->slots));
	if (!s->slots)
		return -ENOMEM;
	pthread_rwlock_init(&s->lock, NULL);
	return 0;
}

void qcow_metaset_exit(struct qcow_metaset *s)
{
	if (!s->slots)
		return;
	pthread_rwlock_destroy(&s->lock);
	free(s->slots);
	free(s->ranges);
	s->slots = NULL;
}

static size_t slot_of(const struct qcow_metaset *s, uint64_t cluster)
{
	size_t i = (size_t)(cluster * 0x9e3779b97f4a7c15ull >> 20) & (s->nr_slots - 1);

	while (s->slots[i] && s->slots[i] >> 8 != cluster)
		i = (i + 1) & (s->nr_slots - 1);
	return i;
}

static int kind_locked(const struct qcow_metaset *s, uint64_t cluster)
{
	size_t i;

	for (i = 0; i < s->nr_ranges; i++)
		if (cluster >= s->ranges[i].first && cluster < s->ranges[i].end)
			return (int)s->ranges[i].kind;
	return (int)(s->slots[slot_of(s, cluster)] & 0xff);
}

int qcow_metaset_kind(struct qcow_metaset *s, uint64_t cluster)
{
	int kind;

	pthread_rwlock_rdlock(&s->lock);
	kind = kind_locked(s, cluster);
	pthread_rwlock_unlock(&s->lock);
	return kind;
}

bool qcow_metaset_has(struct qcow_metaset *s, uint64_t host_off, uint64_t len)
{
	uint64_t c = host_off >> s->cluster_bits, last = (host_off + len - 1) >> s->cluster_bits;
	bool found = false;

	pthread_rwlock_rdlock(&s->lock);
	for (; len && c <= last && !found; c++)
		found = kind_locked(s, c) != 0;
	pthread_rwlock_unlock(&s->lock);
	return found;
}

/* Readers are kept out only while the arrays change hands. */
static int grow_slots(struct qcow_metaset *s, size_t nr_slots)
{
	uint64_t *old = s->slots, *slots = calloc(nr_slots, sizeof(*slots));
	size_t i, old_nr = s->nr_slots;

	if (!slots)
		return -ENOMEM;
	pthread_rwlock_wrlock(&s->lock);
	s->slots = slots;
	s->nr_slots = nr_slots;
	for (i = 0; i < old_nr; i++)
		if (old[i])
			slots[slot_of(s, old[i] >> 8)] = old[i];
	pthread_rwlock_unlock(&s->lock);
	free(old);
	return 0;
}

int qcow_metaset_reserve(struct qcow_metaset *s, size_t nr)
{
	size_t want = s->nr_slots;

	if (nr > MAX_CLUSTERS || s->nr + nr > MAX_CLUSTERS)
		return -EFBIG;
	while ((s->nr + nr) * 2 >= want)
		want *= 2;
	return want == s->nr_slots ? 0 : grow_slots(s, want);
}

static int overlap(uint64_t host_off, struct qcow_error *err)
{
	return qcow_fail(err, EIO, host_off,
			 "two tables lie at %#" PRIx64 "; qcow check shows the damage", host_off);
}

int qcow_metaset_add(struct qcow_metaset *s, enum qcow_meta_kind kind, uint64_t host_off,
		     struct qcow_error *err)
{
	uint64_t cluster = host_off >> s->cluster_bits;
	int old = qcow_metaset_kind(s, cluster);
	int r;

	if (old && !(kind == QCOW_META_L2 && (old == QCOW_META_L2 || old == QCOW_META_RESERVE)))
		return overlap(host_off, err);
	r = qcow_metaset_reserve(s, 1);
	if (r < 0)
		return qcow_fail(err, -r, host_off, "too many tables to keep track of");
	pthread_rwlock_wrlock(&s->lock);
	s->nr += !old;
	s->slots[slot_of(s, cluster)] = cluster << 8 | (uint64_t)kind;
	pthread_rwlock_unlock(&s->lock);
	return 0;
}

static struct qcow_meta_range to_range(const struct qcow_metaset *s, enum qcow_meta_kind kind,
				       uint64_t host_off, uint64_t len)
{
	uint64_t mask = (1ull << s->cluster_bits) - 1;

	return (struct qcow_meta_range){ .first = host_off >> s->cluster_bits,
					 .end = (host_off + len + mask) >> s->cluster_bits,
					 .kind = kind };
}

static bool range_is_free(const struct qcow_metaset *s, const struct qcow_meta_range *want)
{
	size_t i;

	for (i = 0; i < s->nr_ranges; i++)
		if (want->first < s->ranges[i].end && s->ranges[i].first < want->end)
			return false;
	for (i = 0; s->nr && i < s->nr_slots; i++)
		if (s->slots[i] && s->slots[i] >> 8 >= want->first && s->slots[i] >> 8 < want->end)
			return false;
	return true;
}

int qcow_metaset_add_range(struct qcow_metaset *s, enum qcow_meta_kind kind, uint64_t host_off,
			   uint64_t len, struct qcow_error *err)
{
	struct qcow_meta_range range = to_range(s, kind, host_off, len), *bigger;

	if (!len)
		return 0;
	if (!range_is_free(s, &range))
		return overlap(host_off, err);
	if (s->nr_ranges == s->max_ranges) {
		bigger = realloc(s->ranges, (s->max_ranges * 2 + 8) * sizeof(*bigger));
		if (!bigger)
			return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
		s->ranges = bigger;
		s->max_ranges = s->max_ranges * 2 + 8;
	}
	s->ranges[s->nr_ranges++] = range;
	return 0;
}
