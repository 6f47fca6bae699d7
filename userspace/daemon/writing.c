// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/writing.h"

#include "daemon/util.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

struct writing *writing_create(void)
{
	return calloc(1, sizeof(struct writing));
}

void writing_destroy(struct writing *wr)
{
	free(wr);
}

/* ---- beginning and end -------------------------------------------------------------- */

static void begin(struct writing *wr, struct qcow_chain *chain)
{
	const struct qcow_image *top = qcow_chain_layer_image(chain, 0);

	wr->chain = chain;
	wr->w = qcow_chain_writer(chain);
	wr->cluster_size = 1U << qcow_image_cluster_bits(top);
	wr->block_size = 1U << qcow_chain_block_bits(chain);
	wr->nr_lost = 0;
	wr->unsaid = 0;
	wr->room_said = 0;
	qcow_error_clear(&wr->broken);
}

/*
 * An earlier worker may have been killed between its first write, of the header's
 * autoclear bits, and the barrier behind it: what was read is to be durable.
 */
int writing_begin(struct writing *wr, struct qcow_chain *chain, bool drop_bitmaps,
		  struct qcow_error *err)
{
	int r = qcow_chain_make_writable(chain, drop_bitmaps, err);

	if (!r)
		r = qcow_barrier(qcow_chain_writer(chain), QCOW_BARRIER_ADOPT, err);
	if (!r)
		begin(wr, chain);
	return r;
}

void writing_end(struct writing *wr)
{
	wr->chain = NULL;
	wr->w = NULL;
}

static int check(const struct writing *wr, struct qcow_error *err)
{
	if (!wr->chain)
		return qcow_fail(err, EIO, QCOW_NO_OFF, "the image is not open for writing");
	if (wr->broken.code)
		return qcow_fail(err, EIO, QCOW_NO_OFF, "%s", wr->broken.text);
	return 0;
}

int writing_finish(struct writing *wr, const struct qnl_msg *up, struct qcow_error *err)
{
	int r = check(wr, err);

	if (!r)
		r = qcow_writer_finish(wr->w, err);
	/* All that was said before it is late, whether or not it got this far. */
	if (!r && up->generation >= wr->generation)
		wr->generation = up->generation + 1;
	return r;
}

/* ---- leases --------------------------------------------------------------------------- */

static int malformed(const char *what, struct qcow_error *err)
{
	return qcow_fail(err, EPROTO, QCOW_NO_OFF, "malformed %s", what);
}

static int take_leases(struct writing *wr, const struct qnl_array *leases, size_t *nr,
		       struct qcow_error *err)
{
	struct dm_qcow_lease l;

	*nr = leases->nr;
	if (leases->nr > DM_QCOW_MAX_LEASES)
		return malformed("list of leases", err);
	for (uint32_t i = 0; i < leases->nr; i++) {
		qnl_array_get(leases, i, &l, sizeof(l));
		wr->ext[i] = (struct qcow_lease_extent){
			.host_off = l.host_off,
			.len = (uint64_t)l.nr_clusters * wr->cluster_size,
			.table = l.flags & DM_QCOW_LEASE_TABLE,
			.zero = l.flags & DM_QCOW_LEASE_ZERO,
		};
	}
	return 0;
}

static void put_leases(struct writing *wr, struct qnl_msg *answer, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		const struct qcow_lease_extent *e = &wr->ext[i];

		wr->leases[i] = (struct dm_qcow_lease){
			.host_off = e->host_off,
			.nr_clusters = (uint32_t)(e->len / wr->cluster_size),
			.flags = (e->table ? DM_QCOW_LEASE_TABLE : 0) |
				 (e->zero ? DM_QCOW_LEASE_ZERO : 0),
		};
	}
	qnl_set(answer, LEASES, leases, ((struct qnl_array){ wr->leases, (uint32_t)nr }));
}

void writing_put_tables(const struct writing *wr, struct qnl_msg *answer)
{
	/* The library's "enough" is the same number. */
	_Static_assert(DM_QCOW_TABLES_ENOUGH == UINT32_MAX, "see qcow_lease_tables_left()");
	qnl_set(answer, TABLES, tables, qcow_lease_tables_left(wr->w));
}

/* Only people want to know: what cannot be found out is left out. */
void writing_put_room(struct writing *wr, struct qnl_msg *answer)
{
	uint64_t bytes;

	if (!qcow_chain_room(wr->chain, &bytes, NULL))
		qnl_set(answer, ROOM, room, bytes);
}

/* Synchronous writes commit thousands of times a second: it is not worth so much. */
static void put_room_now_and_then(struct writing *wr, struct qnl_msg *answer)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec == wr->room_said)
		return;
	wr->room_said = now.tv_sec;
	writing_put_room(wr, answer);
}

static int adopt_leases(struct writing *wr, const struct qnl_array *leases, struct qcow_error *err)
{
	size_t nr;
	int r = take_leases(wr, leases, &nr, err);

	return r ? r : qcow_lease_adopt(wr->w, wr->ext, nr, err);
}

int writing_adopt(struct writing *wr, struct qcow_chain *chain, bool drop_bitmaps,
		  uint64_t first_size, const struct qnl_array *leases, struct qcow_error *err)
{
	int r = qcow_chain_make_writable(chain, drop_bitmaps, err);

	begin(wr, chain);
	if (!r) {
		qcow_writer_keep_size(wr->w, first_size);
		r = adopt_leases(wr, leases, err);
	}
	if (r)
		wr->broken = *err;
	return r;
}

int writing_propose(struct writing *wr, const struct qnl_msg *up, struct qnl_msg *answer,
		    struct qcow_error *err)
{
	size_t nr;
	int r = check(wr, err);

	if (r)
		return r;
	if (!qnl_has(up, QNL_BIT(BYTES) | QNL_BIT(TABLES)))
		return malformed("PROPOSE", err);
	/* Of the last proposal the kernel has no record, or no use. */
	qcow_lease_forget_all(wr->w);
	r = qcow_lease_propose(wr->w, up->bytes, qcow_lease_tables_wanted(wr->w, up->tables),
			       wr->ext, DM_QCOW_MAX_LEASES, &nr, err);
	if (!r)
		put_leases(wr, answer, nr);
	return r;
}

int writing_grant(struct writing *wr, const struct qnl_msg *up, struct qnl_msg *answer,
		  struct qcow_error *err)
{
	size_t nr;
	int r = check(wr, err);

	if (r)
		return r;
	if (!qnl_has(up, QNL_BIT(LEASES)))
		return malformed("GRANT", err);
	r = take_leases(wr, &up->leases, &nr, err);
	if (!r)
		r = qcow_lease_grant(wr->w, wr->ext, nr, err);
	if (r)
		return r;
	put_leases(wr, answer, nr);
	writing_put_tables(wr, answer);
	writing_put_room(wr, answer);
	return 0;
}

/* ---- changes of the map ----------------------------------------------------------------- */

static int convert_delta(const struct writing *wr, const struct dm_qcow_delta *in,
			 struct qcow_delta *out, struct qcow_error *err)
{
	static const enum qcow_delta_type types[] = {
		[DM_QCOW_DELTA_DATA] = QCOW_DELTA_DATA,
		[DM_QCOW_DELTA_ZERO] = QCOW_DELTA_ZERO,
		[DM_QCOW_DELTA_ZERO_KEEP] = QCOW_DELTA_ZERO_KEEP,
	};

	if (in->type >= sizeof(types) / sizeof(types[0]))
		return malformed("delta", err);
	*out = (struct qcow_delta){
		.guest_off = in->guest_off,
		.len = (uint64_t)in->nr_blocks * wr->block_size,
		.host_off = in->type != DM_QCOW_DELTA_ZERO ? in->host_off : 0,
		.type = types[in->type],
	};
	return 0;
}

/* Things said in the past are not done now. */
static int check_generation(const struct writing *wr, const struct qnl_msg *up,
			    struct qcow_error *err)
{
	if (!qnl_has(up, QNL_BIT(GENERATION)) || up->generation >= wr->generation)
		return 0;
	return qcow_fail(err, ESTALE, QCOW_NO_OFF,
			 "generation %" PRIu64 " is late: it is the time of %" PRIu64,
			 up->generation, wr->generation);
}

static int take_deltas(struct writing *wr, const struct qnl_msg *up, size_t *nr,
		       struct qcow_error *err)
{
	struct dm_qcow_delta d;
	int r = 0;

	if (!qnl_has(up, QNL_BIT(GENERATION) | QNL_BIT(FLAGS) | QNL_BIT(DELTAS)) ||
	    up->deltas.nr > DM_QCOW_MAX_DELTAS)
		return malformed("COMMIT", err);
	*nr = up->deltas.nr;
	for (uint32_t i = 0; i < up->deltas.nr && !r; i++) {
		qnl_array_get(&up->deltas, i, &d, sizeof(d));
		r = convert_delta(wr, &d, &wr->deltas[i], err);
	}
	return r;
}

static bool joins(const struct qcow_lost *a, const struct qcow_lost *b)
{
	return a->table == b->table && a->host_off + a->len == b->host_off;
}

static void remember(struct writing *wr, const struct qcow_lost *lost)
{
	struct qcow_lost *last = wr->nr_lost ? &wr->lost[wr->nr_lost - 1] : NULL;

	wr->unsaid += lost->len / wr->cluster_size;
	if (last && joins(last, lost))
		last->len += lost->len;
	else if (wr->nr_lost < WRITING_MAX_LOST)
		wr->lost[wr->nr_lost++] = *lost;
}

static int commit_all(struct writing *wr, size_t nr, struct qcow_error *err)
{
	struct qcow_commit c = { .deltas = wr->deltas, .nr = nr, .keep_exclusive = true };
	int r = 0;

	while (!r && c.next < c.nr) {
		r = qcow_commit_step(wr->w, &c, err);
		for (size_t i = 0; !r && i < c.nr_lost; i++)
			remember(wr, &c.lost[i]);
	}
	return r;
}

int writing_commit(struct writing *wr, const struct qnl_msg *up, struct qnl_msg *answer,
		   struct qcow_error *err)
{
	size_t nr = 0;
	int r = check(wr, err);

	if (!r)
		r = take_deltas(wr, up, &nr, err);
	if (!r)
		r = check_generation(wr, up, err);
	if (!r)
		wr->generation = up->generation;
	/* One flush of the image covers the data, unless it is in a file of its own. */
	if (!r && up->flags & DM_QCOW_COMMIT_UNFLUSHED)
		r = qcow_chain_flush_data_file(wr->chain, err);
	if (!r)
		r = nr ? commit_all(wr, nr, err) : qcow_barrier(wr->w, QCOW_BARRIER_COMMIT, err);
	if (r == -ENOSPC)
		return r;
	if (r)
		return err->code = EIO, -EIO;
	writing_put_tables(wr, answer);
	qnl_set(answer, LOST, lost, wr->unsaid);
	wr->unsaid = 0;
	put_room_now_and_then(wr, answer);
	return 0;
}

/* A refcount that cannot go down is a leak, and no reason to stop. */
static void lower_lost(struct writing *wr)
{
	struct qcow_error err = { 0 };

	if (qcow_free(wr->w, wr->lost, wr->nr_lost, &err))
		log_line("clusters leak: %s", err.text);
	wr->nr_lost = 0;
}

int writing_free(struct writing *wr, const struct qnl_msg *up, struct qcow_error *err)
{
	size_t nr;
	int r = check(wr, err);

	if (!r)
		r = check_generation(wr, up, err);
	if (!r)
		r = take_leases(wr, &up->leases, &nr, err);
	if (r)
		return r;
	lower_lost(wr);
	return qcow_lease_return(wr->w, wr->ext, nr, err);
}
