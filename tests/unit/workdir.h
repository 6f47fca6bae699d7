/* SPDX-License-Identifier: GPL-2.0-only */
/* A folder of the test's own: where qemu-img makes and checks images for it. */
#ifndef TESTS_WORKDIR_H
#define TESTS_WORKDIR_H

#include "memio.h"

extern char work_dir[64];

/* For cmocka_run_group_tests. */
int work_dir_make(void **state);
int work_dir_remove(void **state);

/* The image that shell commands made in the folder, $1 its path. Fails the test if they fail. */
struct memio *work_image(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* `qemu-img create` with @options, of @size, and more commands ("" = none). */
struct memio *work_create(const char *options, const char *size, const char *more);
/* Exit status of qemu-img check. */
int work_qemu_check(const struct memio *m);

#endif
