// SPDX-License-Identifier: GPL-2.0-only
/*
 * Valid images with one to three fields broken, read by us and by qemu-img: what
 * one reads the other reads, byte for byte; what one refuses the other refuses.
 *
 * test_hostile [CASES [FIRST]]: case N depends on N alone, so "test_hostile 1 N"
 * repeats it. Run from the top folder.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/chain.h"
#include "lib/be.h"

#define DEFAULT_CASES 60
#define SIZE_LIMIT    (64ull << 20) /* larger disks are only opened, and read in places */
#define STEP	      (1u << 20)
#define SECONDS	      2.0

static const char *const seeds[] = {
	"plain-512",	   "plain-64k",
	"zlib-4k",	   "zstd-64k",
	"version-2",	   "raw-base",
	"snapshots",	   "data-file",
	"extended-l2-16k", "mixed-compressed",
	"short-middle",	   "bitmaps",
	"odd-size",	   "extended-l2-prealloc",
};
#define NR_SEEDS (sizeof(seeds) / sizeof(*seeds))

struct seed {
	char path[256];
	uint8_t *bytes;
	size_t size;
};

static struct seed seed_images[NR_SEEDS];
static char work_dir[64];
static unsigned int nr_failed;
static unsigned int nr_cases = DEFAULT_CASES, first_case;
static uint64_t rnd_state;

static int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int shell(const char *fmt, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	return system(command);
}

/* splitmix64: the same everywhere, whatever libc does. */
static uint64_t rnd(void)
{
	uint64_t z = rnd_state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void put_be(uint8_t *p, uint64_t value, unsigned int width)
{
	while (width--) {
		p[width] = (uint8_t)value;
		value >>= 8;
	}
}

static uint64_t get_be(const uint8_t *p, unsigned int width)
{
	uint64_t value = 0;

	while (width--)
		value = value << 8 | *p++;
	return value;
}

static uint64_t odd_value(uint64_t old)
{
	switch (rnd() % 10) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX;
	case 2:
		return old + 1;
	case 3:
		return old - 1;
	case 4:
		return old << (rnd() % 40);
	case 5:
		return 1ull << (rnd() % 64);
	case 6:
		return rnd();
	case 7:
		return (rnd() % 64) << 16;
	default:
		return old ^ 1ull << (rnd() % 64);
	}
}

struct place {
	uint64_t off;
	unsigned int width;
};

static struct place header_field(void)
{
	static const struct place fields[] = {
		{ 0, 4 },  { 4, 4 },  { 8, 8 },	 { 16, 4 },  { 20, 4 },	 { 24, 8 },  { 32, 4 },
		{ 36, 4 }, { 40, 8 }, { 48, 8 }, { 56, 4 },  { 60, 4 },	 { 64, 8 },  { 72, 8 },
		{ 80, 8 }, { 88, 8 }, { 96, 4 }, { 100, 4 }, { 104, 1 }, { 112, 4 }, { 116, 4 },
	};

	return fields[rnd() % (sizeof(fields) / sizeof(*fields))];
}

/* Somewhere in a table of 8-byte entries. */
static struct place table_entry(uint64_t off, uint64_t bytes)
{
	if (bytes < 8)
		bytes = 8;
	/* The beginning of a table is what is mostly used. */
	if (bytes > 512 && rnd() % 2)
		bytes = 512;
	return (struct place){ off + rnd() % (bytes / 8) * 8, 8 };
}

static struct place pick_place(const struct seed *s)
{
	uint64_t cluster = 1ull << qcow_be32(s->bytes + 20);
	uint64_t l1 = qcow_be64(s->bytes + 40), l2;

	switch (rnd() % 8) {
	case 0:
	case 1:
		return header_field();
	case 2:
		return (struct place){ 104 + rnd() % 200, 1 };
	case 3:
		return table_entry(l1, qcow_be32(s->bytes + 36) * 8ull);
	case 4:
		return table_entry(qcow_be64(s->bytes + 64), 128);
	default:
		l2 = qcow_be64(s->bytes + l1) & 0xfffffffffffe00ull;
		return table_entry(l2 ? l2 : l1, cluster);
	}
}

static void make_case(const struct seed *s, unsigned int nr, const char *path)
{
	uint8_t *bytes = malloc(s->size);
	unsigned int i, n;
	struct place p;
	FILE *f;

	memcpy(bytes, s->bytes, s->size);
	rnd_state = nr;
	for (i = 0, n = 1 + (unsigned int)(rnd() % 3); i < n; i++) {
		p = pick_place(s);
		if (p.off + p.width <= s->size)
			put_be(bytes + p.off, odd_value(get_be(bytes + p.off, p.width)), p.width);
	}
	f = fopen(path, "w");
	assert_non_null(f);
	/* Sometimes the end is missing. */
	assert_int_equal(fwrite(bytes, rnd() % 16 ? s->size : rnd() % s->size, 1, f), 1);
	fclose(f);
	free(bytes);
}

static int open_ours(const char *path, struct host_chain **hc, struct qcow_error *err)
{
	struct host_options o = { 0 };
	struct host_policy policy = { 0 };
	struct host_opener opener = host_opener_local(&policy);
	struct host_chain_params params = { .flags = HOST_CHAIN_BUFFERED_OK };
	int r = host_policy_init(&policy, path, &o, "/nonexistent", 0, err);

	if (!r)
		r = host_chain_open(hc, path, &params, &opener, err);
	host_policy_exit(&policy);
	return r;
}

/* Goes on: one run shows all that differ. */
__attribute__((format(printf, 2, 3))) static void complain(unsigned int nr, const char *fmt, ...)
{
	va_list ap;

	nr_failed++;
	printf("case %u (%s): ", nr, seeds[nr % NR_SEEDS]);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

/* Reads it all, or of a huge disk the beginning and the end. 0 or the first error. */
static int read_ours(unsigned int nr, struct host_chain *hc, FILE *want, struct qcow_error *err)
{
	static uint8_t buf[STEP], theirs[STEP];
	struct qcow_chain *chain = host_chain_lib(hc);
	uint64_t size = qcow_chain_size(chain), off;
	struct qcow_scratch *s;
	size_t len;
	int r;

	r = qcow_scratch_create(&s, chain, err);
	for (off = 0; !r && off < size; off += STEP) {
		if (off == SIZE_LIMIT / 2 && size > SIZE_LIMIT)
			off = (size - STEP) & ~(uint64_t)(STEP - 1);
		len = size - off < STEP ? size - off : STEP;
		r = qcow_chain_read(chain, off, buf, len, s, err);
		if (r < 0 || !want)
			continue;
		memset(theirs, 0, len);
		fseeko(want, (off_t)off, SEEK_SET);
		if (fread(theirs, 1, len, want) != len || memcmp(buf, theirs, len))
			complain(nr, "different bytes in the megabyte at %#llx",
				 (unsigned long long)off);
	}
	qcow_scratch_destroy(s);
	return r;
}

/* We guess no format, and read no bitmap's bits. QEMU does both. */
static bool differs_by_design(bool theirs, const struct qcow_error *err)
{
	if (theirs)
		return strstr(err->text, "is not recorded, and guessing is not safe");
	return !shell("grep -q 'Could not read bitmap' %s/stderr", work_dir);
}

/* LOAD of everything must succeed whatever the tables say. */
static void resolve_ours(struct host_chain *hc)
{
	static struct qcow_run runs[512];
	struct qcow_chain *chain = host_chain_lib(hc);
	uint64_t page = 512ull << qcow_chain_block_bits(chain), off;
	struct qcow_error err;
	struct qcow_scratch *s;
	size_t nr;

	assert_int_equal(qcow_scratch_create(&s, chain, &err), 0);
	for (off = 0; off < qcow_chain_size(chain) && off < SIZE_LIMIT; off += page)
		if (qcow_chain_resolve(chain, off, page, runs, 512, &nr, s, &err) < 0)
			fail_msg("resolve: %s", err.text);
	qcow_scratch_destroy(s);
}

/* CPU time: a busy machine must not fail the test. */
static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void run_case(unsigned int nr)
{
	const struct seed *s = &seed_images[nr % NR_SEEDS];
	struct qcow_error err = { 0 };
	struct host_chain *hc = NULL;
	char path[300], raw[100];
	bool theirs = false, comparable;
	FILE *want = NULL;
	double start;
	int r;

	/* Beside the seed: backing files are named relative to it. */
	snprintf(path, sizeof(path), "%s.broken", s->path);
	snprintf(raw, sizeof(raw), "%s/want.raw", work_dir);
	make_case(s, nr, path);
	start = now();
	r = open_ours(path, &hc, &err);
	comparable = r < 0 || qcow_chain_size(host_chain_lib(hc)) <= SIZE_LIMIT;
	if (comparable) {
		theirs = !shell("timeout 20 qemu-img convert -t unsafe -f qcow2 -O raw %s %s "
				"2>%s/stderr",
				path, raw, work_dir);
		start = now();
		want = theirs ? fopen(raw, "r") : NULL;
	}
	if (!r) {
		resolve_ours(hc);
		r = read_ours(nr, hc, want, &err);
	}
	if (now() - start > SECONDS)
		complain(nr, "took %.1f s", now() - start);
	if (comparable && theirs != !r && !differs_by_design(theirs, &err)) {
		shell("cat %s/stderr", work_dir);
		complain(nr, "qemu-img %s it, we say: %s", theirs ? "reads" : "refuses",
			 r ? err.text : "fine");
	}
	if (want)
		fclose(want);
	host_chain_close(hc);
	unlink(raw);
}

static void test_all(void **state)
{
	unsigned int nr;

	(void)state;
	for (nr = first_case; nr < first_case + nr_cases; nr++)
		run_case(nr);
	assert_int_equal(nr_failed, 0);
}

static void load_seed(struct seed *s, const char *name)
{
	char command[400];
	FILE *f;

	snprintf(command, sizeof(command), "tests/images/make.py %s %s", name, work_dir);
	f = popen(command, "r");
	assert_non_null(f);
	assert_non_null(fgets(s->path, sizeof(s->path), f));
	s->path[strcspn(s->path, "\n")] = '\0';
	assert_int_equal(pclose(f), 0);
	f = fopen(s->path, "r");
	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	s->size = (size_t)ftell(f);
	rewind(f);
	s->bytes = malloc(s->size);
	assert_int_equal(fread(s->bytes, 1, s->size, f), s->size);
	fclose(f);
}

static int setup(void **state)
{
	size_t i;

	(void)state;
	snprintf(work_dir, sizeof(work_dir), "%s/test_hostile.XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(work_dir))
		return -1;
	for (i = 0; i < NR_SEEDS; i++)
		load_seed(&seed_images[i], seeds[i]);
	return 0;
}

static int teardown(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < NR_SEEDS; i++)
		free(seed_images[i].bytes);
	return getenv("KEEP") ? 0 : shell("rm -rf %s", work_dir);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_all) };

	if (argc > 1)
		nr_cases = (unsigned int)strtoul(argv[1], NULL, 0);
	if (argc > 2)
		first_case = (unsigned int)strtoul(argv[2], NULL, 0);
	return cmocka_run_group_tests_name("hostile", tests, setup, teardown);
}
