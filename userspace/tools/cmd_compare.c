// SPDX-License-Identifier: GPL-2.0-only
/* qcow compare IMAGE IMAGE: do they show the same; messages and exit codes of qemu-img. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/compare.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/progress.h"
#include "tools/verb.h"
#include "tools/words.h"

static const char usage_text[] =
	"Usage: qcow compare [-f FORMAT] [-F FORMAT] [OPTION]... IMAGE1 IMAGE2\n"
	"Compares what two images show, backing files included.\n"
	"\n"
	"  -f, --format FORMAT      of IMAGE1: qcow2 (default) or raw; never guessed\n"
	"  -F FORMAT                of IMAGE2\n"
	"  -s, --strict             sizes and holes must be the same too\n"
	"  -p, --progress           show how far it is\n"
	"  -q, --quiet              only the exit status\n"
	"  -U, --force-share        even while a writer has an image open\n" WORD_CHAIN_HELP "\n"
	"Exit status: 0 the same, 1 different, 2 could not open, 4 could not read.\n";

enum {
	EXIT_SAME = 0,
	EXIT_DIFFERENT = 1,
	EXIT_OPEN = 2,
	EXIT_READ = 4,
};

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	{ "format", required_argument, NULL, 'f' },
	{ "strict", no_argument, NULL, 's' },
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "force-share", no_argument, NULL, 'U' },
	VERB_END_OPTIONS,
};

struct request {
	struct table_line a, b;
	enum host_format format_a, format_b;
	unsigned int flags;
	bool strict, quiet, shown;
	struct progress progress;
};

static int take(void *request, int opt)
{
	struct request *q = request;

	if (word_is(opt))
		return word_add(&q->a, opt, optarg);
	switch (opt) {
	case 'f':
		return word_take_format("--format", optarg, &q->format_a);
	case 'F':
		return word_take_format("-F", optarg, &q->format_b);
	case 's':
		q->strict = true;
		return 0;
	case 'p':
		q->shown = true;
		return 0;
	case 'q':
		q->quiet = true;
		return 0;
	case 'T':
		return 0;
	case 'U':
		q->flags &= ~(unsigned int)HOST_CHAIN_LOCK;
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { usage_text, "f:F:T:spqU", options, take, 2, 2, EXIT_OPEN };

static void say(const struct request *q, const char *text)
{
	if (!q->quiet)
		puts(text);
}

static int report(const struct request *q, const struct qcow_compare *c)
{
	if (!c->differ) {
		say(q, "Images are identical.");
		return EXIT_SAME;
	}
	if (!q->quiet)
		printf(c->only_kind ? "Strict mode: Offset %" PRIu64 " block status mismatch!\n"
				    : "Content mismatch at offset %" PRIu64 "!\n",
		       c->at);
	return EXIT_DIFFERENT;
}

static int compare(struct request *q, struct host_chain *a, struct host_chain *b)
{
	long nr = sysconf(_SC_NPROCESSORS_ONLN);
	struct qcow_compare c = { .a = host_chain_lib(a),
				  .b = host_chain_lib(b),
				  .strict = q->strict,
				  .nr_threads = nr > 0 ? (unsigned int)nr : 1,
				  .watch = progress_watch(&q->progress) };
	uint64_t a_size = qcow_chain_size(c.a), b_size = qcow_chain_size(c.b);
	struct qcow_error err = { 0 };
	int r;

	if (q->strict && a_size != b_size) {
		say(q, "Strict mode: Image size mismatch!");
		return EXIT_DIFFERENT;
	}
	progress_start(&q->progress, q->shown && !q->quiet);
	r = qcow_compare(&c, &err);
	progress_end(&q->progress);
	if (r < 0) {
		fprintf(stderr, "qcow: %s\n", err.text);
		return EXIT_READ;
	}
	/* What lies before both ends says enough. */
	if (a_size != b_size && (!c.differ || c.at >= (a_size < b_size ? a_size : b_size)))
		say(q, "Warning: Image size mismatch!");
	return report(q, &c);
}

static int run(struct request *q)
{
	struct host_chain *a = NULL, *b = NULL;
	int status = EXIT_OPEN;

	if (!word_copy_dirs(&q->b, &q->a) && !word_open_disk(&q->a, q->format_a, q->flags, &a) &&
	    !word_open_disk(&q->b, q->format_b, q->flags, &b))
		status = compare(q, a, b);
	host_chain_close(a);
	host_chain_close(b);
	return status;
}

int cmd_compare(int argc, char **argv)
{
	struct request q = {
		.format_a = HOST_FORMAT_QCOW2,
		.format_b = HOST_FORMAT_QCOW2,
		.flags = HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK | HOST_CHAIN_BUFFERED,
	};
	int status = verb_parse(&verb, argc, argv, &q);

	if (status < 0)
		status = table_line_name(&q.a, argv[optind]) ||
					 table_line_name(&q.b, argv[optind + 1])
				 ? EXIT_OPEN
				 : run(&q);
	table_line_exit(&q.a);
	table_line_exit(&q.b);
	return status;
}
