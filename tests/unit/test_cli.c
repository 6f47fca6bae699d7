// SPDX-License-Identifier: GPL-2.0-only
/* Runs cli_image.py on the qcow that was built beside this program: make tools unit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char program[PATH_MAX];

static void test_image_verbs(void **state)
{
	char qcow[PATH_MAX + 16], command[PATH_MAX + 64];

	(void)state;
	snprintf(qcow, sizeof(qcow), "%s/../../qcow", dirname(program));
	if (access(qcow, X_OK))
		fail_msg("no %s: make tools", qcow);
	snprintf(command, sizeof(command), "tests/unit/cli_image.py %s", qcow);
	assert_int_equal(system(command), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_image_verbs) };

	snprintf(program, sizeof(program), "%s", argc ? argv[0] : "");
	return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
