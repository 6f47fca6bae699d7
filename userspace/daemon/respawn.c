// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/respawn.h"

#include "daemon/util.h"
#include "netlink/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define PAUSE_MS 100
/* Longer than the supervisor's own patience with a predecessor on its way out. */
#define READY_MS 15000

static volatile sig_atomic_t child;

static void sleep_ms(long ms)
{
	const struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

/* The lock, not the file, says that a loop is running: it cannot outlive it. */
static int lock_pid_file(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(RESPAWN_PID_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	int r;

	if (fd < 0)
		return -errno;
	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return fd;
	r = -errno;
	close(fd);
	return r == -EACCES ? -EAGAIN : r;
}

static void write_pid(int fd)
{
	if (ftruncate(fd, 0) || dprintf(fd, "%d\n", getpid()) < 0)
		log_line("%s: %s", RESPAWN_PID_PATH, strerror(errno));
}

static void pass_on(int sig)
{
	if (child > 0)
		kill((pid_t)child, sig);
	_exit(0);
}

static int run_once(const struct supervisor_config *config, int lock_fd)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		/* The lock is the loop's alone, and so is the way it handles signals. */
		close(lock_fd);
		signal(SIGTERM, SIG_DFL);
		signal(SIGINT, SIG_DFL);
		exit(supervisor_main(config));
	}
	child = pid;
	if (config->ready_fd >= 0) {
		close(config->ready_fd);
		log_to_kernel();
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	child = 0;
	return status;
}

static bool hopeless(int status)
{
	return WIFEXITED(status) && (WEXITSTATUS(status) == SUPERVISOR_EXIT_NO_MODULE ||
				     WEXITSTATUS(status) == SUPERVISOR_EXIT_TAKEN);
}

static void loop(struct supervisor_config *config, int lock_fd)
{
	int status;

	write_pid(lock_fd);
	signal(SIGTERM, pass_on);
	signal(SIGINT, pass_on);
	do {
		status = run_once(config, lock_fd);
		config->ready_fd = -1;
		sleep_ms(PAUSE_MS);
	} while (!hopeless(status));
	_exit(0);
}

/* Detached from the caller's terminal, session and working directory. */
static int start_loop(struct supervisor_config *config, int lock_fd, int ready_fd)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(ready_fd);
		setsid();
		if (chdir("/") || fork())
			_exit(0);
		loop(config, lock_fd);
	}
	waitpid(pid, NULL, 0);
	return 0;
}

static int wait_ready(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char byte;

	if (poll(&pfd, 1, READY_MS) <= 0) {
		log_line("the supervisor did not get ready in time");
		return SUPERVISOR_EXIT_FAILED;
	}
	if (read(fd, &byte, 1) == 1)
		return 0;
	/* It ended. If that is because somebody else's was faster, there is one all the same. */
	return qnl_supervised() == 1 ? 0 : SUPERVISOR_EXIT_FAILED;
}

static int wait_for_other(void)
{
	for (int ms = 0; ms < READY_MS; ms += PAUSE_MS) {
		if (qnl_supervised() == 1)
			return 0;
		sleep_ms(PAUSE_MS);
	}
	log_line("another qcowd --respawn is running, but its supervisor is not");
	return SUPERVISOR_EXIT_FAILED;
}

int respawn_main(struct supervisor_config *config)
{
	int ready[2], lock_fd, r;

	/* Whatever else the caller left open would stay open as long as we run. */
	close_range(STDERR_FILENO + 1, ~0U, 0);
	lock_fd = lock_pid_file();
	if (lock_fd == -EAGAIN)
		return wait_for_other();
	if (lock_fd < 0 || pipe2(ready, O_CLOEXEC)) {
		log_line("%s: %s", RESPAWN_PID_PATH, strerror(lock_fd < 0 ? -lock_fd : errno));
		return SUPERVISOR_EXIT_FAILED;
	}
	config->ready_fd = ready[1];
	r = start_loop(config, lock_fd, ready[0]);
	close(ready[1]);
	if (r) {
		log_line("fork: %s", strerror(-r));
		return SUPERVISOR_EXIT_FAILED;
	}
	return wait_ready(ready[0]);
}
