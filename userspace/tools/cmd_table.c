// SPDX-License-Identifier: GPL-2.0-only
/* qcow table IMAGE: the line that dmsetup create --table takes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/cmd.h"
#include "tools/words.h"

static const char usage_text[] =
	"Usage: qcow table IMAGE [OPTION]...\n"
	"Prints the device-mapper table of IMAGE, after a check that its chain opens:\n"
	"    dmsetup create NAME --readonly --table \"$(qcow table IMAGE)\"\n"
	"\n" WORD_CHAIN_HELP
	"  --helper-timeout SECONDS, --map-budget KIB, --cache-budget KIB, --sector-size SIZE,\n"
	"  --drop-bitmaps           as for qcow open\n";

enum {
	OPT_HELP = WORD_OPT_END
};

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	WORD_DEVICE_OPTIONS,
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
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

/* -1 to go on, or an exit status. */
static int parse(int argc, char **argv, struct table_line *line)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (!word_is(opt) || word_add(line, opt, optarg))
			return 1;
	}
	if (argc - optind != 1) {
		fputs(usage_text, stderr);
		return 1;
	}
	return table_line_set_image(line, argv[optind]) ? 1 : -1;
}

int cmd_table(int argc, char **argv)
{
	__attribute__((cleanup(table_line_exit))) struct table_line line = { 0 };
	int status = parse(argc, argv, &line);

	return status >= 0 ? status : print_table(&line);
}
