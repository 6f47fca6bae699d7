// SPDX-License-Identifier: GPL-2.0-only
#include "memio.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t memio_random(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint8_t *map_disk(void)
{
	void *p = mmap(NULL, MEMIO_MAX, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert(p != MAP_FAILED);
	return p;
}

static struct memio *to_mem(struct qcow_io *io)
{
	return (struct memio *)io;
}

static struct memio_op *note(struct memio *m, enum memio_type type, uint64_t off, uint64_t len)
{
	if (!m->recording)
		return NULL;
	if (m->nr == m->max) {
		m->max = m->max * 2 + 64;
		m->log = realloc(m->log, m->max * sizeof(*m->log));
		assert(m->log);
	}
	m->log[m->nr] = (struct memio_op){ .type = type, .off = off, .len = len };
	return &m->log[m->nr++];
}

static int fault(struct memio *m)
{
	if (m->fail_after < 0)
		return 0;
	if (m->fail_after > 0) {
		m->fail_after--;
		return 0;
	}
	return -m->fail_errno;
}

static int mem_pread(struct qcow_io *io, void *buf, size_t len, uint64_t off)
{
	struct memio *m = to_mem(io);
	size_t n = off < m->size ? m->size - off : 0;

	if (n > len)
		n = len;
	memcpy(buf, m->data + off, n);
	memset((uint8_t *)buf + n, 0, len - n);
	return 0;
}

static int mem_size(struct qcow_io *io, uint64_t *size)
{
	*size = to_mem(io)->size;
	return 0;
}

static int mem_pwrite(struct qcow_io *io, const void *buf, size_t len, uint64_t off)
{
	struct memio *m = to_mem(io);
	struct memio_op *op;
	int r = fault(m);

	if (r)
		return r;
	if ((m->space_end && off + len > m->space_end) || (io->fixed_end && off + len > m->size))
		return -ENOSPC;
	assert(off + len <= MEMIO_MAX);
	assert(!((off | len) & (io->align - 1)));
	memcpy(m->data + off, buf, len);
	if (off + len > m->size)
		m->size = off + len;
	op = note(m, MEMIO_WRITE, off, len);
	if (op) {
		op->bytes = malloc(len);
		memcpy(op->bytes, buf, len);
	}
	return 0;
}

/* A flush that meets ENOSPC has failed: that is another thing. */
static int mem_flush(struct qcow_io *io)
{
	int r = to_mem(io)->fail_errno == ENOSPC ? 0 : fault(to_mem(io));

	if (!r)
		note(to_mem(io), MEMIO_FLUSH, 0, 0);
	return r;
}

static void set_size(struct memio *m, uint64_t size)
{
	if (size < m->size)
		memset(m->data + size, 0, m->size - size);
	m->size = size;
}

static int mem_truncate(struct qcow_io *io, uint64_t size)
{
	struct memio *m = to_mem(io);
	int r = fault(m);

	if (r)
		return r;
	assert(size <= MEMIO_MAX);
	set_size(m, size);
	note(m, MEMIO_SIZE, 0, size);
	return 0;
}

static int mem_zero(struct qcow_io *io, uint64_t off, uint64_t len)
{
	struct memio *m = to_mem(io);
	int r = fault(m);

	if (r)
		return r;
	if (!m->can_zero)
		return -EOPNOTSUPP;
	if (m->space_end && off + len > m->space_end)
		return -ENOSPC;
	memset(m->data + off, 0, len);
	if (off + len > m->size)
		m->size = off + len;
	note(m, MEMIO_ZERO, off, len);
	return 0;
}

/* "Anybody's guess": whoever still needs what was there must notice. */
static int mem_punch(struct qcow_io *io, uint64_t off, uint64_t len)
{
	struct memio *m = to_mem(io);
	uint64_t n = off < m->size ? m->size - off : 0;
	struct memio_op *op;

	if (len > n)
		len = n;
	memset(m->data + off, 0xdd, len);
	op = note(m, MEMIO_WRITE, off, len);
	if (op) {
		op->bytes = malloc(len + 1);
		memset(op->bytes, 0xdd, len);
	}
	return 0;
}

static int mem_room(struct qcow_io *io, uint64_t *bytes)
{
	const struct memio *m = to_mem(io);

	if (!m->space_end)
		return -EOPNOTSUPP;
	*bytes = m->space_end - m->size;
	return 0;
}

static const struct qcow_io_ops mem_ops = {
	.pread = mem_pread,
	.size = mem_size,
	.pwrite = mem_pwrite,
	.flush = mem_flush,
	.truncate = mem_truncate,
	.zero = mem_zero,
	.punch = mem_punch,
	.room = mem_room,
};

struct memio *memio_create(uint64_t size)
{
	struct memio *m = calloc(1, sizeof(*m));

	assert(m && size <= MEMIO_MAX);
	m->io = (struct qcow_io){ .ops = &mem_ops, .align = 512, .mem_align = 1 };
	m->data = map_disk();
	m->size = size;
	m->can_zero = true;
	m->fail_after = -1;
	return m;
}

struct memio *memio_load(const char *path)
{
	FILE *f = fopen(path, "r");
	struct memio *m = memio_create(0);

	assert(f);
	m->size = fread(m->data, 1, MEMIO_MAX, f);
	fclose(f);
	return m;
}

void memio_save(const struct memio *m, const char *path)
{
	FILE *f = fopen(path, "w");
	static const uint8_t zeros[65536];
	uint64_t off, n;

	assert(f);
	for (off = 0; off < m->size; off += n) {
		n = m->size - off < sizeof(zeros) ? m->size - off : sizeof(zeros);
		if (!memcmp(m->data + off, zeros, n))
			continue;
		fseek(f, (long)off, SEEK_SET);
		assert(fwrite(m->data + off, 1, n, f) == n);
	}
	fflush(f);
	assert(!ftruncate(fileno(f), (off_t)m->size));
	fclose(f);
}

static void free_log(struct memio *m)
{
	size_t i;

	for (i = 0; i < m->nr; i++)
		free(m->log[i].bytes);
	free(m->log);
	m->log = NULL;
	m->nr = m->max = 0;
}

void memio_destroy(struct memio *m)
{
	if (!m)
		return;
	free_log(m);
	munmap(m->data, MEMIO_MAX);
	free(m);
}

/* ---- crashes ---------------------------------------------------------------------- */

void memio_record(struct memio *m, struct memio_crash *c, uint64_t seed)
{
	free_log(m);
	*c = (struct memio_crash){ .m = m, .start = malloc(m->size + 1), .seed = seed };
	c->start_size = m->size;
	memcpy(c->start, m->data, m->size);
	m->recording = true;
}

/* What a crash adds to the durable disk, with what was there before. */
struct undo {
	uint64_t size;
	struct {
		uint64_t off, len;
		uint8_t *old;
	} * part;
	size_t nr, max;
};

static void save_part(struct undo *u, const struct memio *m, uint64_t off, uint64_t len)
{
	if (u->nr == u->max) {
		u->max = u->max * 2 + 64;
		u->part = realloc(u->part, u->max * sizeof(*u->part));
		assert(u->part);
	}
	u->part[u->nr].off = off;
	u->part[u->nr].len = len;
	u->part[u->nr].old = malloc(len + 1);
	memcpy(u->part[u->nr++].old, m->data + off, len);
}

static void put(struct memio *m, const struct memio_op *op, uint64_t from, uint64_t len)
{
	if (op->type == MEMIO_WRITE)
		memcpy(m->data + op->off + from, op->bytes + from, len);
	else
		memset(m->data + op->off + from, 0, len);
	if (op->off + from + len > m->size)
		m->size = op->off + from + len;
}

static void apply_op(struct memio *m, const struct memio_op *op)
{
	if (op->type == MEMIO_SIZE)
		set_size(m, op->len);
	else if (op->type != MEMIO_FLUSH)
		put(m, op, 0, op->len);
}

/* All, nothing, or each sector by chance. */
static void apply_some(struct memio *m, const struct memio_op *op, struct undo *u, uint64_t *seed)
{
	uint64_t how = memio_random(seed) % 4, at, n;

	if (how == 0 || op->type == MEMIO_FLUSH)
		return;
	if (op->type == MEMIO_SIZE) {
		if (op->len < m->size)
			save_part(u, m, op->len, m->size - op->len);
		set_size(m, op->len);
		return;
	}
	save_part(u, m, op->off, op->len);
	for (at = 0; at < op->len; at += n) {
		n = how == 3 ? 512 : op->len;
		if (n > op->len - at)
			n = op->len - at;
		if (how != 3 || memio_random(seed) & 1)
			put(m, op, at, n);
	}
}

static void undo_all(struct memio *m, struct undo *u)
{
	while (u->nr) {
		u->nr--;
		memcpy(m->data + u->part[u->nr].off, u->part[u->nr].old, u->part[u->nr].len);
		free(u->part[u->nr].old);
	}
	m->size = u->size;
}

void memio_crashes(struct memio_crash *c, unsigned int tries,
		   bool (*visit)(struct memio *m, size_t k, void *arg), void *arg)
{
	struct memio *m = c->m;
	struct undo u = { 0 };
	size_t durable = 0, k, i;
	unsigned int t;
	bool go = true;

	m->recording = false;
	set_size(m, 0);
	memcpy(m->data, c->start, c->start_size);
	m->size = c->start_size;
	for (k = 0; k <= m->nr && go; k++) {
		if (k && m->log[k - 1].type == MEMIO_FLUSH)
			for (; durable < k; durable++)
				apply_op(m, &m->log[durable]);
		for (t = 0; t < tries && go; t++) {
			u.size = m->size;
			for (i = durable; i < k; i++) {
				if (t == 0)
					save_part(&u, m, m->log[i].off,
						  m->log[i].type == MEMIO_SIZE ? 0 : m->log[i].len);
				if (t == 0 && m->log[i].type == MEMIO_SIZE &&
				    m->log[i].len < m->size)
					save_part(&u, m, m->log[i].len, m->size - m->log[i].len);
				if (t == 0)
					apply_op(m, &m->log[i]);
				else
					apply_some(m, &m->log[i], &u, &c->seed);
			}
			go = visit(m, k, arg);
			undo_all(m, &u);
		}
	}
	for (; durable < m->nr; durable++)
		apply_op(m, &m->log[durable]);
	free(u.part);
	free(c->start);
}
