// SPDX-License-Identifier: GPL-2.0-only
#include "tools/device.h"

#include <errno.h>
#include <libdevmapper.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BUSY_TRIES    10
#define BUSY_PAUSE_MS 150
#define UDEV_MS	      2000
#define UDEV_STEP_MS  10

static void sleep_ms(long ms)
{
	const struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static void cleanup_task(struct dm_task **task)
{
	if (*task)
		dm_task_destroy(*task);
}
#define __cleanup_task __attribute__((cleanup(cleanup_task)))

/* libdevmapper would print several lines of its own for one failure. */
__attribute__((format(printf, 5, 6))) static void be_silent(int level, const char *file, int line,
							    int err, const char *fmt, ...)
{
	(void)level;
	(void)file;
	(void)line;
	(void)err;
	(void)fmt;
}

int device_init(void)
{
	char version[64];

	dm_log_with_errno_init(be_silent);
	if (dm_driver_version(version, sizeof(version)))
		return 0;
	fputs(geteuid() ? "qcow: only root may use the device mapper\n"
			: "qcow: this kernel has no device mapper; try: modprobe dm-mod\n",
	      stderr);
	return -ENODEV;
}

static int task_errno(struct dm_task *task)
{
	int r = dm_task_get_errno(task);

	return r ? -r : -EIO;
}

static int run(struct dm_task *task)
{
	return dm_task_run(task) ? 0 : task_errno(task);
}

static struct dm_task *create_task(int type, const char *name)
{
	struct dm_task *task = dm_task_create(type);

	if (task && name && !dm_task_set_name(task, name)) {
		dm_task_destroy(task);
		return NULL;
	}
	return task;
}

/* ---- reading ---------------------------------------------------------------------- */

static void free_targets(struct device *device)
{
	for (size_t i = 0; i < device->nr_targets; i++) {
		free(device->targets[i].type);
		free(device->targets[i].params);
		free(device->targets[i].status);
	}
	free(device->targets);
}

void device_exit(struct device *device)
{
	free_targets(device);
	free(device->name);
	free(device->uuid);
	memset(device, 0, sizeof(*device));
}

static int take_info(struct dm_task *task, struct device *device)
{
	struct dm_info info;

	if (!dm_task_get_info(task, &info))
		return -EIO;
	if (!info.exists)
		return -ENXIO;
	device->name = strdup(dm_task_get_name(task));
	device->uuid = strdup(dm_task_get_uuid(task));
	device->major = info.major;
	device->minor = info.minor;
	device->suspended = info.suspended;
	device->read_only = info.read_only;
	device->has_table = info.live_table;
	device->open_count = info.open_count;
	return device->name && device->uuid ? 0 : -ENOMEM;
}

static int add_target(struct device *device, const struct device_target *from)
{
	struct device_target *targets;

	targets = realloc(device->targets, (device->nr_targets + 1) * sizeof(*targets));
	if (!targets)
		return -ENOMEM;
	device->targets = targets;
	targets[device->nr_targets++] = (struct device_target){
		.start = from->start,
		.length = from->length,
		.type = strdup(from->type ? from->type : ""),
		.params = strdup(from->params ? from->params : ""),
	};
	targets += device->nr_targets - 1;
	return targets->type && targets->params ? 0 : -ENOMEM;
}

static int take_table(struct dm_task *task, struct device *device)
{
	struct device_target t = { 0 };
	void *next = NULL;
	int r;

	do {
		next = dm_get_next_target(task, next, &t.start, &t.length, &t.type, &t.params);
		r = t.type ? add_target(device, &t) : 0;
	} while (next && !r);
	return r;
}

static int read_table(const char *name, struct device *device)
{
	struct dm_task *task __cleanup_task = create_task(DM_DEVICE_TABLE, name);
	int r;

	if (!task)
		return -ENOMEM;
	r = run(task);
	if (!r)
		r = take_info(task, device);
	return r ? r : take_table(task, device);
}

/* The table may change between the two calls: then there is no status. */
static int take_status(struct dm_task *task, struct device *device)
{
	uint64_t start, length;
	char *type, *line;
	void *next = NULL;
	size_t i = 0;

	do {
		next = dm_get_next_target(task, next, &start, &length, &type, &line);
		if (!type || i >= device->nr_targets || strcmp(type, device->targets[i].type))
			return 0;
		device->targets[i].status = strdup(line ? line : "");
		if (!device->targets[i++].status)
			return -ENOMEM;
	} while (next);
	return 0;
}

static int read_status(const char *name, struct device *device)
{
	struct dm_task *task __cleanup_task = create_task(DM_DEVICE_STATUS, name);
	int r;

	if (!task || !dm_task_no_flush(task))
		return -ENOMEM;
	r = run(task);
	return r ? r : take_status(task, device);
}

int device_read(const char *name, struct device *device)
{
	int r;

	memset(device, 0, sizeof(*device));
	r = read_table(name, device);
	if (!r)
		r = read_status(name, device);
	if (r)
		device_exit(device);
	return r;
}

bool device_is_qcow(const struct device *device)
{
	for (size_t i = 0; i < device->nr_targets; i++)
		if (!strcmp(device->targets[i].type, DEVICE_TARGET))
			return true;
	return !strncmp(device->uuid, DEVICE_UUID_PREFIX, strlen(DEVICE_UUID_PREFIX));
}

static int visit(const char *name, int (*each)(const struct device *device, void *arg), void *arg)
{
	struct device device;
	int r;

	r = device_read(name, &device);
	if (r == -ENXIO)
		return 0; /* removed since it was listed */
	if (r)
		return r;
	if (device_is_qcow(&device))
		r = each(&device, arg);
	device_exit(&device);
	return r;
}

int device_for_each(int (*each)(const struct device *device, void *arg), void *arg)
{
	struct dm_task *task __cleanup_task = create_task(DM_DEVICE_LIST, NULL);
	struct dm_names *names;
	int r;

	if (!task)
		return -ENOMEM;
	r = run(task);
	if (r)
		return r;
	names = dm_task_get_names(task);
	if (!names || !names->dev)
		return 0;
	for (;;) {
		r = visit(names->name, each, arg);
		if (r || !names->next)
			return r;
		names = (struct dm_names *)((char *)names + names->next);
	}
}

/* ---- changing ---------------------------------------------------------------------- */

/* Runs a task that makes udev act, and waits until it has. */
static int run_with_udev(struct dm_task *task)
{
	uint32_t cookie = 0;
	int r;

	if (!dm_task_set_cookie(task, &cookie, 0))
		return -ENOMEM;
	r = run(task);
	dm_udev_wait(cookie);
	return r;
}

static int create_empty(const char *name, const char *uuid)
{
	struct dm_task *task __cleanup_task = create_task(DM_DEVICE_CREATE, name);

	if (!task || !dm_task_set_uuid(task, uuid))
		return -ENOMEM;
	return run(task);
}

static int load_table(const char *name, uint64_t nr_sectors, const char *params, bool read_only)
{
	struct dm_task *task __cleanup_task = create_task(DM_DEVICE_RELOAD, name);

	if (!task || (read_only && !dm_task_set_ro(task)) ||
	    !dm_task_add_target(task, 0, nr_sectors, DEVICE_TARGET, params))
		return -ENOMEM;
	return run(task);
}

static int resume(const char *name)
{
	struct dm_task *task __cleanup_task = create_task(DM_DEVICE_RESUME, name);

	return task ? run_with_udev(task) : -ENOMEM;
}

/*
 * libdevmapper does these steps in one call too, but then keeps the errno of the
 * one that failed to itself.
 */
int device_create(const char *name, const char *uuid, uint64_t nr_sectors, const char *params,
		  bool read_only)
{
	int r;

	r = create_empty(name, uuid);
	if (r)
		return r;
	r = load_table(name, nr_sectors, params, read_only);
	if (!r)
		r = resume(name);
	if (r)
		device_remove(name);
	return r;
}

/* udev may itself be stuck on the device that is going: not for ever. */
static void wait_for_udev(uint32_t cookie)
{
	int ready = 0;

	for (int ms = 0; ms < UDEV_MS; ms += UDEV_STEP_MS) {
		if (!dm_udev_wait_immediate(cookie, &ready) || ready || !dm_udev_get_sync_support())
			return;
		sleep_ms(UDEV_STEP_MS);
	}
}

static int remove_once(const char *name, bool deferred)
{
	struct dm_task *task __cleanup_task = create_task(DM_DEVICE_REMOVE, name);
	uint32_t cookie = 0;
	int r;

	if (!task || (deferred && !dm_task_deferred_remove(task)) ||
	    !dm_task_set_cookie(task, &cookie, 0))
		return -ENOMEM;
	r = run(task);
	wait_for_udev(cookie);
	return r;
}

int device_remove(const char *name)
{
	int r;

	for (int i = 0; i < BUSY_TRIES; i++) {
		r = remove_once(name, false);
		if (r != -EBUSY)
			break;
		sleep_ms(BUSY_PAUSE_MS);
	}
	return r;
}

int device_remove_deferred(const char *name)
{
	return remove_once(name, true);
}

static int load_error_table(const struct device *device, uint64_t nr_sectors)
{
	struct dm_task *task __cleanup_task = create_task(DM_DEVICE_RELOAD, device->name);

	if (!task || !dm_task_add_target(task, 0, nr_sectors, "error", "") ||
	    (device->read_only && !dm_task_set_ro(task)))
		return -ENOMEM;
	return run(task);
}

static int resume_without_flush(const char *name)
{
	struct dm_task *task __cleanup_task = create_task(DM_DEVICE_RESUME, name);
	uint32_t cookie = 0;
	int r;

	if (!task || !dm_task_no_flush(task) || !dm_task_skip_lockfs(task) ||
	    !dm_task_set_cookie(task, &cookie,
				DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG |
					DM_UDEV_DISABLE_DISK_RULES_FLAG |
					DM_UDEV_DISABLE_OTHER_RULES_FLAG))
		return -ENOMEM;
	r = run(task);
	wait_for_udev(cookie);
	return r;
}

int device_break(const struct device *device)
{
	uint64_t nr_sectors = 0;
	int r;

	for (size_t i = 0; i < device->nr_targets; i++)
		nr_sectors += device->targets[i].length;
	if (!nr_sectors)
		return 0; /* no table, no I/O */
	r = load_error_table(device, nr_sectors);
	return r ? r : resume_without_flush(device->name);
}
