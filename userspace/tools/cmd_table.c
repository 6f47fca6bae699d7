// SPDX-License-Identifier: GPL-2.0-only
/* qcow table IMAGE: the line that dmsetup create --table takes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "man/help.h"
#include "tools/cmd.h"
#include "tools/verb.h"
#include "tools/words.h"

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	WORD_DEVICE_OPTIONS,
	VERB_END_OPTIONS,
};

static int print_table(const struct table_line *line)
{
	struct host_chain *hc;
	uint64_t size;
	char *params;

	if (word_open_chain(line, 0, &hc) < 0)
		return 1;
	size = qcow_chain_size(host_chain_lib(hc));
	host_chain_close(hc);
	if (!size) {
		fprintf(stderr, "qcow: %s: its disk is empty, and a device cannot be\n",
			line->image);
		return 1;
	}
	params = table_line_params(line);
	if (params)
		printf("0 %" PRIu64 " qcow %s\n", size / 512, params);
	free(params);
	return params ? 0 : 1;
}

static int take(void *line, int opt)
{
	return word_add(line, opt, optarg);
}

static const struct verb verb = { help_table, NULL, options, take, 1, 1, 0 };

int cmd_table(int argc, char **argv)
{
	__attribute__((cleanup(table_line_exit))) struct table_line line = { 0 };
	int status = verb_parse(&verb, argc, argv, &line);

	if (status >= 0)
		return status;
	return table_line_set_image(&line, argv[optind]) ? 1 : print_table(&line);
}
