/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What --help says, made from the manual pages by help.awk: they are the one place where options
 * are described.
 */
#ifndef QCOW_MAN_HELP_H
#define QCOW_MAN_HELP_H

extern const char help_qcow[];
extern const char help_qcowd[];

extern const char help_amend[];
extern const char help_bitmap[];
extern const char help_check[];
extern const char help_close[];
extern const char help_commit[];
extern const char help_compare[];
extern const char help_convert[];
extern const char help_create[];
extern const char help_info[];
extern const char help_map[];
extern const char help_measure[];
extern const char help_open[];
extern const char help_rebase[];
extern const char help_resize[];
extern const char help_snapshot[];
extern const char help_status[];
extern const char help_table[];

struct help {
	const char *verb, *text;
};

/* Those of the verbs above; one without a name ends them. */
extern const struct help help_verbs[];

#endif
