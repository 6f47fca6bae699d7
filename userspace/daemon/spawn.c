// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/spawn.h"

#include "daemon/broker.h"
#include "daemon/util.h"
#include "daemon/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

/*
 * The child of a multi-threaded process: only async-signal-safe calls up to the
 * exec. It must own no copy of the supervisor's sockets: the kernel sees a
 * supervisor's death by its socket closing, a broker its worker's.
 */
static void become_worker(const struct supervisor_config *config, int broker, pid_t parent,
			  uint32_t id)
{
	char name[] = "@qcowd", number[16];
	char *const argv[] = { config->initrd ? name : name + 1, "--worker", number, NULL };
	char *const envp[] = { NULL };
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(WORKER_EXIT_FAILED); /* it died before the line above */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (broker == WORKER_BROKER_FD)
		fcntl(broker, F_SETFD, 0);
	else
		dup2(broker, WORKER_BROKER_FD);
	close_range(WORKER_BROKER_FD + 1, ~0U, 0);
	/*
	 * After switch-root our binary's libraries are gone, and a root on the very
	 * image that lacks a worker could not be read: no exec then.
	 */
	if (config->initrd)
		_exit(worker_main(id));
	snprintf(number, sizeof(number), "%u", id);
	execve("/proc/self/exe", argv, envp);
	_exit(WORKER_EXIT_FAILED);
}

pid_t spawn_worker(const struct supervisor_config *config, uint32_t id, const struct table *table)
{
	pid_t parent = getpid(), pid;
	int sv[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return -errno;
	pid = fork();
	if (pid == 0)
		become_worker(config, sv[1], parent, id);
	r = pid < 0 ? -errno : 0;
	close(sv[1]);
	if (r) {
		close(sv[0]);
		return r;
	}
	r = broker_start(sv[0], table, config->conf);
	if (r)
		log_line("target %u: no broker: %s", id, strerror(-r));
	return pid; /* without a broker it fails what it is asked, and says why */
}

void load_module(void)
{
	char *const argv[] = { "modprobe", "dm-qcow", NULL };
	pid_t pid;

	if (!posix_spawnp(&pid, "modprobe", NULL, NULL, argv, environ))
		waitpid(pid, NULL, 0);
}
