// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/targets.h"

#include "daemon/util.h"
#include "daemon/worker.h"

#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

/*
 * A worker that was killed, or lived this long, died of something new: the next
 * starts at once. After one that fails sooner comes a pause, twice as long each
 * time: a corrupt image must not keep a CPU busy with crashing.
 */
#define HEALTHY_MS     2000
#define FIRST_PAUSE_MS 20
#define LAST_PAUSE_MS  2000

struct target {
	struct target *next;
	uint32_t id;
	struct table table;
	bool wanted;
	bool listed;
	pid_t pid; /* 0: no worker */
	int64_t started;
	int64_t not_before;
	int pause_ms;
};

void targets_init(struct targets *t, const struct targets_ops *ops, void *arg)
{
	*t = (struct targets){ .ops = ops, .arg = arg };
}

static void destroy_target(struct target *target)
{
	table_exit(&target->table);
	free(target);
}

void targets_exit(struct targets *t)
{
	while (t->first) {
		struct target *target = t->first;

		t->first = target->next;
		destroy_target(target);
	}
}

static struct target *find_id(struct targets *t, uint32_t id)
{
	for (struct target *target = t->first; target; target = target->next)
		if (target->id == id)
			return target;
	return NULL;
}

static struct target *find_pid(struct targets *t, pid_t pid)
{
	for (struct target *target = t->first; target; target = target->next)
		if (target->pid == pid)
			return target;
	return NULL;
}

static struct target *create_target(struct targets *t, const struct qnl_msg *msg)
{
	struct target *target = calloc(1, sizeof(*target));
	int r = -1;

	if (target)
		r = table_init(&target->table, msg);
	if (r) {
		log_line("target %u: out of memory, or a malformed notice", msg->target);
		free(target);
		return NULL;
	}
	target->id = msg->target;
	target->next = t->first;
	t->first = target;
	return target;
}

static void forget(struct targets *t, struct target *target)
{
	struct target **link = &t->first;

	while (*link != target)
		link = &(*link)->next;
	*link = target->next;
	destroy_target(target);
}

/* ---- what the kernel says ---------------------------------------------------------- */

static struct target *want(struct targets *t, const struct qnl_msg *msg)
{
	struct target *target = find_id(t, msg->target);

	if (!target)
		target = create_target(t, msg);
	if (target)
		target->wanted = true;
	return target;
}

static void unwant(struct targets *t, struct target *target)
{
	target->wanted = false;
	if (target->pid)
		t->ops->kill(t->arg, target->pid);
	else
		forget(t, target);
}

void targets_start(struct targets *t, const struct qnl_msg *msg)
{
	if (qnl_has(msg, QNL_BIT(TARGET)))
		want(t, msg);
}

void targets_hung(struct targets *t, const struct qnl_msg *msg)
{
	struct target *target = find_id(t, msg->target);

	if (!target || !target->pid)
		return;
	log_line("target %u: worker %d does not answer; killing it", target->id, target->pid);
	t->ops->kill(t->arg, target->pid);
}

void targets_gone(struct targets *t, const struct qnl_msg *msg)
{
	struct target *target = find_id(t, msg->target);

	if (target)
		unwant(t, target);
}

void targets_list_begin(struct targets *t)
{
	for (struct target *target = t->first; target; target = target->next)
		target->listed = false;
}

/*
 * An attached target that is not known has the worker of a supervisor that died;
 * it dies as well, and START or the next LIST will say so.
 */
void targets_list_entry(struct targets *t, const struct qnl_msg *msg)
{
	struct target *target = find_id(t, msg->target);

	if (!qnl_has(msg, QNL_BIT(TARGET)))
		return;
	if (!msg->attached)
		target = want(t, msg);
	if (target)
		target->listed = true;
}

void targets_list_end(struct targets *t, bool complete)
{
	struct target *next;

	for (struct target *target = t->first; complete && target; target = next) {
		next = target->next;
		if (!target->listed)
			unwant(t, target);
	}
}

/* ---- workers -------------------------------------------------------------------------- */

static void log_death(const struct target *target, int status)
{
	if (WIFSIGNALED(status))
		log_line("target %u: worker %d killed by signal %d", target->id, target->pid,
			 WTERMSIG(status));
	else
		log_line("target %u: worker %d ended with status %d", target->id, target->pid,
			 WEXITSTATUS(status));
}

static void restart_at_once(struct target *target, int64_t now)
{
	target->pause_ms = 0;
	target->not_before = now;
}

static void restart_after_pause(struct target *target, int64_t now)
{
	target->pause_ms = target->pause_ms ? target->pause_ms * 2 : FIRST_PAUSE_MS;
	if (target->pause_ms > LAST_PAUSE_MS)
		target->pause_ms = LAST_PAUSE_MS;
	target->not_before = now + target->pause_ms;
}

static bool died_of_itself(int status)
{
	return !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;
}

void targets_reaped(struct targets *t, pid_t pid, int status)
{
	struct target *target = find_pid(t, pid);
	int64_t now = t->ops->now_ms(t->arg);

	if (!target)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == WORKER_EXIT_GONE)
		target->wanted = false;
	if (!target->wanted) {
		forget(t, target);
		return;
	}
	log_death(target, status);
	target->pid = 0;
	if (died_of_itself(status) && now - target->started < HEALTHY_MS)
		restart_after_pause(target, now);
	else
		restart_at_once(target, now);
}

static bool has_sibling(const struct targets *t, const struct target *target)
{
	const struct target *other = t->first;

	while (other && (other == target || !other->pid || !other->table.device ||
			 other->table.device != target->table.device))
		other = other->next;
	return other;
}

static void spawn(struct targets *t, struct target *target, int64_t now)
{
	pid_t pid;

	target->table.replaces = has_sibling(t, target);
	pid = t->ops->spawn(t->arg, target->id, &target->table);
	target->started = now;
	if (pid > 0) {
		target->pid = pid;
		return;
	}
	log_line("target %u: cannot start a worker: %s", target->id, strerror(-pid));
	restart_after_pause(target, now);
}

int targets_run(struct targets *t)
{
	int64_t now = t->ops->now_ms(t->arg);
	int64_t next = INT64_MAX;

	for (struct target *target = t->first; target; target = target->next) {
		if (!target->wanted || target->pid)
			continue;
		if (target->not_before <= now)
			spawn(t, target, now);
		if (!target->pid && target->not_before < next)
			next = target->not_before;
	}
	return next == INT64_MAX ? -1 : (int)(next - now);
}
