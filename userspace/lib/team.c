// SPDX-License-Identifier: GPL-2.0-only
#include "lib/team.h"

struct thread {
	struct qcow_team *team;
	void *member;
	int (*step)(void *member, struct qcow_error *err);
	pthread_t id;
};

void qcow_team_init(struct qcow_team *t)
{
	*t = (struct qcow_team){ 0 };
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
}

void qcow_team_exit(struct qcow_team *t)
{
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
}

static void *work(void *arg)
{
	struct thread *th = arg;
	struct qcow_team *t = th->team;
	struct qcow_error err = { 0 };
	int r = 0;

	while (!r)
		r = th->step(th->member, &err);
	if (r == QCOW_TEAM_DONE)
		return NULL;
	pthread_mutex_lock(&t->lock);
	if (!t->r) {
		t->r = r;
		t->err = err;
	}
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

int qcow_team_run(struct qcow_team *t, void *members, size_t size, unsigned int nr,
		  int (*step)(void *member, struct qcow_error *err))
{
	struct thread threads[QCOW_TEAM_MAX];
	unsigned int i, started;

	for (i = 0; i < nr; i++)
		threads[i] = (struct thread){ t, (char *)members + i * size, step, 0 };
	for (started = 0; started < nr; started++)
		if (pthread_create(&threads[started].id, NULL, work, &threads[started]))
			break;
	if (!started)
		work(&threads[0]);
	for (i = 0; i < started; i++)
		pthread_join(threads[i].id, NULL);
	return t->r;
}
