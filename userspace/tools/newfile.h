/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A file that a verb makes: written under a temporary name beside the final one, which
 * it gets when it is complete. Whatever happens before, under the final name is what was
 * there. Block devices, and files that are to be kept, are written in place.
 */
#ifndef QCOW_TOOLS_NEWFILE_H
#define QCOW_TOOLS_NEWFILE_H

#include <stdbool.h>

#include "lib/error.h"
#include "lib/io.h"

struct new_file {
	char *path, *temp; /* temp NULL: in place */
	int fd, old_fd;	   /* old_fd: keeps what is replaced locked; -1 = nothing */
	struct qcow_io *io;
};

/*
 * -EBUSY while somebody uses what is there. @keep: write into the file that is there.
 * @direct: not through the page cache, which devices never are.
 */
int new_file_open(struct new_file *f, const char *path, bool keep, bool direct,
		  struct qcow_error *err);
/* @sync: the name is durable afterwards; what it names, the caller has seen to. */
int new_file_publish(struct new_file *f, bool sync, struct qcow_error *err);
/* Removes what was not published. Zeroed is fine. */
void new_file_close(struct new_file *f);

#endif
