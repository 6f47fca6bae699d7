// SPDX-License-Identifier: GPL-2.0-only
#include "memimg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/be.h"

static struct memimg *to_memimg(struct qcow_io *io)
{
	return (struct memimg *)((char *)io - offsetof(struct memimg, io));
}

static int mem_pread(struct qcow_io *io, void *buf, size_t len, uint64_t off)
{
	struct memimg *m = to_memimg(io);
	size_t have = off < m->size ? m->size - off : 0;

	__atomic_add_fetch(&m->nr_reads, 1, __ATOMIC_RELAXED);
	if (off < m->fail_to && off + len > m->fail_from)
		return -EIO;
	if (have > len)
		have = len;
	if (have)
		memcpy(buf, m->bytes + off, have);
	memset((uint8_t *)buf + have, 0, len - have);
	return 0;
}

static int mem_size(struct qcow_io *io, uint64_t *size)
{
	*size = to_memimg(io)->size;
	return 0;
}

static const struct qcow_io_ops mem_ops = { .pread = mem_pread, .size = mem_size };

static void init_io(struct memimg *m)
{
	memset(m, 0, sizeof(*m));
	m->io = (struct qcow_io){ .ops = &mem_ops, .align = 1, .mem_align = 1 };
}

static void grow(struct memimg *m, size_t size)
{
	m->bytes = realloc(m->bytes, size);
	assert_non_null(m->bytes);
	memset(m->bytes + m->size, 0, size - m->size);
	m->size = size;
}

void memimg_init_raw(struct memimg *m, size_t size)
{
	size_t i;

	init_io(m);
	grow(m, size);
	for (i = 0; i + 4 <= size; i += 4)
		memimg_be32(m, i, (uint32_t)(i / 4));
}

void memimg_init(struct memimg *m, uint32_t version, uint32_t cluster_bits, uint64_t disk_size)
{
	uint32_t span = 2 * cluster_bits - 3;
	uint32_t l1_size = (uint32_t)((disk_size + (1ull << span) - 1) >> span) + 2;

	init_io(m);
	m->version = version;
	m->cluster_bits = cluster_bits;
	memimg_alloc(m, 2); /* header, refcount table */
	m->l1_off = memimg_alloc(m, (l1_size * 8ul + (1ul << cluster_bits) - 1) >> cluster_bits);
	memcpy(m->bytes, "QFI\xfb", 4);
	memimg_be32(m, 4, version);
	memimg_be32(m, 20, cluster_bits);
	memimg_be64(m, 24, disk_size);
	memimg_be32(m, 36, l1_size);
	memimg_be64(m, 40, m->l1_off);
	memimg_be64(m, 48, 1ull << cluster_bits);
	memimg_be32(m, 56, 1);
	m->ext_off = 72;
	if (version >= 3) {
		memimg_be32(m, 96, 4);
		memimg_be32(m, 100, 112);
		m->ext_off = 112;
	}
}

void memimg_exit(struct memimg *m)
{
	free(m->bytes);
}

void memimg_put(struct memimg *m, uint64_t off, const void *data, size_t len)
{
	assert_true(off + len <= m->size);
	memcpy(m->bytes + off, data, len);
}

void memimg_be16(struct memimg *m, uint64_t off, uint16_t value)
{
	uint8_t b[2] = { (uint8_t)(value >> 8), (uint8_t)value };

	memimg_put(m, off, b, 2);
}

void memimg_be32(struct memimg *m, uint64_t off, uint32_t value)
{
	memimg_be16(m, off, (uint16_t)(value >> 16));
	memimg_be16(m, off + 2, (uint16_t)value);
}

void memimg_be64(struct memimg *m, uint64_t off, uint64_t value)
{
	memimg_be32(m, off, (uint32_t)(value >> 32));
	memimg_be32(m, off + 4, (uint32_t)value);
}

uint64_t memimg_alloc(struct memimg *m, size_t nr)
{
	uint64_t off = (m->size + (1ul << m->cluster_bits) - 1) & ~((1ull << m->cluster_bits) - 1);

	grow(m, off + (nr << m->cluster_bits));
	return off;
}

static uint64_t entry_off(struct memimg *m, uint64_t guest_cluster, uint32_t entry_bits)
{
	uint32_t l2_bits = m->cluster_bits - entry_bits;
	uint64_t l1 = m->l1_off + (guest_cluster >> l2_bits) * 8;
	uint64_t l2 = qcow_be64(m->bytes + l1) & 0xfffffffffffe00ull;

	if (!l2) {
		l2 = memimg_alloc(m, 1);
		memimg_be64(m, l1, l2 | MEMIMG_COPIED);
	}
	return l2 + ((guest_cluster & ((1ull << l2_bits) - 1)) << entry_bits);
}

void memimg_map(struct memimg *m, uint64_t guest_cluster, uint64_t entry)
{
	memimg_be64(m, entry_off(m, guest_cluster, 3), entry);
}

void memimg_map2(struct memimg *m, uint64_t guest_cluster, uint64_t entry, uint64_t bitmap)
{
	uint64_t off = entry_off(m, guest_cluster, 4);

	memimg_be64(m, off, entry);
	memimg_be64(m, off + 8, bitmap);
}

uint64_t memimg_data(struct memimg *m, uint64_t guest_cluster, uint8_t fill)
{
	uint64_t off = memimg_alloc(m, 1);

	memset(m->bytes + off, fill, 1ul << m->cluster_bits);
	memimg_map(m, guest_cluster, off | MEMIMG_COPIED);
	return off;
}

void memimg_ext(struct memimg *m, uint32_t type, const void *data, uint32_t len)
{
	memimg_be32(m, m->ext_off, type);
	memimg_be32(m, m->ext_off + 4, len);
	memimg_put(m, m->ext_off + 8, data, len);
	m->ext_off += 8 + ((len + 7) & ~7u);
}

void memimg_backing(struct memimg *m, const char *name, const char *format)
{
	uint64_t off;

	if (format)
		memimg_ext(m, 0xe2792aca, format, (uint32_t)strlen(format));
	off = m->ext_off + 8; /* behind the end marker */
	memimg_put(m, off, name, strlen(name));
	memimg_be64(m, 8, off);
	memimg_be32(m, 16, (uint32_t)strlen(name));
}
