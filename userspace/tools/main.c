// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>

#include "man/help.h"
#include "tools/cmd.h"
#include "tools/complete.h"

struct command {
	const char *name;
	int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
	{ "open", cmd_open },	    { "close", cmd_close },	{ "status", cmd_status },
	{ "table", cmd_table },	    { "info", cmd_info },	{ "map", cmd_map },
	{ "create", cmd_create },   { "check", cmd_check },	{ "snapshot", cmd_snapshot },
	{ "resize", cmd_resize },   { "amend", cmd_amend },	{ "convert", cmd_convert },
	{ "compare", cmd_compare }, { "measure", cmd_measure }, { "rebase", cmd_rebase },
	{ "commit", cmd_commit },   { "bitmap", cmd_bitmap },
};

static const struct command *find_command(const char *name)
{
	const struct command *c;

	for (c = commands; c < commands + sizeof(commands) / sizeof(*commands); c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

/* What has been printed may not have reached its file: a full disk is a failure. */
static int finish(int status)
{
	if (fflush(stdout) || ferror(stdout)) {
		fputs("qcow: cannot write the output\n", stderr);
		return 1;
	}
	return status;
}

int main(int argc, char **argv)
{
	static char self[] = "qcow";
	const struct command *c;

	if (argc < 2) {
		fputs(help_qcow, stderr);
		return 1;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		fputs(help_qcow, stdout);
		return finish(0);
	}
	if (!strcmp(argv[1], "--version")) {
		puts("qcow " QCOW_VERSION);
		return finish(0);
	}
	if (!strcmp(argv[1], "--complete"))
		return finish(complete_run(argc - 2, argv + 2));
	c = find_command(argv[1]);
	if (!c) {
		fprintf(stderr, "qcow: unknown command '%s'; qcow --help lists them\n", argv[1]);
		return 1;
	}
	argv[1] = self;
	return finish(c->run(argc - 1, argv + 1));
}
