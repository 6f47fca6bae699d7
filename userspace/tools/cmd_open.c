// SPDX-License-Identifier: GPL-2.0-only
/* qcow open NAME IMAGE: checks, starts the helper if need be, makes the device. */
#include "netlink/client.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/device.h"
#include "tools/helper.h"
#include "tools/verb.h"
#include "tools/words.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define NAME_MAX_LEN 127 /* DM_NAME_LEN - 1 */

enum {
	OPT_READ_ONLY = WORD_OPT_END,
};

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	WORD_DEVICE_OPTIONS,
	{ "read-only", no_argument, NULL, OPT_READ_ONLY },
	VERB_END_OPTIONS,
};

/* ---- the check before anything is touched ---------------------------------------------- */

/* The helper will check again; but its answer could only be an errno and a line in dmesg. */
static int check_image(const struct table_line *line, bool read_only, uint64_t *nr_sectors)
{
	unsigned int flags = HOST_CHAIN_PROBE_LOCK | (read_only ? 0 : HOST_CHAIN_WRITE);
	struct host_chain *chain;
	int r;

	r = word_open_chain(line, flags, &chain);
	if (r)
		return r;
	*nr_sectors = qcow_chain_size(host_chain_lib(chain)) / 512;
	host_chain_close(chain);
	if (*nr_sectors)
		return 0;
	fprintf(stderr, "qcow: %s: its disk is empty, and a device cannot be\n", line->image);
	return -EINVAL;
}

/* ---- the device -------------------------------------------------------------------------- */

static int make_uuid(char uuid[64])
{
	unsigned char random[16];
	char *out = uuid + sprintf(uuid, DEVICE_UUID_PREFIX);

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -errno;
	for (size_t i = 0; i < sizeof(random); i++)
		out += sprintf(out, "%02x", random[i]);
	return 0;
}

/*
 * Only the kernel knows whether a supervisor is there when it is needed: one may die
 * between our look and the create. So -ESRCH counts as the last word on it.
 */
static int create_with_helper(const char *name, const char *uuid, uint64_t nr_sectors,
			      const char *params, bool read_only)
{
	int r = -ESRCH;

	if (qnl_supervised() == 1)
		r = device_create(name, uuid, nr_sectors, params, read_only);
	if (r != -ESRCH)
		return r;
	if (helper_start())
		return -ECANCELED;
	return device_create(name, uuid, nr_sectors, params, read_only);
}

static int create(const char *name, uint64_t nr_sectors, const char *params, bool read_only)
{
	char uuid[64];
	int r;

	r = make_uuid(uuid);
	if (!r)
		r = create_with_helper(name, uuid, nr_sectors, params, read_only);
	if (r && r != -ECANCELED)
		fprintf(stderr, "qcow: cannot create '%s': %s; the kernel's reason is in dmesg\n",
			name, strerror(-r));
	return r;
}

static int check_name(const char *name)
{
	struct device device;
	int r;

	if (!*name || strchr(name, '/') || strlen(name) > NAME_MAX_LEN) {
		fprintf(stderr, "qcow: '%s' cannot be the name of a device\n", name);
		return -EINVAL;
	}
	r = device_init();
	if (r)
		return r;
	if (device_read(name, &device))
		return 0;
	device_exit(&device);
	fprintf(stderr, "qcow: a device named '%s' exists already\n", name);
	return -EEXIST;
}

static int open_device(const char *name, const struct table_line *line, bool read_only)
{
	uint64_t nr_sectors;
	char *params;
	int r;

	if (check_name(name) || check_image(line, read_only, &nr_sectors))
		return 1;
	params = table_line_params(line);
	r = params ? create(name, nr_sectors, params, read_only) : -ENOMEM;
	free(params);
	return r ? 1 : 0;
}

/* ---- the verb ------------------------------------------------------------------------------ */

struct request {
	struct table_line line;
	bool read_only;
};

static int take(void *request, int opt)
{
	struct request *q = request;

	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	q->read_only = true;
	return 0;
}

static const struct verb verb = { help_open, NULL, options, take, 2, 2, 0 };

int cmd_open(int argc, char **argv)
{
	struct request q = { 0 };
	int status = verb_parse(&verb, argc, argv, &q);

	if (status < 0)
		status = table_line_set_image(&q.line, argv[optind + 1])
				 ? 1
				 : open_device(argv[optind], &q.line, q.read_only);
	table_line_exit(&q.line);
	return status;
}
