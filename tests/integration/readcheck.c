// SPDX-License-Identifier: GPL-2.0-only
/*
 * readcheck DEVICE REFERENCE: reads random blocks of DEVICE, directly and many at once, and
 * compares each with the same bytes of the file REFERENCE.
 *
 * SIGTERM ends it early and in order. Prints one line, "reads N errors N mismatches N slowest_ms
 * N", and says in detail on stderr what the first wrong ones were. Exit status 1 if there was one.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COMPLAINTS_MAX 10

static const char usage_text[] = "Usage: readcheck [OPTION]... DEVICE REFERENCE\n"
				 "  --jobs N     processes (4)\n"
				 "  --depth N    reads each of them has under way (32)\n"
				 "  --block N    bytes of a read (4096)\n"
				 "  --count N    reads of all jobs together\n"
				 "  --seconds N  or for how long (10)\n"
				 "  --from N     only bytes from N on\n"
				 "  --to N       and before N\n"
				 "  --seed N     which random numbers (1)\n";

struct config {
	const char *device, *reference;
	uint64_t jobs, depth, block, count, seconds, seed;
	uint64_t from, to;
};

/* Shared by all jobs. */
struct totals {
	atomic_ulong reads, errors, mismatches, slowest_ms;
	atomic_ulong started; /* counts up to config.count */
	atomic_bool stop;
};

static struct totals *shared;

struct slot {
	struct iocb iocb;
	unsigned char *buf;
	uint64_t began_ms;
};

struct job {
	const struct config *config;
	struct totals *totals;
	const unsigned char *reference;
	struct slot *slots;
	aio_context_t aio;
	uint64_t random;
	uint64_t deadline_ms;
	int fd;
};

__attribute__((format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("readcheck: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(2);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* xorshift64*: the state is never zero. */
static uint64_t next_random(struct job *job)
{
	job->random ^= job->random >> 12;
	job->random ^= job->random << 25;
	job->random ^= job->random >> 27;
	return job->random * 0x2545f4914f6cdd1dULL;
}

static bool may_start(struct job *job)
{
	const struct config *c = job->config;

	if (atomic_load(&job->totals->stop))
		return false;
	if (c->count)
		return atomic_fetch_add(&job->totals->started, 1) < c->count;
	return now_ms() < job->deadline_ms;
}

static bool start_read(struct job *job, struct slot *slot)
{
	const struct config *c = job->config;
	uint64_t nr_blocks = (c->to - c->from) / c->block;
	struct iocb *iocb = &slot->iocb;

	if (!may_start(job))
		return false;
	memset(iocb, 0, sizeof(*iocb));
	iocb->aio_lio_opcode = IOCB_CMD_PREAD;
	iocb->aio_fildes = (uint32_t)job->fd;
	iocb->aio_data = (uintptr_t)slot;
	iocb->aio_buf = (uintptr_t)slot->buf;
	iocb->aio_nbytes = c->block;
	iocb->aio_offset = (int64_t)(c->from + next_random(job) % nr_blocks * c->block);
	/* A block that nobody wrote to must not pass for one read before. */
	memset(slot->buf, 0xa5, c->block);
	slot->began_ms = now_ms();
	if (syscall(SYS_io_submit, job->aio, 1, (struct iocb *[]){ iocb }) != 1)
		die("io_submit: %s", strerror(errno));
	return true;
}

static void complain(atomic_ulong *count, const struct slot *slot, const char *what)
{
	if (atomic_fetch_add(count, 1) < COMPLAINTS_MAX)
		fprintf(stderr, "readcheck: %" PRIu64 " bytes at offset %" PRId64 ": %s\n",
			(uint64_t)slot->iocb.aio_nbytes, (int64_t)slot->iocb.aio_offset, what);
}

static void note_time(struct totals *totals, uint64_t ms)
{
	unsigned long slowest = atomic_load(&totals->slowest_ms);

	while (ms > slowest && !atomic_compare_exchange_weak(&totals->slowest_ms, &slowest, ms))
		;
}

static void check_read(struct job *job, const struct slot *slot, int64_t result)
{
	const unsigned char *want = job->reference + slot->iocb.aio_offset;
	size_t len = slot->iocb.aio_nbytes;

	atomic_fetch_add(&job->totals->reads, 1);
	note_time(job->totals, now_ms() - slot->began_ms);
	if (result < 0)
		complain(&job->totals->errors, slot, strerror((int)-result));
	else if ((uint64_t)result != len)
		complain(&job->totals->errors, slot, "short read");
	else if (memcmp(slot->buf, want, len))
		complain(&job->totals->mismatches, slot, "wrong data");
}

static void run(struct job *job)
{
	unsigned long busy = 0;
	struct io_event event;
	struct slot *slot;

	for (uint64_t i = 0; i < job->config->depth; i++)
		busy += start_read(job, &job->slots[i]);
	while (busy) {
		if (syscall(SYS_io_getevents, job->aio, 1, 1, &event, NULL) != 1) {
			if (errno == EINTR)
				continue;
			die("io_getevents: %s", strerror(errno));
		}
		slot = (struct slot *)(uintptr_t)event.data;
		check_read(job, slot, event.res);
		busy -= !start_read(job, slot);
	}
}

static void run_job(const struct config *c, struct totals *totals, const unsigned char *reference,
		    uint64_t nr)
{
	struct job job = {
		.config = c,
		.totals = totals,
		.reference = reference,
		.random = c->seed * 0x9e3779b97f4a7c15ULL + nr + 1,
		.deadline_ms = now_ms() + c->seconds * 1000,
	};

	job.fd = open(c->device, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (job.fd < 0)
		die("%s: %s", c->device, strerror(errno));
	job.slots = calloc(c->depth, sizeof(*job.slots));
	if (!job.slots || syscall(SYS_io_setup, c->depth, &job.aio))
		die("cannot set up %" PRIu64 " reads at once", c->depth);
	for (uint64_t i = 0; i < c->depth; i++)
		if (posix_memalign((void **)&job.slots[i].buf, 4096, c->block))
			die("out of memory");
	run(&job);
	exit(0);
}

static const unsigned char *map_reference(struct config *c)
{
	const unsigned char *map;
	struct stat st;
	int fd;

	fd = open(c->reference, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", c->reference, strerror(errno));
	if (!c->to || c->to > (uint64_t)st.st_size)
		c->to = (uint64_t)st.st_size;
	if (c->from + c->block > c->to)
		die("%s: too short", c->reference);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("%s: %s", c->reference, strerror(errno));
	return map;
}

static struct totals *share_totals(void)
{
	struct totals *totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (totals == MAP_FAILED)
		die("out of memory");
	return totals;
}

static void stop_jobs(int sig)
{
	(void)sig;
	atomic_store(&shared->stop, true);
}

static void usage(void)
{
	fputs(usage_text, stderr);
	exit(2);
}

static void parse(int argc, char **argv, struct config *c)
{
	uint64_t *const numbers[] = { &c->jobs,	   &c->depth, &c->block, &c->count,
				      &c->seconds, &c->from,  &c->to,	 &c->seed };
	static const struct option options[] = {
		{ "jobs", required_argument, NULL, 0 },
		{ "depth", required_argument, NULL, 1 },
		{ "block", required_argument, NULL, 2 },
		{ "count", required_argument, NULL, 3 },
		{ "seconds", required_argument, NULL, 4 },
		{ "from", required_argument, NULL, 5 },
		{ "to", required_argument, NULL, 6 },
		{ "seed", required_argument, NULL, 7 },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == '?')
			usage();
		*numbers[opt] = strtoull(optarg, NULL, 0);
	}
	if (argc - optind != 2 || !c->jobs || !c->depth || !c->block)
		usage();
	c->device = argv[optind];
	c->reference = argv[optind + 1];
}

int main(int argc, char **argv)
{
	struct config c = { .jobs = 4, .depth = 32, .block = 4096, .seconds = 10, .seed = 1 };
	const unsigned char *reference;
	struct totals *totals;
	int status, bad = 0;

	parse(argc, argv, &c);
	reference = map_reference(&c);
	totals = shared = share_totals();
	signal(SIGTERM, stop_jobs);
	for (uint64_t i = 0; i < c.jobs; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork: %s", strerror(errno));
		if (!pid)
			run_job(&c, totals, reference, i);
	}
	while (wait(&status) > 0)
		bad |= status;
	printf("reads %lu errors %lu mismatches %lu slowest_ms %lu\n", totals->reads,
	       totals->errors, totals->mismatches, totals->slowest_ms);
	return bad || totals->errors || totals->mismatches;
}
