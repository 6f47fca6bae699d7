/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Another backing file. First the image gets all that the new one does not show: the
 * guest sees the same before and after, and with either file. Then one write of the
 * header's first sector changes the name.
 */
#ifndef QCOW_LIB_REBASE_H
#define QCOW_LIB_REBASE_H

#include "lib/chain.h"
#include "lib/error.h"
#include "lib/watch.h"
#include "lib/writer.h"

struct qcow_rebase {
	struct qcow_chain *old;	   /* the image with what it has now; its own qcow_io */
	struct qcow_chain *new;	   /* the new backing file; NULL = none */
	struct qcow_io *data;	   /* the image's data file, for writing; NULL without one */
	const char *name, *format; /* recorded; NULL = none */
	bool unsafe;		   /* the name only: old, new and data are not looked at */
	/*
	 * Do both ranges lie at the same place of the same file, so that they need not be
	 * read? The layers of the two chains are the caller's. NULL: nobody knows.
	 */
	bool (*same)(void *arg, const struct qcow_extent *old, const struct qcow_extent *new);
	void *arg;		 /* of same */
	struct qcow_watch watch; /* cancelled before the name is changed: then nothing has */
};

/* The writer is then only good for destroy. -ENOSPC: no room for data, or in the header for the
 * name. */
int qcow_rebase(struct qcow_writer *w, const struct qcow_rebase *p, struct qcow_error *err);

#endif
