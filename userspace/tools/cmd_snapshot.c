// SPDX-License-Identifier: GPL-2.0-only
/* qcow snapshot IMAGE: internal snapshots, with the options of qemu-img snapshot. */
#include <errno.h>
#include <getopt.h>
#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/snapedit.h"
#include "tools/cmd.h"
#include "tools/imagefile.h"
#include "tools/info.h"

static const char usage_text[] =
	"Usage: qcow snapshot IMAGE [-l | -c NAME | -a NAME | -d NAME] [OPTION]...\n"
	"Lists, makes, applies or deletes the internal snapshots of an image. NAME may be an\n"
	"id. Whatever fails leaves the image as it was.\n"
	"\n"
	"  -l, --list               show the snapshots (so does no option at all)\n"
	"  -c, --create NAME        keep the disk as it is now under NAME\n"
	"  -a, --apply NAME         the disk is again as it was; NAME stays, and so do others\n"
	"  -d, --delete NAME        forget NAME, and free what only it has\n"
	"  --json                   with -l: the fields of qemu-img info\n"
	"  --output human|json      the same choice, spelled as for qemu-img\n"
	"  -q, --quiet              print nothing but errors\n"
	"  -U, --force-share        with -l: even while a writer has the image open\n";

enum {
	OPT_JSON = 256,
	OPT_OUTPUT,
	OPT_HELP
};

static const struct option options[] = {
	{ "list", no_argument, NULL, 'l' },
	{ "create", required_argument, NULL, 'c' },
	{ "apply", required_argument, NULL, 'a' },
	{ "delete", required_argument, NULL, 'd' },
	{ "format", required_argument, NULL, 'f' },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "output", required_argument, NULL, OPT_OUTPUT },
	{ "quiet", no_argument, NULL, 'q' },
	{ "force-share", no_argument, NULL, 'U' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
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

static int parse_output(struct request *q, const char *arg)
{
	q->json = !strcmp(arg, "json");
	if (q->json || !strcmp(arg, "human"))
		return 0;
	fprintf(stderr, "qcow: --output is human or json, not '%s'\n", arg);
	return -EINVAL;
}

static int parse_one(struct request *q, int opt)
{
	switch (opt) {
	case 'l':
	case 'c':
	case 'a':
	case 'd':
		return set_action(q, opt);
	case 'f':
		if (!strcmp(optarg, "qcow2"))
			return 0;
		fputs("qcow: only qcow2 images have snapshots\n", stderr);
		return -EINVAL;
	case OPT_JSON:
		q->json = true;
		return 0;
	case OPT_OUTPUT:
		return parse_output(q, optarg);
	case 'q':
		q->quiet = true;
		return 0;
	case 'U':
		q->share = true;
		return 0;
	}
	return -EINVAL;
}

static int print_list(const struct request *q, struct image_file *f, const struct qcow_header *h,
		      struct qcow_error *err)
{
	json_object *array;
	int r;

	if (!q->json)
		return info_print_snapshots(f->io, h, err);
	array = json_object_new_array();
	r = info_add_snapshots(array, f->io, h, err);
	if (!r)
		puts(json_object_to_json_string_ext(array, JSON_C_TO_STRING_PRETTY |
								   JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(array);
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
	int opt, r;

	while ((opt = getopt_long(argc, argv, "lc:a:d:f:qU", options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (parse_one(&q, opt))
			return 1;
	}
	if (argc - optind != 1) {
		fputs(usage_text, stderr);
		return 1;
	}
	q.path = argv[optind];
	r = q.action && q.action != 'l' ? change(&q, &err) : list(&q, &err);
	if (r < 0)
		fprintf(stderr, "qcow: %s: %s\n", q.path, err.text);
	return r < 0 ? 1 : 0;
}
