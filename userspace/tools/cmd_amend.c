// SPDX-License-Identifier: GPL-2.0-only
/* qcow amend -o NAME=VALUE IMAGE: an image of another version or refcount width. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/amend.h"
#include "tools/cmd.h"
#include "tools/imagefile.h"
#include "tools/size.h"

static const char usage_text[] =
	"Usage: qcow amend -o NAME=VALUE[,...] IMAGE\n"
	"Changes what an image is, and nothing it holds. Whatever fails leaves it as it was.\n"
	"\n"
	"  -o NAME=VALUE[,...]      compat (0.10 or 1.1), refcount_bits (1 to 64),\n"
	"                           lazy_refcounts (on, off), data_file_raw (off)\n"
	"  -q, --quiet              print nothing but errors\n"
	"\n"
	"For the size see qcow resize.\n";

enum {
	OPT_HELP = 256
};

static const struct option options[] = {
	{ "format", required_argument, NULL, 'f' },
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

/* NULL = as it is. */
struct request {
	char *compat, *bits, *lazy, *raw;
	bool any;
};

static int complain(const char *name, const char *value)
{
	fprintf(stderr, "qcow: option %s cannot be '%s'\n", name, value ? value : "");
	return -EINVAL;
}

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
			return complain(names[which], value);
		*values[which] = value;
		q->any = true;
	}
	return 0;
}

static int parse_one(struct request *q, int opt)
{
	switch (opt) {
	case 'o':
		return parse_options(q, optarg);
	case 'f':
		return strcmp(optarg, "qcow2") ? complain("--format", optarg) : 0;
	case 'p':
	case 'q':
		return 0;
	}
	return -EINVAL;
}

static int take_compat(const char *value, uint32_t *version)
{
	if (!strcmp(value, "0.10") || !strcmp(value, "v2"))
		*version = 2;
	else if (!strcmp(value, "1.1") || !strcmp(value, "v3"))
		*version = 3;
	else
		return complain("compat", value);
	return 0;
}

static int take_bits(const char *value, uint32_t *order)
{
	uint64_t n;

	if (size_parse(value, &n) < 0 || !n || n > 64 || n & (n - 1))
		return complain("refcount_bits", value);
	*order = (uint32_t)__builtin_ctzll(n);
	return 0;
}

static int take_flag(const char *name, const char *value, bool *flag)
{
	if (strcmp(value, "on") && strcmp(value, "off"))
		return complain(name, value);
	*flag = !strcmp(value, "on");
	return 0;
}

static int to_params(const struct request *q, struct qcow_amend_params *p)
{
	int r = q->compat ? take_compat(q->compat, &p->version) : 0;

	if (!r && q->bits)
		r = take_bits(q->bits, &p->refcount_order);
	if (!r && q->lazy)
		r = take_flag("lazy_refcounts", q->lazy, &p->lazy_refcounts);
	/* A version that does not have them does not keep them. */
	else if (!r && p->version < 3)
		p->lazy_refcounts = false;
	if (!r && q->raw)
		r = take_flag("data_file_raw", q->raw, &p->data_raw);
	return r;
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
	if (r < 0 && err.code)
		fprintf(stderr, "qcow: %s: %s\n", path, err.text);
	return r < 0 ? 1 : 0;
}

int cmd_amend(int argc, char **argv)
{
	struct request q = { 0 };
	int opt;

	while ((opt = getopt_long(argc, argv, "o:f:pq", options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (parse_one(&q, opt))
			return 1;
	}
	if (!q.any || argc - optind != 1) {
		fputs(usage_text, stderr);
		return 1;
	}
	return amend(&q, argv[optind]);
}
