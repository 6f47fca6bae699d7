// SPDX-License-Identifier: GPL-2.0-only
/* qcow amend -o NAME=VALUE IMAGE: an image of another version or refcount width. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/amend.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/imagefile.h"
#include "tools/size.h"
#include "tools/verb.h"

static const struct option options[] = {
	{ "format", required_argument, NULL, 'f' },
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	VERB_END_OPTIONS,
};

/* NULL = as it is. */
struct request {
	char *compat, *bits, *lazy, *raw;
	bool any;
};

/* Cuts @text up; the values stay in it. */
static int parse_options(struct request *q, char *text)
{
	static char *const names[] = { "compat", "refcount_bits", "lazy_refcounts", "data_file_raw",
				       NULL };
	char **const values[] = { &q->compat, &q->bits, &q->lazy, &q->raw };
	char *word, *value;
	int which;

	while (*text) {
		word = text;
		which = getsubopt(&text, names, &value);
		if (which < 0) {
			fprintf(stderr, "qcow: '%s' cannot be amended\n", word);
			return -EINVAL;
		}
		if (!value)
			return verb_complain(names[which], value);
		*values[which] = value;
		q->any = true;
	}
	return 0;
}

static int take(void *request, int opt)
{
	switch (opt) {
	case 'o':
		return parse_options(request, optarg);
	case 'f':
		return verb_take_qcow2(optarg);
	case 'p':
	case 'q':
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_amend, "o:f:pq", options, take, 1, 1, 0 };

static int to_params(const struct request *q, struct qcow_amend_params *p)
{
	if (q->compat && create_options_version(q->compat, &p->version))
		return verb_complain("compat", q->compat);
	if (q->bits && size_parse_power(q->bits, &p->refcount_order))
		return verb_complain("refcount_bits", q->bits);
	/* A version that does not have them does not keep them. */
	if (p->version < 3)
		p->lazy_refcounts = false;
	if (q->lazy && verb_on_off(q->lazy, &p->lazy_refcounts))
		return verb_complain("lazy_refcounts", q->lazy);
	if (q->raw && verb_on_off(q->raw, &p->data_raw))
		return verb_complain("data_file_raw", q->raw);
	return 0;
}

static int amend(const struct request *q, const char *path)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	struct qcow_amend_params p;
	struct qcow_error err = { 0 };
	struct image_edit e = { 0 };
	int r = image_edit_open(&e, path, &params, &err);

	if (!r) {
		qcow_amend_init(&p, qcow_writer_header(e.w));
		r = to_params(q, &p);
	}
	if (!r)
		r = qcow_amend(e.w, &p, &err);
	image_edit_close(&e);
	return verb_report(path, r, &err);
}

int cmd_amend(int argc, char **argv)
{
	struct request q = { 0 };
	int status = verb_parse(&verb, argc, argv, &q);

	if (status >= 0)
		return status;
	return q.any ? amend(&q, argv[optind]) : verb_usage(&verb);
}
