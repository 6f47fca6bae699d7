// SPDX-License-Identifier: GPL-2.0-only
/* Table and status lines: written, taken apart, and back. */
#include "tools/status.h"
#include "tools/table.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void test_status(void **state)
{
	struct status s;

	(void)state;
	assert_int_equal(status_parse(&s, "RO attached open 2 reads 17 map_bytes 4096"), 0);
	assert_string_equal(s.mode, "RO");
	assert_string_equal(s.helper, "attached");
	assert_string_equal(s.image, "open");
	assert_int_equal(s.nr_pairs, 2);
	assert_string_equal(s.pairs[1].key, "map_bytes");
	assert_string_equal(s.pairs[1].value, "4096");
	status_exit(&s);
	assert_int_equal(status_parse(&s, "FAIL none closed 0"), 0);
	assert_int_equal(s.nr_pairs, 0);
	status_exit(&s);
}

/* What failed is in pairs of its own, which are no counters; blanks in words are escaped. */
static void test_failures(void **state)
{
	struct status_failure f;
	struct status s;

	(void)state;
	assert_int_equal(status_parse(&s, "RO attached open 9 errors 3 "
					  "last_op read last_errno 5 last_at dm-3 last_offset 4096 "
					  "mode_op COMMIT mode_errno 28 mode_at no\\ space "
					  "mode_offset -"),
			 0);
	assert_true(status_failure(&s, "last", &f));
	assert_string_equal(f.op, "read");
	assert_int_equal(f.error, 5);
	assert_string_equal(f.at, "dm-3");
	assert_string_equal(f.offset, "4096");
	assert_true(status_failure(&s, "mode", &f));
	assert_string_equal(f.op, "COMMIT");
	assert_int_equal(f.error, 28);
	assert_string_equal(f.at, "no space");
	assert_null(f.offset);
	for (size_t i = 0; i < s.nr_pairs; i++)
		assert_int_equal(status_is_counter(&s.pairs[i]), i == 0);
	status_exit(&s);
	assert_int_equal(status_parse(&s, "RW attached open 1 errors 0"), 0);
	assert_false(status_failure(&s, "last", &f));
	assert_false(status_failure(&s, "mode", &f));
	status_exit(&s);
}

static void test_malformed_status(void **state)
{
	static const char *const lines[] = {
		"",
		"Fail",
		"RO attached open",
		"RO attached open x",
		"RO attached open 1",
		"RO attached open 1 reads",
		"RO attached open 1 reads 1 writes 2",
		"RO attached open -1 reads 1",
		"RO attached open 9223372036854775809 reads 1",
		"RO attached open 99999999999999999999 reads 1",
	};
	struct status s;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_int_equal(status_parse(&s, lines[i]), -EINVAL);
}

static void test_table_round_trip(void **state)
{
	struct table_line line = { 0 };
	struct table_words words;
	char *params;

	(void)state;
	assert_int_equal(table_line_set_image(&line, "/images/a.qcow2"), 0);
	assert_int_equal(table_line_add(&line, "no_backing", NULL, 0), 0);
	assert_int_equal(table_line_add(&line, "backing_dir", "/x", 1), 0);
	params = table_line_params(&line);
	assert_string_equal(params, "/images/a.qcow2 2 no_backing backing_dir:/x");
	assert_int_equal(table_words_parse(&words, params), 0);
	assert_int_equal(words.nr, 3);
	assert_string_equal(words.words[0], "/images/a.qcow2");
	assert_string_equal(words.words[2], "backing_dir:/x");
	table_words_exit(&words);
	free(params);
	table_line_exit(&line);
}

static void test_words_that_cannot_be_passed(void **state)
{
	static const char *const names[] = { "/a b", "/a\tb", "/a\nb", "/a\\b" };
	struct table_line line;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		memset(&line, 0, sizeof(line));
		assert_int_equal(table_line_set_image(&line, names[i]), 0);
		assert_null(table_line_params(&line));
		table_line_exit(&line);
		assert_int_equal(table_line_set_image(&line, "/a"), 0);
		assert_int_equal(table_line_add(&line, "backing", names[i], 1), 0);
		assert_null(table_line_params(&line));
		table_line_exit(&line);
	}
}

/* As the kernel prints what dmsetup or another program brought past libdevmapper. */
static void test_escaped_table(void **state)
{
	struct table_words words;

	(void)state;
	assert_int_equal(table_words_parse(&words, "/a\\ b\\\\c 1 x:\\ y"), 0);
	assert_int_equal(words.nr, 2);
	assert_string_equal(words.words[0], "/a b\\c");
	assert_string_equal(words.words[1], "x: y");
	table_words_exit(&words);
}

static void test_relative_paths(void **state)
{
	struct table_line line = { 0 };
	char want[4200];
	char *params;

	(void)state;
	assert_int_equal(chdir("/tmp"), 0);
	assert_int_equal(table_line_set_image(&line, "x/../a.qcow2"), 0);
	assert_int_equal(table_line_add(&line, "backing", "b.qcow2", 1), 0);
	assert_int_equal(table_line_add(&line, "backing_format", "raw", 0), 0);
	params = table_line_params(&line);
	strcpy(want, "/tmp/x/../a.qcow2 2 backing:/tmp/b.qcow2 backing_format:raw");
	assert_string_equal(params, want);
	free(params);
	table_line_exit(&line);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(table_line_set_image(&line, "a.qcow2"), 0);
	params = table_line_params(&line);
	assert_string_equal(params, "/a.qcow2");
	free(params);
	table_line_exit(&line);
}

static void test_malformed_table(void **state)
{
	static const char *const lines[] = { "", "/a x", "/a 1", "/a 2 one", "/a 1 one two" };
	struct table_words words;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_int_equal(table_words_parse(&words, lines[i]), -EINVAL);
	assert_int_equal(table_words_parse(&words, "/a"), 0);
	assert_int_equal(words.nr, 1);
	table_words_exit(&words);
	assert_int_equal(table_words_parse(&words, "/a 0"), 0);
	assert_int_equal(words.nr, 1);
	table_words_exit(&words);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_malformed_status),
		cmocka_unit_test(test_table_round_trip),
		cmocka_unit_test(test_words_that_cannot_be_passed),
		cmocka_unit_test(test_escaped_table),
		cmocka_unit_test(test_relative_paths),
		cmocka_unit_test(test_malformed_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
