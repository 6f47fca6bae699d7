// SPDX-License-Identifier: GPL-2.0-only
/* The rules of trust.h, gathered. Judging by them is in trust.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/conf.h"
#include "host/names.h"
#include "host/trust.h"

static int no_memory(struct qcow_error *err)
{
	return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
}

/* The canonical directory of @path, if it exists. */
static int add_own_dir(struct host_policy *p, const char *path)
{
	char *dir = host_dir_name(path), *real = NULL;
	int r = dir ? 0 : -ENOMEM;

	if (dir)
		real = realpath(dir, NULL);
	if (real && !host_list_has(p->own_dirs, p->nr_own_dirs, real))
		r = host_list_add(&p->own_dirs, &p->nr_own_dirs, real);
	free(real);
	free(dir);
	return r;
}

static int add_own_dirs(struct host_policy *p, const char *image, struct qcow_error *err)
{
	char *real = realpath(image, NULL);
	int r = add_own_dir(p, image);

	/* Where the image itself lies, if it is reached through a symlink. */
	if (!r && real)
		r = add_own_dir(p, real);
	free(real);
	return r < 0 ? no_memory(err) : 0;
}

static int add_backing_dirs(struct host_policy *p, const struct host_options *o,
			    struct qcow_error *err)
{
	char *real;
	size_t i;
	int r;

	for (i = 0; i < o->nr_backing_dirs; i++) {
		real = realpath(o->backing_dirs[i], NULL);
		if (!real)
			return qcow_fail(err, errno, QCOW_NO_OFF, "backing directory %s: %s",
					 o->backing_dirs[i], strerror(errno));
		r = host_list_add(&p->dirs, &p->nr_dirs, real);
		free(real);
		if (r < 0)
			return no_memory(err);
	}
	return 0;
}

int host_policy_init(struct host_policy *p, const char *image, const struct host_options *o,
		     const char *conf, dev_t own_device, struct qcow_error *err)
{
	int r;

	memset(p, 0, sizeof(*p));
	p->no_backing = o->no_backing;
	p->own_device = own_device;
	r = add_own_dirs(p, image, err);
	if (r < 0)
		goto out_exit;
	r = add_backing_dirs(p, o, err);
	if (r < 0)
		goto out_exit;
	if (o->backing) {
		p->pin = strdup(o->backing);
		if (!p->pin) {
			r = no_memory(err);
			goto out_exit;
		}
	}
	r = host_conf_read(p, conf, err);
	if (r < 0)
		goto out_exit;
	return 0;

out_exit:
	host_policy_exit(p);
	return r;
}

void host_policy_exit(struct host_policy *p)
{
	host_list_exit(&p->own_dirs, &p->nr_own_dirs);
	host_list_exit(&p->dirs, &p->nr_dirs);
	host_list_exit(&p->vgs, &p->nr_vgs);
	host_list_exit(&p->bdevs, &p->nr_bdevs);
	free(p->pin);
	p->pin = NULL;
}
