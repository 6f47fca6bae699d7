// SPDX-License-Identifier: GPL-2.0-only
/* qcow table IMAGE: the line that dmsetup create --table takes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/cmd.h"
#include "tools/verb.h"
#include "tools/words.h"

static const char usage_text[] =
	"Usage: qcow table IMAGE [OPTION]...\n"
	"Prints the device-mapper table of IMAGE, after a check that its chain opens:\n"
	"    dmsetup create NAME --readonly --table \"$(qcow table IMAGE)\"\n"
	"\n" WORD_CHAIN_HELP
	"  --helper-timeout SECONDS, --map-budget KIB, --cache-budget KIB, --sector-size SIZE,\n"
	"  --drop-bitmaps, --no-space-timeout SECONDS, --low-water MIB, --keep-discarded,\n"
	"  --no-discard-passdown    as for qcow open\n";

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

static const struct verb verb = { usage_text, NULL, options, take, 1, 1, 0 };

int cmd_table(int argc, char **argv)
{
	__attribute__((cleanup(table_line_exit))) struct table_line line = { 0 };
	int status = verb_parse(&verb, argc, argv, &line);

	if (status >= 0)
		return status;
	return table_line_set_image(&line, argv[optind]) ? 1 : print_table(&line);
}
