// SPDX-License-Identifier: GPL-2.0-only
/* qcow compare IMAGE IMAGE: do they show the same; messages and exit codes of qemu-img. */
#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/compare.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/progress.h"
#include "tools/verb.h"
#include "tools/words.h"

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
	VERB_JSON_OPTIONS,
	{ "progress", no_argument, NULL, 'p' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "force-share", no_argument, NULL, 'U' },
	VERB_END_OPTIONS,
};

struct request {
	struct table_line a, b;
	enum host_format format_a, format_b;
	unsigned int flags;
	bool strict, quiet, shown, json;
	struct progress progress;
};

static int take(void *request, int opt)
{
	struct request *q = request;

	if (word_is(opt))
		return word_add(&q->a, opt, optarg);
	switch (opt) {
	case VERB_JSON:
	case VERB_OUTPUT:
		return verb_take_output(opt, &q->json);
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

static const struct verb verb = { help_compare, "f:F:T:spqU", options, take, 2, 2, EXIT_OPEN };

/* ---- the answer ---------------------------------------------------------------------- */

struct answer {
	uint64_t sizes[2];
	const char *difference; /* NULL: none */
	uint64_t at;		/* its offset; of sizes, where the shorter disk ends */
};

static const char by_size[] = "size", by_content[] = "content", by_status[] = "block-status";

static uint64_t shorter(const struct answer *a)
{
	return a->sizes[0] < a->sizes[1] ? a->sizes[0] : a->sizes[1];
}

static void print_human(const struct answer *a)
{
	/* What lies before both ends says enough. */
	if (a->sizes[0] != a->sizes[1] && a->difference != by_size &&
	    (!a->difference || a->at >= shorter(a)))
		puts("Warning: Image size mismatch!");
	if (!a->difference)
		puts("Images are identical.");
	else if (a->difference == by_size)
		puts("Strict mode: Image size mismatch!");
	else if (a->difference == by_status)
		printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", a->at);
	else
		printf("Content mismatch at offset %" PRIu64 "!\n", a->at);
}

static void print_json(const struct answer *a)
{
	struct json_object *o = json_object_new_object(), *sizes = json_object_new_array();

	json_object_object_add(o, "identical", json_object_new_boolean(!a->difference));
	json_object_array_add(sizes, json_object_new_uint64(a->sizes[0]));
	json_object_array_add(sizes, json_object_new_uint64(a->sizes[1]));
	json_object_object_add(o, "virtual-sizes", sizes);
	if (a->difference) {
		json_object_object_add(o, "difference", json_object_new_string(a->difference));
		json_object_object_add(o, "offset", json_object_new_uint64(a->at));
	}
	verb_print_json(o);
}

static int report(const struct request *q, const struct answer *a)
{
	if (q->json)
		print_json(a);
	else if (!q->quiet)
		print_human(a);
	return a->difference ? EXIT_DIFFERENT : EXIT_SAME;
}

/* ---- the work ------------------------------------------------------------------------ */

static int compare_disks(struct request *q, struct qcow_compare *c)
{
	struct qcow_error err = { 0 };
	int r;

	progress_start(&q->progress, q->shown && !q->quiet);
	r = qcow_compare(c, &err);
	progress_end(&q->progress);
	if (r < 0)
		fprintf(stderr, "qcow: %s\n", err.text);
	return r;
}

static int compare(struct request *q, struct host_chain *a, struct host_chain *b)
{
	long nr = sysconf(_SC_NPROCESSORS_ONLN);
	struct qcow_compare c = { .a = host_chain_lib(a),
				  .b = host_chain_lib(b),
				  .strict = q->strict,
				  .nr_threads = nr > 0 ? (unsigned int)nr : 1,
				  .watch = progress_watch(&q->progress) };
	struct answer answer = { .sizes = { qcow_chain_size(c.a), qcow_chain_size(c.b) } };

	if (q->strict && answer.sizes[0] != answer.sizes[1]) {
		answer.difference = by_size;
		answer.at = shorter(&answer);
		return report(q, &answer);
	}
	if (compare_disks(q, &c) < 0)
		return EXIT_READ;
	if (c.differ) {
		answer.difference = c.only_kind ? by_status : by_content;
		answer.at = c.at;
	}
	return report(q, &answer);
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
