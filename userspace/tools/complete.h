/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What may stand in place of the last word of a command line, read out of the texts of --help: so
 * the shells' completion knows no verb, option or value of its own.
 */
#ifndef QCOW_TOOLS_COMPLETE_H
#define QCOW_TOOLS_COMPLETE_H

/*
 * qcow --complete WORD...: the words after "qcow", the last one as far as it was typed. Prints a
 * line for each candidate, whether or not it begins like that word: the word, and behind a tab what
 * it means, if that is known. What ends in '=' goes on. ":files" and ":dirs" stand for names of
 * such. The exit status.
 */
int complete_run(int nr_words, char **words);

#endif
