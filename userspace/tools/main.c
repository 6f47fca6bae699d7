// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>

#include "tools/cmd.h"

struct command {
	const char *name, *args, *what;
	int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
	{ "open", "NAME IMAGE", "make an image a block device", cmd_open },
	{ "close", "NAME", "remove the device", cmd_close },
	{ "status", "[NAME]", "show devices and their helpers", cmd_status },
	{ "table", "IMAGE", "print the line dmsetup create takes", cmd_table },
	{ "info", "IMAGE", "show what an image is", cmd_info },
	{ "map", "IMAGE", "show where an image's data is", cmd_map },
	{ "create", "IMAGE SIZE", "make an empty image", cmd_create },
	{ "check", "IMAGE", "find damage and leaks, and repair them", cmd_check },
	{ "snapshot", "IMAGE", "list, make, apply or delete internal snapshots", cmd_snapshot },
	{ "resize", "IMAGE SIZE", "make the disk bigger or smaller", cmd_resize },
	{ "amend", "IMAGE", "change an image's version or refcounts", cmd_amend },
	{ "convert", "SOURCE TARGET", "copy a disk into another format", cmd_convert },
	{ "compare", "IMAGE IMAGE", "say whether two images show the same", cmd_compare },
	{ "measure", "IMAGE", "say how much space a new image would need", cmd_measure },
	{ "rebase", "IMAGE", "give an image another backing file, or none", cmd_rebase },
	{ "commit", "IMAGE", "write what an image has into its backing file", cmd_commit },
	{ "bitmap", "IMAGE NAME", "list, add, remove, change or merge bitmaps", cmd_bitmap },
};

static void print_usage(FILE *to)
{
	const struct command *c;

	fputs("Usage: qcow COMMAND [OPTION]... ARGUMENT...\n"
	      "qcow2 images as block devices, by the device mapper.\n\n",
	      to);
	for (c = commands; c < commands + sizeof(commands) / sizeof(*commands); c++)
		fprintf(to, "  %-8s %-13s %s\n", c->name, c->args, c->what);
	fputs("\nqcow COMMAND --help shows the options; qcow --version the version.\n", to);
}

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
		print_usage(stderr);
		return 1;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		print_usage(stdout);
		return finish(0);
	}
	if (!strcmp(argv[1], "--version")) {
		puts("qcow " QCOW_VERSION);
		return finish(0);
	}
	c = find_command(argv[1]);
	if (!c) {
		fprintf(stderr, "qcow: unknown command '%s'; qcow --help lists them\n", argv[1]);
		return 1;
	}
	argv[1] = self;
	return finish(c->run(argc - 1, argv + 1));
}
