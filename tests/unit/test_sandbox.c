// SPDX-License-Identifier: GPL-2.0-only
/*
 * What runs in the worker's sandbox cannot open a file, make a socket, start a
 * program or a process, or map code; on any of its threads. It can read what it
 * has and take memory.
 */
#include "daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static int some_file; /* open before the sandbox closes */
static int pair[2];

static int refused(long r)
{
	return r == -1 && errno == EPERM;
}

/* Raw system calls: an attacker does not go through the C library. */
static const char *try_forbidden(void)
{
	char *const argv[] = { "/bin/true", NULL };

	if (!refused(syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY)))
		return "openat";
#ifdef SYS_open
	if (!refused(syscall(SYS_open, "/etc/passwd", O_RDONLY)))
		return "open";
#endif
	if (!refused(syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", NULL, 0)))
		return "openat2";
	if (!refused(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0)))
		return "socket";
	if (!refused(syscall(SYS_execve, "/bin/true", argv, NULL)))
		return "execve";
	if (!refused(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)))
		return "clone";
	if (!refused(syscall(SYS_ptrace, PTRACE_ATTACH, getppid(), 0, 0)))
		return "ptrace";
	if (!refused(syscall(SYS_kill, getppid(), SIGCONT)))
		return "kill";
	if (!refused(syscall(SYS_tgkill, getppid(), getppid(), SIGCONT)))
		return "tgkill of another";
	if (!refused(syscall(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0)))
		return "prctl";
	if (!refused(syscall(SYS_io_uring_setup, 1, NULL)))
		return "io_uring";
	if (!refused(syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0)))
		return "mmap of code";
	if (!refused(syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, some_file, 0)))
		return "mmap of a file";
	if (!refused(syscall(SYS_mprotect, (uintptr_t)argv & ~4095UL, 4096, PROT_EXEC)))
		return "mprotect to code";
	if (!refused(syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x")))
		return "ioctl";
	if (!refused(syscall(SYS_fcntl, some_file, F_SETFL, 0)))
		return "fcntl";
	return NULL;
}

static const char *try_needed(void)
{
	struct flock lock = { .l_type = F_RDLCK, .l_start = 100, .l_len = 1 };
	struct stat st;
	char buf[16];
	void *mem;

	if (pread(some_file, buf, 1, 0) != 1)
		return "pread";
	if (fstat(some_file, &st))
		return "fstat";
	/* Open for reading: refused for that, and not by the filter. */
	if (pwrite(some_file, buf, 1, 0) != -1 || errno != EBADF)
		return "pwrite";
	if (ftruncate(some_file, 0) != -1 || errno == EPERM)
		return "ftruncate";
	if (fallocate(some_file, 0, 0, 1) != -1 || errno != EBADF)
		return "fallocate";
	if (fdatasync(some_file))
		return "fdatasync";
	if (fcntl(some_file, F_OFD_SETLK, &lock) && errno == EPERM)
		return "OFD lock";
	if (send(pair[0], "x", 1, MSG_NOSIGNAL) != 1 || recv(pair[1], buf, 1, 0) != 1)
		return "send, recv";
	mem = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || munmap(mem, 8 << 20))
		return "memory";
	return NULL;
}

static const char *thread_failed_at;

/* Never ends: ASan's thread exit makes calls that the worker does not. */
static void *thread_tries(void *arg)
{
	pthread_barrier_t *barrier = arg;

	pthread_barrier_wait(barrier);
	pthread_barrier_wait(barrier);
	thread_failed_at = try_forbidden();
	pthread_barrier_wait(barrier);
	for (;;)
		pthread_barrier_wait(barrier);
	return NULL;
}

static void fail_with(const char *what)
{
	(void)!write(STDERR_FILENO, what, strlen(what));
	(void)!write(STDERR_FILENO, "\n", 1);
	_exit(1);
}

static void run_in_sandbox(void)
{
	pthread_barrier_t barrier;
	const char *what = NULL;
	pthread_t thread;

	if (sandbox_drop())
		fail_with("sandbox_drop");
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&thread, NULL, thread_tries, &barrier);
	pthread_barrier_wait(&barrier);
	if (sandbox_seal())
		fail_with("sandbox_seal");
	pthread_barrier_wait(&barrier);
	what = try_needed();
	if (!what)
		what = try_forbidden();
	pthread_barrier_wait(&barrier);
	if (!what)
		what = thread_failed_at;
	if (what)
		fail_with(what);
	_exit(0);
}

static void test_sandbox(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	some_file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert_true(some_file >= 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	pid = fork();
	if (pid == 0)
		run_in_sandbox();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(some_file);
	close(pair[0]);
	close(pair[1]);
}

/* A read of /proc/self/status by the parent: the child cannot open it. */
static void test_no_capability_is_left(void **state)
{
	char path[64], line[256];
	int to_child[2], from_child[2], nr = 0, status;
	FILE *f;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(from_child), 0);
	pid = fork();
	if (pid == 0) {
		char byte = sandbox_drop() ? 'n' : 'y';

		(void)!write(from_child[1], &byte, 1);
		(void)!read(to_child[0], &byte, 1);
		_exit(0);
	}
	assert_int_equal(read(from_child[0], line, 1), 1);
	assert_int_equal(line[0], 'y');
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "CapEff:", 7) || !strncmp(line, "CapPrm:", 7)) {
			assert_int_equal(strtoull(line + 7, NULL, 16), 0);
			nr++;
		}
		if (!strncmp(line, "NoNewPrivs:", 11)) {
			assert_int_equal(atoi(line + 11), 1);
			nr++;
		}
	}
	fclose(f);
	assert_int_equal(nr, 3);
	assert_int_equal(write(to_child[1], "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sandbox),
		cmocka_unit_test(test_no_capability_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
