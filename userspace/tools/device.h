/* SPDX-License-Identifier: GPL-2.0-only */
/* Device-mapper devices, as the device verbs need them; all through libdevmapper. */
#ifndef QCOW_TOOLS_DEVICE_H
#define QCOW_TOOLS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_TARGET	   "qcow"
#define DEVICE_UUID_PREFIX "QCOW-"

/*
 * Call it first. Takes over libdevmapper's messages: one line of our own says what
 * failed. If the device mapper cannot be used, prints why; a negative errno.
 */
int device_init(void);

/* One target of a table. */
struct device_target {
	uint64_t start; /* sectors */
	uint64_t length;
	char *type;
	char *params; /* table line */
	char *status; /* status line */
};

struct device {
	char *name;
	char *uuid;
	uint32_t major, minor;
	bool suspended;
	bool read_only;
	bool has_table;
	int open_count;
	struct device_target *targets;
	size_t nr_targets;
};

/* -ENXIO if there is no device of that name. */
int device_read(const char *name, struct device *device);
void device_exit(struct device *device);

/* Does it have a target of our type, or our kind of UUID? */
bool device_is_qcow(const struct device *device);

/* Calls @each for every device that is ours, until it returns non-zero. */
int device_for_each(int (*each)(const struct device *device, void *arg), void *arg);

/*
 * Creates the device with one qcow target, and returns when its node can be used. -EBUSY: the name
 * is taken; -ESRCH: no helper; others are the kernel's. Leaves nothing behind on failure.
 */
int device_create(const char *name, const char *uuid, uint64_t nr_sectors, const char *params,
		  bool read_only);

/* -EBUSY: still open after a second or two (udev opens devices as they come and go). */
int device_remove(const char *name);

/* Removes it now or when its last user closes it. */
int device_remove_deferred(const char *name);

/*
 * Makes all I/O to the device fail, also what waits for the helper, without asking
 * the helper anything. Memory should be locked: the device may be the swap.
 */
int device_break(const struct device *device);

#endif
