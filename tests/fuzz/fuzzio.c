// SPDX-License-Identifier: GPL-2.0-only
#include "fuzz.h"

#include <string.h>

static int mem_pread(struct qcow_io *io, void *buf, size_t len, uint64_t off)
{
	const struct fuzzio *m = (const struct fuzzio *)io;
	size_t have = off < m->size ? m->size - (size_t)off : 0;

	if (have > len)
		have = len;
	if (have)
		memcpy(buf, m->bytes + off, have);
	memset((uint8_t *)buf + have, 0, len - have);
	return 0;
}

static int mem_size(struct qcow_io *io, uint64_t *size)
{
	*size = ((const struct fuzzio *)io)->size;
	return 0;
}

static const struct qcow_io_ops ops = { .pread = mem_pread, .size = mem_size };

void fuzzio_init(struct fuzzio *m, const uint8_t *bytes, size_t size)
{
	*m = (struct fuzzio){
		.io = { .ops = &ops, .align = 1, .mem_align = 1 },
		.bytes = bytes,
		.size = size,
	};
}

int fuzz_add_base(struct qcow_chain *chain, struct qcow_io *io, bool raw)
{
	if (qcow_chain_needs(chain) == QCOW_NEED_DATA_FILE &&
	    qcow_chain_add_data_file(chain, io, NULL))
		return -1;
	if (qcow_chain_needs(chain) != QCOW_NEED_BACKING)
		return 0;
	return raw ? qcow_chain_add_raw(chain, io, NULL)
		   : qcow_chain_add_qcow2(chain, io, NULL, NULL);
}
