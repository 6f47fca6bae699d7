// SPDX-License-Identifier: GPL-2.0-only
/* qcow resize IMAGE SIZE: a bigger or smaller disk, with the options of qemu-img resize. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/resize.h"
#include "tools/cmd.h"
#include "tools/imagefile.h"
#include "tools/size.h"
#include "tools/words.h"

static const char usage_text[] =
	"Usage: qcow resize IMAGE [+|-]SIZE [--shrink] [OPTION]...\n"
	"Makes the disk of an image SIZE big, or by SIZE bigger or smaller. SIZE may have a unit:\n"
	"K M G T P E. What is new reads as zeros. Whatever fails leaves the image as it was.\n"
	"\n"
	"  --shrink                 a smaller disk is wanted, though data at its end is lost\n"
	"  --preallocation MODE     of what is new: off, metadata, falloc or full\n"
	"  -q, --quiet              do not say that it is done\n" WORD_FILE_HELP;

enum {
	OPT_SHRINK = WORD_OPT_END,
	OPT_PREALLOC,
	OPT_HELP
};

static const struct option options[] = {
	WORD_FILE_OPTIONS,
	{ "shrink", no_argument, NULL, OPT_SHRINK },
	{ "preallocation", required_argument, NULL, OPT_PREALLOC },
	{ "format", required_argument, NULL, 'f' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

struct request {
	struct table_line line;
	struct qcow_resize_params p;
	const char *size; /* as written */
	bool shrink, quiet;
};

static int wrong(const char *what, const char *arg)
{
	fprintf(stderr, "qcow: %s, not '%s'\n", what, arg);
	return -EINVAL;
}

static int parse_prealloc(struct request *q, const char *arg)
{
	static const char *const words[] = { "off", "metadata", "falloc", "full" };
	unsigned int i;

	for (i = 0; i < 4; i++) {
		if (strcmp(arg, words[i]))
			continue;
		q->p.prealloc = (enum qcow_prealloc)i;
		return 0;
	}
	return wrong("--preallocation is off, metadata, falloc or full", arg);
}

static int parse_one(struct request *q, int opt)
{
	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	switch (opt) {
	case OPT_SHRINK:
		q->shrink = true;
		return 0;
	case OPT_PREALLOC:
		return parse_prealloc(q, optarg);
	case 'f':
		return strcmp(optarg, "qcow2") ? wrong("--format is qcow2", optarg) : 0;
	case 'q':
		q->quiet = true;
		return 0;
	}
	return -EINVAL;
}

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
	uint64_t n;

	if (size_parse(q->size + relative, &n) < 0)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "'%s' is no size", q->size);
	if (q->size[0] == '+')
		n = n > UINT64_MAX - old ? UINT64_MAX : old + n;
	else if (q->size[0] == '-')
		n = n < old ? old - n : 0;
	if (n < old && !q->shrink)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "the disk has %" PRIu64 " bytes; what is behind the first %" PRIu64
				 " would be lost; to do that give --shrink",
				 old, n);
	q->p.size = n;
	return 0;
}

/* The chain is only read, and what it reads is not changed: it takes no locks. */
static int resize_in_chain(struct request *q, struct image_edit *e, struct host_chain *hc,
			   struct qcow_error *err)
{
	struct qcow_chain *chain = host_chain_lib(hc);
	size_t base = qcow_chain_data_layer(chain) + 1;
	struct image_file data = { 0 };
	const struct qcow_image *img;
	int r = 0;

	q->p.chain = chain;
	if (base < host_chain_nr_layers(hc)) {
		img = qcow_chain_layer_image(chain, base);
		q->p.backing_size = img ? qcow_image_size(img) : host_chain_layer(hc, base)->size;
	}
	if (base > 1)
		r = image_file_open(&data, host_chain_layer(hc, 1)->path, true, false, err);
	q->p.data = data.io;
	if (!r)
		r = find_size(q, qcow_writer_header(e->w)->size, err);
	if (!r)
		r = qcow_resize(e->w, &q->p, err);
	image_file_close(&data);
	return r;
}

static int resize(struct request *q)
{
	struct qcow_writer_params params = { .keep_bitmaps = true };
	struct qcow_error err = { 0 };
	struct image_edit e = { 0 };
	struct host_chain *hc;
	int r = image_edit_open(&e, q->line.image, &params, &err);

	if (!r) {
		if (word_open_chain(&q->line, HOST_CHAIN_BUFFERED_OK, &hc) < 0) {
			image_edit_close(&e);
			return 1;
		}
		r = resize_in_chain(q, &e, hc, &err);
		host_chain_close(hc);
	}
	image_edit_close(&e);
	if (r < 0)
		fprintf(stderr, "qcow: %s: %s\n", q->line.image, err.text);
	else if (!q->quiet)
		puts("Image resized.");
	return r < 0 ? 1 : 0;
}

int cmd_resize(int argc, char **argv)
{
	struct request q = { .size = take_size(&argc, argv) };
	int opt, status = -1;

	while (status < 0 && (opt = getopt_long(argc, argv, "f:q", options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			status = 0;
		} else if (parse_one(&q, opt)) {
			status = 1;
		}
	}
	if (status < 0 && (!q.size || argc - optind != 1)) {
		fputs(usage_text, stderr);
		status = 1;
	}
	if (status < 0) {
		q.line.image = strdup(argv[optind]);
		status = q.line.image ? resize(&q) : 1;
	}
	table_line_exit(&q.line);
	return status;
}
