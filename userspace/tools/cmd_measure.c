// SPDX-License-Identifier: GPL-2.0-only
/* qcow measure: how much space a new image would need, in the fields of qemu-img measure. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <json.h>
#include <stdio.h>
#include <string.h>

#include "lib/measure.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/size.h"
#include "tools/words.h"

static const char usage_text[] =
	"Usage: qcow measure [-O FORMAT] [-o NAME=VALUE[,...]] --size SIZE\n"
	"       qcow measure [-O FORMAT] [-o ...] [-f FORMAT] [OPTION]... IMAGE\n"
	"Says how many bytes a new image would need: empty, or for what IMAGE shows.\n"
	"\n"
	"  --size SIZE              of the new disk: bytes, or K M G T P E\n"
	"  -f, --format FORMAT      of IMAGE: qcow2 (default) or raw; never guessed\n"
	"  -O, --target-format F    of the new image: raw (default) or qcow2\n"
	"  -o NAME=VALUE[,...]      as for qcow create\n"
	"  -l ID_OR_NAME            an internal snapshot of IMAGE\n"
	"  --json                   the fields of qemu-img measure\n"
	"  --output human|json      the same choice, spelled as for qemu-img\n"
	"  -U, --force-share        even while a writer has IMAGE open\n" WORD_CHAIN_HELP;

enum {
	OPT_SIZE = WORD_OPT_END,
	OPT_JSON,
	OPT_OUTPUT,
	OPT_HELP
};

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "output", required_argument, NULL, OPT_OUTPUT },
	{ "format", required_argument, NULL, 'f' },
	{ "target-format", required_argument, NULL, 'O' },
	{ "force-share", no_argument, NULL, 'U' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

struct request {
	struct table_line line;
	enum host_format from, to;
	struct create_options o;
	unsigned int flags;
	bool has_size, json;
};

static int parse_format(const char *name, enum host_format *format)
{
	*format = host_format_parse(optarg);
	return *format == HOST_FORMAT_UNKNOWN ? create_options_complain(name, optarg) : 0;
}

static int parse_size(struct request *q)
{
	q->has_size = true;
	return size_parse(optarg, &q->o.p.size) < 0 ? create_options_complain("--size", optarg) : 0;
}

static int parse_output(struct request *q)
{
	q->json = !strcmp(optarg, "json");
	return q->json || !strcmp(optarg, "human") ? 0
						   : create_options_complain("--output", optarg);
}

static int parse_one(struct request *q, int opt)
{
	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	switch (opt) {
	case OPT_SIZE:
		return parse_size(q);
	case OPT_JSON:
		q->json = true;
		return 0;
	case OPT_OUTPUT:
		return parse_output(q);
	case 'f':
		return parse_format("--format", &q->from);
	case 'O':
		return parse_format("--target-format", &q->to);
	case 'o':
		return create_options_parse(&q->o, optarg);
	case 'l':
		return table_line_add(&q->line, "snapshot", optarg, 0);
	case 'U':
		q->flags &= ~(unsigned int)HOST_CHAIN_LOCK;
		return 0;
	}
	return -EINVAL;
}

/* -1 to go on, or an exit status. */
static int parse(int argc, char **argv, struct request *q)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "f:O:o:l:U", options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (parse_one(q, opt))
			return 1;
	}
	if (argc - optind != (q->has_size ? 0 : 1) || q->o.has_size) {
		fputs(usage_text, stderr);
		return 1;
	}
	if (!q->has_size)
		q->line.image = strdup(argv[optind]);
	return q->has_size || q->line.image ? -1 : 1;
}

/* Bitmaps can be kept by a version 3 image, from one. */
static bool shows_bitmaps(const struct request *q, struct qcow_chain *src)
{
	const struct qcow_image *img = src ? qcow_chain_layer_image(src, 0) : NULL;

	return img && qcow_image_header(img)->version >= 3 && q->to == HOST_FORMAT_QCOW2 &&
	       q->o.p.version >= 3;
}

static void print(const struct request *q, const struct qcow_measure *m, bool bitmaps)
{
	json_object *o;

	if (!q->json) {
		printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n",
		       m->required, m->full);
		if (bitmaps)
			printf("bitmaps size: %" PRIu64 "\n", m->bitmaps);
		return;
	}
	o = json_object_new_object();
	if (bitmaps)
		json_object_object_add(o, "bitmaps", json_object_new_uint64(m->bitmaps));
	json_object_object_add(o, "required", json_object_new_uint64(m->required));
	json_object_object_add(o, "fully-allocated", json_object_new_uint64(m->full));
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
}

static int measure(struct request *q, struct qcow_chain *src)
{
	struct qcow_error err = { 0 };
	struct qcow_measure m;
	int r = 0;

	if (src)
		q->o.p.size = qcow_chain_size(src);
	if (q->to == HOST_FORMAT_RAW) {
		m.required = m.full = (q->o.p.size + 511) & ~511ull;
	} else {
		r = qcow_measure(&q->o.p, src, &m, &err);
	}
	if (r < 0) {
		fprintf(stderr, "qcow: %s\n", err.text);
		return 1;
	}
	print(q, &m, shows_bitmaps(q, src));
	return 0;
}

int cmd_measure(int argc, char **argv)
{
	struct request q = {
		.from = HOST_FORMAT_QCOW2,
		.to = HOST_FORMAT_RAW,
		.o = CREATE_OPTIONS_DEFAULT,
		.flags = HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK | HOST_CHAIN_BUFFERED,
	};
	struct host_chain *hc = NULL;
	int status = parse(argc, argv, &q);

	if (status < 0 && !q.has_size)
		status = word_open_disk(&q.line, q.from, q.flags, &hc) < 0 ? 1 : -1;
	if (status < 0)
		status = measure(&q, hc ? host_chain_lib(hc) : NULL);
	host_chain_close(hc);
	table_line_exit(&q.line);
	return status;
}
