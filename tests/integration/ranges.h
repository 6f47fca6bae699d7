/* SPDX-License-Identifier: GPL-2.0-only */
/* Two operations under way never touch the same sector: each thread takes its range first. */
#ifndef TESTS_RANGES_H
#define TESTS_RANGES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define THREADS_MAX 64

struct range {
	uint64_t sector, nr;
};

/* lock protects busy; idle is signalled when a range becomes free. */
struct ranges {
	pthread_mutex_t lock;
	pthread_cond_t idle;
	struct range busy[THREADS_MAX];
};

#define RANGES_INIT                                                                 \
	{                                                                           \
		.lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER \
	}

static inline bool range_is_busy(const struct ranges *ranges, const struct range *want)
{
	for (unsigned int i = 0; i < THREADS_MAX; i++) {
		const struct range *busy = &ranges->busy[i];

		if (busy->nr && busy->sector < want->sector + want->nr &&
		    want->sector < busy->sector + busy->nr)
			return true;
	}
	return false;
}

static inline void range_take(struct ranges *ranges, unsigned int thread, const struct range *range)
{
	pthread_mutex_lock(&ranges->lock);
	while (range_is_busy(ranges, range))
		pthread_cond_wait(&ranges->idle, &ranges->lock);
	ranges->busy[thread] = *range;
	pthread_mutex_unlock(&ranges->lock);
}

static inline void range_give_back(struct ranges *ranges, unsigned int thread)
{
	pthread_mutex_lock(&ranges->lock);
	ranges->busy[thread].nr = 0;
	pthread_cond_broadcast(&ranges->idle);
	pthread_mutex_unlock(&ranges->lock);
}

#endif
