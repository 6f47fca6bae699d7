// SPDX-License-Identifier: GPL-2.0-only
#include "lib/window.h"

#include <string.h>

void qcow_window_init(struct qcow_window *w, struct qcow_io *io)
{
	w->io = io;
	w->filled = false;
	w->host_off = 0;
}

static int window_fill(struct qcow_window *w, uint64_t host_off, struct qcow_error *err)
{
	int r;

	if (w->filled && w->host_off == host_off)
		return 0;
	w->filled = false;
	r = qcow_io_pread(w->io, w->buf, sizeof(w->buf), host_off, err);
	if (r < 0)
		return r;
	w->host_off = host_off;
	w->filled = true;
	return 0;
}

int qcow_window_read(struct qcow_window *w, void *buf, size_t len, uint64_t host_off,
		     struct qcow_error *err)
{
	uint8_t *out = buf;
	size_t in, n;
	int r;

	while (len) {
		in = host_off % QCOW_WINDOW_SIZE;
		n = QCOW_WINDOW_SIZE - in < len ? QCOW_WINDOW_SIZE - in : len;
		r = window_fill(w, host_off - in, err);
		if (r < 0)
			return r;
		memcpy(out, w->buf + in, n);
		out += n;
		host_off += n;
		len -= n;
	}
	return 0;
}
