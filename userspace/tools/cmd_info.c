// SPDX-License-Identifier: GPL-2.0-only
/* qcow info IMAGE: what an image is, in the words and fields of qemu-img info. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "man/help.h"
#include "tools/cmd.h"
#include "tools/info.h"
#include "tools/verb.h"
#include "tools/words.h"

enum {
	OPT_CHAIN = WORD_OPT_END,
};

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	VERB_JSON_OPTIONS,
	{ "backing-chain", no_argument, NULL, OPT_CHAIN },
	{ "force-share", no_argument, NULL, 'U' },
	VERB_END_OPTIONS,
};

struct request {
	struct table_line line;
	unsigned int flags;
	bool json, chain;
};

static int take(void *request, int opt)
{
	struct request *q = request;

	if (word_is(opt))
		return word_add(&q->line, opt, optarg);
	switch (opt) {
	case VERB_JSON:
	case VERB_OUTPUT:
		return verb_take_output(opt, &q->json);
	case OPT_CHAIN:
		q->chain = true;
		return 0;
	case 'U':
		q->flags &= ~(unsigned int)HOST_CHAIN_LOCK;
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_info, "U", options, take, 1, 1, 0 };

static int show(const struct request *q)
{
	struct qcow_error err = { 0 };
	struct host_chain *hc;
	int r;

	if (word_open_chain(&q->line, q->flags | (q->chain ? HOST_CHAIN_INFO : HOST_CHAIN_ONE),
			    &hc) < 0)
		return 1;
	r = q->json ? info_print_json(hc, q->chain, &err) : info_print_human(hc, &err);
	if (r < 0)
		fprintf(stderr, "qcow: %s\n", err.text);
	host_chain_close(hc);
	return r < 0 ? 1 : 0;
}

int cmd_info(int argc, char **argv)
{
	struct request q = { .flags = HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK };
	int status = verb_parse(&verb, argc, argv, &q);

	if (status < 0)
		status = table_line_name(&q.line, argv[optind]) ? 1 : show(&q);
	table_line_exit(&q.line);
	return status;
}
