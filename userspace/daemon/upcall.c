// SPDX-License-Identifier: GPL-2.0-only
/* The worker's loop: upcalls in, answers out. Knows no process and no sandbox. */
#include "daemon/util.h"
#include "daemon/worker.h"

#include <errno.h>
#include <string.h>

static const char *command_name(uint8_t cmd)
{
	static const char *const names[] = {
		[DM_QCOW_CMD_PROBE] = "PROBE", [DM_QCOW_CMD_OPEN] = "OPEN",
		[DM_QCOW_CMD_LOAD] = "LOAD",   [DM_QCOW_CMD_FETCH] = "FETCH",
		[DM_QCOW_CMD_CLOSE] = "CLOSE", [DM_QCOW_CMD_PROPOSE] = "PROPOSE",
		[DM_QCOW_CMD_GRANT] = "GRANT", [DM_QCOW_CMD_COMMIT] = "COMMIT",
		[DM_QCOW_CMD_FREE] = "FREE",
	};

	if (cmd >= sizeof(names) / sizeof(names[0]) || !names[cmd])
		return "message";
	return names[cmd];
}

static bool reads(uint8_t cmd)
{
	return cmd == DM_QCOW_CMD_LOAD || cmd == DM_QCOW_CMD_FETCH;
}

/* Beside the readers, but one at a time. */
static bool writes(uint8_t cmd)
{
	return cmd == DM_QCOW_CMD_PROPOSE || cmd == DM_QCOW_CMD_GRANT || cmd == DM_QCOW_CMD_COMMIT;
}

static int run_writing(struct image *image, const struct qnl_msg *up, struct qnl_msg *answer,
		       struct qcow_error *err)
{
	if (!image->writing || !image->chain)
		return qcow_fail(err, EIO, QCOW_NO_OFF, "%s is not open for writing",
				 image->table.path);
	switch (up->cmd) {
	case DM_QCOW_CMD_PROPOSE:
		return writing_propose(image->writing, up, answer, err);
	case DM_QCOW_CMD_GRANT:
		return writing_grant(image->writing, up, answer, err);
	case DM_QCOW_CMD_COMMIT:
		return writing_commit(image->writing, up, answer, err);
	default:
		return writing_free(image->writing, up, err);
	}
}

static int run_upcall(struct image *image, struct lane *lane, const struct qnl_msg *up,
		      struct qnl_msg *answer, struct qcow_error *err)
{
	switch (up->cmd) {
	case DM_QCOW_CMD_PROBE:
		return image_probe(image, lane, answer, err);
	case DM_QCOW_CMD_OPEN:
		return image_open(image, lane, answer, err);
	case DM_QCOW_CMD_LOAD:
		return image_load(image, lane, up, answer, err);
	case DM_QCOW_CMD_FETCH:
		return image_fetch(image, lane, up, answer, err);
	case DM_QCOW_CMD_CLOSE:
		return image_close(image, up, err);
	case DM_QCOW_CMD_PROPOSE:
	case DM_QCOW_CMD_GRANT:
	case DM_QCOW_CMD_COMMIT:
	case DM_QCOW_CMD_FREE:
		return run_writing(image, up, answer, err);
	default:
		return qcow_fail(err, EOPNOTSUPP, QCOW_NO_OFF,
				 "the helper is older than the module: unknown upcall %u", up->cmd);
	}
}

static void begin_answer(const struct worker *w, const struct qnl_msg *up, struct qnl_msg *answer)
{
	memset(answer, 0, sizeof(*answer));
	answer->cmd = up->cmd;
	qnl_set(answer, TARGET, target, w->target);
	qnl_set(answer, EPOCH, epoch, w->epoch);
	qnl_set(answer, COOKIE, cookie, up->cookie);
}

static void answer_error(struct qnl_msg *answer, int r, const struct qcow_error *err)
{
	qnl_set(answer, ERROR, error, (uint32_t)-r);
	qnl_set(answer, ERROR_TEXT, error_text, err->text[0] ? err->text : strerror(-r));
}

static void answer_upcall(struct worker *w, struct lane *lane, const struct qnl_msg *up)
{
	struct qcow_error err = { 0 };
	struct qnl_msg answer;
	int r;

	begin_answer(w, up, &answer);
	r = run_upcall(&w->image, lane, up, &answer, &err);
	if (r) {
		begin_answer(w, up, &answer); /* whatever it had put there */
		answer_error(&answer, r, &err);
	}
	r = qnl_send(&w->link, &answer, 0, lane->tx, sizeof(lane->tx), NULL);
	if (r)
		log_line("target %u: cannot answer %s: %s", w->target, command_name(up->cmd),
			 strerror(-r));
}

/* The locks are held until the answer is out: it points into what CLOSE frees. */
static void handle_upcall(struct worker *w, struct lane *lane, const struct qnl_msg *up)
{
	struct image *image = &w->image;

	if (!reads(up->cmd) && !writes(up->cmd))
		pthread_rwlock_wrlock(&image->lock);
	else
		pthread_rwlock_rdlock(&image->lock);
	if (writes(up->cmd))
		pthread_mutex_lock(&image->write_lock);
	answer_upcall(w, lane, up);
	if (writes(up->cmd))
		pthread_mutex_unlock(&image->write_lock);
	pthread_rwlock_unlock(&image->lock);
}

/*
 * ENOENT is no reason to go: most likely an upcall timed out under us. If it was
 * the target, and GONE was lost, the supervisor's next LIST ends us.
 */
static int handle_error(const struct worker *w, const struct qnl_event *event)
{
	if (!event->error || event->error == -ENOENT)
		return 0;
	log_line("target %u: the kernel refused an answer to %s: %s", w->target,
		 command_name(event->refused), strerror(-event->error));
	return event->error == -ESTALE ? -ESTALE : 0;
}

static int handle_event(struct worker *w, struct lane *lane, const struct qnl_event *event)
{
	if (event->kind == QNL_KIND_ERROR)
		return handle_error(w, event);
	if (event->kind != QNL_KIND_MSG || event->msg.target != w->target)
		return 0;
	if (event->msg.cmd == DM_QCOW_CMD_GONE)
		return -ENOENT;
	if (qnl_has(&event->msg, QNL_BIT(COOKIE)))
		handle_upcall(w, lane, &event->msg);
	return 0;
}

static int handle_datagram(struct worker *w, struct lane *lane, size_t len)
{
	const void *pos = lane->rx;
	struct qnl_event event;
	int r;

	while ((r = qnl_decode(&pos, &len, w->link.family, &event)) > 0) {
		r = handle_event(w, lane, &event);
		if (r)
			return r;
	}
	if (r == -EPROTO)
		log_line("target %u: malformed message from the kernel", w->target);
	return 0;
}

int worker_serve(struct worker *w, struct lane *lane)
{
	ssize_t n;
	int r = 0;

	while (!r) {
		n = qnl_recv(&w->link, lane->rx, sizeof(lane->rx));
		if (n > 0)
			r = handle_datagram(w, lane, (size_t)n);
		else if (n == -ENOBUFS || n == -EMSGSIZE || n == -ENOMEM)
			log_line("target %u: lost a message: %s", w->target, strerror((int)-n));
		else
			r = (int)n;
	}
	return r;
}
