// SPDX-License-Identifier: GPL-2.0-only
/* qcow snapshot IMAGE: internal snapshots, with the options of qemu-img snapshot. */
#include <errno.h>
#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/snapedit.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/imagefile.h"
#include "tools/info.h"
#include "tools/verb.h"

static const struct option options[] = {
	{ "list", no_argument, NULL, 'l' },
	{ "create", required_argument, NULL, 'c' },
	{ "apply", required_argument, NULL, 'a' },
	{ "delete", required_argument, NULL, 'd' },
	{ "format", required_argument, NULL, 'f' },
	VERB_JSON_OPTIONS,
	{ "quiet", no_argument, NULL, 'q' },
	{ "force-share", no_argument, NULL, 'U' },
	VERB_END_OPTIONS,
};

struct request {
	int action; /* 'l', 'c', 'a', 'd'; 0 = none named */
	const char *name, *path;
	bool json, quiet, share;
};

static int set_action(struct request *q, int action)
{
	if (q->action) {
		fputs("qcow: only one of -l, -c, -a and -d at a time\n", stderr);
		return -EINVAL;
	}
	q->action = action;
	q->name = optarg;
	return 0;
}

static int take(void *request, int opt)
{
	struct request *q = request;

	switch (opt) {
	case 'l':
	case 'c':
	case 'a':
	case 'd':
		return set_action(q, opt);
	case 'f':
		return verb_take_qcow2(optarg);
	case VERB_JSON:
	case VERB_OUTPUT:
		return verb_take_output(opt, &q->json);
	case 'q':
		q->quiet = true;
		return 0;
	case 'U':
		q->share = true;
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_snapshot, "lc:a:d:f:qU", options, take, 1, 1, 0 };

static int print_list(const struct request *q, struct image_file *f, const struct qcow_header *h,
		      struct qcow_error *err)
{
	json_object *array;
	int r;

	if (!q->json)
		return info_print_snapshots(f->io, h, err);
	array = json_object_new_array();
	r = info_add_snapshots(array, f->io, h, err);
	if (r < 0)
		json_object_put(array);
	else
		verb_print_json(array);
	return r;
}

static int list(const struct request *q, struct qcow_error *err)
{
	struct qcow_image *img = NULL;
	struct image_file f = { 0 };
	int r = image_file_open(&f, q->path, false, q->share, err);

	if (!r)
		r = qcow_image_open(&img, f.io, err);
	if (!r && !q->quiet)
		r = print_list(q, &f, qcow_image_header(img), err);
	qcow_image_close(img);
	image_file_close(&f);
	return r;
}

static int act(const struct request *q, struct qcow_writer *w, struct qcow_error *err)
{
	struct timespec now;

	switch (q->action) {
	case 'a':
		return qcow_snapshot_apply(w, q->name, err);
	case 'd':
		return qcow_snapshot_delete(w, q->name, err);
	}
	clock_gettime(CLOCK_REALTIME, &now);
	return qcow_snapshot_create(w, q->name, (uint32_t)now.tv_sec, (uint32_t)now.tv_nsec, err);
}

static int change(const struct request *q, struct qcow_error *err)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	struct image_edit e = { 0 };
	int r = image_edit_open(&e, q->path, &params, err);

	if (!r)
		r = act(q, e.w, err);
	image_edit_close(&e);
	return r;
}

int cmd_snapshot(int argc, char **argv)
{
	struct qcow_error err = { 0 };
	struct request q = { 0 };
	int status = verb_parse(&verb, argc, argv, &q), r;

	if (status >= 0)
		return status;
	q.path = argv[optind];
	r = q.action && q.action != 'l' ? change(&q, &err) : list(&q, &err);
	return verb_report(q.path, r, &err);
}
