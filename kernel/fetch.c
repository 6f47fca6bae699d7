// SPDX-License-Identifier: GPL-2.0-only
/*
 * Blocks whose bytes only the helper can produce: compressed, pieced together, or
 * straddling the end of a short layer. One FETCH brings a whole block; whoever waits
 * for a part of it is served from that, and the block stays cached for a while.
 */

#include <linux/highmem.h>
#include <linux/uaccess.h>

#include "dm-qcow.h"
#include "io.h"

/* For when there is no memory for a block: from the helper straight into a bio. */
static int copy_to_bio_from_user(struct bio *bio, u64 guest_off, const void __user *from)
{
	unsigned int off = (bio->bi_iter.bi_sector << SECTOR_SHIFT) - guest_off;
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter) {
		void *to = bvec_kmap_local(&bv);
		unsigned long missed = copy_from_user(to, from + off, bv.bv_len);

		kunmap_local(to);
		flush_dcache_page(bv.bv_page);
		if (missed)
			return -EFAULT;
		off += bv.bv_len;
	}
	return 0;
}

static void serve(struct bio_list *bios, const struct qcow_block *block)
{
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		qcow_block_copy_to_bio(block, bio);
		bio_endio(bio);
	}
}

static int serve_uncached(struct bio_list *bios, u64 guest_off, const void __user *from)
{
	struct bio *bio;

	while ((bio = bio_list_peek(bios))) {
		int r = copy_to_bio_from_user(bio, guest_off, from);

		if (r)
			return r;
		bio_endio(bio_list_pop(bios));
	}
	return 0;
}

/* Who reads all of a block comes back for none of it: keeping a copy would only cost. */
static bool all_whole(const struct qcow_upcall *uc)
{
	const struct bio *bio;

	bio_list_for_each(bio, &uc->bios)
		if (bio->bi_iter.bi_size != uc->length)
			return false;
	return true;
}

/* On an error the bios that are left are the caller's to end. */
static int take_block(struct qcow_disk *disk, struct qcow_upcall *uc,
		      const struct qcow_answer *answer)
{
	const void __user *from = u64_to_user_ptr(answer->addr);
	struct qcow_block *block;
	int r;

	if (answer->offset != uc->key || answer->length != uc->length)
		return -EINVAL;
	if (all_whole(uc))
		return serve_uncached(&uc->bios, uc->key, from);
	block = qcow_cache_new_block(&disk->cache, uc->key, uc->length);
	if (!block)
		return serve_uncached(&uc->bios, uc->key, from);
	r = qcow_block_copy_from_user(block, from);
	if (!r) {
		qcow_cache_insert(&disk->cache, block);
		serve(&uc->bios, block);
	}
	qcow_block_put(block);
	return r;
}

static int fetch_done(struct qcow_upcall *uc, const struct qcow_answer *answer)
{
	struct qcow_disk *disk = uc->private;
	int r = 0;

	if (!answer->error)
		r = take_block(disk, uc, answer);
	if (answer->error || r)
		qcow_bios_end(&uc->bios, answer->error ?: -EIO);
	qcow_upcall_free(&disk->upcalls, uc);
	return r;
}

/**
 * qcow_fetch() - read from a block that only the helper can produce
 * @disk: the disk
 * @bio: within one block; ended now or later
 *
 * Context: process; may sleep, without I/O.
 */
void qcow_fetch(struct qcow_disk *disk, struct bio *bio)
{
	u64 block_size = (u64)qcow_map_block_sectors(&disk->map) << SECTOR_SHIFT;
	u64 off = round_down(bio->bi_iter.bi_sector << SECTOR_SHIFT, block_size);
	struct qcow_block *block = qcow_cache_get(&disk->cache, off);
	struct qcow_upcall want = {
		.cmd = DM_QCOW_CMD_FETCH,
		.key = off,
		.length = min(block_size, disk->size - off),
		.done = fetch_done,
		.private = disk,
	};

	if (block) {
		qcow_block_copy_to_bio(block, bio);
		qcow_block_put(block);
		bio_endio(bio);
		return;
	}
	qcow_upcall_park(&disk->upcalls, &want, bio);
}
