// SPDX-License-Identifier: GPL-2.0-only
/* qcow convert SOURCE TARGET: a copy in another format, compressed, flattened or over a base. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/convert.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/newfile.h"
#include "tools/progress.h"
#include "tools/size.h"
#include "tools/words.h"

static const char usage_text[] =
	"Usage: qcow convert [-f FORMAT] [-O FORMAT] [OPTION]... SOURCE TARGET\n"
	"Copies what SOURCE shows, backing files included, into a new image, a raw file or a\n"
	"block device. A file appears under its name when it is complete.\n"
	"\n"
	"  -f, --format FORMAT      of SOURCE: qcow2 (default) or raw; never guessed\n"
	"  -O, --target-format F    of TARGET: raw (default) or qcow2\n"
	"  -o NAME=VALUE[,...]      as for qcow create\n"
	"  -c, --compress           compressed clusters; -o compression_type=zlib or zstd\n"
	"  -S, --sparse SIZE        zeros of this length become holes (4k); 0: no holes\n"
	"  -B FILE, -F FORMAT       TARGET's backing file: only what differs from it is copied\n"
	"  -l, --snapshot ID_OR_NAME   an internal snapshot of SOURCE\n"
	"  -n                       write into TARGET as it is: a raw file or a device\n"
	"  --target-is-zero         with -n: it reads as zeros\n"
	"  -m, --threads N          how many threads work (at least 4, or one per processor)\n"
	"  -t, -T none|writeback|unsafe   page cache for TARGET, for SOURCE; unsafe: do not wait\n"
	"                           for the storage at the end\n"
	"  -p, --progress           show how far it is\n"
	"  -q, --quiet\n"
	"  -U, --force-share        even while a writer has SOURCE open\n"
	"\n"
	"SOURCE - is the standard input, TARGET - the standard output, both raw.\n" WORD_CHAIN_HELP;

enum {
	OPT_ZERO = WORD_OPT_END,
	OPT_HELP
};

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	{ "format", required_argument, NULL, 'f' },
	{ "target-format", required_argument, NULL, 'O' },
	{ "compress", no_argument, NULL, 'c' },
	{ "sparse", required_argument, NULL, 'S' },
	{ "threads", required_argument, NULL, 'm' },
	{ "target-is-zero", no_argument, NULL, OPT_ZERO },
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "force-share", no_argument, NULL, 'U' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

enum cache {
	CACHE_WRITEBACK = 0,
	CACHE_NONE,
	CACHE_UNSAFE,
};

struct request {
	struct table_line line; /* the source, and the words for its chain */
	const char *target;
	enum host_format from, to;
	struct create_options o;
	uint64_t min_sparse;
	unsigned int threads, flags;
	enum cache source_cache, target_cache;
	bool compress, keep, is_zero, progress, quiet;
};

/* What is open while a copy is made. */
struct copy {
	struct request *q;
	struct host_chain *src, *base;
	struct new_file image, data;
	struct qcow_builder *builder;
	struct qcow_convert c;
	struct progress progress;
	struct qcow_error err;
};

/* ---- options ----------------------------------------------------------------------- */

static int parse_format(const char *name, const char *arg, enum host_format *format)
{
	*format = host_format_parse(arg);
	return *format == HOST_FORMAT_UNKNOWN ? create_options_complain(name, arg) : 0;
}

static int parse_cache(const char *name, const char *arg, enum cache *cache)
{
	if (!strcmp(arg, "none") || !strcmp(arg, "directsync"))
		*cache = CACHE_NONE;
	else if (!strcmp(arg, "writeback") || !strcmp(arg, "writethrough"))
		*cache = CACHE_WRITEBACK;
	else if (!strcmp(arg, "unsafe"))
		*cache = CACHE_UNSAFE;
	else
		return create_options_complain(name, arg);
	return 0;
}

/* Zeros are found in whole sectors; a longer run than this nobody asks for. */
#define MAX_SPARSE (16u << 20)

static int parse_sparse(struct request *q, const char *arg)
{
	if (size_parse(arg, &q->min_sparse) || q->min_sparse % 512 || q->min_sparse > MAX_SPARSE)
		return create_options_complain("--sparse", arg);
	return 0;
}

static int parse_threads(struct request *q, const char *arg)
{
	uint64_t n;

	if (size_parse(arg, &n) || !n || n > 64)
		return create_options_complain("--threads", arg);
	q->threads = (unsigned int)n;
	return 0;
}

/* qemu-img's spelling too: snapshot.id=1, snapshot.name=x */
static int parse_snapshot(struct request *q, const char *arg)
{
	static const char *const prefixes[] = { "snapshot.id=", "snapshot.name=" };
	size_t i;

	for (i = 0; i < 2; i++)
		if (!strncmp(arg, prefixes[i], strlen(prefixes[i])))
			arg += strlen(prefixes[i]);
	return table_line_add(&q->line, "snapshot", arg, 0);
}

static int parse_flag(struct request *q, int opt)
{
	switch (opt) {
	case 'c':
		q->compress = true;
		return 0;
	case 'n':
		q->keep = true;
		return 0;
	case OPT_ZERO:
		q->is_zero = true;
		return 0;
	case 'p':
		q->progress = true;
		return 0;
	case 'q':
		q->quiet = true;
		return 0;
	case 'W': /* QEMU's leave to write out of order: we may anyway */
		return 0;
	case 'U':
		q->flags &= ~(unsigned int)HOST_CHAIN_LOCK;
		return 0;
	}
	return -EINVAL;
}

static int parse_one(struct request *q, int opt)
{
	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	switch (opt) {
	case 'f':
		return parse_format("--format", optarg, &q->from);
	case 'O':
		return parse_format("--target-format", optarg, &q->to);
	case 'o':
		return create_options_parse(&q->o, optarg);
	case 'B':
		q->o.p.backing_name = optarg;
		return 0;
	case 'F':
		q->o.p.backing_format = optarg;
		return 0;
	case 'S':
		return parse_sparse(q, optarg);
	case 'l':
		return parse_snapshot(q, optarg);
	case 'm':
		return parse_threads(q, optarg);
	case 't':
		return parse_cache("-t", optarg, &q->target_cache);
	case 'T':
		return parse_cache("-T", optarg, &q->source_cache);
	}
	return parse_flag(q, opt);
}

static bool is_stream(const char *name)
{
	return !strcmp(name, "-");
}

static const char *find_contradiction(const struct request *q)
{
	bool raw = q->to == HOST_FORMAT_RAW;

	if (q->o.has_size)
		return "the size is that of the source";
	if (raw && (q->compress || q->o.p.backing_name || q->o.p.data_file))
		return "compression, backing and data files need -O qcow2";
	if (raw && q->o.p.prealloc == QCOW_PREALLOC_METADATA)
		return "a raw file has no metadata to preallocate";
	if (q->compress && q->o.p.prealloc)
		return "-c and preallocation contradict each other";
	if (q->compress && q->o.p.data_file)
		return "a data file holds no compressed clusters";
	if (q->o.p.backing_name && !q->o.p.backing_format)
		return "the backing file's format is needed: -F raw or -F qcow2";
	if (q->keep && !raw)
		return "-n writes into raw files and devices only; an image is always made anew";
	if (q->is_zero && !q->keep)
		return "--target-is-zero goes with -n";
	if (is_stream(q->line.image) && (q->from != HOST_FORMAT_RAW || q->o.p.backing_name))
		return "what comes from the standard input is raw (-f raw), and has no backing file";
	if (is_stream(q->target) && (!raw || q->keep))
		return "what goes to the standard output is raw";
	return NULL;
}

/* -1 to go on, or an exit status. */
static int parse(int argc, char **argv, struct request *q)
{
	const char *wrong;
	int opt;

	while ((opt = getopt_long(argc, argv, "f:O:o:cS:B:F:l:nm:Wt:T:pqU", options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (parse_one(q, opt))
			return 1;
	}
	if (argc - optind != 2) {
		fputs(usage_text, stderr);
		return 1;
	}
	q->line.image = strdup(argv[optind]);
	q->target = argv[optind + 1];
	if (!q->line.image)
		return 1;
	wrong = find_contradiction(q);
	if (wrong)
		fprintf(stderr, "qcow: %s\n", wrong);
	return wrong ? 1 : -1;
}

/* ---- streams, progress ------------------------------------------------------------- */

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

static void progress(void *arg, uint64_t done, uint64_t total)
{
	struct copy *y = arg;

	progress_at(&y->progress, done, total);
}

static bool cancelled(void *arg)
{
	(void)arg;
	return cancel_asked();
}

/* ---- the backing file -------------------------------------------------------------- */

static bool same_file(const struct host_layer *a, const struct host_layer *b)
{
	if (a->is_bdev || b->is_bdev)
		return a->is_bdev && b->is_bdev && a->rdev == b->rdev;
	return a->dev == b->dev && a->ino == b->ino;
}

/* How many files above it the source's chain has; 0 = it is not below the source. */
static uint32_t depth_in_source(const struct copy *y)
{
	const struct host_layer *base = host_chain_layer(y->base, 0), *l;
	uint32_t depth = 0;
	size_t i;

	for (i = 0; i < host_chain_nr_layers(y->src); i++) {
		l = host_chain_layer(y->src, i);
		if (l->kind == QCOW_LAYER_DATA_FILE)
			continue;
		if (same_file(l, base))
			return depth;
		depth++;
	}
	return 0;
}

static int open_base(struct copy *y)
{
	const struct qcow_create_params *p = &y->q->o.p;
	enum host_format format = host_format_parse(p->backing_format);
	struct table_line line = { 0 };
	char *path;
	int r;

	if (format == HOST_FORMAT_UNKNOWN)
		return create_options_complain("-F", p->backing_format);
	r = host_join_name(y->q->target, p->backing_name, &path, &y->err);
	if (r < 0) {
		fprintf(stderr, "qcow: -B: %s\n", y->err.text);
		return r;
	}
	line.image = path;
	/* Its chain may use the same folders, but has no pin and no snapshot of its own. */
	r = word_copy_dirs(&line, &y->q->line);
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

/* ---- source and target ------------------------------------------------------------- */

static int open_source(struct copy *y)
{
	struct request *q = y->q;
	unsigned int flags = q->flags;
	int r;

	if (is_stream(q->line.image)) {
		y->c.read = read_stream;
		return 0;
	}
	if (q->source_cache == CACHE_NONE)
		flags &= ~(unsigned int)HOST_CHAIN_BUFFERED;
	r = word_open_disk(&q->line, q->from, flags, &y->src);
	if (r < 0)
		return r;
	y->c.src = host_chain_lib(y->src);
	q->o.p.size = qcow_chain_size(y->c.src);
	return q->o.p.backing_name ? open_base(y) : 0;
}

static int open_file(struct copy *y, struct new_file *f, const char *path)
{
	return new_file_open(f, path, y->q->keep, y->q->target_cache == CACHE_NONE, &y->err);
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
	return r < 0 ? r : qcow_io_truncate(y->data.io, y->q->o.p.size, &y->err);
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

static int prepare_raw(struct copy *y)
{
	struct qcow_io *io = y->image.io;
	uint64_t size, want = y->q->o.p.size;
	int r = qcow_io_size(io, &size, &y->err);

	if (r < 0)
		return r;
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

	if (is_stream(y->q->target)) {
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

/* Data before the image that points to it, everything before the names. */
static int finish(struct copy *y)
{
	bool sync = y->q->target_cache != CACHE_UNSAFE;
	int r = 0;

	if (y->c.write)
		return 0;
	if (!y->builder && y->c.read && y->image.temp)
		r = qcow_io_truncate(y->image.io, y->c.size, &y->err);
	if (!r && sync)
		r = qcow_io_flush(y->c.io, &y->err);
	if (!r && y->builder)
		r = qcow_builder_finish(y->builder, sync, &y->err);
	if (!r && y->data.io)
		r = new_file_publish(&y->data, sync, &y->err);
	return r < 0 ? r : new_file_publish(&y->image, sync, &y->err);
}

/* Its own locks would refuse it too, but not say why. */
static int check_apart(struct copy *y)
{
	struct host_layer target = { 0 };
	struct stat st;
	size_t i;

	if (!y->src || is_stream(y->q->target) || stat(y->q->target, &st) < 0)
		return 0;
	target.is_bdev = S_ISBLK(st.st_mode);
	target.rdev = st.st_rdev;
	target.dev = st.st_dev;
	target.ino = st.st_ino;
	for (i = 0; i < host_chain_nr_layers(y->src); i++)
		if (same_file(host_chain_layer(y->src, i), &target))
			return qcow_fail(&y->err, EINVAL, QCOW_NO_OFF,
					 "it is read from, and cannot be the target too");
	return 0;
}

static int copy(struct copy *y)
{
	int r = check_apart(y);

	if (!r)
		r = y->q->to == HOST_FORMAT_RAW ? open_raw(y) : open_image(y);
	if (r < 0) {
		qcow_error_prefix(&y->err, "%s", y->q->target);
		return r;
	}
	cancel_catch();
	progress_start(&y->progress, y->q->progress && !y->q->quiet);
	r = qcow_convert(&y->c, &y->err);
	progress_end(&y->progress);
	return r < 0 ? r : finish(y);
}

static void close_all(struct copy *y)
{
	qcow_builder_destroy(y->builder);
	new_file_close(&y->image);
	new_file_close(&y->data);
	host_chain_close(y->base);
	host_chain_close(y->src);
}

/* Enough to keep storage busy too. */
static unsigned int default_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 4 ? 4 : n > 64 ? 64 : (unsigned int)n;
}

static int run(struct request *q)
{
	struct copy y = {
		.q = q,
		.c = { .compress = q->compress,
		       .min_sparse = q->min_sparse,
		       .nr_threads = q->threads ? q->threads : default_threads(),
		       .progress = progress,
		       .cancelled = cancelled },
	};
	int r;

	y.c.arg = &y;
	r = open_source(&y);
	if (!r) {
		r = copy(&y);
		if (r < 0)
			fprintf(stderr, "qcow: %s\n", y.err.text);
	}
	close_all(&y);
	return r < 0 ? 1 : 0;
}

int cmd_convert(int argc, char **argv)
{
	struct request q = {
		.from = HOST_FORMAT_QCOW2,
		.to = HOST_FORMAT_RAW,
		.o = CREATE_OPTIONS_DEFAULT,
		.min_sparse = 4096,
		.flags = HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK | HOST_CHAIN_BUFFERED,
	};
	int status = parse(argc, argv, &q);

	if (status < 0)
		status = run(&q);
	table_line_exit(&q.line);
	return status;
}
