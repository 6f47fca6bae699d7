// SPDX-License-Identifier: GPL-2.0-only
/* qcow rebase -b FILE -F FORMAT IMAGE: another backing file, or none. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/rebase.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/imagefile.h"
#include "tools/progress.h"
#include "tools/verb.h"
#include "tools/words.h"

static const struct option options[] = {
	{ "backing", required_argument, NULL, 'b' },
	{ "backing-format", required_argument, NULL, 'F' },
	{ "backing-dir", required_argument, NULL, WORD_OPT },
	{ "format", required_argument, NULL, 'f' },
	{ "unsafe", no_argument, NULL, 'u' },
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	VERB_END_OPTIONS,
};

struct request {
	struct table_line line;
	const char *backing, *format_name;
	enum host_format format;
	bool unsafe, shown, quiet;
	struct progress progress;
	struct host_chain *old, *new;
	struct image_edit e;
	struct image_file data;
	struct qcow_rebase p;
	struct qcow_error err;
};

static int take(void *request, int opt)
{
	struct request *q = request;

	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	switch (opt) {
	case 'b':
		q->backing = optarg;
		return 0;
	case 'F':
		return word_take_format("-F", q->format_name = optarg, &q->format);
	case 'f':
		return verb_take_qcow2(optarg);
	case 'u':
		q->unsafe = true;
		return 0;
	case 'p':
		q->shown = true;
		return 0;
	case 'q':
		q->quiet = true;
		return 0;
	case 't':
	case 'T':
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_rebase, "b:F:f:t:T:upq", options, take, 1, 1, 0 };

/* -1 to go on, or an exit status. */
static int parse(int argc, char **argv, struct request *q)
{
	int status = verb_parse(&verb, argc, argv, q);

	if (status >= 0)
		return status;
	if (!q->backing)
		return verb_usage(&verb);
	if (*q->backing && !q->format_name) {
		fputs("qcow: the backing file's format is needed: -F raw or -F qcow2\n", stderr);
		return 1;
	}
	return table_line_name(&q->line, argv[optind]) ? 1 : -1;
}

/* Chains with a common base have most in common. */
static bool same(void *arg, const struct qcow_extent *old, const struct qcow_extent *new)
{
	struct request *q = arg;
	const struct host_layer *a = host_chain_layer(q->old, old->layer);
	const struct host_layer *b = host_chain_layer(q->new, new->layer);

	return old->host_off == new->host_off &&host_same_file(a, b);
}

static int check_loop(const struct request *q, const char *path, struct qcow_error *err)
{
	struct stat a, b;

	if (stat(q->line.image, &a) < 0 || stat(path, &b) < 0)
		return 0;
	if (S_ISBLK(a.st_mode) ? a.st_rdev == b.st_rdev
			       : a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return qcow_fail(err, ELOOP, QCOW_NO_OFF,
				 "an image cannot be its own backing file");
	return 0;
}

static int open_new(struct request *q)
{
	struct table_line line = { 0 };
	int r = host_join_name(q->line.image, q->backing, &line.image, &q->err);

	if (!r)
		r = check_loop(q, line.image, &q->err);
	if (!r)
		r = word_copy_dirs(&line, &q->line);
	if (!r)
		r = word_open_disk(&line, q->format, HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK,
				   &q->new);
	table_line_exit(&line);
	if (!r)
		q->p.new = host_chain_lib(q->new);
	return r;
}

/* The image is locked by then; beside that the chain is only read. */
static int open_chains(struct request *q)
{
	int r = word_open_chain(&q->line, HOST_CHAIN_BUFFERED_OK, &q->old);

	if (!r)
		r = image_file_is_layer(&q->e.f, host_chain_layer(q->old, 0), &q->err);
	if (r < 0)
		return r;
	q->p.old = host_chain_lib(q->old);
	r = image_file_open_data(&q->data, q->old, &q->err);
	q->p.data = q->data.io;
	return r < 0 || !*q->backing ? r : open_new(q);
}

static int rebase(struct request *q)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	int r = image_edit_open(&q->e, q->line.image, &params, &q->err);

	q->p.name = *q->backing ? q->backing : NULL;
	q->p.format = q->p.name ? q->format_name : NULL;
	q->p.unsafe = q->unsafe;
	q->p.same = same;
	q->p.arg = q;
	q->p.watch = progress_watch(&q->progress);
	if (!r && !q->unsafe)
		r = open_chains(q);
	if (r < 0)
		return r;
	cancel_catch();
	progress_start(&q->progress, q->shown && !q->quiet);
	r = qcow_rebase(q->e.w, &q->p, &q->err);
	progress_end(&q->progress);
	return r;
}

int cmd_rebase(int argc, char **argv)
{
	struct request q = { 0 };
	int status = parse(argc, argv, &q);

	if (status < 0)
		status = verb_report(q.line.image, rebase(&q), &q.err);
	host_chain_close(q.old);
	host_chain_close(q.new);
	image_file_close(&q.data);
	image_edit_close(&q.e);
	table_line_exit(&q.line);
	return status;
}
