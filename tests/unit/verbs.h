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

/* Hash of sizes and contents, of the active state, all snapshots and bitmaps, names included. */
uint64_t verb_view(struct memio *m);

struct verb_case {
	/* Negative errno as the library says. */
	int (*run)(struct memio *m, uint32_t drop, void *arg, struct qcow_error *err);
	void *arg;
	bool leaks_ok;		 /* after a crash; never after a success */
	unsigned int qemu_every; /* that many crashed disks are shown to qemu-img check; 0 = none */
	const char *dir;	 /* for those */
	struct qcow_io *base;	 /* raw backing file, or NULL */
};

/* An image made by shell commands, $1 its path in @dir. */
struct memio *verb_make(const char *dir, const char *commands);
/* The two tests; the image in @m is as the verb leaves it after the first. */
void verb_crash(struct memio *m, const struct verb_case *v, unsigned int tries);
void verb_faults(const char *dir, const char *commands, const struct verb_case *v);
/* True if a crash with these barriers dropped is noticed. */
bool verb_notices(struct memio *m, const struct verb_case *v, uint32_t drop);
/* As qemu-img check: exit status. */
int verb_qemu_check(const struct memio *m, const char *dir);

#endif
