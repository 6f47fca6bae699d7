/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by convert.c, which reads and judges, and output.c, which places and writes. */
#ifndef QCOW_LIB_CONVERT_PRIV_H
#define QCOW_LIB_CONVERT_PRIV_H

#include "lib/convert.h"
#include "lib/pack.h"
#include "lib/team.h"

enum unit_kind {
	UNIT_SKIP = 1, /* the backing file has it, or nobody asks */
	UNIT_ZERO,
	UNIT_DATA,
	UNIT_PACKED,
};

/* What is judged by itself: a cluster of the new image, or a possible hole of a raw disk. */
struct unit {
	enum unit_kind kind;
	uint32_t alloc;	   /* DATA with extended L2: subclusters that are not zeros */
	size_t packed_len; /* PACKED */
	uint64_t host_off; /* DATA, once placed */
};

struct job {
	struct qcow_convert *c;
	size_t unit, chunk, buf_size; /* bytes; a chunk is whole units */
	bool ordered;		      /* places are given in guest order */
	bool zeros_as_data, subclusters;
	uint64_t hide_end; /* zeros before it hide something, or must be looked at */
	struct worker *workers;
	unsigned int nr_workers;

	struct qcow_team team; /* its lock: of what follows, and of the image */
	struct qcow_concat_scratch *scratch;
	uint64_t next, done; /* bytes */
	uint64_t due_ns;     /* when the next chunk may be read, if there is a limit */
	uint64_t tickets, turn;
};

/* A thread and the chunk it is at. */
struct worker {
	struct job *j;
	struct qcow_concat_scratch *scratch;
	struct qcow_scratch *base_scratch;
	struct qcow_packer *packer;
	uint8_t *buf, *base, *packed;
	struct unit *units;
	size_t nr_units;
	uint64_t off, len;    /* of the chunk */
	enum unit_kind whole; /* SKIP or ZERO: no bytes, any length; else DATA */
	uint64_t due_ns;      /* when it may be read */
	uint64_t ticket;
	struct qcow_error *err; /* of the step it is at */
};

/* ---- convert.c --------------------------------------------------------------------- */

size_t unit_run(const struct worker *w, size_t first, enum unit_kind *kind);
/* Of a unit's start within the chunk; that of the one after the last is the chunk's end. */
uint64_t unit_pos(const struct worker *w, size_t u);

/* ---- output.c ---------------------------------------------------------------------- */

/* In guest order, under the lock: places in the image, or bytes of a stream. */
int job_place(struct worker *w);
/* Beside others: the bytes. */
int job_store(struct worker *w);

#endif
