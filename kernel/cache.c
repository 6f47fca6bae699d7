// SPDX-License-Identifier: GPL-2.0-only
/* Fetched blocks; see cache.h. */

#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "cache.h"
#include "dm-qcow.h"

static void free_block(struct kref *ref)
{
	struct qcow_block *block = container_of(ref, struct qcow_block, ref);
	unsigned int i;

	for (i = 0; i < block->nr_pages; i++)
		__free_page(block->pages[i]);
	kfree(block);
}

/**
 * qcow_block_create() - memory for one block
 * @guest_off: bytes, where the guest has it
 * @length: bytes, at most DM_QCOW_MAX_BLOCK_SIZE
 *
 * Context: process; may sleep, without I/O. Does not try hard: a bio can be served
 * without the cache.
 * Return: the block with one reference, or NULL.
 */
struct qcow_block *qcow_block_create(u64 guest_off, unsigned int length)
{
	const gfp_t gfp = GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN;
	unsigned int nr_pages = DIV_ROUND_UP(length, PAGE_SIZE);
	struct qcow_block *block;

	block = kmalloc(struct_size(block, pages, nr_pages), gfp);
	if (!block)
		return NULL;
	kref_init(&block->ref);
	block->guest_off = guest_off;
	block->length = length;
	for (block->nr_pages = 0; block->nr_pages < nr_pages; block->nr_pages++) {
		block->pages[block->nr_pages] = alloc_page(gfp);
		if (!block->pages[block->nr_pages]) {
			qcow_block_put(block);
			return NULL;
		}
	}
	return block;
}

/**
 * qcow_block_put() - give up a reference
 * @block: from qcow_block_create() or qcow_cache_get()
 *
 * Context: any.
 */
void qcow_block_put(struct qcow_block *block)
{
	kref_put(&block->ref, free_block);
}

/**
 * qcow_block_copy_from_user() - fill a block
 * @block: nobody else knows it yet
 * @from: @block->length bytes in the current process
 *
 * Context: process, the helper's; sleeps.
 * Return: 0 or -EFAULT.
 */
int qcow_block_copy_from_user(struct qcow_block *block, const void __user *from)
{
	unsigned int i, n, left = block->length;

	for (i = 0; i < block->nr_pages; i++) {
		n = min_t(unsigned int, left, PAGE_SIZE);
		if (copy_from_user(page_address(block->pages[i]), from, n))
			return -EFAULT;
		from += n;
		left -= n;
	}
	return 0;
}

static void copy_to_bvec(const struct qcow_block *block, unsigned int off, struct bio_vec *bv)
{
	void *to = bvec_kmap_local(bv);
	unsigned int n, done;

	for (done = 0; done < bv->bv_len; done += n) {
		unsigned int at = offset_in_page(off + done);

		n = min_t(unsigned int, bv->bv_len - done, PAGE_SIZE - at);
		memcpy(to + done, page_address(block->pages[(off + done) >> PAGE_SHIFT]) + at, n);
	}
	kunmap_local(to);
	flush_dcache_page(bv->bv_page);
}

/**
 * qcow_block_copy_to_bio() - read a bio from a block
 * @block: filled
 * @bio: whose guest sectors lie inside the block; its bi_iter stays as it is
 *
 * Context: any; does not sleep.
 */
void qcow_block_copy_to_bio(const struct qcow_block *block, struct bio *bio)
{
	unsigned int off = (bio->bi_iter.bi_sector << SECTOR_SHIFT) - block->guest_off;
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter) {
		copy_to_bvec(block, off, &bv);
		off += bv.bv_len;
	}
}

/**
 * qcow_cache_init() - an empty cache
 * @cache: embedded in its owner
 * @budget: bytes it may hold; 0 keeps nothing
 *
 * Context: any.
 */
void qcow_cache_init(struct qcow_cache *cache, size_t budget)
{
	memset(cache, 0, sizeof(*cache));
	cache->budget = budget;
	spin_lock_init(&cache->lock);
	INIT_LIST_HEAD(&cache->lru);
	hash_init(cache->blocks);
}

static struct qcow_block *find_locked(struct qcow_cache *cache, u64 guest_off)
{
	struct qcow_block *block;

	hash_for_each_possible(cache->blocks, block, by_off, guest_off)
		if (block->guest_off == guest_off)
			return block;
	return NULL;
}

static void drop_locked(struct qcow_cache *cache, struct qcow_block *block)
{
	lockdep_assert_held(&cache->lock);
	hash_del(&block->by_off);
	list_del(&block->lru);
	cache->bytes -= block->length;
	cache->nr_blocks--;
	qcow_block_put(block);
}

static void shrink_locked(struct qcow_cache *cache, size_t budget)
{
	while (cache->bytes > budget)
		drop_locked(cache, list_first_entry(&cache->lru, struct qcow_block, lru));
}

/**
 * qcow_cache_get() - find a block
 * @cache: the cache
 * @guest_off: bytes, where the block begins
 *
 * Context: process; does not sleep.
 * Return: the block with a reference for the caller, or NULL.
 */
struct qcow_block *qcow_cache_get(struct qcow_cache *cache, u64 guest_off)
{
	struct qcow_block *block;

	spin_lock(&cache->lock);
	block = find_locked(cache, guest_off);
	if (block) {
		kref_get(&block->ref);
		list_move_tail(&block->lru, &cache->lru);
		cache->nr_hits++;
	}
	spin_unlock(&cache->lock);
	return block;
}

/* Makes room, and hands over the block that made it if nobody else looks at it. */
static struct qcow_block *recycle(struct qcow_cache *cache, unsigned int length)
{
	struct qcow_block *block;

	spin_lock(&cache->lock);
	block = list_first_entry_or_null(&cache->lru, struct qcow_block, lru);
	if (block && cache->bytes + length > cache->budget && block->length == length &&
	    kref_read(&block->ref) == 1) {
		kref_get(&block->ref);
		drop_locked(cache, block);
	} else {
		block = NULL;
	}
	spin_unlock(&cache->lock);
	return block;
}

/**
 * qcow_cache_new_block() - memory for a block that is to be inserted
 * @cache: the cache
 * @guest_off: bytes, where the guest has it
 * @length: bytes, at most DM_QCOW_MAX_BLOCK_SIZE
 *
 * A full cache gives its oldest block: pages from the allocator come cleared, at
 * the price of a copy.
 *
 * Context: process; may sleep, without I/O.
 * Return: the block with one reference, or NULL.
 */
struct qcow_block *qcow_cache_new_block(struct qcow_cache *cache, u64 guest_off,
					unsigned int length)
{
	struct qcow_block *block = recycle(cache, length);

	if (!block)
		return qcow_block_create(guest_off, length);
	block->guest_off = guest_off;
	return block;
}

/**
 * qcow_cache_insert() - keep a block, and let others go for it
 * @cache: the cache
 * @block: filled; the cache takes a reference of its own
 *
 * Context: process; does not sleep.
 */
void qcow_cache_insert(struct qcow_cache *cache, struct qcow_block *block)
{
	spin_lock(&cache->lock);
	if (block->length <= cache->budget && !find_locked(cache, block->guest_off)) {
		shrink_locked(cache, cache->budget - block->length);
		kref_get(&block->ref);
		hash_add(cache->blocks, &block->by_off, block->guest_off);
		list_add_tail(&block->lru, &cache->lru);
		cache->bytes += block->length;
		cache->nr_blocks++;
	}
	spin_unlock(&cache->lock);
}

/**
 * qcow_cache_reset() - forget all blocks
 * @cache: the cache
 *
 * Context: process; does not sleep.
 */
void qcow_cache_reset(struct qcow_cache *cache)
{
	spin_lock(&cache->lock);
	shrink_locked(cache, 0);
	spin_unlock(&cache->lock);
}
