// SPDX-License-Identifier: GPL-2.0-only
/* qcow close NAME [--deferred|--force] */
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/device.h"
#include "tools/verb.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum {
	OPT_DEFERRED = 256,
	OPT_FORCE,
};

static const struct option options[] = {
	{ "deferred", no_argument, NULL, OPT_DEFERRED },
	{ "force", no_argument, NULL, OPT_FORCE },
	VERB_END_OPTIONS,
};

static int complain(const char *name, int r)
{
	if (r == -ENXIO)
		fprintf(stderr, "qcow: no qcow device is named '%s'\n", name);
	else if (r == -EBUSY)
		fprintf(stderr, "qcow: '%s' is in use; unmount it, or see --deferred and --force\n",
			name);
	else
		fprintf(stderr, "qcow: cannot close '%s': %s\n", name, strerror(-r));
	return 1;
}

/* Never a device of somebody else's: `close` takes any name. */
static int read_own(const char *name, struct device *device)
{
	int r = device_read(name, device);

	if (r)
		return r;
	if (device_is_qcow(device))
		return 0;
	device_exit(device);
	return -ENXIO;
}

static int close_by_force(const struct device *device)
{
	int r;

	/* Between its suspend and resume we must not need a page from this very device. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		return -errno;
	r = device_break(device);
	if (r)
		return r;
	r = device_remove(device->name);
	if (r != -EBUSY)
		return r;
	fprintf(stderr,
		"qcow: '%s' is still open somewhere; it fails all I/O now and goes with its last user\n",
		device->name);
	return device_remove_deferred(device->name);
}

struct request {
	bool deferred, force;
};

static int close_device(const char *name, const struct request *q)
{
	struct device device;
	int r;

	if (device_init())
		return 1;
	r = read_own(name, &device);
	if (r)
		return complain(name, r);
	if (q->force)
		r = close_by_force(&device);
	else
		r = q->deferred ? device_remove_deferred(name) : device_remove(name);
	device_exit(&device);
	return r ? complain(name, r) : 0;
}

static int take(void *request, int opt)
{
	struct request *q = request;

	*(opt == OPT_FORCE ? &q->force : &q->deferred) = true;
	return 0;
}

static const struct verb verb = { help_close, NULL, options, take, 1, 1, 0 };

int cmd_close(int argc, char **argv)
{
	struct request q = { 0 };
	int status = verb_parse(&verb, argc, argv, &q);

	if (status >= 0)
		return status;
	return q.deferred && q.force ? verb_usage(&verb) : close_device(argv[optind], &q);
}
