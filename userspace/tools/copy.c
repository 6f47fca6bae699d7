// SPDX-License-Identifier: GPL-2.0-only
#include "tools/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/bitedit.h"
#include "lib/convert.h"
#include "tools/newfile.h"
#include "tools/progress.h"
#include "tools/verb.h"

/* What is open while a copy is made. */
struct copy {
	struct copy_request *q;
	struct host_chain **src; /* q->nr_sources */
	struct qcow_chain **chains;
	struct host_chain *base, *into;
	struct new_file image, data;
	struct qcow_builder *builder;
	struct qcow_convert c;
	struct progress progress;
	struct qcow_error err;
};

bool copy_is_stream(const char *name)
{
	return !strcmp(name, "-");
}

/* ---- streams ----------------------------------------------------------------------- */

static int read_stream(void *arg, void *buf, size_t *len, struct qcow_error *err)
{
	size_t room = *len;
	ssize_t n = 1;

	(void)arg;
	for (*len = 0; *len < room && n; *len += (size_t)n) {
		n = read(STDIN_FILENO, (char *)buf + *len, room - *len);
		if (n < 0 && cancel_asked())
			return qcow_fail(err, ECANCELED, QCOW_NO_OFF, "cancelled");
		if (n < 0)
			return qcow_fail(err, errno, QCOW_NO_OFF, "standard input: %s",
					 strerror(errno));
	}
	return 0;
}

static int write_stream(void *arg, const void *buf, size_t len, struct qcow_error *err)
{
	ssize_t n;

	(void)arg;
	for (; len; len -= (size_t)n, buf = (const char *)buf + n) {
		n = write(STDOUT_FILENO, buf, len);
		if (n < 0)
			return qcow_fail(err, errno, QCOW_NO_OFF, "standard output: %s",
					 strerror(errno));
	}
	return 0;
}

/* ---- what cannot be read ------------------------------------------------------------ */

static void say_lost(void *arg, uint64_t off, uint64_t len, const struct qcow_error *err)
{
	(void)arg;
	fprintf(stderr, "qcow: %" PRIu64 " bytes at %" PRIu64 " are copied as zeros: %s\n", len,
		off, err->text);
}

static void lose_silently(void *arg, uint64_t off, uint64_t len, const struct qcow_error *err)
{
	(void)arg;
	(void)off;
	(void)len;
	(void)err;
}

/* ---- the backing file -------------------------------------------------------------- */

/* How many files above it the source's chain has; 0 = it is not below the source. */
static uint32_t depth_in_source(const struct copy *y)
{
	const struct host_layer *base = host_chain_layer(y->base, 0), *l;
	uint32_t depth = 0;
	size_t i;

	for (i = 0; i < host_chain_nr_layers(y->src[0]); i++) {
		l = host_chain_layer(y->src[0], i);
		if (l->kind == QCOW_LAYER_DATA_FILE)
			continue;
		if (host_same_file(l, base))
			return depth;
		depth++;
	}
	return 0;
}

static int open_base(struct copy *y)
{
	const struct qcow_create_params *p = &y->q->o.p;
	struct table_line line = { 0 };
	enum host_format format;
	int r = word_take_format("-F", p->backing_format, &format);

	if (r < 0)
		return r;
	r = host_join_name(y->q->target, p->backing_name, &line.image, &y->err);
	if (r < 0) {
		qcow_error_prefix(&y->err, "-B");
		return r;
	}
	/* Its chain may use the same folders, but has no pin and no snapshot of its own. */
	r = word_copy_dirs(&line, &y->q->words);
	if (!r)
		r = word_open_disk(&line, format, y->q->flags, &y->base);
	table_line_exit(&line);
	if (r < 0)
		return r;
	y->c.base_size = qcow_chain_size(host_chain_lib(y->base));
	y->c.base_depth = depth_in_source(y);
	if (!y->c.base_depth)
		y->c.base = host_chain_lib(y->base);
	return 0;
}

/* ---- sources ----------------------------------------------------------------------- */

/* The words are for one source; of several, only the folders count. */
static int open_source(struct copy *y, size_t i)
{
	struct copy_request *q = y->q;
	unsigned int flags = q->flags;
	int r;

	if (q->source_cache == COPY_NONE)
		flags &= ~(unsigned int)HOST_CHAIN_BUFFERED;
	free(q->words.image);
	q->words.image = NULL;
	r = table_line_name(&q->words, q->sources[i]);
	if (!r)
		r = word_open_disk(&q->words, q->from, flags, &y->src[i]);
	if (!r)
		y->chains[i] = host_chain_lib(y->src[i]);
	return r;
}

static int open_sources(struct copy *y)
{
	struct copy_request *q = y->q;
	size_t i;
	int r = 0;

	if (copy_is_stream(q->sources[0])) {
		y->c.read = read_stream;
		return 0;
	}
	y->src = calloc(q->nr_sources, sizeof(*y->src));
	y->chains = calloc(q->nr_sources, sizeof(*y->chains));
	if (!y->src || !y->chains)
		return qcow_fail(&y->err, ENOMEM, QCOW_NO_OFF, "out of memory");
	for (i = 0; i < q->nr_sources && !r; i++)
		r = open_source(y, i);
	if (r < 0)
		return r;
	y->c.src = (struct qcow_concat){ y->chains, q->nr_sources };
	q->o.p.size = qcow_concat_size(&y->c.src);
	return q->o.p.backing_name ? open_base(y) : 0;
}

/* ---- targets ----------------------------------------------------------------------- */

static int open_file(struct copy *y, struct new_file *f, const char *path)
{
	return new_file_open(f, path, y->q->keep, y->q->target_cache == COPY_NONE, &y->err);
}

static int open_data_file(struct copy *y)
{
	char *path;
	int r = host_join_name(y->q->target, y->q->o.p.data_file, &path, &y->err);

	if (r < 0)
		return r;
	r = open_file(y, &y->data, path);
	free(path);
	if (!r && y->data.io->fixed_end)
		r = qcow_fail(&y->err, ENOTSUP, QCOW_NO_OFF,
			      "the data file is a device: make it with qcow create first");
	if (r < 0)
		return r;
	y->data.io->exact_end = true;
	return qcow_io_truncate(y->data.io, y->q->o.p.size, &y->err);
}

static int open_image(struct copy *y)
{
	int r = qcow_create_check(&y->q->o.p, &y->err);

	if (!r && y->q->o.p.data_file)
		r = open_data_file(y);
	if (!r)
		r = open_file(y, &y->image, y->q->target);
	if (!r)
		r = qcow_builder_create(&y->builder, y->image.io, &y->q->o.p, &y->err);
	y->c.image = y->builder;
	y->c.io = y->data.io ? y->data.io : y->image.io;
	return r;
}

static int open_into(struct copy *y)
{
	unsigned int flags =
		HOST_CHAIN_WRITE | HOST_CHAIN_COMMAND | HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK;
	struct table_line line = { 0 };
	struct qcow_chain *chain;
	int r = table_line_name(&line, y->q->target);

	if (!r)
		r = word_copy_dirs(&line, &y->q->words);
	if (!r)
		r = word_open_chain(&line, flags, &y->into);
	table_line_exit(&line);
	if (r < 0)
		return r;
	chain = host_chain_lib(y->into);
	if (qcow_chain_size(chain) < y->q->o.p.size)
		return qcow_fail(&y->err, ENOSPC, QCOW_NO_OFF,
				 "it has %" PRIu64 " bytes, the disk has %" PRIu64,
				 qcow_chain_size(chain), y->q->o.p.size);
	r = qcow_chain_make_writable(chain, false, &y->err);
	return r < 0 ? r : qcow_into_create(&y->c.into, chain, &y->err);
}

static int prepare_raw(struct copy *y)
{
	struct qcow_io *io = y->image.io;
	uint64_t size, want = y->q->o.p.size;
	int r = qcow_io_size(io, &size, &y->err);

	if (r < 0)
		return r;
	io->exact_end = true;
	if ((io->fixed_end || y->q->keep) && size < want)
		return qcow_fail(&y->err, ENOSPC, QCOW_NO_OFF,
				 "it has %" PRIu64 " bytes, the disk has %" PRIu64, size, want);
	if (io->fixed_end || y->q->keep)
		return 0;
	r = qcow_io_truncate(io, want, &y->err);
	if (!r && want && y->q->o.p.prealloc == QCOW_PREALLOC_FALLOC)
		r = qcow_io_zero(io, 0, want, &y->err);
	/* Where space cannot be had without writing, it is written. */
	if (r == -EOPNOTSUPP || y->q->o.p.prealloc == QCOW_PREALLOC_FULL) {
		y->c.min_sparse = 0;
		r = 0;
	}
	return r;
}

static int open_raw(struct copy *y)
{
	int r;

	if (copy_is_stream(y->q->target)) {
		y->c.write = write_stream;
		return 0;
	}
	r = open_file(y, &y->image, y->q->target);
	if (!r)
		r = prepare_raw(y);
	y->c.io = y->image.io;
	y->c.blank = y->image.temp || y->q->is_zero;
	return r;
}

static int open_target(struct copy *y)
{
	if (y->q->to == HOST_FORMAT_RAW)
		return open_raw(y);
	return y->q->keep ? open_into(y) : open_image(y);
}

/* ---- bitmaps ----------------------------------------------------------------------- */

struct bitmap_copy {
	struct copy *y;
	const struct qcow_image *from;
};

/* Each change of an image's metadata wants a writer of its own. */
static int edit_bitmap(struct copy *y, const char *name, const struct qcow_bitmap_step *steps,
		       size_t nr)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	struct qcow_writer *w = NULL;
	struct qcow_image *img;
	int r = qcow_image_open(&img, y->image.io, &y->err);

	if (r < 0)
		return r;
	r = qcow_writer_create(&w, img, &params, &y->err);
	if (!r)
		r = qcow_bitmap_edit(w, name, steps, nr, &y->err);
	qcow_writer_destroy(w);
	qcow_image_close(img);
	return r;
}

static int copy_bitmap(const struct qcow_bitmap *b, void *arg)
{
	struct bitmap_copy *c = arg;
	struct qcow_bitmap_step steps[] = {
		{ .what = QCOW_BITMAP_ADD, .granularity_bits = b->granularity_bits },
		{ .what = QCOW_BITMAP_MERGE, .source = b->name, .from = c->from },
		{ .what = QCOW_BITMAP_DISABLE },
	};

	if (!b->in_use)
		return edit_bitmap(c->y, b->name, steps, b->enabled ? 2 : 3);
	if (c->y->q->skip_broken)
		return 0;
	return qcow_fail(&c->y->err, EINVAL, QCOW_NO_OFF,
			 "bitmap '%s' was not saved; --skip-broken-bitmaps leaves it out", b->name);
}

/* The new image has its header, but not its name yet. */
static int copy_bitmaps(struct copy *y)
{
	struct bitmap_copy c = { .y = y, .from = qcow_chain_layer_image(y->chains[0], 0) };

	return qcow_bitmaps_walk(qcow_image_io(c.from), qcow_image_header(c.from), copy_bitmap, &c,
				 &y->err);
}

/* ------------------------------------------------------------------------------------ */

/* Data before the image that points to it, everything before the names. */
static int finish(struct copy *y)
{
	bool sync = y->q->target_cache != COPY_UNSAFE;
	int r = 0;

	if (y->c.write)
		return 0;
	if (y->c.into)
		return qcow_into_finish(y->c.into, 0, &y->err);
	/* A stream's length is known now; and around the page cache whole units are written. */
	if (!y->builder && y->image.temp)
		r = qcow_io_truncate(y->image.io, y->c.size, &y->err);
	if (!r && sync)
		r = qcow_io_flush(y->c.io, &y->err);
	if (!r && y->builder)
		r = qcow_builder_finish(y->builder, sync, &y->err);
	if (!r && y->q->bitmaps)
		r = copy_bitmaps(y);
	if (!r && y->data.io)
		r = new_file_publish(&y->data, sync, &y->err);
	return r < 0 ? r : new_file_publish(&y->image, sync, &y->err);
}

static bool reads(const struct host_chain *hc, const struct stat *st)
{
	size_t i;

	for (i = 0; hc && i < host_chain_nr_layers(hc); i++)
		if (host_layer_is(host_chain_layer(hc, i), st))
			return true;
	return false;
}

static int check_unread(struct copy *y, const char *path, const char *what)
{
	struct stat st;
	bool found;
	size_t i;

	if (stat(path, &st) < 0)
		return 0;
	found = reads(y->base, &st);
	for (i = 0; y->src && i < y->q->nr_sources && !found; i++)
		found = reads(y->src[i], &st);
	return found ? qcow_fail(&y->err, EINVAL, QCOW_NO_OFF,
				 "it is read from, and cannot be the %s too", what)
		     : 0;
}

/* Its own locks would refuse it too, but not say why; and with -U there are none. */
static int check_apart(struct copy *y)
{
	char *path;
	int r;

	if (copy_is_stream(y->q->target))
		return 0;
	r = check_unread(y, y->q->target, "target");
	if (r < 0 || !y->q->o.p.data_file || y->q->keep)
		return r;
	r = host_join_name(y->q->target, y->q->o.p.data_file, &path, &y->err);
	if (r < 0)
		return r;
	r = check_unread(y, path, "data file");
	if (r < 0)
		qcow_error_prefix(&y->err, "data file %s", path);
	free(path);
	return r;
}

static int copy(struct copy *y)
{
	int r = check_apart(y);

	/* Before there is a file that a signal would leave behind. */
	cancel_catch();
	if (!r)
		r = open_target(y);
	if (r < 0) {
		if (y->err.code)
			qcow_error_prefix(&y->err, "%s", y->q->target);
		return r;
	}
	progress_start(&y->progress, y->q->progress && !y->q->quiet);
	r = qcow_convert(&y->c, &y->err);
	progress_end(&y->progress);
	if (r < 0 && y->c.into)
		qcow_into_finish(y->c.into, r, NULL);
	return r < 0 ? r : finish(y);
}

static void close_all(struct copy *y)
{
	size_t i;

	qcow_builder_destroy(y->builder);
	qcow_into_destroy(y->c.into);
	new_file_close(&y->image);
	new_file_close(&y->data);
	host_chain_close(y->into);
	host_chain_close(y->base);
	for (i = 0; y->src && i < y->q->nr_sources; i++)
		host_chain_close(y->src[i]);
	free(y->src);
	free(y->chains);
}

/* Enough to keep storage busy too. */
static unsigned int default_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 4 ? 4 : n > 64 ? 64 : (unsigned int)n;
}

int copy_run(struct copy_request *q)
{
	struct copy y = {
		.q = q,
		.c = { .compress = q->compress,
		       .min_sparse = q->min_sparse,
		       .rate = q->rate,
		       .nr_threads = q->threads ? q->threads : default_threads() },
	};
	int r;

	y.c.watch = progress_watch(&y.progress);
	if (q->salvage)
		y.c.lost = q->quiet ? lose_silently : say_lost;
	r = open_sources(&y);
	if (!r)
		r = copy(&y);
	/* Opening a chain says itself what is wrong. */
	if (r < 0 && y.err.code)
		fprintf(stderr, "qcow: %s\n", y.err.text);
	close_all(&y);
	return r < 0 ? 1 : 0;
}
