// SPDX-License-Identifier: GPL-2.0-only
/*
 * model run: random operations on a block device, several at once, beside a model in memory of
 * what it should contain. What each thread does depends on the seed only; two operations under way
 * never touch the same sector, but often the same cluster.
 *
 * "--hooks N" stops for nobody: N times it prints "hook K" and reads a line while the operations
 * go on, so that a script can do something to the device meanwhile. SIGTERM ends it in order.
 */
#include "expect.h"
#include "ranges.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define IO_MAX (1U << 20)
#define KIB    1024ULL

static const char usage_text[] =
	"Usage: model run [OPTION]... DEVICE      random operations, all reads compared\n"
	"       model fill [OPTION]... FILE SIZE  a raw disk of which a part is written\n"
	"       model verify --state FILE RAW     compares a raw disk with the model\n"
	"  --seed N       which random numbers (1)\n"
	"  --tag N        number of the disk in what is written (1)\n"
	"  --ops N        operations of all threads together (1000)\n"
	"  --threads N    that work at once (4)\n"
	"  --initial RAW  what DEVICE contains at first (zeros)\n"
	"  --state FILE   goes on from the model in this file, if there is one; writes it back\n"
	"  --hooks N      print 'hook K' N times and wait for a line (0)\n"
	"  --align N      bytes that offsets and lengths are multiples of (512)\n"
	"  --failures     operations may fail; then both old and new contents are right\n"
	"  --no-discard   do not discard\n"
	"  --percent N    fill: how much of the disk (50)\n"
	"  --version N    fill: what to write (1)\n"
	"  --break N      the N-th write goes elsewhere: to see the comparison fail\n";

enum op {
	OP_WRITE,
	OP_FUA,
	OP_READ,
	OP_DISCARD,
	OP_PUNCH,
	OP_ZERO,
	OP_FLUSH,
	NR_OPS
};

static const char *const op_names[NR_OPS] = { "writes",	 "fua",	   "reads",  "discards",
					      "punches", "zeroes", "flushes" };

struct config {
	uint64_t seed, tag, ops, threads, hooks, align, percent, version, break_at;
	const char *initial, *state;
	bool failures, no_discard;
};

struct run {
	const struct config *config;
	struct expect *expect;
	int fd;
	struct ranges ranges;
	atomic_ullong versions, wrong, failed, writes;
	atomic_ullong done[NR_OPS];
	atomic_ullong total;
	atomic_bool stop;
};

struct thread {
	struct run *run;
	unsigned int nr;
	uint64_t random;
	unsigned char *buf;
	pthread_t id;
};

/* ---- choices -------------------------------------------------------------------------------- */

static uint64_t choose_length(struct thread *t)
{
	uint64_t dice = random_below(&t->random, 100);

	if (dice < 35)
		return 4 * KIB;
	if (dice < 60)
		return (random_below(&t->random, 16) + 1) * SECTOR;
	if (dice < 90)
		return (random_below(&t->random, 128 * KIB / SECTOR) + 1) * SECTOR;
	return (random_below(&t->random, IO_MAX / SECTOR) + 1) * SECTOR;
}

/* Half of the operations meet in a sixteenth of the disk, half of the rest at round offsets. */
static uint64_t choose_offset(struct thread *t, uint64_t size)
{
	uint64_t dice = random_below(&t->random, 8);
	uint64_t span = dice < 4 ? size / 16 : size;
	uint64_t from = dice < 4 ? t->run->config->seed % 15 * span : 0;
	uint64_t off = from + random_below(&t->random, span);

	return dice & 1 ? off & ~(64 * KIB - 1) : off & ~(4 * KIB - 1);
}

static struct range choose_range(struct thread *t)
{
	uint64_t size = t->run->expect->nr_sectors * SECTOR;
	uint64_t align = t->run->config->align;
	uint64_t length = choose_length(t), off = choose_offset(t, size);

	if (length % (4 * KIB))
		off += random_below(&t->random, 8) * SECTOR;
	off -= off % align;
	length = (length + align - 1) / align * align;
	if (off >= size)
		off = 0;
	if (length > size - off)
		length = size - off;
	return (struct range){ off / SECTOR, length / SECTOR };
}

static enum op choose_op(struct thread *t)
{
	static const unsigned char shares[NR_OPS] = { 42, 6, 30, 6, 4, 6, 6 };
	uint64_t dice = random_below(&t->random, 100);
	unsigned int op = 0;

	while (dice >= shares[op])
		dice -= shares[op++];
	return op == OP_DISCARD && t->run->config->no_discard ? OP_ZERO : op;
}

/* ---- operations ------------------------------------------------------------------------------ */

static int full(ssize_t got, uint64_t want)
{
	if (got < 0)
		return -errno;
	return (uint64_t)got == want ? 0 : -EIO;
}

static void complain(struct thread *t, enum op op, const struct range *range, int r)
{
	if (atomic_fetch_add(&t->run->failed, 1) < COMPLAINTS)
		fprintf(stderr, "%s of sectors %" PRIu64 "+%" PRIu64 ": %s\n", op_names[op],
			range->sector, range->nr, strerror(-r));
	if (!t->run->config->failures)
		atomic_store(&t->run->stop, true);
}

static bool check(struct thread *t, const struct range *range)
{
	uint64_t wrong = expect_check(t->run->expect, range->sector, range->nr, t->buf);

	if (!wrong)
		return true;
	fprintf(stderr, "%" PRIu64 " wrong sectors in a read of %" PRIu64 "+%" PRIu64 " at %llu\n",
		wrong, range->sector, range->nr, atomic_load(&t->run->total));
	atomic_fetch_add(&t->run->wrong, wrong);
	atomic_store(&t->run->stop, true);
	return false;
}

static int do_read(struct thread *t, const struct range *range)
{
	uint64_t bytes = range->nr * SECTOR;
	int r;

	memset(t->buf, 0xa5, bytes);
	r = full(pread(t->run->fd, t->buf, bytes, (off_t)(range->sector * SECTOR)), bytes);
	if (!r)
		check(t, range);
	return r;
}

/* Under --break a write that is not the model's; it must not stay unnoticed. */
static uint64_t place_of(struct thread *t, const struct range *range)
{
	struct run *run = t->run;

	if (atomic_fetch_add(&run->writes, 1) + 1 != run->config->break_at)
		return range->sector;
	return range->sector ? 0 : run->expect->nr_sectors - range->nr;
}

static int do_write(struct thread *t, const struct range *range, int flags)
{
	struct expect *e = t->run->expect;
	uint64_t version = atomic_fetch_add(&t->run->versions, 1) + 1;
	struct iovec iov = { t->buf, range->nr * SECTOR };
	int r;

	for (uint64_t i = 0; i < range->nr; i++)
		stamp_put(t->buf + i * SECTOR, (unsigned int)e->tag, range->sector + i, version);
	r = full(pwritev2(t->run->fd, &iov, 1, (off_t)(place_of(t, range) * SECTOR), flags),
		 iov.iov_len);
	if (r)
		expect_maybe(e, range->sector, range->nr, version);
	else
		expect_write(e, range->sector, range->nr, version);
	return r;
}

static int range_ioctl(struct thread *t, const struct range *range, unsigned long request)
{
	uint64_t bytes[2] = { range->sector * SECTOR, range->nr * SECTOR };

	return ioctl(t->run->fd, request, bytes) ? -errno : 0;
}

/* Contents after a discard are either the old ones or zeros. */
static int do_discard(struct thread *t, const struct range *range)
{
	int r = range_ioctl(t, range, BLKDISCARD);

	if (r != -EOPNOTSUPP)
		expect_maybe(t->run->expect, range->sector, range->nr, 0);
	return r == -EOPNOTSUPP ? 0 : r;
}

static int do_zero(struct thread *t, const struct range *range, bool punch)
{
	struct expect *e = t->run->expect;
	int r;

	if (!punch)
		r = range_ioctl(t, range, BLKZEROOUT);
	else
		r = fallocate(t->run->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)(range->sector * SECTOR), (off_t)(range->nr * SECTOR))
			    ? -errno
			    : 0;
	if (punch && r == -EOPNOTSUPP)
		return 0;
	if (r)
		expect_maybe(e, range->sector, range->nr, 0);
	else
		expect_write(e, range->sector, range->nr, 0);
	return r;
}

static int perform(struct thread *t, enum op op, const struct range *range)
{
	switch (op) {
	case OP_WRITE:
		return do_write(t, range, 0);
	case OP_FUA:
		return do_write(t, range, RWF_DSYNC);
	case OP_DISCARD:
		return do_discard(t, range);
	case OP_PUNCH:
		return do_zero(t, range, true);
	case OP_ZERO:
		return do_zero(t, range, false);
	case OP_FLUSH:
		return fsync(t->run->fd) ? -errno : 0;
	default:
		return do_read(t, range);
	}
}

/* A change that may or may not happen can be told only if what was there before is known. */
static bool make_known(struct thread *t, enum op op, const struct range *range)
{
	if (op == OP_READ || op == OP_FLUSH ||
	    expect_is_known(t->run->expect, range->sector, range->nr))
		return true;
	return !do_read(t, range);
}

static void step(struct thread *t)
{
	enum op op = choose_op(t);
	struct range range = choose_range(t);
	int r;

	if (op == OP_FLUSH)
		range.nr = 0;
	range_take(&t->run->ranges, t->nr, &range);
	if (make_known(t, op, &range)) {
		r = perform(t, op, &range);
		if (r)
			complain(t, op, &range, r);
		atomic_fetch_add(&t->run->done[op], 1);
	}
	range_give_back(&t->run->ranges, t->nr);
}

static void *work(void *arg)
{
	struct thread *t = arg;
	struct run *run = t->run;

	while (!atomic_load(&run->stop) && atomic_fetch_add(&run->total, 1) < run->config->ops)
		step(t);
	return NULL;
}

/* ---- a run ----------------------------------------------------------------------------------- */

static uint64_t size_of(int fd, const char *path)
{
	struct stat st;
	uint64_t bytes;

	if (fstat(fd, &st))
		die("%s: %s", path, strerror(errno));
	if (!S_ISBLK(st.st_mode))
		return (uint64_t)st.st_size;
	if (ioctl(fd, BLKGETSIZE64, &bytes))
		die("%s: %s", path, strerror(errno));
	return bytes;
}

/* each(e, sector, nr, bytes) for the whole file, piece by piece */
static void for_pieces(struct expect *e, const char *path,
		       void (*each)(struct expect *, uint64_t, uint64_t, const void *))
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char *buf = malloc(IO_MAX);
	uint64_t size, off = 0;
	ssize_t n;

	if (fd < 0 || !buf)
		die("%s: %s", path, strerror(errno));
	size = size_of(fd, path);
	if (size != e->nr_sectors * SECTOR)
		die("%s: has %" PRIu64 " bytes, the model %" PRIu64, path, size,
		    e->nr_sectors * SECTOR);
	while (off < size) {
		n = pread(fd, buf, IO_MAX, (off_t)off);
		if (n <= 0)
			die("%s: %s", path, n ? strerror(errno) : "shrinks");
		each(e, off / SECTOR, (uint64_t)n / SECTOR, buf);
		off += (uint64_t)n;
	}
	free(buf);
	close(fd);
}

static void learn(struct expect *e, uint64_t sector, uint64_t nr, const void *buf)
{
	const unsigned char *bytes = buf;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t version = stamp_get(bytes + i * SECTOR, (unsigned int)e->tag, sector + i);

		if (version == STAMP_FOREIGN)
			die("sector %" PRIu64 " of the initial contents is not stamped",
			    sector + i);
		expect_write(e, sector + i, 1, version);
		if (version > e->versions)
			e->versions = version;
	}
}

static struct expect *begin(const struct config *c, int fd, const char *device)
{
	uint64_t size = size_of(fd, device);
	struct expect *e;

	if (c->state && !access(c->state, F_OK)) {
		e = expect_load(c->state);
	} else {
		e = expect_new(size / SECTOR, (unsigned int)c->tag);
		if (c->initial)
			for_pieces(e, c->initial, learn);
	}
	if (e->nr_sectors != size / SECTOR)
		die("%s has %" PRIu64 " sectors, the model %" PRIu64, device, size / SECTOR,
		    e->nr_sectors);
	return e;
}

/* A hook comes when its share of the operations is done, or when they have all ended. */
static void run_hooks(struct run *run)
{
	const struct config *c = run->config;
	char line[64];

	for (uint64_t k = 1; k <= c->hooks; k++) {
		while (!atomic_load(&run->stop) &&
		       atomic_load(&run->total) < c->ops * k / (c->hooks + 1))
			usleep(2000);
		if (atomic_load(&run->stop))
			return;
		printf("hook %" PRIu64 "\n", k);
		fflush(stdout);
		if (!fgets(line, sizeof(line), stdin))
			die("nobody answers hook %" PRIu64, k);
	}
}

static void start(struct run *run, struct thread *threads)
{
	for (unsigned int i = 0; i < run->config->threads; i++) {
		struct thread *t = &threads[i];

		t->run = run;
		t->nr = i;
		t->random = run->config->seed << 8 | i;
		if (posix_memalign((void **)&t->buf, 4096, IO_MAX + 4096) ||
		    pthread_create(&t->id, NULL, work, t))
			die("cannot start a thread");
	}
}

static struct run *running;

/* Ends the operations in order; what was done is compared and reported as ever. */
static void end_early(int sig)
{
	(void)sig;
	atomic_store(&running->stop, true);
}

static int report(struct run *run)
{
	printf("seed %" PRIu64, run->config->seed);
	for (unsigned int i = 0; i < NR_OPS; i++)
		printf(" %s %llu", op_names[i], atomic_load(&run->done[i]));
	printf(" failed %llu wrong %llu\n", atomic_load(&run->failed), atomic_load(&run->wrong));
	return atomic_load(&run->wrong) || (!run->config->failures && atomic_load(&run->failed));
}

static int cmd_run(const struct config *c, char **argv)
{
	struct thread threads[THREADS_MAX] = { 0 };
	struct run run = {
		.config = c,
		.ranges = RANGES_INIT,
	};

	run.fd = open(argv[0], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (run.fd < 0)
		die("%s: %s", argv[0], strerror(errno));
	run.expect = begin(c, run.fd, argv[0]);
	/* What another seed left on the same disk must not look right by chance. */
	atomic_store(&run.versions, run.expect->versions + (c->seed << 24));
	running = &run;
	signal(SIGTERM, end_early);
	start(&run, threads);
	run_hooks(&run);
	for (unsigned int i = 0; i < c->threads; i++)
		pthread_join(threads[i].id, NULL);
	run.expect->versions = atomic_load(&run.versions);
	if (c->state)
		expect_save(run.expect, c->state);
	return report(&run);
}

/* ---- the other commands ------------------------------------------------------------------------
 */

static int cmd_fill(const struct config *c, char **argv)
{
	uint64_t random = c->seed, size = strtoull(argv[1], NULL, 0), off = 0, length;
	int fd = open(argv[0], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	unsigned char *buf = malloc(IO_MAX);

	if (fd < 0 || !buf || ftruncate(fd, (off_t)size))
		die("%s: %s", argv[0], strerror(errno));
	for (; off < size; off += length) {
		length = (random_below(&random, IO_MAX / SECTOR) + 1) * SECTOR;
		if (length > size - off)
			length = size - off;
		if (random_below(&random, 100) >= c->percent)
			continue;
		for (uint64_t i = 0; i < length; i += SECTOR)
			stamp_put(buf + i, (unsigned int)c->tag, (off + i) / SECTOR, c->version);
		if (full(pwrite(fd, buf, length, (off_t)off), length))
			die("%s: cannot write", argv[0]);
	}
	return close(fd) ? 1 : 0;
}

static uint64_t verified_wrong;

static void verify(struct expect *e, uint64_t sector, uint64_t nr, const void *buf)
{
	verified_wrong += expect_check(e, sector, nr, buf);
}

static int cmd_verify(const struct config *c, char **argv)
{
	struct expect *e;

	if (!c->state)
		die("verify needs --state");
	e = expect_load(c->state);
	for_pieces(e, argv[0], verify);
	if (verified_wrong)
		fprintf(stderr, "%s: %" PRIu64 " sectors are wrong\n", argv[0], verified_wrong);
	return verified_wrong != 0;
}

static int parse(int argc, char **argv, struct config *c)
{
	uint64_t *const numbers[] = { &c->seed,	 &c->tag,     &c->ops,	    &c->threads, &c->hooks,
				      &c->align, &c->percent, &c->break_at, &c->version };
	const char **const words[] = { &c->initial, &c->state };
	bool *const flags[] = { &c->failures, &c->no_discard };
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 0 },
		{ "tag", required_argument, NULL, 1 },
		{ "ops", required_argument, NULL, 2 },
		{ "threads", required_argument, NULL, 3 },
		{ "hooks", required_argument, NULL, 4 },
		{ "align", required_argument, NULL, 5 },
		{ "percent", required_argument, NULL, 6 },
		{ "break", required_argument, NULL, 7 },
		{ "version", required_argument, NULL, 8 },
		{ "initial", required_argument, NULL, 9 },
		{ "state", required_argument, NULL, 10 },
		{ "failures", no_argument, NULL, 11 },
		{ "no-discard", no_argument, NULL, 12 },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == '?')
			return -1;
		if (opt < 9)
			*numbers[opt] = strtoull(optarg, NULL, 0);
		else if (opt < 11)
			*words[opt - 9] = optarg;
		else
			*flags[opt - 11] = true;
	}
	return c->align % SECTOR || !c->align || !c->threads || c->threads > THREADS_MAX ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct config c = {
		.seed = 1,
		.tag = 1,
		.ops = 1000,
		.threads = 4,
		.align = 512,
		.percent = 50,
		.version = 1,
	};
	static const struct {
		const char *name;
		int nr_args;
		int (*run)(const struct config *, char **);
	} commands[] = { { "run", 1, cmd_run },
			 { "fill", 2, cmd_fill },
			 { "verify", 1, cmd_verify } };

	if (argc > 1 && !parse(argc - 1, argv + 1, &c))
		for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
			if (!strcmp(argv[1], commands[i].name) &&
			    argc - 1 - optind == commands[i].nr_args)
				return commands[i].run(&c, argv + 1 + optind);
	fputs(usage_text, stderr);
	return 2;
}
