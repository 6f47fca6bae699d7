// SPDX-License-Identifier: GPL-2.0-only
#include "workdir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

char work_dir[64];

int work_dir_make(void **state)
{
	(void)state;
	strcpy(work_dir, "/tmp/qcow-unit-XXXXXX");
	return mkdtemp(work_dir) ? 0 : -1;
}

int work_dir_remove(void **state)
{
	char cmd[100];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", work_dir);
	return system(cmd);
}

struct memio *work_image(const char *fmt, ...)
{
	char commands[2000], cmd[2200], path[80];
	va_list args;

	va_start(args, fmt);
	vsnprintf(commands, sizeof(commands), fmt, args);
	va_end(args);
	snprintf(path, sizeof(path), "%s/i.qcow2", work_dir);
	snprintf(cmd, sizeof(cmd), "cd %s && set -e; set -- %s; rm -f $1; { %s; } >log 2>&1",
		 work_dir, path, commands);
	if (system(cmd))
		fail_msg("failed: %s", cmd);
	return memio_load(path);
}

struct memio *work_create(const char *options, const char *size, const char *more)
{
	return work_image("qemu-img create -q -f qcow2 -o %s $1 %s; %s", options, size,
			  more[0] ? more : ":");
}

int work_qemu_check(const struct memio *m)
{
	char cmd[240], path[80];
	int status;

	snprintf(path, sizeof(path), "%s/crash.qcow2", work_dir);
	memio_save(m, path);
	snprintf(cmd, sizeof(cmd), "qemu-img check -q -f qcow2 %s >%s/log 2>&1", path, work_dir);
	status = system(cmd);
	return WEXITSTATUS(status);
}
