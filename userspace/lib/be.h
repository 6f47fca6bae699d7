/* SPDX-License-Identifier: GPL-2.0-only */
/* Big-endian on-disk integers; loads and stores are by bytes, so they need no alignment. */
#ifndef QCOW_LIB_BE_H
#define QCOW_LIB_BE_H

#include <stdint.h>

static inline uint16_t qcow_be16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] << 8 | b[1]);
}

static inline uint32_t qcow_be32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static inline uint64_t qcow_be64(const void *p)
{
	const uint8_t *b = p;

	return (uint64_t)qcow_be32(b) << 32 | qcow_be32(b + 4);
}

static inline void qcow_put_be16(void *p, uint16_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static inline void qcow_put_be32(void *p, uint32_t v)
{
	uint8_t *b = p;

	qcow_put_be16(b, (uint16_t)(v >> 16));
	qcow_put_be16(b + 2, (uint16_t)v);
}

static inline void qcow_put_be64(void *p, uint64_t v)
{
	uint8_t *b = p;

	qcow_put_be32(b, (uint32_t)(v >> 32));
	qcow_put_be32(b + 4, (uint32_t)v);
}

#endif
