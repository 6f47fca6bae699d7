// SPDX-License-Identifier: GPL-2.0-only
/* The worker's process: attach, threads, sandbox. */
#include "daemon/worker.h"

#include "daemon/broker.h"
#include "daemon/sandbox.h"
#include "daemon/util.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>

/* Locked into memory at full size, once per thread; scratch space is on the heap. */
#define THREAD_STACK (128 << 10)
/* A killed worker's socket closes when its last thread is out of the kernel. */
#define ATTACH_PATIENCE_MS 5000

static struct {
	struct worker worker;
	struct broker_client broker;
	pthread_barrier_t started; /* all threads run: their first system calls are made */
	pthread_mutex_t gate;	   /* held until the sandbox is closed */
} self;

static unsigned int nr_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN) + 2; /* those of COMMIT and PROPOSE */

	if (n < WORKER_MIN_THREADS)
		return WORKER_MIN_THREADS;
	return n > WORKER_MAX_THREADS ? WORKER_MAX_THREADS : (unsigned int)n;
}

/* ---- attaching -------------------------------------------------------------------- */

static int exit_status(int r)
{
	if (r == -ENOENT)
		return WORKER_EXIT_GONE;
	return r == -EBUSY ? WORKER_EXIT_BUSY : WORKER_EXIT_FAILED;
}

static int attach(struct worker *w, void *buf, size_t size, struct qnl_msg *reply)
{
	int r;

	r = qnl_link_init(&w->link);
	if (!r)
		r = qnl_attach(&w->link, &w->target, buf, size, ATTACH_PATIENCE_MS, reply);
	if (r && r != -ENOENT)
		log_line("target %u: cannot attach: %s", w->target, strerror(-r));
	if (!r)
		w->epoch = reply->epoch;
	return r;
}

static void adopt(struct worker *w, const struct qnl_msg *reply)
{
	struct qcow_error err = { 0 };

	if (reply->state != DM_QCOW_STATE_OPEN)
		return;
	if (image_adopt(&w->image, &reply->layers, &reply->leases, &err))
		log_line("target %u: cannot go on with %s: %s", w->target, w->image.table.path,
			 err.text);
}

/* ---- threads ------------------------------------------------------------------------ */

static void serve_and_exit(unsigned int i)
{
	int r = worker_serve(&self.worker, &self.worker.image.lanes[i]);

	if (r != -ENOENT)
		log_line("target %u: %s", self.worker.target, strerror(-r));
	_exit(exit_status(r));
}

static void *run_thread(void *arg)
{
	pthread_barrier_wait(&self.started);
	pthread_mutex_lock(&self.gate);
	pthread_mutex_unlock(&self.gate);
	serve_and_exit((unsigned int)(uintptr_t)arg);
	return NULL;
}

/* The main thread is the first of the pool. */
static int start_threads(unsigned int nr)
{
	int r = 0;

	for (unsigned int i = 1; i < nr && !r; i++)
		r = thread_detached(run_thread, (void *)(uintptr_t)i, THREAD_STACK);
	/* The C library aborts a thread whose set-up the system call filter refuses. */
	if (!r)
		pthread_barrier_wait(&self.started);
	return r;
}

/* ---- all of it -------------------------------------------------------------------------- */

static int lock_in(unsigned int nr)
{
	int r;

	sandbox_prepare();
	r = sandbox_drop();
	if (!r)
		r = start_threads(nr);
	if (!r)
		r = sandbox_seal();
	return r;
}

int worker_main(uint32_t target)
{
	struct worker *w = &self.worker;
	struct host_opener opener;
	unsigned int nr = nr_threads();
	struct qnl_msg reply;
	void *buf;
	int r;

	/* Started as /proc/self/exe, it would be "exe" in ps and to killall. */
	prctl(PR_SET_NAME, "qcowd");
	w->target = target;
	self.broker.fd = WORKER_BROKER_FD;
	opener = broker_opener(&self.broker);
	pthread_barrier_init(&self.started, NULL, nr);
	pthread_mutex_init(&self.gate, NULL);
	pthread_mutex_lock(&self.gate);

	buf = malloc(QNL_BUF_SIZE);
	if (!buf)
		return WORKER_EXIT_FAILED;
	r = attach(w, buf, QNL_BUF_SIZE, &reply);
	if (r)
		return exit_status(r);
	r = image_init(&w->image, &reply, &opener, nr);
	if (!r)
		r = lock_in(nr);
	if (r) {
		log_line("target %u: cannot start: %s", target, strerror(-r));
		return WORKER_EXIT_FAILED;
	}
	adopt(w, &reply);
	free(buf);
	pthread_mutex_unlock(&self.gate);
	serve_and_exit(0);
	return 0;
}
