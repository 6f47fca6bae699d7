/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Is an image sound, and can it be made so: what qemu-img check counts and repairs.
 *
 * References to host clusters are counted by walking every table, and compared with
 * the recorded refcounts up to the end of the file, as QEMU does. Counting works on a
 * window of the file at a time, so memory is bounded (a byte per cluster of the
 * window, 256 MiB at most) whatever the image claims. Backing files are not needed.
 *
 * A repair never makes guest data worse: refcounts are corrected in place before
 * any COPIED flag; if blocks of refcounts are missing or impossible, a new table and
 * all its blocks are written to free space and the header is switched to them last.
 * Damaged L2 entries are left for qemu-img, which must guess too.
 */
#ifndef QCOW_LIB_CHECK_H
#define QCOW_LIB_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/io.h"

enum qcow_repair {
	QCOW_REPAIR_NONE = 0,
	QCOW_REPAIR_LEAKS,
	QCOW_REPAIR_ALL,
};

struct qcow_check_params {
	enum qcow_repair repair;
	bool data; /* decompress every compressed cluster of the active state too */
	/* One line about a finding, no newline. NULL is fine. */
	void (*report)(void *arg, const char *text);
	/* Every now and then: @done of @total steps. NULL is fine. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
	uint64_t window; /* clusters counted at a time; 0 = 2^28 */
};

struct qcow_check_result {
	/* After the repair, if any. */
	uint64_t corruptions, leaks, check_errors;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t image_end; /* bytes: behind the last cluster in use */
	/* Guest clusters of the active state. */
	uint64_t total, allocated, fragmented, compressed;
};

/*
 * 0: @result says how sound it is. Negative: could not check: the header is bad, I/O,
 * memory. @io must be writable to repair.
 */
int qcow_check(struct qcow_io *io, const struct qcow_check_params *params,
	       struct qcow_check_result *result, struct qcow_error *err);

#endif
