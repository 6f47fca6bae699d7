// SPDX-License-Identifier: GPL-2.0-only
/* qcow bitmap IMAGE [NAME]: persistent bitmaps, with the options of qemu-img bitmap. */
#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bitedit.h"
#include "lib/text.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/imagefile.h"
#include "tools/info.h"
#include "tools/size.h"
#include "tools/verb.h"

#define MAX_STEPS 64

enum {
	OPT_STEP = 256, /* and enum qcow_bitmap_do */
	OPT_LIST = OPT_STEP + 16,
};

static const struct option options[] = {
	{ "add", no_argument, NULL, OPT_STEP + QCOW_BITMAP_ADD },
	{ "remove", no_argument, NULL, OPT_STEP + QCOW_BITMAP_REMOVE },
	{ "clear", no_argument, NULL, OPT_STEP + QCOW_BITMAP_CLEAR },
	{ "enable", no_argument, NULL, OPT_STEP + QCOW_BITMAP_ENABLE },
	{ "disable", no_argument, NULL, OPT_STEP + QCOW_BITMAP_DISABLE },
	{ "merge", required_argument, NULL, OPT_STEP + QCOW_BITMAP_MERGE },
	{ "list", no_argument, NULL, OPT_LIST },
	{ "granularity", required_argument, NULL, 'g' },
	{ "source-file", required_argument, NULL, 'b' },
	{ "source-format", required_argument, NULL, 'F' },
	{ "format", required_argument, NULL, 'f' },
	VERB_JSON_OPTIONS,
	{ "force-share", no_argument, NULL, 'U' },
	VERB_END_OPTIONS,
};

struct request {
	struct qcow_bitmap_step steps[MAX_STEPS];
	size_t nr;
	uint32_t granularity_bits; /* 0 = not given */
	const char *path, *name, *source_file;
	bool list, json, share, adds, merges;
};

static int add_step(struct request *q, enum qcow_bitmap_do what)
{
	if (q->nr == MAX_STEPS) {
		fprintf(stderr, "qcow: more than %d things to do at once\n", MAX_STEPS);
		return -EINVAL;
	}
	q->adds |= what == QCOW_BITMAP_ADD;
	q->merges |= what == QCOW_BITMAP_MERGE;
	q->steps[q->nr++] = (struct qcow_bitmap_step){ .what = what, .source = optarg };
	return 0;
}

static int take(void *request, int opt)
{
	struct request *q = request;

	if (opt >= OPT_STEP && opt < OPT_LIST)
		return add_step(q, (enum qcow_bitmap_do)(opt - OPT_STEP));
	switch (opt) {
	case OPT_LIST:
		q->list = true;
		return 0;
	case 'g':
		if (size_parse_power(optarg, &q->granularity_bits))
			return verb_complain("--granularity", optarg);
		return 0;
	case 'b':
		q->source_file = optarg;
		return 0;
	case 'F':
	case 'f':
		return verb_take_qcow2(optarg);
	case VERB_JSON:
	case VERB_OUTPUT:
		return verb_take_output(opt, &q->json);
	case 'U':
		q->share = true;
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_bitmap, "g:b:F:f:U", options, take, 1, 2, 0 };

/* ---- list ---------------------------------------------------------------------------- */

static int print_one(const struct qcow_bitmap *b, void *arg)
{
	char name[QCOW_MAX_BITMAP_NAME + 1], granularity[24];

	(void)arg;
	strcpy(name, b->name);
	qcow_text_clean(name);
	info_size_text(1ull << b->granularity_bits, granularity, sizeof(granularity));
	printf("%-11s %-10s %s\n", granularity,
	       b->in_use    ? "not saved"
	       : b->enabled ? "records"
			    : "disabled",
	       name);
	return 0;
}

static int print_list(const struct request *q, const struct qcow_image *img, struct qcow_error *err)
{
	const struct qcow_header *h = qcow_image_header(img);
	json_object *array;
	int r;

	if (!q->json) {
		if (h->nr_bitmaps)
			printf("%-11s %-10s %s\n", "GRANULARITY", "STATE", "NAME");
		return qcow_bitmaps_walk(qcow_image_io(img), h, print_one, NULL, err);
	}
	array = json_object_new_array();
	r = info_add_bitmaps(array, qcow_image_io(img), h, err);
	if (r < 0)
		json_object_put(array);
	else
		verb_print_json(array);
	return r;
}

/* ---- changes --------------------------------------------------------------------------- */

struct source {
	struct image_file f;
	struct qcow_image *img;
};

static void close_source(struct source *s)
{
	qcow_image_close(s->img);
	image_file_close(&s->f);
}

static int open_source(struct source *s, const char *path, bool share, struct qcow_error *err)
{
	int r = image_file_open(&s->f, path, false, share, err);

	return r < 0 ? r : qcow_image_open(&s->img, s->f.io, err);
}

static int edit(struct request *q, const struct qcow_image *source, struct qcow_error *err)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	struct image_edit e = { 0 };
	size_t i;
	int r = image_edit_open(&e, q->path, &params, err);

	for (i = 0; i < q->nr; i++) {
		q->steps[i].from = source ? source : e.img;
		q->steps[i].granularity_bits = q->granularity_bits;
	}
	if (!r)
		r = qcow_bitmap_edit(e.w, q->name, q->steps, q->nr, err);
	image_edit_close(&e);
	return r;
}

static int change(struct request *q, struct qcow_error *err)
{
	struct source s = { 0 };
	int r = q->source_file ? open_source(&s, q->source_file, false, err) : 0;

	if (r < 0)
		qcow_error_prefix(err, "%s", q->source_file);
	else
		r = edit(q, s.img, err);
	close_source(&s);
	return r;
}

static int list(const struct request *q, struct qcow_error *err)
{
	struct source s = { 0 };
	int r = open_source(&s, q->path, q->share, err);

	if (!r)
		r = print_list(q, s.img, err);
	close_source(&s);
	return r;
}

static int check_usage(const struct request *q, int nr_words)
{
	bool lists = q->list || !q->nr;
	const char *why = NULL;

	if (nr_words != (lists ? 1 : 2) || (q->list && q->nr))
		verb_usage(&verb);
	else if (q->granularity_bits && !q->adds)
		why = "--granularity is for --add";
	else if (q->source_file && !q->merges)
		why = "--source-file is for --merge";
	else
		return 0;
	if (why)
		fprintf(stderr, "qcow: %s\n", why);
	return -EINVAL;
}

int cmd_bitmap(int argc, char **argv)
{
	struct qcow_error err = { 0 };
	struct request q = { 0 };
	int status = verb_parse(&verb, argc, argv, &q), r;

	if (status >= 0)
		return status;
	if (check_usage(&q, argc - optind))
		return 1;
	q.path = argv[optind];
	q.name = argv[optind + 1];
	r = q.nr ? change(&q, &err) : list(&q, &err);
	return verb_report(q.path, r, &err);
}
