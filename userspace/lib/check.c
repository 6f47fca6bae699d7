// SPDX-License-Identifier: GPL-2.0-only
#include "lib/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/be.h"
#include "lib/check-priv.h"
#include "lib/refcount.h"

#define WINDOW	    (1ull << 28)
#define CACHE_BYTES (8u << 20)

void found(struct check *c, uint64_t *counter, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	if (c->quiet)
		return;
	++*counter;
	if (!c->params->report || c->silent)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->params->report(c->params->arg, text);
}

/* ---- recorded refcounts ------------------------------------------------------------ */

static int load_entry(struct check *c, uint64_t i, uint64_t entry)
{
	uint64_t off = entry & ~511ull;

	if (entry & 511) {
		found(c, &c->result->corruptions,
		      "ERROR refcount table entry %" PRIu64 " has reserved bits set", i);
		c->rebuild = true;
	}
	if (off & (qcow_cluster_size(&c->h) - 1) || off >= c->file_size) {
		found(c, &c->result->corruptions,
		      "ERROR refcount block %" PRIu64 " at %#" PRIx64 " is not in the file", i,
		      off);
		c->rebuild = true;
		off = 0;
	}
	c->reftable[i] = off;
	return 0;
}

static int load_reftable(struct check *c)
{
	uint64_t i;
	int r;

	r = qcow_io_pread(c->io, c->reftable, c->nr_reftable * 8, c->h.reftable_off, c->err);
	for (i = 0; i < c->nr_reftable && !r; i++)
		r = load_entry(c, i, qcow_be64(&c->reftable[i]));
	return r;
}

/* The page is kept: compare_window() asks for one cluster after the other. */
static int block_page(struct check *c, uint64_t host_off)
{
	int r;

	if (c->page_off == host_off)
		return 0;
	c->page_off = QCOW_NO_OFF;
	r = qcow_mcache_read(c->cache, 0, c->io, host_off, c->block_page, QCOW_MCACHE_PAGE, c->page,
			     c->err);
	if (!r)
		c->page_off = host_off;
	return r;
}

int recorded(struct check *c, uint64_t cluster, uint64_t *value)
{
	uint64_t block = cluster >> c->refblock_bits, bits, off, in_page;
	int r;

	*value = 0;
	if (block >= c->nr_reftable || !c->reftable[block])
		return 0;
	bits = (cluster & ((1ull << c->refblock_bits) - 1)) << c->h.refcount_order;
	off = c->reftable[block] + bits / 8;
	in_page = off % QCOW_MCACHE_PAGE;
	r = block_page(c, off - in_page);
	if (!r)
		*value = qcow_ref_decode(c->block_page, c->h.refcount_order,
					 (in_page * 8 + bits % 8) >> c->h.refcount_order);
	return r;
}

static bool is_shared(const struct check *c, uint64_t host_off)
{
	return refs_get(&c->refs, host_off >> c->h.cluster_bits) > 1;
}

static int correct(struct check *c, uint64_t cluster, uint64_t have, uint64_t want)
{
	uint64_t block = cluster >> c->refblock_bits;

	if (c->fix == QCOW_REPAIR_NONE || (c->fix == QCOW_REPAIR_LEAKS && have < want))
		return 0;
	if (block >= c->nr_reftable || !c->reftable[block] ||
	    want > qcow_ref_max(c->h.refcount_order)) {
		c->rebuild = true;
		return 0;
	}
	/* All are made anew, elsewhere; or what seems to be a block may be data. */
	if ((c->rebuild && c->fix == QCOW_REPAIR_ALL) || is_shared(c, c->reftable[block]))
		return 0;
	return fix_refcount(c, cluster, want);
}

static int compare_one(struct check *c, uint64_t cluster)
{
	uint64_t have, want = refs_get(&c->refs, cluster);
	int r = recorded(c, cluster, &have);

	if (r < 0)
		return r;
	if (have || want)
		c->result->image_end = (cluster + 1) << c->h.cluster_bits;
	if (have == want)
		return 0;
	c->counted = false;
	if (have < want)
		found(c, &c->result->corruptions,
		      "ERROR cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64, cluster,
		      have, want);
	else
		found(c, &c->result->leaks,
		      "Leaked cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64, cluster,
		      have, want);
	return correct(c, cluster, have, want);
}

/*
 * Most images agree with what was counted, page for page. @nr clusters from @first on,
 * their refcounts in one page and their counts in one chunk; 16 bits is what images have.
 */
static int run_agrees(struct check *c, uint64_t first, uint64_t *nr, bool *agrees)
{
	uint64_t block = first >> c->refblock_bits, idx = first & ((1ull << c->refblock_bits) - 1);
	bool has_block = block < c->nr_reftable && c->reftable[block];
	uint64_t per_page = QCOW_MCACHE_PAGE / 2, i, off;
	unsigned int differ = 0;
	const uint8_t *counts, *p;
	int r;

	if (*nr > per_page - first % per_page)
		*nr = per_page - first % per_page;
	if (*nr > (1ull << c->refblock_bits) - idx)
		*nr = (1ull << c->refblock_bits) - idx;
	counts = refs_run(&c->refs, first, nr);
	*agrees = !has_block && !counts;
	if (!has_block || !counts || c->h.refcount_order != 4)
		return 0;
	off = c->reftable[block] + idx * 2;
	r = block_page(c, off & ~(QCOW_MCACHE_PAGE - 1ull));
	if (r < 0)
		return r;
	p = c->block_page + off % QCOW_MCACHE_PAGE;
	for (i = 0; i < *nr; i++)
		differ |= p[2 * i] | (unsigned int)(p[2 * i + 1] ^ counts[i]) |
			  (counts[i] == REFS_FULL);
	*agrees = !differ;
	for (i = *nr; *agrees && i; i--) {
		if (!counts[i - 1])
			continue;
		c->result->image_end = (first + i) << c->h.cluster_bits;
		break;
	}
	return 0;
}

/* Up to the end of the file, like QEMU. */
static int compare_window(struct check *c)
{
	uint64_t i, k, nr, end = c->refs.first + c->refs.nr;
	bool quiet = c->quiet, agrees;
	int r = 0;

	c->quiet = false;
	if (end > c->file_clusters)
		end = c->file_clusters;
	for (i = c->refs.first; i < end && !r; i += nr) {
		nr = end - i;
		r = run_agrees(c, i, &nr, &agrees);
		for (k = 0; k < nr && !r && !agrees; k++)
			r = compare_one(c, i + k);
	}
	c->quiet = quiet;
	return r;
}

/* ---- scans ------------------------------------------------------------------------- */

static int flush(struct check *c)
{
	return qcow_io_flush(c->io, c->err);
}

static int rebuild(struct check *c)
{
	int r;

	if (c->refs.first || c->file_clusters > c->refs.nr)
		return qcow_fail(c->err, EFBIG, QCOW_NO_OFF,
				 "the refcounts of an image this big cannot be rebuilt");
	r = fix_rebuild(c);
	return r < 0 ? r : load_reftable(c);
}

/* One look at everything; with c->fix the second one, which changes what the first found. */
static int scan(struct check *c)
{
	uint64_t first;
	int r;

	c->rebuild = c->quiet = false;
	c->counted = c->file_clusters <= c->refs.nr;
	c->all_copied = true;
	c->steps = 0;
	*c->result = (struct qcow_check_result){ .total = (c->h.size >> c->h.cluster_bits) +
							  !!(c->h.size &
							     (qcow_cluster_size(&c->h) - 1)) };
	r = load_reftable(c);
	for (first = 0; first < c->file_clusters && !r; first += c->refs.nr) {
		refs_begin(&c->refs, first);
		r = walk_all(c);
		c->quiet = true;
		if (!r)
			r = compare_window(c);
	}
	c->quiet = false;
	if (!r && c->rebuild && c->fix == QCOW_REPAIR_ALL)
		r = rebuild(c);
	if (!r && c->fix)
		r = flush(c);
	if (!r)
		r = walk_copied(c);
	if (!r && c->fix)
		r = flush(c);
	return r;
}

static int repair(struct check *c)
{
	struct qcow_check_result before = *c->result;
	bool marked = c->h.incompatible & (QCOW_INCOMPAT_DIRTY | QCOW_INCOMPAT_CORRUPT);
	int r;

	if (!before.leaks && !before.corruptions && !marked)
		return 0;
	c->fix = c->params->repair;
	c->silent = true;
	r = scan(c);
	c->fix = QCOW_REPAIR_NONE;
	if (!r)
		r = scan(c);
	if (r < 0)
		return r;
	if (c->result->corruptions < before.corruptions)
		c->result->corruptions_fixed = before.corruptions - c->result->corruptions;
	if (c->result->leaks < before.leaks)
		c->result->leaks_fixed = before.leaks - c->result->leaks;
	if (marked && !c->result->corruptions && c->params->repair == QCOW_REPAIR_ALL)
		r = fix_header(c);
	return r;
}

/* ---- set-up ------------------------------------------------------------------------ */

static int alloc_check(struct check *c)
{
	uint64_t window = c->params->window ? c->params->window : WINDOW;
	size_t cluster = qcow_cluster_size(&c->h), page = QCOW_MCACHE_PAGE;

	if (window > c->file_clusters)
		window = c->file_clusters ? c->file_clusters : 1;
	if (refs_init(&c->refs, window) < 0)
		return -ENOMEM;
	c->reftable = calloc(QCOW_MAX_REFTABLE / 8, 8);
	c->cache = qcow_mcache_create(CACHE_BYTES);
	c->page = aligned_alloc(page, page);
	c->block_page = aligned_alloc(page, page);
	c->page_off = QCOW_NO_OFF;
	c->table = aligned_alloc(page, cluster < page ? page : cluster);
	if (c->params->data) {
		c->comp = aligned_alloc(page, 2 * (cluster < page ? page : cluster));
		c->plain = aligned_alloc(page, cluster < page ? page : cluster);
		c->codec = qcow_codec_create();
		if (!c->comp || !c->plain || !c->codec)
			return -ENOMEM;
	}
	return c->reftable && c->cache && c->page && c->block_page && c->table ? 0 : -ENOMEM;
}

static void free_check(struct check *c)
{
	refs_exit(&c->refs);
	qcow_mcache_destroy(c->cache);
	qcow_codec_destroy(c->codec);
	free(c->reftable);
	free(c->page);
	free(c->block_page);
	free(c->table);
	free(c->comp);
	free(c->plain);
}

static int start(struct check *c)
{
	int r = qcow_header_read_to_check(c->io, &c->h, c->err);

	if (!r)
		r = qcow_io_size(c->io, &c->file_size, c->err);
	if (r < 0)
		return r;
	c->file_clusters = (c->file_size + qcow_cluster_size(&c->h) - 1) >> c->h.cluster_bits;
	c->nr_reftable = ((uint64_t)c->h.reftable_clusters << c->h.cluster_bits) / 8;
	c->refblock_bits = c->h.cluster_bits + 3 - c->h.refcount_order;
	c->nr_steps = 2ull * c->h.l1_size;
	if (alloc_check(c) < 0)
		return qcow_fail(c->err, ENOMEM, QCOW_NO_OFF, "no memory to check the image");
	return 0;
}

int qcow_check(struct qcow_io *io, const struct qcow_check_params *params,
	       struct qcow_check_result *result, struct qcow_error *err)
{
	struct check c = { .io = io, .params = params, .result = result, .err = err };
	int r;

	*result = (struct qcow_check_result){ 0 };
	r = start(&c);
	if (!r)
		r = scan(&c);
	if (!r && params->repair)
		r = repair(&c);
	/* Most images need no second look. */
	if (!r && params->progress)
		params->progress(params->arg, c.nr_steps, c.nr_steps);
	free_check(&c);
	return r;
}
