// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/sandbox.h"

#include "daemon/memory.h"
#include "daemon/util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/*
 * The format allows a chain of 256 layers with 32 MiB of L1 each. Real chains
 * need a few MiB; a crafted one fails its OPEN instead of eating the machine.
 */
#define MEMORY_LIMIT (1UL << 30)
#define NOFILE_LIMIT 1024

/* ---- limits and memory ------------------------------------------------------------ */

static void limit(int what, rlim_t value)
{
	const struct rlimit lim = { value, value };

	if (setrlimit(what, &lim))
		log_line("setrlimit(%d): %s", what, strerror(errno));
}

void sandbox_prepare(void)
{
	/* Without CAP_IPC_LOCK, later, MCL_FUTURE would make mmap() fail at the default. */
	limit(RLIMIT_MEMLOCK, RLIM_INFINITY);
	limit(RLIMIT_AS, MEMORY_LIMIT);
	limit(RLIMIT_NOFILE, NOFILE_LIMIT);
	limit(RLIMIT_CORE, 0); /* would hold the guest's data */
	memory_protect();
}

/* ---- capabilities ------------------------------------------------------------------- */

int sandbox_drop(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	/* Also what lets us install a filter without CAP_SYS_ADMIN. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	if (syscall(SYS_capset, &head, none))
		return -errno;
	return 0;
}

/* ---- system calls --------------------------------------------------------------------- */

static const int plain_calls[] = {
	/* the sockets and files there are */
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(pread64),
	SCMP_SYS(preadv),
	SCMP_SYS(preadv2),
	SCMP_SYS(write),
	SCMP_SYS(pwrite64),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
	SCMP_SYS(close),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(fstatfs),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(recvmsg),
	SCMP_SYS(recvfrom),
	SCMP_SYS(fadvise64),
	SCMP_SYS(fdatasync),
	/* memory; mmap and mprotect are below */
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	/* threads, time, the C library */
	SCMP_SYS(futex),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(getrandom),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigaltstack), /* the sanitizers, at thread exit */
	SCMP_SYS(restart_syscall),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

struct checked_call {
	int nr;
	unsigned int arg;
	uint64_t mask; /* 0: all bits */
	uint64_t value;
};

static const struct checked_call checked_calls[] = {
	/* Paths are refused by demanding AT_EMPTY_PATH; a name would only be looked up. */
	{ SCMP_SYS(newfstatat), 3, AT_EMPTY_PATH, AT_EMPTY_PATH },
	{ SCMP_SYS(statx), 2, AT_EMPTY_PATH, AT_EMPTY_PATH },
	{ SCMP_SYS(mprotect), 2, PROT_EXEC, 0 },
	{ SCMP_SYS(fcntl), 1, 0, F_GETFL },
	{ SCMP_SYS(fcntl), 1, 0, F_GETFD },
	{ SCMP_SYS(fcntl), 1, 0, F_OFD_GETLK },
	{ SCMP_SYS(fcntl), 1, 0, F_OFD_SETLK },
	{ SCMP_SYS(ioctl), 1, 0, BLKGETSIZE64 },
	{ SCMP_SYS(ioctl), 1, 0, BLKSSZGET },
	{ SCMP_SYS(ioctl), 1, 0, BLKPBSZGET },
};

static int allow_plain(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; i < sizeof(plain_calls) / sizeof(plain_calls[0]) && !r; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, plain_calls[i], 0);
	return r;
}

static int allow_checked(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; i < sizeof(checked_calls) / sizeof(checked_calls[0]) && !r; i++) {
		const struct checked_call *c = &checked_calls[i];
		struct scmp_arg_cmp cmp = {
			.arg = c->arg,
			.op = c->mask ? SCMP_CMP_MASKED_EQ : SCMP_CMP_EQ,
			.datum_a = c->mask ? c->mask : c->value,
			.datum_b = c->value,
		};

		r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, c->nr, 1, &cmp);
	}
	return r;
}

/* abort() signals itself; nobody else, though a process of the same user may. */
static int allow_own_signals(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
}

static int allow_anonymous_mmap(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
				SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
				SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
}

/*
 * Anything else fails with EPERM. Not with a signal: a C library that tries to
 * read /proc on a rare path must not become a worker that dies for ever.
 */
int sandbox_seal(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!ctx)
		return -ENOMEM;
	r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/*
	 * The default kills the one thread that used another ABI's numbers; the rest
	 * would keep the socket, and the kernel not see that the worker is broken.
	 */
	if (!r)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!r)
		r = allow_plain(ctx);
	if (!r)
		r = allow_checked(ctx);
	if (!r)
		r = allow_own_signals(ctx);
	if (!r)
		r = allow_anonymous_mmap(ctx);
	if (!r)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}
