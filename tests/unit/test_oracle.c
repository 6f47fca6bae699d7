// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every image of tests/images/make.py, byte for byte against qemu-img convert:
 * through qcow_chain_read() with odd ranges from several threads, and through
 * qcow_chain_resolve() with the reads the kernel would do.
 *
 * Run from the top folder, optionally with the names of some cases.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/chain.h"

#define MAKE	   "tests/images/make.py"
#define NR_THREADS 3
#define PAGE	   512 /* blocks, as the kernel loads them */

struct subject {
	struct host_chain *hc;
	struct qcow_chain *chain;
	uint8_t *want; /* what qemu-img reads */
	uint64_t size;
};

static char work_dir[64];

__attribute__((format(printf, 3, 4))) static void shell(char *line, size_t room, const char *fmt,
							...)
{
	char command[1024];
	va_list ap;
	FILE *p;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	p = popen(command, "r");
	assert_non_null(p);
	if (line) {
		if (!fgets(line, (int)room, p))
			line[0] = '\0';
		line[strcspn(line, "\n")] = '\0';
	}
	if (pclose(p))
		fail_msg("failed: %s", command);
}

static uint8_t *slurp(const char *path, uint64_t *size)
{
	FILE *f = fopen(path, "r");
	uint8_t *buf;

	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	*size = (uint64_t)ftell(f);
	rewind(f);
	buf = malloc(*size + 1);
	assert_non_null(buf);
	assert_int_equal(fread(buf, 1, *size, f), *size);
	fclose(f);
	return buf;
}

static void open_subject(struct subject *s, const char *image, const char *snapshot)
{
	char *words[1], snap[80];
	struct host_options o;
	struct host_policy policy;
	struct host_chain_params params;
	struct host_opener opener = host_opener_local(&policy);
	struct qcow_error err = { 0 };

	snprintf(snap, sizeof(snap), "snapshot:%s", snapshot ? snapshot : "");
	words[0] = snap;
	assert_int_equal(host_options_parse(&o, snapshot ? 1 : 0, words, &err), 0);
	assert_int_equal(host_policy_init(&policy, image, &o, "/nonexistent", 0, &err), 0);
	params = host_chain_params(&o, HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK);
	params.cache_bytes = 64 << 10; /* small, so that it evicts */
	if (host_chain_open(&s->hc, image, &params, &opener, &err) < 0)
		fail_msg("%s", err.text);
	host_policy_exit(&policy);
	host_options_exit(&o);
	s->chain = host_chain_lib(s->hc);
}

static void check_bytes(const struct subject *s, uint64_t off, const uint8_t *got, uint64_t len,
			const char *how)
{
	uint64_t i;

	if (off <= s->size && len <= s->size - off && !memcmp(got, s->want + off, len))
		return;
	for (i = 0; i < len; i++)
		if (got[i] != (off + i < s->size ? s->want[off + i] : 0))
			fail_msg("%s: wrong byte at guest offset %#llx", how,
				 (unsigned long long)(off + i));
}

/* The kernel's part: DATA straight from the layer's file, the rest as told. */
static void check_run(struct subject *s, const struct qcow_run *run, uint8_t *buf,
		      struct qcow_scratch *scratch)
{
	uint64_t block = 1ull << qcow_chain_block_bits(s->chain), off, end;
	const struct host_layer *l = host_chain_layer(s->hc, run->layer);
	struct qcow_error err = { 0 };
	ssize_t n;

	end = run->guest_off + run->len;
	for (off = run->guest_off; off < end; off += block) {
		memset(buf, 0, block);
		if (run->type == QCOW_RUN_DATA) {
			n = pread(l->fd, buf, block,
				  (off_t)(run->host_off + (off - run->guest_off)));
			assert_true(n >= 0);
			assert_true(n == (ssize_t)block || !l->is_bdev);
		} else if (run->type == QCOW_RUN_FETCH) {
			if (qcow_chain_read(s->chain, off, buf, block, scratch, &err) < 0)
				fail_msg("%s", err.text);
		}
		/* Nobody reads past the disk's end; DATA may have anything there. */
		check_bytes(s, off, buf, off + block > s->size ? s->size - off : block, "resolve");
	}
}

static void check_resolve(struct subject *s)
{
	uint64_t block = 1ull << qcow_chain_block_bits(s->chain), off = 0, next, left;
	struct qcow_run runs[7]; /* few, so that calls end early */
	struct qcow_scratch *scratch;
	struct qcow_error err = { 0 };
	uint8_t *buf = aligned_alloc(4096, block < 4096 ? 4096 : block);
	size_t nr, i;

	assert_int_equal(qcow_scratch_create(&scratch, s->chain, &err), 0);
	while (off < s->size) {
		left = ((s->size - off + block - 1) & ~(block - 1));
		assert_int_equal(qcow_chain_resolve(s->chain, off,
						    left < PAGE * block ? left : PAGE * block, runs,
						    7, &nr, scratch, &err),
				 0);
		assert_true(nr > 0);
		for (i = 0, next = off; i < nr; i++) {
			assert_true(runs[i].guest_off == next);
			assert_true(runs[i].len && runs[i].len % block == 0);
			if (runs[i].guest_off < s->size)
				check_run(s, &runs[i], buf, scratch);
			next += runs[i].len;
		}
		off = next;
	}
	free(buf);
	qcow_scratch_destroy(scratch);
}

/* Big aligned reads, then small odd ones all over. */
static void *reader(void *arg)
{
	struct subject *s = arg;
	struct qcow_scratch *scratch;
	struct qcow_error err = { 0 };
	unsigned int seed = (unsigned int)(uintptr_t)pthread_self();
	size_t room = 3 << 20, len;
	uint8_t *buf = aligned_alloc(4096, room);
	uint64_t off;
	int i;

	assert_int_equal(qcow_scratch_create(&scratch, s->chain, &err), 0);
	for (off = 0; off < s->size; off += room) {
		len = s->size - off < room ? s->size - off : room;
		if (qcow_chain_read(s->chain, off, buf, len, scratch, &err) < 0)
			fail_msg("%s", err.text);
		check_bytes(s, off, buf, len, "sequential read");
	}
	for (i = 0; s->size && i < 200; i++) {
		off = (uint64_t)rand_r(&seed) % s->size;
		len = (uint64_t)rand_r(&seed) % (rand_r(&seed) % 4 ? 5000 : 300000);
		if (qcow_chain_read(s->chain, off, buf + i % 16, len, scratch, &err) < 0)
			fail_msg("%s", err.text);
		check_bytes(s, off, buf + i % 16, len, "random read");
	}
	free(buf);
	qcow_scratch_destroy(scratch);
	return NULL;
}

static void check_image(const char *image, const char *snapshot)
{
	pthread_t thread[NR_THREADS];
	struct subject s;
	char raw[128];
	int i;

	snprintf(raw, sizeof(raw), "%s/want.raw", work_dir);
	shell(NULL, 0, "qemu-img convert -U -t unsafe -f qcow2 -O raw %s%s %s %s",
	      snapshot ? "-l snapshot.name=" : "", snapshot ? snapshot : "", image, raw);
	s.want = slurp(raw, &s.size);
	open_subject(&s, image, snapshot);
	assert_true(qcow_chain_size(s.chain) == s.size);
	check_resolve(&s);
	for (i = 0; i < NR_THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, reader, &s), 0);
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(thread[i], NULL);
	host_chain_close(s.hc);
	free(s.want);
}

static void test_case(void **state)
{
	const char *name = *state;
	char image[256];

	shell(image, sizeof(image), "%s %s %s", MAKE, name, work_dir);
	check_image(image, NULL);
	if (!strcmp(name, "snapshots"))
		check_image(image, "second");
	if (!strcmp(name, "snapshots") || !strcmp(name, "vm-state"))
		check_image(image, "first");
	shell(NULL, 0, "rm -rf %s/%s", work_dir, name);
}

static size_t list_cases(struct CMUnitTest *tests, size_t max)
{
	char line[80];
	size_t n = 0;
	FILE *p = popen(MAKE " --list", "r");

	while (p && n < max && fgets(line, sizeof(line), p)) {
		line[strcspn(line, "\n")] = '\0';
		tests[n].name = strdup(line);
		tests[n].test_func = test_case;
		tests[n].initial_state = strdup(line);
		n++;
	}
	return p && !pclose(p) ? n : 0;
}

int main(int argc, char **argv)
{
	static struct CMUnitTest tests[200];
	size_t n, i;
	int r;

	if (argc > 1) {
		n = (size_t)argc - 1;
		for (i = 0; i < n; i++)
			tests[i] = (struct CMUnitTest){ .name = argv[i + 1],
							.test_func = test_case,
							.initial_state = argv[i + 1] };
	} else {
		n = list_cases(tests, 200);
		if (!n)
			return 1;
	}
	/* In memory if possible: made images are read directly, so disks would be waited for. */
	snprintf(work_dir, sizeof(work_dir), "%s/test_oracle.XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(work_dir))
		return 1;
	r = _cmocka_run_group_tests("oracle", tests, n, NULL, NULL);
	shell(NULL, 0, "rm -rf %s", work_dir);
	for (i = 0; argc == 1 && i < n; i++) {
		free((char *)tests[i].name);
		free(tests[i].initial_state);
	}
	return r;
}
