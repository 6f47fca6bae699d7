/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a guest may see of an image in memory: its disk, and the disk of each snapshot.
 * A verb that changes metadata is run on a disk that loses power at every point
 * (memio.h), and on one where every write fails: what is seen is then the old or the
 * new, and the image is sound.
 */
#ifndef TESTS_VERBS_H
#define TESTS_VERBS_H

#include "lib/writer.h"
#include "memio.h"
#include "workdir.h"

/* Hash of the backing file's name, of sizes and contents of the active state, snapshots and
 * bitmaps. */
uint64_t verb_view(struct memio *m);

struct verb_case {
	/* Negative errno as the library says. */
	int (*run)(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err);
	void *arg;
	bool leaks_ok;		 /* after a crash; never after a success */
	unsigned int qemu_every; /* that many crashed disks are shown to qemu-img check; 0 = none */
	struct qcow_io *base;	 /* raw backing file, or NULL */
};

/* For run: opens the image, and a writer that keeps bitmaps; @act is what the verb does. */
int verb_write(struct memio *m, uint32_t drop,
	       int (*act)(struct qcow_writer *w, void *arg, struct qcow_error *err), void *arg,
	       struct qcow_error *err);

/* The image in @m is as the verb leaves it. */
void verb_crash(struct memio *m, const struct verb_case *v, unsigned int tries);
/* @commands make the image, as for work_image(). */
void verb_faults(const char *commands, const struct verb_case *v);
/* With each one of the barriers dropped, a crash is noticed. */
void verb_barriers(const char *commands, const struct verb_case *v,
		   const enum qcow_barrier *barriers, size_t nr);

/* A raw file full of 0x55. */
struct memio *verb_raw(uint64_t size);

#endif
