/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The verbs of the command line. Each gets its own arguments with argv[0] = "qcow",
 * so that getopt's messages look like ours, and returns the exit status. Errors are
 * one line on stderr, "qcow: ...".
 */
#ifndef QCOW_TOOLS_CMD_H
#define QCOW_TOOLS_CMD_H

int cmd_open(int argc, char **argv);
int cmd_close(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_table(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_map(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_resize(int argc, char **argv);
int cmd_amend(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_measure(int argc, char **argv);
int cmd_rebase(int argc, char **argv);
int cmd_commit(int argc, char **argv);
int cmd_bitmap(int argc, char **argv);

#endif
