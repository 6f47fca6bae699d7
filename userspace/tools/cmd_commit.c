// SPDX-License-Identifier: GPL-2.0-only
/* qcow commit IMAGE: what it has above its backing file goes into that. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/fold.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/imagefile.h"
#include "tools/progress.h"
#include "tools/verb.h"
#include "tools/words.h"

static const struct option options[] = {
	{ "base", required_argument, NULL, 'b' },
	{ "drop", no_argument, NULL, 'd' },
	{ "backing-dir", required_argument, NULL, WORD_OPT },
	{ "format", required_argument, NULL, 'f' },
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	VERB_END_OPTIONS,
};

struct request {
	struct table_line line, base_line;
	const char *base_name;
	bool keep, shown, quiet;
	struct progress progress;
	struct host_chain *top, *base;
	struct image_edit e;
	struct image_file data, raw; /* the image's data file; a raw base */
	size_t layer;		     /* of the base, in top */
	struct qcow_fold p;
	struct qcow_error err;
};

static int take(void *request, int opt)
{
	struct request *q = request;

	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	switch (opt) {
	case 'b':
		q->base_name = optarg;
		q->keep = true;
		return 0;
	case 'd':
		q->keep = true;
		return 0;
	case 'f':
		return verb_take_qcow2(optarg);
	case 'p':
		q->shown = true;
		return 0;
	case 'q':
		q->quiet = true;
		return 0;
	case 't':
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_commit, "b:df:t:pq", options, take, 1, 1, 0 };

/* A name that -b gives counts from here, or else as the image would record it. */
static int find_base_file(struct request *q, struct stat *st)
{
	char *path = NULL;
	int r;

	if (!q->base_name || stat(q->base_name, st) == 0)
		return 0;
	r = host_join_name(q->line.image, q->base_name, &path, &q->err);
	if (!r && stat(path, st) < 0)
		r = qcow_fail(&q->err, errno, QCOW_NO_OFF, "%s: %s", q->base_name, strerror(errno));
	free(path);
	return r;
}

static int find_base(struct request *q)
{
	size_t i, nr = host_chain_nr_layers(q->top);
	struct stat st = { 0 };
	int r = find_base_file(q, &st);

	for (i = 1; i < nr && !r; i++) {
		if (host_chain_layer(q->top, i)->kind == QCOW_LAYER_DATA_FILE)
			continue;
		q->p.depth++;
		q->layer = i;
		if (!q->base_name || host_layer_is(host_chain_layer(q->top, i), &st))
			return 0;
	}
	if (r < 0)
		return r;
	return qcow_fail(&q->err, EINVAL, QCOW_NO_OFF,
			 q->base_name ? "%s is not one of its backing files"
				      : "it has no backing file",
			 q->base_name);
}

static int open_raw(struct request *q, const struct host_layer *l)
{
	uint64_t size, want = qcow_chain_size(q->p.top);
	int r = image_file_open_layer(&q->raw, l, &q->err);

	if (!r)
		r = qcow_io_size(q->raw.io, &size, &q->err);
	if (!r && size < want) {
		if (q->raw.io->fixed_end)
			r = qcow_fail(&q->err, ENOSPC, QCOW_NO_OFF,
				      "device %s has %" PRIu64 " bytes, the disk %" PRIu64, l->path,
				      size, want);
		else
			r = qcow_io_truncate(q->raw.io, want, &q->err);
	}
	q->p.raw = q->raw.io;
	return r;
}

static int open_top(struct request *q)
{
	int r = word_open_chain(&q->line, HOST_CHAIN_BUFFERED_OK, &q->top);

	q->p.top = r < 0 ? NULL : host_chain_lib(q->top);
	return r < 0 ? r : image_file_is_layer(&q->e.f, host_chain_layer(q->top, 0), &q->err);
}

/*
 * What a larger base gets reads as zeros, as it does in the image. The image's chain has
 * read tables of the base that may be in other places now.
 */
static int grow(struct request *q, const struct host_layer *judged)
{
	struct qcow_resize_params p = { .size = qcow_chain_size(q->p.top) };
	struct qcow_writer_params params = { 0 };
	struct host_chain *hc = NULL;
	struct image_edit e = { 0 };
	int r = image_edit_open(&e, q->base_line.image, &params, &q->err);

	if (!r)
		r = image_file_is_layer(&e.f, judged, &q->err);
	if (!r && qcow_writer_header(e.w)->size < p.size) {
		r = word_open_chain(&q->base_line, HOST_CHAIN_BUFFERED_OK, &hc);
		if (!r)
			r = image_edit_resize(&e, hc, &p, &q->err);
		host_chain_close(q->top);
		q->top = NULL;
		if (!r)
			r = open_top(q);
	}
	host_chain_close(hc);
	image_edit_close(&e);
	return r;
}

static int open_base(struct request *q)
{
	/* The chain may be closed before the layer has been compared. */
	const struct host_layer l = *host_chain_layer(q->top, q->layer);
	int r = table_line_name(&q->base_line, l.path);

	if (!r && l.kind == QCOW_LAYER_RAW)
		return open_raw(q, &l);
	if (!r)
		r = word_copy_dirs(&q->base_line, &q->line);
	if (!r)
		r = grow(q, &l);
	if (!r)
		r = word_open_chain(&q->base_line,
				    HOST_CHAIN_WRITE | HOST_CHAIN_COMMAND | HOST_CHAIN_LOCK |
					    HOST_CHAIN_BUFFERED_OK,
				    &q->base);
	if (r < 0)
		return r;
	if (!host_same_file(host_chain_layer(q->base, 0), &l))
		return qcow_fail(&q->err, ESTALE, QCOW_NO_OFF, "was replaced; try again");
	q->p.base = host_chain_lib(q->base);
	return qcow_chain_make_writable(q->p.base, false, &q->err);
}

static int open_all(struct request *q)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	int r = image_edit_open(&q->e, q->line.image, &params, &q->err);

	/* The image is locked by now; beside that its chain is only read. */
	if (!r)
		r = open_top(q);
	if (r < 0)
		return r;
	r = image_file_open_data(&q->data, q->top, &q->err);
	if (!r)
		r = find_base(q);
	if (r < 0)
		return r;
	r = open_base(q);
	if (r < 0 && q->err.code)
		qcow_error_prefix(&q->err, "its backing file %s", q->base_line.image);
	return r;
}

static int commit(struct request *q)
{
	int r = open_all(q);

	if (r < 0)
		return r;
	q->p.watch = progress_watch(&q->progress);
	cancel_catch();
	progress_start(&q->progress, q->shown && !q->quiet);
	r = qcow_fold(&q->p, &q->err);
	progress_end(&q->progress);
	if (!r && !q->keep)
		r = qcow_fold_empty(q->e.w, q->data.io, &q->err);
	if (!r && !q->quiet)
		puts("Image committed.");
	return r;
}

int cmd_commit(int argc, char **argv)
{
	struct request q = { 0 };
	int status = verb_parse(&verb, argc, argv, &q);

	if (status < 0)
		status = table_line_name(&q.line, argv[optind]) ? 1 : -1;
	if (status < 0)
		status = verb_report(q.line.image, commit(&q), &q.err);
	host_chain_close(q.base);
	host_chain_close(q.top);
	image_file_close(&q.raw);
	image_file_close(&q.data);
	image_edit_close(&q.e);
	table_line_exit(&q.base_line);
	table_line_exit(&q.line);
	return status;
}
