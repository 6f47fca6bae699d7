// SPDX-License-Identifier: GPL-2.0-only
/* qcowd: the helper of the dm-qcow module. */
#include "daemon/respawn.h"
#include "daemon/supervisor.h"
#include "daemon/util.h"
#include "daemon/worker.h"
#include "host/trust.h"
#include "man/help.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>

enum {
	OPT_FOREGROUND = 256,
	OPT_RESPAWN,
	OPT_INITRD,
	OPT_WORKER,
	OPT_VERSION,
	OPT_HELP
};

static const struct option options[] = {
	{ "foreground", no_argument, NULL, OPT_FOREGROUND },
	{ "respawn", no_argument, NULL, OPT_RESPAWN },
	{ "initrd", no_argument, NULL, OPT_INITRD },
	{ "worker", required_argument, NULL, OPT_WORKER }, /* the supervisor's own */
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static int run_worker(const char *number)
{
	unsigned long target;
	char *end;

	errno = 0;
	target = strtoul(number, &end, 10);
	if (errno || end == number || *end || target > UINT32_MAX)
		return 2;
	return worker_main((uint32_t)target);
}

/*
 * Descriptors 0 to 2 exist, so that no socket becomes stderr; a log whose reader is
 * gone is no reason to die.
 */
static void prepare_process(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
	signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	struct supervisor_config config = { .conf = HOST_CONF_PATH, .ready_fd = -1 };
	bool respawn = false;
	int opt;

	prepare_process();
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case OPT_FOREGROUND:
			break;
		case OPT_RESPAWN:
			respawn = true;
			break;
		case OPT_INITRD:
			config.initrd = true;
			break;
		case OPT_WORKER:
			return run_worker(optarg);
		case OPT_VERSION:
			puts("qcowd " QCOW_VERSION);
			return 0;
		case OPT_HELP:
			fputs(help_qcowd, stdout);
			return 0;
		default:
			return 2;
		}
	}
	if (optind < argc) {
		log_line("unexpected argument '%s'", argv[optind]);
		return 2;
	}
	/* systemd's ROOT_STORAGE_DAEMONS: such processes are not killed at shutdown. */
	if (config.initrd)
		argv[0][0] = '@';
	return respawn ? respawn_main(&config) : supervisor_main(&config);
}
