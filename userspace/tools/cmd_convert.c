// SPDX-License-Identifier: GPL-2.0-only
/* qcow convert SOURCE TARGET: a copy in another format, compressed, flattened or over a base. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "man/help.h"
#include "tools/cmd.h"
#include "tools/copy.h"
#include "tools/size.h"
#include "tools/verb.h"

enum {
	OPT_ZERO = WORD_OPT_END,
	OPT_BITMAPS,
	OPT_SKIP_BROKEN,
	OPT_SALVAGE,
};

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	{ "format", required_argument, NULL, 'f' },
	{ "target-format", required_argument, NULL, 'O' },
	{ "compress", no_argument, NULL, 'c' },
	{ "sparse", required_argument, NULL, 'S' },
	{ "threads", required_argument, NULL, 'm' },
	{ "target-is-zero", no_argument, NULL, OPT_ZERO },
	{ "bitmaps", no_argument, NULL, OPT_BITMAPS },
	{ "skip-broken-bitmaps", no_argument, NULL, OPT_SKIP_BROKEN },
	{ "rate-limit", required_argument, NULL, 'r' },
	{ "salvage", no_argument, NULL, OPT_SALVAGE },
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "force-share", no_argument, NULL, 'U' },
	VERB_END_OPTIONS,
};

/* ---- options ----------------------------------------------------------------------- */

static int parse_cache(const char *name, const char *arg, enum copy_cache *cache)
{
	if (!strcmp(arg, "none") || !strcmp(arg, "directsync"))
		*cache = COPY_NONE;
	else if (!strcmp(arg, "writeback") || !strcmp(arg, "writethrough"))
		*cache = COPY_WRITEBACK;
	else if (!strcmp(arg, "unsafe"))
		*cache = COPY_UNSAFE;
	else
		return verb_complain(name, arg);
	return 0;
}

/* Zeros are found in whole sectors; a longer run than this nobody asks for. */
#define MAX_SPARSE (16u << 20)

static int parse_sparse(struct copy_request *q, const char *arg)
{
	if (size_parse(arg, &q->min_sparse) || q->min_sparse % 512 || q->min_sparse > MAX_SPARSE)
		return verb_complain("--sparse", arg);
	return 0;
}

static int parse_threads(struct copy_request *q, const char *arg)
{
	uint64_t n;

	if (size_parse(arg, &n) || !n || n > 64)
		return verb_complain("--threads", arg);
	q->threads = (unsigned int)n;
	return 0;
}

/* qemu-img's spelling too: snapshot.id=1, snapshot.name=x */
static int parse_snapshot(struct copy_request *q, const char *arg)
{
	static const char *const prefixes[] = { "snapshot.id=", "snapshot.name=" };
	size_t i;

	for (i = 0; i < 2; i++)
		if (!strncmp(arg, prefixes[i], strlen(prefixes[i])))
			arg += strlen(prefixes[i]);
	return table_line_add(&q->words, "snapshot", arg, 0);
}

static int parse_flag(struct copy_request *q, int opt)
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
	case OPT_BITMAPS:
		q->bitmaps = true;
		return 0;
	case OPT_SKIP_BROKEN:
		q->skip_broken = true;
		return 0;
	case OPT_SALVAGE:
		q->salvage = true;
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

static int take(void *request, int opt)
{
	struct copy_request *q = request;

	if (word_is(opt))
		return word_add(&q->words, opt, optarg);
	switch (opt) {
	case 'f':
		return word_take_format("--format", optarg, &q->from);
	case 'O':
		return word_take_format("--target-format", optarg, &q->to);
	case 'o':
		q->has_options = true;
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
	case 'r':
		if (size_parse(optarg, &q->rate) || !q->rate)
			return verb_complain("--rate-limit", optarg);
		return 0;
	case 'm':
		return parse_threads(q, optarg);
	case 't':
		return parse_cache("-t", optarg, &q->target_cache);
	case 'T':
		return parse_cache("-T", optarg, &q->source_cache);
	}
	return parse_flag(q, opt);
}

static const char *find_contradiction(const struct copy_request *q)
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
	if (q->keep && !raw && (q->compress || q->has_options || q->o.p.backing_name))
		return "-n writes into the image as it is: -c, -o and -B say what a new one is like";
	if (q->is_zero && (!q->keep || !raw))
		return "--target-is-zero goes with -n and -O raw";
	return NULL;
}

static const char *find_wrong_source(const struct copy_request *q)
{
	bool raw = q->to == HOST_FORMAT_RAW;

	if (q->nr_sources > 1 && (q->o.p.backing_name || q->bitmaps || q->words.nr_words))
		return "with several sources there can be no -B, --bitmaps, -l or --backing";
	if (q->bitmaps && (raw || q->keep || q->from == HOST_FORMAT_RAW || q->words.nr_words))
		return "--bitmaps is for all of a qcow2 image, into a new one";
	if (q->skip_broken && !q->bitmaps)
		return "--skip-broken-bitmaps goes with --bitmaps";
	if (q->salvage && (q->o.p.backing_name || copy_is_stream(q->sources[0])))
		return "--salvage is for a whole disk: no -B, no standard input";
	if (copy_is_stream(q->sources[0]) &&
	    (q->nr_sources > 1 || q->from != HOST_FORMAT_RAW || q->o.p.backing_name))
		return "what comes from the standard input is raw (-f raw), and has no backing file";
	if (copy_is_stream(q->target) && (!raw || q->keep))
		return "what goes to the standard output is raw";
	return NULL;
}

static const struct verb verb = {
	help_convert, "f:O:o:cS:B:F:l:nm:r:Wt:T:pqU", options, take, 2, INT_MAX, 0
};

int cmd_convert(int argc, char **argv)
{
	struct copy_request q = {
		.from = HOST_FORMAT_QCOW2,
		.to = HOST_FORMAT_RAW,
		.o = CREATE_OPTIONS_DEFAULT,
		.min_sparse = 4096,
		.flags = HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK | HOST_CHAIN_BUFFERED,
	};
	int status = verb_parse(&verb, argc, argv, &q);
	const char *wrong;

	if (status < 0) {
		q.sources = argv + optind;
		q.nr_sources = (size_t)(argc - optind - 1);
		q.target = argv[argc - 1];
		wrong = find_contradiction(&q);
		if (!wrong)
			wrong = find_wrong_source(&q);
		if (wrong)
			fprintf(stderr, "qcow: %s\n", wrong);
		status = wrong ? 1 : copy_run(&q);
	}
	table_line_exit(&q.words);
	return status;
}
