// SPDX-License-Identifier: GPL-2.0-only
/* qcow measure: how much space a new image would need, in the fields of qemu-img measure. */
#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <stdio.h>
#include <string.h>

#include "lib/measure.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/info.h"
#include "tools/size.h"
#include "tools/verb.h"
#include "tools/words.h"

enum {
	OPT_SIZE = WORD_OPT_END,
};

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	{ "size", required_argument, NULL, OPT_SIZE },
	VERB_JSON_OPTIONS,
	{ "format", required_argument, NULL, 'f' },
	{ "target-format", required_argument, NULL, 'O' },
	{ "force-share", no_argument, NULL, 'U' },
	VERB_END_OPTIONS,
};

struct request {
	struct table_line line;
	enum host_format from, to;
	struct create_options o;
	unsigned int flags;
	bool has_size, json;
};

static int take(void *request, int opt)
{
	struct request *q = request;

	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	switch (opt) {
	case OPT_SIZE:
		q->has_size = true;
		return size_parse(optarg, &q->o.p.size) < 0 ? verb_complain("--size", optarg) : 0;
	case VERB_JSON:
	case VERB_OUTPUT:
		return verb_take_output(opt, &q->json);
	case 'f':
		return word_take_format("--format", optarg, &q->from);
	case 'O':
		return word_take_format("--target-format", optarg, &q->to);
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

static const struct verb verb = { help_measure, "f:O:o:l:U", options, take, 0, 1, 0 };

/* Bitmaps can be kept by a version 3 image, from one. */
static bool shows_bitmaps(const struct request *q, struct qcow_chain *src)
{
	const struct qcow_image *img = src ? qcow_chain_layer_image(src, 0) : NULL;

	return img && qcow_image_header(img)->version >= 3 && q->to == HOST_FORMAT_QCOW2 &&
	       q->o.p.version >= 3;
}

static void print_size(const char *what, uint64_t bytes)
{
	char text[32];

	info_size_text(bytes, text, sizeof(text));
	printf("%s: %" PRIu64 " (%s)\n", what, bytes, text);
}

static void print(const struct request *q, const struct qcow_measure *m, bool bitmaps)
{
	json_object *o;

	if (!q->json) {
		print_size("required size", m->required);
		print_size("fully allocated size", m->full);
		if (bitmaps)
			print_size("bitmaps size", m->bitmaps);
		return;
	}
	o = json_object_new_object();
	if (bitmaps)
		json_object_object_add(o, "bitmaps", json_object_new_uint64(m->bitmaps));
	json_object_object_add(o, "required", json_object_new_uint64(m->required));
	json_object_object_add(o, "fully-allocated", json_object_new_uint64(m->full));
	verb_print_json(o);
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
	int status = verb_parse(&verb, argc, argv, &q);

	if (status < 0 && (argc - optind != !q.has_size || q.o.has_size))
		status = verb_usage(&verb);
	if (status < 0 && !q.has_size)
		status = table_line_name(&q.line, argv[optind]) ||
					 word_open_disk(&q.line, q.from, q.flags, &hc)
				 ? 1
				 : -1;
	if (status < 0)
		status = measure(&q, hc ? host_chain_lib(hc) : NULL);
	host_chain_close(hc);
	table_line_exit(&q.line);
	return status;
}
