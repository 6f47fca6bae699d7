// SPDX-License-Identifier: GPL-2.0-only
/* What a crash may leave of what a sim.h did. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "imgcheck.h"
#include "lib/be.h"

static size_t acked_at(const struct sim *s, size_t k)
{
	size_t i, n = 0;

	for (i = 0; i < s->nr_acks; i++)
		if (s->acks[i].at <= k)
			n = s->acks[i].events;
	return n;
}

/* Is the sector what some version of the block, not older than the acknowledged one, had? */
static bool sector_ok(const struct sim *s, uint64_t block, const uint8_t *got, uint64_t at,
		      size_t k, uint8_t *buf)
{
	size_t acked = acked_at(s, k), i, from = 0;
	uint32_t oldest = BASE_VERSION;

	for (i = 0; i < acked; i++) {
		if (s->events[i].block == block) {
			oldest = s->events[i].version;
			from = i + 1;
		}
	}
	sim_fill(s, block, oldest, buf);
	if (!memcmp(buf + at, got + at, 512))
		return true;
	for (i = from; i < s->nr_events && s->events[i].at < k; i++) {
		if (s->events[i].block != block)
			continue;
		sim_fill(s, block, s->events[i].version, buf);
		if (!memcmp(buf + at, got + at, 512))
			return true;
	}
	return false;
}

static const char *judge_block(struct sim *s, struct qcow_chain *chain,
			       struct qcow_scratch *scratch, uint64_t block, size_t k, uint8_t *got,
			       uint8_t *buf)
{
	static char text[200];
	uint64_t at, size = sim_block_size(s), step = size > 16384 ? size / 8 : 512;

	if (qcow_chain_read(chain, block << s->block_bits, got, size, scratch, &s->err) < 0)
		return s->err.text;
	for (at = 0; at < size; at += step) {
		if (sector_ok(s, block, got, at, k, buf))
			continue;
		snprintf(text, sizeof(text), "block %llu byte %llu: %016llx, neither old nor new",
			 (unsigned long long)block, (unsigned long long)at,
			 (unsigned long long)*(uint64_t *)(void *)(got + at));
		return text;
	}
	return NULL;
}

static const char *judge_data(struct sim *s, struct memio *m, size_t k)
{
	struct qcow_scratch *scratch;
	struct qcow_chain *chain = sim_open_chain(&m->io, &scratch, &s->err);
	uint8_t *got = malloc(sim_block_size(s)), *buf = malloc(sim_block_size(s));
	const char *wrong = NULL;
	bool *seen = calloc(s->nr_blocks, 1);
	size_t i;

	if (!chain)
		wrong = s->err.text;
	for (i = 0; i < s->nr_events && !wrong; i++) {
		if (seen[s->events[i].block])
			continue;
		seen[s->events[i].block] = true;
		wrong = judge_block(s, chain, scratch, s->events[i].block, k, got, buf);
	}
	if (chain) {
		qcow_scratch_destroy(scratch);
		qcow_chain_destroy(chain);
	}
	free(seen);
	free(got);
	free(buf);
	return wrong;
}

const char *sim_judge(struct sim *s, struct memio *m, size_t k)
{
	static struct imgcheck result;

	if (s->autoclear && qcow_be64(m->data + 88) & s->autoclear &&
	    memcmp(m->data + 512, s->crash.start + 512, s->crash.start_size - 512))
		return "written to before the autoclear bits were gone";
	imgcheck(m->data, m->size, &result);
	if (result.corruptions)
		return result.first;
	return judge_data(s, m, k);
}
