// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/supervisor.h"

#include "daemon/memory.h"
#include "daemon/notify.h"
#include "daemon/spawn.h"
#include "daemon/targets.h"
#include "daemon/util.h"
#include "netlink/client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

/* A notice that got lost costs at most this. */
#define LIST_EVERY_MS 30000
/* A killed supervisor's socket closes when its last thread is out of the kernel. */
#define ATTACH_PATIENCE_MS 3000

struct supervisor {
	const struct supervisor_config *config;
	struct qnl_link link;
	struct targets targets;
	int signal_fd;
	int64_t next_list;
	bool quit;
	char buf[QNL_BUF_SIZE] __attribute__((aligned(8)));
};

/* ---- the outside that targets.c acts on ----------------------------------------------- */

static pid_t op_spawn(void *arg, uint32_t id, const struct table *table)
{
	const struct supervisor *s = arg;

	return spawn_worker(s->config, id, table);
}

static void op_kill(void *arg, pid_t pid)
{
	(void)arg;
	kill(pid, SIGKILL); /* not reaped yet, so the number is still its own */
}

static int64_t op_now(void *arg)
{
	(void)arg;
	return monotonic_ms();
}

static const struct targets_ops ops = { op_spawn, op_kill, op_now };

/* ---- events ------------------------------------------------------------------------------ */

static int list_entry(const struct qnl_msg *msg, void *arg)
{
	targets_list_entry(arg, msg);
	return 0;
}

static void list_targets(struct supervisor *s)
{
	int r;

	targets_list_begin(&s->targets);
	r = qnl_list(list_entry, &s->targets);
	if (r)
		log_line("cannot list the targets: %s", strerror(-r));
	targets_list_end(&s->targets, !r);
	s->next_list = monotonic_ms() + LIST_EVERY_MS;
}

static void take_notice(struct supervisor *s, const struct qnl_msg *msg)
{
	switch (msg->cmd) {
	case DM_QCOW_CMD_START:
		targets_start(&s->targets, msg);
		break;
	case DM_QCOW_CMD_HUNG:
		targets_hung(&s->targets, msg);
		break;
	case DM_QCOW_CMD_GONE:
		targets_gone(&s->targets, msg);
		break;
	default:
		break;
	}
}

static void take_notices(struct supervisor *s)
{
	ssize_t n = qnl_recv(&s->link, s->buf, sizeof(s->buf));
	const void *pos = s->buf;
	struct qnl_event event;
	size_t left;

	if (n < 0) {
		s->next_list = 0; /* whatever was lost, LIST makes up for it */
		return;
	}
	left = (size_t)n;
	while (qnl_decode(&pos, &left, s->link.family, &event) > 0)
		if (event.kind == QNL_KIND_MSG)
			take_notice(s, &event.msg);
}

static void reap_children(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		targets_reaped(&s->targets, pid, status);
}

static void take_signals(struct supervisor *s)
{
	struct signalfd_siginfo info;

	if (read(s->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGCHLD)
		reap_children(s);
	else
		s->quit = true;
}

static int wait_ms(const struct supervisor *s, int next_spawn)
{
	int64_t until_list = s->next_list - monotonic_ms();

	if (until_list < 0)
		until_list = 0;
	return next_spawn >= 0 && next_spawn < until_list ? next_spawn : (int)until_list;
}

static void run(struct supervisor *s)
{
	struct pollfd fds[] = {
		{ .fd = s->link.fd, .events = POLLIN },
		{ .fd = s->signal_fd, .events = POLLIN },
	};
	int next_spawn;

	while (!s->quit) {
		if (monotonic_ms() >= s->next_list)
			list_targets(s);
		next_spawn = targets_run(&s->targets);
		if (poll(fds, 2, wait_ms(s, next_spawn)) <= 0)
			continue;
		if (fds[1].revents)
			take_signals(s);
		if (fds[0].revents)
			take_notices(s);
	}
}

/* ---- start --------------------------------------------------------------------------------- */

static int open_link(struct qnl_link *link)
{
	int r = qnl_link_init(link);

	if (r == -ENOENT) {
		load_module();
		r = qnl_link_init(link);
	}
	return r;
}

static int attach(struct supervisor *s)
{
	struct qnl_msg reply;
	int r;

	r = open_link(&s->link);
	if (r == -ENOENT) {
		log_line("the dm-qcow module is not loaded; try: modprobe dm-qcow");
		return SUPERVISOR_EXIT_NO_MODULE;
	}
	if (r) {
		log_line("cannot open a netlink socket: %s", strerror(-r));
		return SUPERVISOR_EXIT_FAILED;
	}
	r = qnl_attach(&s->link, NULL, s->buf, sizeof(s->buf), ATTACH_PATIENCE_MS, &reply);
	if (!r)
		return 0;
	if (r == -EBUSY)
		log_line("another qcowd is running");
	else if (r == -EPROTO)
		log_line("the loaded dm-qcow module is of another version than this qcowd");
	else
		log_line("cannot attach to the dm-qcow module: %s", strerror(-r));
	qnl_link_exit(&s->link);
	return r == -EBUSY ? SUPERVISOR_EXIT_TAKEN : SUPERVISOR_EXIT_FAILED;
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	/* Before any thread is started, so that none of them takes one. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* Each worker costs a descriptor here; the usual soft limit is for programs that select(2). */
static void raise_file_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return;
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
}

static void report_ready(const struct supervisor_config *config)
{
	notify_manager("READY=1");
	if (config->ready_fd < 0)
		return;
	if (write(config->ready_fd, "", 1) != 1)
		log_line("nobody waits for us any more");
	close(config->ready_fd);
	log_to_kernel();
}

int supervisor_main(const struct supervisor_config *config)
{
	static struct supervisor s;
	int status;

	s.config = config;
	s.signal_fd = open_signals();
	if (s.signal_fd < 0) {
		log_line("signalfd: %s", strerror(errno));
		return SUPERVISOR_EXIT_FAILED;
	}
	status = attach(&s);
	if (status)
		return status;
	memory_protect();
	raise_file_limit();
	targets_init(&s.targets, &ops, &s);
	list_targets(&s);
	report_ready(config);
	run(&s);
	/* The workers go with us: PR_SET_PDEATHSIG. */
	targets_exit(&s.targets);
	qnl_link_exit(&s.link);
	return 0;
}
