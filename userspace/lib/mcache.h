/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cache of table pages: 4 KiB of a layer's file each, whatever structure lies
 * there. Pages, not whole tables, because an L2 table may have 2 MiB and a
 * random read needs 8 bytes of it.
 *
 * A fixed number of slots, allocated at once, in sets of 8 with one small lock
 * each; lookups copy out under the lock, so a reader holds no reference and an
 * eviction waits for nobody. Any number of threads.
 */
#ifndef QCOW_LIB_MCACHE_H
#define QCOW_LIB_MCACHE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/io.h"

#define QCOW_MCACHE_PAGE 4096

struct qcow_mcache;

/* @bytes is rounded down to a power of two of sets, at least one. NULL: no memory. */
struct qcow_mcache *qcow_mcache_create(size_t bytes);
void qcow_mcache_destroy(struct qcow_mcache *c); /* NULL is fine */

/*
 * @layer < 256 and @io belong together. @page: QCOW_MCACHE_PAGE bytes of the
 * calling thread, aligned to that.
 */
int qcow_mcache_read(struct qcow_mcache *c, uint32_t layer, struct qcow_io *io, uint64_t host_off,
		     void *buf, size_t len, void *page, struct qcow_error *err);

/*
 * @len bytes were just written to the file. Whoever reads from now on sees them; a
 * page that another thread was reading meanwhile is not kept.
 */
void qcow_mcache_update(struct qcow_mcache *c, uint32_t layer, uint64_t host_off, const void *buf,
			size_t len);
/* The same for a range that changed in some other way: forgets its pages. */
void qcow_mcache_drop(struct qcow_mcache *c, uint32_t layer, uint64_t host_off, uint64_t len);

#endif
