// SPDX-License-Identifier: GPL-2.0-only
/*
 * Replays what is in tests/fuzz/regress, a folder for each target: inputs that once
 * crashed, hung or contradicted themselves. Run from the top folder.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../fuzz/fuzz.h"

#define FOLDER "tests/fuzz/regress"

struct target {
	const char *name;
	int (*run)(const uint8_t *data, size_t size);
};

static void replay(const struct target *t, const char *path)
{
	FILE *f = fopen(path, "r");
	uint8_t *data;
	long size;

	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	size = ftell(f);
	rewind(f);
	/* Of exactly this size: a read past the end shows. */
	data = malloc((size_t)size + !size);
	assert_non_null(data);
	assert_int_equal(fread(data, 1, (size_t)size, f), size);
	fclose(f);
	print_message("%s\n", path);
	t->run(data, (size_t)size);
	free(data);
}

static void test_target(void **state)
{
	const struct target *t = *state;
	char path[512];
	struct dirent *e;
	DIR *d;

	/* The emptiest input of all is always tried. */
	t->run((const uint8_t *)"", 0);
	snprintf(path, sizeof(path), FOLDER "/%s", t->name);
	d = opendir(path);
	while (d && (e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), FOLDER "/%s/%s", t->name, e->d_name);
		replay(t, path);
	}
	if (d)
		closedir(d);
}

#define TARGET(name)                                             \
	{                                                        \
#name, test_target, NULL, NULL, &(struct target) \
		{                                                \
#name, fuzz_##name                       \
		}                                                \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TARGET(header), TARGET(snapshots), TARGET(bitmaps), TARGET(chain),
		TARGET(writer), TARGET(codec),	   TARGET(netlink), TARGET(options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
