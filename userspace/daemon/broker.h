/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The worker asks the supervisor to open files; nobody else may use the pair of
 * sockets between them.
 *
 * The worker parses what an image's author wrote, so its requests count as his:
 * the supervisor opens the table's image, and what the trust policy lets that
 * image name, and takes no other word for anything.
 */
#ifndef QCOW_DAEMON_BROKER_H
#define QCOW_DAEMON_BROKER_H

#include "daemon/table.h"
#include "host/chain.h"

/*
 * The worker's side: an opener that asks over @fd, one request at a time. It ends the
 * process with WORKER_EXIT_FAILED if nobody serves @fd any more.
 */
struct broker_client {
	int fd;
};

struct host_opener broker_opener(struct broker_client *client);

/*
 * The supervisor's side: answers requests on @fd until the worker is gone.
 * @conf: HOST_CONF_PATH, or another file for tests.
 */
void broker_serve(int fd, const struct table *table, const char *conf);

/*
 * The same in a thread of its own: an open(2) that hangs must hold up neither the
 * other images nor the worker that may be needed to unhang it (images lie on
 * images). Takes @fd in any case.
 */
int broker_start(int fd, const struct table *table, const char *conf);

#endif
