// SPDX-License-Identifier: GPL-2.0-only
/* qcow resize IMAGE SIZE: a bigger or smaller disk, with the options of qemu-img resize. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/resize.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/imagefile.h"
#include "tools/info.h"
#include "tools/size.h"
#include "tools/verb.h"
#include "tools/words.h"

enum {
	OPT_SHRINK = WORD_OPT_END,
	OPT_PREALLOC,
};

static const struct option options[] = {
	WORD_FILE_OPTIONS,
	{ "shrink", no_argument, NULL, OPT_SHRINK },
	{ "preallocation", required_argument, NULL, OPT_PREALLOC },
	{ "format", required_argument, NULL, 'f' },
	{ "quiet", no_argument, NULL, 'q' },
	VERB_END_OPTIONS,
};

struct request {
	struct table_line line;
	struct qcow_resize_params p;
	const char *size; /* as written */
	bool shrink, quiet;
};

static int take(void *request, int opt)
{
	struct request *q = request;

	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	switch (opt) {
	case OPT_SHRINK:
		q->shrink = true;
		return 0;
	case OPT_PREALLOC:
		if (create_options_prealloc(optarg, &q->p.prealloc))
			return verb_complain("--preallocation", optarg);
		return 0;
	case 'f':
		return verb_take_qcow2(optarg);
	case 'q':
		q->quiet = true;
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_resize, "f:q", options, take, 1, 1, 0 };

/* Before getopt sees it: "-1G" is a size. */
static const char *take_size(int *argc, char **argv)
{
	const char *word;
	int i;

	for (i = *argc - 1; i > 1; i--) {
		word = argv[i];
		if (!strchr("+-", word[0]) && (word[0] < '0' || word[0] > '9'))
			continue;
		if (strchr("+-", word[0]) && (word[1] < '0' || word[1] > '9'))
			continue;
		memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof(*argv));
		--*argc;
		return word;
	}
	return NULL;
}

static int find_size(struct request *q, uint64_t old, struct qcow_error *err)
{
	bool relative = strchr("+-", q->size[0]);
	char had[32], wanted[32];
	uint64_t n;

	if (size_parse(q->size + relative, &n) < 0)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "'%s' is no size", q->size);
	if (q->size[0] == '+')
		n = n > UINT64_MAX - old ? UINT64_MAX : old + n;
	else if (q->size[0] == '-')
		n = n < old ? old - n : 0;
	q->p.size = n;
	if (n >= old || q->shrink)
		return 0;
	info_size_text(old, had, sizeof(had));
	info_size_text(n, wanted, sizeof(wanted));
	return qcow_fail(err, EINVAL, QCOW_NO_OFF,
			 "the disk has %s (%" PRIu64
			 " bytes); what is behind the first %s (%" PRIu64
			 ") would be lost; to do that give --shrink",
			 had, old, wanted, n);
}

static int resize(struct request *q, struct qcow_error *err)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	struct image_edit e = { 0 };
	struct host_chain *hc = NULL;
	int r = image_edit_open(&e, q->line.image, &params, err);

	/* The chain is only read, and what it reads is not changed: it takes no locks. */
	if (!r)
		r = word_open_chain(&q->line, HOST_CHAIN_BUFFERED_OK, &hc);
	if (!r)
		r = image_file_is_layer(&e.f, host_chain_layer(hc, 0), err);
	if (!r)
		r = find_size(q, qcow_writer_header(e.w)->size, err);
	if (!r)
		r = image_edit_resize(&e, hc, &q->p, err);
	host_chain_close(hc);
	image_edit_close(&e);
	if (!r && !q->quiet)
		puts("Image resized.");
	return r;
}

int cmd_resize(int argc, char **argv)
{
	struct request q = { .size = take_size(&argc, argv) };
	struct qcow_error err = { 0 };
	int status = verb_parse(&verb, argc, argv, &q);

	if (status < 0 && !q.size)
		status = verb_usage(&verb);
	if (status < 0)
		status = table_line_name(&q.line, argv[optind]) ? 1 : -1;
	if (status < 0)
		status = verb_report(argv[optind], resize(&q, &err), &err);
	table_line_exit(&q.line);
	return status;
}
