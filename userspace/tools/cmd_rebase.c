// SPDX-License-Identifier: GPL-2.0-only
/* qcow rebase -b FILE -F FORMAT IMAGE: another backing file, or none. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/rebase.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/imagefile.h"
#include "tools/progress.h"
#include "tools/words.h"

static const char usage_text[] =
	"Usage: qcow rebase [-u] -b FILE -F FORMAT [OPTION]... IMAGE\n"
	"       qcow rebase [-u] -b '' [OPTION]... IMAGE\n"
	"Gives IMAGE another backing file, or none: what it shows stays the same, because all\n"
	"that the new one does not show is copied into it first.\n"
	"\n"
	"  -b, --backing FILE       the new backing file; relative names count from IMAGE's\n"
	"                           folder; '': none\n"
	"  -F, --backing-format F   raw or qcow2; never guessed\n"
	"  -u, --unsafe             only change the name: for a file that was moved\n"
	"  -p, --progress           show how far it is\n"
	"  -q, --quiet\n"
	"  --backing-dir DIR        backing and data files may lie in or below DIR too\n";

enum {
	OPT_HELP = WORD_OPT_END
};

static const struct option options[] = {
	{ "backing", required_argument, NULL, 'b' },
	{ "backing-format", required_argument, NULL, 'F' },
	{ "backing-dir", required_argument, NULL, WORD_OPT },
	{ "format", required_argument, NULL, 'f' },
	{ "unsafe", no_argument, NULL, 'u' },
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

struct request {
	struct table_line line;
	const char *backing, *format;
	bool unsafe, shown, quiet;
	struct progress progress;
	struct host_chain *old, *new;
	struct image_edit e;
	struct image_file data;
	struct qcow_rebase p;
	struct qcow_error err;
};

static int parse_one(struct request *q, int opt)
{
	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	switch (opt) {
	case 'b':
		q->backing = optarg;
		return 0;
	case 'F':
		q->format = optarg;
		return 0;
	case 'f':
		return strcmp(optarg, "qcow2") ? create_options_complain("--format", optarg) : 0;
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

/* -1 to go on, or an exit status. */
static int parse(int argc, char **argv, struct request *q)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "b:F:f:t:T:upq", options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (parse_one(q, opt))
			return 1;
	}
	if (argc - optind != 1 || !q->backing) {
		fputs(usage_text, stderr);
		return 1;
	}
	if (*q->backing && !q->format) {
		fputs("qcow: the backing file's format is needed: -F raw or -F qcow2\n", stderr);
		return 1;
	}
	if (*q->backing && host_format_parse(q->format) == HOST_FORMAT_UNKNOWN) {
		create_options_complain("-F", q->format);
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

/* Chains with a common base have most in common. */
static bool same(void *arg, const struct qcow_extent *old, const struct qcow_extent *new)
{
	struct request *q = arg;
	const struct host_layer *a = host_chain_layer(q->old, old->layer);
	const struct host_layer *b = host_chain_layer(q->new, new->layer);

	if (old->host_off != new->host_off || a->is_bdev != b->is_bdev)
		return false;
	return a->is_bdev ? a->rdev == b->rdev : a->dev == b->dev && a->ino == b->ino;
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
		r = word_open_disk(&line, host_format_parse(q->format),
				   HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK, &q->new);
	table_line_exit(&line);
	if (!r)
		q->p.new = host_chain_lib(q->new);
	return r;
}

/* The image is locked by then; beside that the chain is only read. */
static int open_chains(struct request *q)
{
	struct qcow_chain *chain;
	int r = word_open_chain(&q->line, HOST_CHAIN_BUFFERED_OK, &q->old);

	if (r < 0)
		return r;
	chain = q->p.old = host_chain_lib(q->old);
	if (qcow_chain_data_layer(chain))
		r = image_file_open(&q->data, host_chain_layer(q->old, 1)->path, true, false,
				    &q->err);
	q->p.data = q->data.io;
	return r < 0 || !*q->backing ? r : open_new(q);
}

static int rebase(struct request *q)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	int r = image_edit_open(&q->e, q->line.image, &params, &q->err);

	q->p.name = *q->backing ? q->backing : NULL;
	q->p.format = q->p.name ? q->format : NULL;
	q->p.unsafe = q->unsafe;
	q->p.same = same;
	q->p.progress = progress;
	q->p.cancelled = cancelled;
	q->p.arg = q;
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
	int status = parse(argc, argv, &q), r;

	if (status < 0) {
		r = rebase(&q);
		/* Opening a chain says itself what is wrong. */
		if (r < 0 && q.err.code)
			fprintf(stderr, "qcow: %s: %s\n", q.line.image, q.err.text);
		status = r < 0 ? 1 : 0;
	}
	host_chain_close(q.old);
	host_chain_close(q.new);
	image_file_close(&q.data);
	image_edit_close(&q.e);
	table_line_exit(&q.line);
	return status;
}
