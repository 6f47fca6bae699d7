// SPDX-License-Identifier: GPL-2.0-only
#include "tools/progress.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tools/info.h"

#define INTERVAL 0.2 /* seconds */

static volatile sig_atomic_t asked;

static void on_signal(int signal)
{
	(void)signal;
	asked = 1;
}

void cancel_catch(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
	struct sigaction old;
	size_t i;

	for (i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		/* nohup stays nohup. */
		if (!sigaction(signals[i], NULL, &old) && old.sa_handler != SIG_IGN)
			sigaction(signals[i], &sa, NULL);
	}
}

bool cancel_asked(void)
{
	return asked;
}

static double seconds(const struct timespec *from, const struct timespec *to)
{
	return (double)(to->tv_sec - from->tv_sec) + (double)(to->tv_nsec - from->tv_nsec) / 1e9;
}

void progress_start(struct progress *p, bool shown)
{
	*p = (struct progress){ .shown = shown };
	clock_gettime(CLOCK_MONOTONIC, &p->start);
	p->last = p->start;
}

static void print_left(double elapsed, uint64_t done, uint64_t total)
{
	uint64_t left = (uint64_t)(elapsed * (double)(total - done) / (double)done + 0.5);

	fprintf(stderr, ", %" PRIu64 ":%02" PRIu64 " left", left / 60, left % 60);
}

static void print(struct progress *p, double elapsed, uint64_t done, uint64_t total)
{
	char at[32], rate[32];

	info_size_text(done, at, sizeof(at));
	info_size_text(elapsed > 0 ? (uint64_t)((double)done / elapsed) : 0, rate, sizeof(rate));
	fputs("\r", stderr);
	if (total)
		fprintf(stderr, "%5.1f%%  ", 100.0 * (double)done / (double)total);
	fprintf(stderr, "%s, %s/s", at, rate);
	if (total && done && done < total)
		print_left(elapsed, done, total);
	fputs("   ", stderr);
	fflush(stderr);
	p->printed = true;
}

void progress_at(struct progress *p, uint64_t done, uint64_t total)
{
	struct timespec now;

	if (!p->shown)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (done != total && seconds(&p->last, &now) < INTERVAL)
		return;
	p->last = now;
	print(p, seconds(&p->start, &now), done, total);
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
	progress_at(arg, done, total);
}

static bool on_cancelled(void *arg)
{
	(void)arg;
	return cancel_asked();
}

struct qcow_watch progress_watch(struct progress *p)
{
	return (struct qcow_watch){ .progress = on_progress, .cancelled = on_cancelled, .arg = p };
}

void progress_end(struct progress *p)
{
	if (p->printed)
		fputc('\n', stderr);
}
