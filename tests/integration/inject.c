// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes a running process try what its sandbox should forbid, as code that an image
 * smuggled into it would:
 *
 *     inject all|harmless|x32|int80 PID FILE
 *
 * Each thread in turn is stopped, made to do the system calls below, and let go on.
 * Prints "THREAD CALL RESULT" for each, RESULT a negative errno or what came back.
 * x32 and int80: only getpid, in one thread, by the numbers of another ABI, which no
 * list of calls covers; RESULT is "killed" if that was the thread's end.
 * FILE is a scratch file: where nothing forbids them, the calls open, empty and remove
 * it. All others have arguments with which they fail, should they get through.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* Stands for the address of FILE in the victim. */
#define ARG_PATH ((unsigned long long)-99)

static const struct call {
	const char *name;
	bool harmless; /* also for a process that is not in a sandbox */
	long nr;
	unsigned long long args[5];
} calls[] = {
	{ "getpid", true, SYS_getpid, { 0 } },
	{ "openat", true, SYS_openat, { (unsigned long long)AT_FDCWD, ARG_PATH, O_RDONLY } },
	{ "openat-path", true, SYS_openat, { (unsigned long long)AT_FDCWD, ARG_PATH, O_PATH } },
	{ "open", true, SYS_open, { ARG_PATH, O_RDONLY } },
	{ "openat2", true, SYS_openat2, { (unsigned long long)AT_FDCWD, ARG_PATH, ARG_PATH, 1 } },
	{ "socket-inet", true, SYS_socket, { 2, 1, 0 } },
	{ "socket-unix", true, SYS_socket, { 1, 1, 0 } },
	{ "socket-netlink", true, SYS_socket, { 16, 3, 16 } },
	{ "creat", false, SYS_creat, { ARG_PATH, 0600 } },
	{ "stat", false, SYS_stat, { ARG_PATH, 0 } },
	{ "readlink", false, SYS_readlink, { ARG_PATH, 0, 4 } },
	{ "rename", false, SYS_rename, { ARG_PATH, ARG_PATH } },
	{ "truncate", false, SYS_truncate, { ARG_PATH, 0 } },
	{ "chmod", false, SYS_chmod, { ARG_PATH, 0600 } },
	{ "unlink", false, SYS_unlink, { ARG_PATH } },
	{ "mount", false, SYS_mount, { ARG_PATH, ARG_PATH, ARG_PATH } },
	{ "chroot", false, SYS_chroot, { ARG_PATH } },
	{ "open_by_handle_at", false, SYS_open_by_handle_at, { -1ull, 0, 0 } },
	{ "execve", false, SYS_execve, { ARG_PATH, 0, 0 } },
	/* CLONE_THREAD without CLONE_SIGHAND: EINVAL, if it gets that far. */
	{ "clone", false, SYS_clone, { 0x10000 } },
	{ "ptrace", false, SYS_ptrace, { 0xffff, 1 } },
	{ "process_vm_readv", false, SYS_process_vm_readv, { 1, 0, 0, 0, 0 } },
	{ "pidfd_open", false, SYS_pidfd_open, { 1, 0 } },
	{ "kill", false, SYS_kill, { 1, 0 } },
	{ "io_uring_setup", false, SYS_io_uring_setup, { 0, 0 } },
	{ "bpf", false, SYS_bpf, { 0xffff, 0, 0 } },
	{ "memfd_create", false, SYS_memfd_create, { ARG_PATH, 0 } },
	{ "unshare", false, SYS_unshare, { 0xffffffff } },
	{ "mmap-code", false, SYS_mmap, { 0, 4096, 5, 0x22, -1ull } },
};

static void die(const char *what)
{
	fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
	exit(2);
}

static bool wait_stop_or_end(pid_t tid)
{
	int status;

	if (waitpid(tid, &status, __WALL) != tid)
		die("waiting for the thread");
	return WIFSTOPPED(status);
}

static void wait_stop(pid_t tid)
{
	if (!wait_stop_or_end(tid))
		die("the thread did not stop");
}

/* A stopped thread is just behind the system call it waits in. */
static unsigned long long find_syscall(pid_t tid, const struct user_regs_struct *regs)
{
	long text = ptrace(PTRACE_PEEKTEXT, tid, (void *)(regs->rip - 2), NULL);

	if ((text & 0xffff) != 0x050f)
		die("the thread is not in a system call");
	return regs->rip - 2;
}

/* Far below the stack pointer, and its red zone, nothing is alive. */
static unsigned long long put_path(pid_t tid, unsigned long long sp, const char *path)
{
	unsigned long long at = (sp - 4096) & ~15ull;
	char text[128] = "";
	size_t i;
	long word;

	snprintf(text, sizeof(text), "%s", path);
	for (i = 0; i < sizeof(text); i += sizeof(word)) {
		memcpy(&word, text + i, sizeof(word));
		if (ptrace(PTRACE_POKEDATA, tid, (void *)(at + i), (void *)word))
			die("writing the path");
	}
	return at;
}

static long long try_call(pid_t tid, const struct call *c, const char *file,
			  struct user_regs_struct regs)
{
	unsigned long long path = put_path(tid, regs.rsp, file), args[5];
	int i;

	for (i = 0; i < 5; i++)
		args[i] = c->args[i] == ARG_PATH ? path : c->args[i];
	regs.rip = find_syscall(tid, &regs);
	regs.orig_rax = (unsigned long long)-1;
	regs.rax = (unsigned long long)c->nr;
	regs.rdi = args[0];
	regs.rsi = args[1];
	regs.rdx = args[2];
	regs.r10 = args[3];
	regs.r8 = args[4];
	regs.r9 = 0;
	if (ptrace(PTRACE_SETREGS, tid, NULL, &regs) || ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL))
		die("system call");
	wait_stop(tid);
	if (ptrace(PTRACE_GETREGS, tid, NULL, &regs))
		die("its result");
	return (long long)regs.rax;
}

static void attach(pid_t tid, struct user_regs_struct *regs)
{
	if (ptrace(PTRACE_ATTACH, tid, NULL, NULL))
		die("PTRACE_ATTACH");
	wait_stop(tid);
	if (ptrace(PTRACE_GETREGS, tid, NULL, regs))
		die("registers");
}

static void try_thread(pid_t tid, const char *file, bool all)
{
	struct user_regs_struct regs;
	size_t i;

	attach(tid, &regs);
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (all || calls[i].harmless)
			printf("%d %s %lld\n", tid, calls[i].name,
			       try_call(tid, &calls[i], file, regs));
	/* Restarts what it waited in. */
	if (ptrace(PTRACE_SETREGS, tid, NULL, &regs) || ptrace(PTRACE_DETACH, tid, NULL, NULL))
		die("letting go");
}

#define X32_GETPID   (0x40000000 | SYS_getpid)
#define INT80_GETPID 20

/* Returns whether the thread lives on; its code is then as it was. */
static bool step_foreign(pid_t tid, struct user_regs_struct regs, bool int80, long long *result)
{
	unsigned long long at = find_syscall(tid, &regs);
	long text = ptrace(PTRACE_PEEKTEXT, tid, (void *)at, NULL);
	long code = int80 ? (text & ~0xffffl) | 0x80cd : text;

	regs.rip = at;
	regs.orig_rax = (unsigned long long)-1;
	regs.rax = int80 ? INT80_GETPID : X32_GETPID;
	if (ptrace(PTRACE_POKETEXT, tid, (void *)at, (void *)code) ||
	    ptrace(PTRACE_SETREGS, tid, NULL, &regs) || ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL))
		die("system call");
	if (!wait_stop_or_end(tid))
		return false;
	if (ptrace(PTRACE_GETREGS, tid, NULL, &regs) ||
	    ptrace(PTRACE_POKETEXT, tid, (void *)at, (void *)text))
		die("its result");
	*result = (long long)regs.rax;
	return true;
}

static void try_foreign(pid_t tid, const char *abi)
{
	struct user_regs_struct regs;
	long long result;

	attach(tid, &regs);
	if (!step_foreign(tid, regs, !strcmp(abi, "int80"), &result)) {
		printf("%d %s-getpid killed\n", tid, abi);
		return;
	}
	printf("%d %s-getpid %lld\n", tid, abi, result);
	if (ptrace(PTRACE_SETREGS, tid, NULL, &regs) || ptrace(PTRACE_DETACH, tid, NULL, NULL))
		die("letting go");
}

int main(int argc, char **argv)
{
	bool all = argc > 1 && !strcmp(argv[1], "all");
	bool native = all || (argc > 1 && !strcmp(argv[1], "harmless"));
	char path[64];
	struct dirent *e;
	DIR *d;

	/* Nobody's file: a folder that mktemp made, and a name that says so. */
	if (argc != 4 || strncmp(argv[3], "/var/tmp/dm-qcow.", 17) || strlen(argv[3]) > 127)
		return 2;
	if (!native) {
		try_foreign(atoi(argv[2]), argv[1]);
		return 0;
	}
	snprintf(path, sizeof(path), "/proc/%d/task", atoi(argv[2]));
	d = opendir(path);
	if (!d)
		die(path);
	while ((e = readdir(d)) != NULL)
		if (atoi(e->d_name))
			try_thread(atoi(e->d_name), argv[3], all);
	closedir(d);
	return 0;
}
