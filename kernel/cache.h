/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A small bounded cache of blocks that the helper fetched (decompressed), so that
 * reading a compressed cluster in 4k pieces decompresses it once.
 */
#ifndef DM_QCOW_CACHE_H
#define DM_QCOW_CACHE_H

#include <linux/bio.h>
#include <linux/hashtable.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/spinlock.h>

struct qcow_block {
	struct kref ref;		/* the cache's, and each reader's */
	struct hlist_node by_off;	/* cache->lock */
	struct list_head lru;		/* cache->lock */
	u64 guest_off;
	unsigned int length;
	unsigned int nr_pages;
	struct page *pages[];
};

struct qcow_cache {
	size_t budget;			/* bytes it may hold; constant */
	spinlock_t lock;		/* protects what follows */
	size_t bytes;
	unsigned long nr_blocks;
	unsigned long nr_hits;
	struct list_head lru;		/* least recently used first */
	DECLARE_HASHTABLE(blocks, 8);
};

void qcow_cache_init(struct qcow_cache *cache, size_t budget);
void qcow_cache_reset(struct qcow_cache *cache);

struct qcow_block *qcow_cache_new_block(struct qcow_cache *cache, u64 guest_off,
					unsigned int length);
struct qcow_block *qcow_cache_get(struct qcow_cache *cache, u64 guest_off);
void qcow_cache_insert(struct qcow_cache *cache, struct qcow_block *block);

struct qcow_block *qcow_block_create(u64 guest_off, unsigned int length);
void qcow_block_put(struct qcow_block *block);
int qcow_block_copy_from_user(struct qcow_block *block, const void __user *from);
void qcow_block_copy_to_bio(const struct qcow_block *block, struct bio *bio);

#endif
