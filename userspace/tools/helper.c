// SPDX-License-Identifier: GPL-2.0-only
#include "tools/helper.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Its output goes to our stderr: stdout may be read by a program. */
static int run(char *const argv[])
{
	posix_spawn_file_actions_t actions;
	int status, r;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r)
		return -1;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -1;
}

static bool systemd_has_unit(void)
{
	static const char *const places[] = {
		"/etc/systemd/system/qcowd.service",
		"/run/systemd/system/qcowd.service",
		"/usr/local/lib/systemd/system/qcowd.service",
		"/usr/lib/systemd/system/qcowd.service",
		"/lib/systemd/system/qcowd.service",
	};

	if (access("/run/systemd/system", F_OK)) /* as sd_booted(3) does */
		return false;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (!access(places[i], F_OK))
			return true;
	return false;
}

/* Beside this program, so that a build tree and an installation both find their own. */
static void find_qcowd(char path[PATH_MAX])
{
	static const char *const places[] = { "/qcowd", "/../sbin/qcowd" };
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *dir;

	self[n > 0 ? n : 0] = 0;
	dir = dirname(self);
	for (size_t i = 0; n > 0 && i < sizeof(places) / sizeof(places[0]); i++)
		if (snprintf(path, PATH_MAX, "%s%s", dir, places[i]) < PATH_MAX &&
		    !access(path, X_OK))
			return;
	strcpy(path, "qcowd");
}

int helper_start(void)
{
	char *const by_systemd[] = { "systemctl", "start", "qcowd.service", NULL };
	char qcowd[PATH_MAX];
	char *const by_itself[] = { qcowd, "--respawn", NULL };

	if (systemd_has_unit()) {
		if (!run(by_systemd))
			return 0;
		fputs("qcow: qcowd.service does not start; see: journalctl -u qcowd\n", stderr);
		return -1;
	}
	find_qcowd(qcowd);
	if (!run(by_itself))
		return 0;
	fprintf(stderr, "qcow: cannot start the helper: %s --respawn failed\n", qcowd);
	return -1;
}
