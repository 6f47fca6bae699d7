// SPDX-License-Identifier: GPL-2.0-only
/*
 * The map against a plain array: random runs in, random lookups out. Included by
 * map.c in debug builds and run when the module is loaded.
 */

#include <linux/prandom.h>
#include <linux/vmalloc.h>

#define TEST_PAGES	6
#define TEST_BLOCKS	(TEST_PAGES * DM_QCOW_PAGE_BLOCKS)
#define TEST_BLOCK_SIZE	4096
#define TEST_LOOKUPS	20000
#define TEST_BUDGET	(TEST_PAGES / 2 * (ENTRY_ARRAY_BYTES + sizeof(struct qcow_map_page)))

struct map_test {
	struct qcow_map map;
	struct rnd_state rnd;
	struct dm_qcow_run model[TEST_BLOCKS];	/* one block each */
};

static u32 __init below(struct map_test *t, u32 n)
{
	return prandom_u32_state(&t->rnd) % n;
}

static struct dm_qcow_run __init random_run(struct map_test *t, u32 max)
{
	/* Few layers, and offsets close together: runs meet, and must merge then. */
	struct dm_qcow_run run = {
		.type = below(t, 3),
		.nr_blocks = below(t, 4) ? 1 + below(t, min(max, 9U)) : max,
	};

	if (run.type == DM_QCOW_RUN_DATA) {
		run.layer = below(t, 2);
		run.host_off = (u64)below(t, 16) * TEST_BLOCK_SIZE;
		run.flags = below(t, 2) ? DM_QCOW_RUN_WRITABLE : 0;
	}
	return run;
}

static void __init note_run(struct map_test *t, u32 block, const struct dm_qcow_run *run)
{
	u32 i;

	for (i = 0; i < run->nr_blocks; i++) {
		t->model[block + i] = *run;
		if (run->type == DM_QCOW_RUN_DATA)
			t->model[block + i].host_off += (u64)i * TEST_BLOCK_SIZE;
	}
}

static bool __init load_page(struct map_test *t, u32 page_idx)
{
	struct qcow_map_fill fill = { .page = qcow_map_page_create(&t->map) };
	int r = 0;

	while (!r && fill.nr_blocks < DM_QCOW_PAGE_BLOCKS) {
		struct dm_qcow_run run = random_run(t, DM_QCOW_PAGE_BLOCKS - fill.nr_blocks);

		note_run(t, page_idx * DM_QCOW_PAGE_BLOCKS + fill.nr_blocks, &run);
		r = qcow_map_fill(&t->map, &fill, &run);
	}
	if (!r)
		r = qcow_map_insert(&t->map, page_idx, qcow_map_seq(&t->map, page_idx), fill.page);
	if (r)
		qcow_map_page_destroy(&t->map, fill.page);
	return !r;
}

static bool __init same(const struct map_test *t, sector_t sector, const struct qcow_extent *x,
			u32 ahead)
{
	u32 shift = t->map.block_shift;
	const struct dm_qcow_run *m = &t->model[(sector + ahead) >> shift];
	u64 skip = (sector + ahead) & ((1 << shift) - 1);

	if (m->type != x->type)
		return false;
	if (m->type != DM_QCOW_RUN_DATA)
		return true;
	return m->layer == x->layer && !!m->flags == x->writable &&
	       (m->host_off >> SECTOR_SHIFT) + skip == x->host_sector + ahead;
}

/* Every sector of the answer must be right, and the answer as long as it can be. */
static bool __init check_extent(const struct map_test *t, sector_t sector, u32 nr,
				const struct qcow_extent *x)
{
	u32 i;

	if (!x->nr_sectors || x->nr_sectors > nr)
		return false;
	for (i = 0; i < x->nr_sectors; i++)
		if (!same(t, sector, x, i))
			return false;
	if (x->nr_sectors == nr)
		return true;
	if (x->type == DM_QCOW_RUN_FETCH)
		return !((sector + x->nr_sectors) & (qcow_map_block_sectors(&t->map) - 1));
	/* It may also end where a page is not loaded. */
	return !same(t, sector, x, x->nr_sectors) ||
	       !xa_load((struct xarray *)&t->map.pages,
			qcow_map_page_of(&t->map, sector + x->nr_sectors));
}

static bool __init random_lookup(struct map_test *t)
{
	u32 all = TEST_BLOCKS << t->map.block_shift;
	u32 sector = below(t, all);
	u32 nr = 1 + below(t, min(all - sector, 8000U));
	struct qcow_extent x;
	bool found;

	rcu_read_lock();
	found = qcow_map_lookup(&t->map, sector, nr, &x);
	rcu_read_unlock();
	if (!found)
		return load_page(t, qcow_map_page_of(&t->map, sector));
	return check_extent(t, sector, nr, &x);
}

/* What went stale is neither taken nor looked into, not even when memory is short. */
static bool __init test_stale(struct map_test *t)
{
	struct qcow_map_page *page = qcow_map_page_create(&t->map);
	int r, spare = t->map.pool.curr_nr;
	struct qcow_extent x;
	bool found;

	memset(page->entries, 0, ENTRY_ARRAY_BYTES);
	t->map.pool.curr_nr = 0;
	r = qcow_map_insert(&t->map, 0, qcow_map_seq(&t->map, 0) - 1, page);
	t->map.pool.curr_nr = spare;
	found = qcow_map_page_lookup(&t->map, page, 0, 1, &x);
	qcow_map_page_destroy(&t->map, page);
	return r == -ESTALE && !found;
}

static bool __init run_map_test(struct map_test *t)
{
	u32 i;

	for (i = 0; i < TEST_LOOKUPS; i++)
		if (!random_lookup(t) || t->map.bytes > t->map.budget)
			return false;
	/* The budget holds half the pages: an eviction that never came is a bug. */
	if (!t->map.nr_evicted)
		return false;
	qcow_map_reset(&t->map);
	return !t->map.bytes && !t->map.nr_pages && !t->map.nr_collapsed;
}

static bool __init qcow_map_selftest(void)
{
	struct map_test *t = vzalloc(sizeof(*t));
	bool ok;

	if (!t)
		return false;
	prandom_seed_state(&t->rnd, 20261121);
	if (qcow_map_init(&t->map, TEST_BLOCK_SIZE, TEST_BUDGET)) {
		vfree(t);
		return false;
	}
	ok = test_stale(t) && run_map_test(t);
	qcow_map_exit(&t->map);
	vfree(t);
	DMINFO("map selftest: %s", ok ? "ok" : "FAILED");
	return ok;
}
