// SPDX-License-Identifier: GPL-2.0-only
/* qcow commit IMAGE: what it has above its backing file goes into that. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/fold.h"
#include "lib/resize.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/imagefile.h"
#include "tools/progress.h"
#include "tools/words.h"

static const char usage_text[] =
	"Usage: qcow commit [-b FILE] [-d] [OPTION]... IMAGE\n"
	"Writes what IMAGE has above its backing file into that file, makes it as large as\n"
	"IMAGE if it is smaller, and empties IMAGE, which shows the same as before.\n"
	"\n"
	"  -b, --base FILE          into this one of the files below; implies -d\n"
	"  -d, --drop               do not empty IMAGE: it is going to be removed\n"
	"  -p, --progress           show how far it is\n"
	"  -q, --quiet\n"
	"  --backing-dir DIR        backing and data files may lie in or below DIR too\n";

enum {
	OPT_HELP = WORD_OPT_END
};

static const struct option options[] = {
	{ "base", required_argument, NULL, 'b' },
	{ "drop", no_argument, NULL, 'd' },
	{ "backing-dir", required_argument, NULL, WORD_OPT },
	{ "format", required_argument, NULL, 'f' },
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
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

static int parse_one(struct request *q, int opt)
{
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
		return strcmp(optarg, "qcow2") ? create_options_complain("--format", optarg) : 0;
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

/* -1 to go on, or an exit status. */
static int parse(int argc, char **argv, struct request *q)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "b:df:t:pq", options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (parse_one(q, opt))
			return 1;
	}
	if (argc - optind != 1) {
		fputs(usage_text, stderr);
		return 1;
	}
	q->line.image = strdup(argv[optind]);
	return q->line.image ? -1 : 1;
}

static void progress(void *arg, uint64_t done, uint64_t total)
{
	struct request *q = arg;

	progress_at(&q->progress, done, total);
}

static bool cancelled(void *arg)
{
	(void)arg;
	return cancel_asked();
}

static bool is_base(const struct request *q, const struct host_layer *l, const struct stat *st)
{
	if (!q->base_name)
		return true;
	return l->is_bdev ? S_ISBLK(st->st_mode) && l->rdev == st->st_rdev
			  : l->dev == st->st_dev && l->ino == st->st_ino;
}

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
		if (is_base(q, host_chain_layer(q->top, i), &st))
			return 0;
	}
	if (r < 0)
		return r;
	return qcow_fail(&q->err, EINVAL, QCOW_NO_OFF,
			 q->base_name ? "%s is not one of its backing files"
				      : "it has no backing file",
			 q->base_name);
}

static int open_raw(struct request *q, const char *path)
{
	uint64_t size, want = qcow_chain_size(q->p.top);
	int r = image_file_open(&q->raw, path, true, false, &q->err);

	if (!r)
		r = qcow_io_size(q->raw.io, &size, &q->err);
	if (!r && size < want) {
		if (q->raw.io->fixed_end)
			r = qcow_fail(&q->err, ENOSPC, QCOW_NO_OFF,
				      "device %s has %" PRIu64 " bytes, the disk %" PRIu64, path,
				      size, want);
		else
			r = qcow_io_truncate(q->raw.io, want, &q->err);
	}
	q->p.raw = q->raw.io;
	return r;
}

static int grow_with(struct request *q, struct image_edit *e, struct host_chain *hc)
{
	struct qcow_chain *chain = host_chain_lib(hc);
	size_t below = qcow_chain_data_layer(chain) + 1;
	struct qcow_resize_params p = { .size = qcow_chain_size(q->p.top), .chain = chain };
	struct image_file data = { 0 };
	const struct qcow_image *img;
	int r = 0;

	if (below < host_chain_nr_layers(hc)) {
		img = qcow_chain_layer_image(chain, below);
		p.backing_size = img ? qcow_image_size(img) : host_chain_layer(hc, below)->size;
	}
	if (below > 1)
		r = image_file_open(&data, host_chain_layer(hc, 1)->path, true, false, &q->err);
	p.data = data.io;
	if (!r)
		r = qcow_resize(e->w, &p, &q->err);
	image_file_close(&data);
	return r;
}

/* What a larger base gets reads as zeros, as it does in the image. */
static int grow(struct request *q)
{
	struct qcow_writer_params params = { 0 };
	struct host_chain *hc = NULL;
	struct image_edit e = { 0 };
	int r = image_edit_open(&e, q->base_line.image, &params, &q->err);

	if (!r && qcow_writer_header(e.w)->size < qcow_chain_size(q->p.top)) {
		r = word_open_chain(&q->base_line, HOST_CHAIN_BUFFERED_OK, &hc);
		if (!r)
			r = grow_with(q, &e, hc);
	}
	host_chain_close(hc);
	image_edit_close(&e);
	return r;
}

static int open_base(struct request *q)
{
	const struct host_layer *l = host_chain_layer(q->top, q->layer);
	int r;

	if (l->kind == QCOW_LAYER_RAW)
		return open_raw(q, l->path);
	q->base_line.image = strdup(l->path);
	r = q->base_line.image ? word_copy_dirs(&q->base_line, &q->line) : -ENOMEM;
	if (!r)
		r = grow(q);
	if (!r)
		r = word_open_chain(&q->base_line,
				    HOST_CHAIN_WRITE | HOST_CHAIN_COMMAND | HOST_CHAIN_LOCK |
					    HOST_CHAIN_BUFFERED_OK,
				    &q->base);
	if (r < 0)
		return r;
	q->p.base = host_chain_lib(q->base);
	return qcow_chain_make_writable(q->p.base, false, &q->err);
}

static int open_all(struct request *q)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	struct qcow_chain *chain;
	int r = image_edit_open(&q->e, q->line.image, &params, &q->err);

	/* The image is locked by now; beside that its chain is only read. */
	if (!r)
		r = word_open_chain(&q->line, HOST_CHAIN_BUFFERED_OK, &q->top);
	if (r < 0)
		return r;
	chain = q->p.top = host_chain_lib(q->top);
	if (qcow_chain_data_layer(chain))
		r = image_file_open(&q->data, host_chain_layer(q->top, 1)->path, true, false,
				    &q->err);
	if (!r)
		r = find_base(q);
	return r < 0 ? r : open_base(q);
}

static int commit(struct request *q)
{
	int r = open_all(q);

	if (r < 0)
		return r;
	q->p.progress = progress;
	q->p.cancelled = cancelled;
	q->p.arg = q;
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
	int status = parse(argc, argv, &q), r;

	if (status < 0) {
		r = commit(&q);
		/* Opening a chain says itself what is wrong. */
		if (r < 0 && q.err.code)
			fprintf(stderr, "qcow: %s: %s\n", q.line.image, q.err.text);
		status = r < 0 ? 1 : 0;
	}
	host_chain_close(q.base);
	host_chain_close(q.top);
	image_file_close(&q.raw);
	image_file_close(&q.data);
	image_edit_close(&q.e);
	table_line_exit(&q.base_line);
	table_line_exit(&q.line);
	return status;
}
