// SPDX-License-Identifier: GPL-2.0-only
/*
 * qcow map IMAGE: where the data of each guest range is, in the fields and with the
 * meaning of qemu-img map. Holes of a raw layer's file count as zeros there, as
 * they do for qemu-img.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "man/help.h"
#include "tools/cmd.h"
#include "tools/verb.h"
#include "tools/words.h"

static const struct option options[] = {
	WORD_CHAIN_OPTIONS,
	VERB_JSON_OPTIONS,
	{ "force-share", no_argument, NULL, 'U' },
	VERB_END_OPTIONS,
};

/* One line of output. */
struct piece {
	uint64_t start, len, offset;
	uint32_t depth, layer;
	bool present, zero, data, compressed, has_offset;
};

struct map {
	struct table_line line;
	unsigned int flags;
	struct host_chain *hc;
	struct qcow_scratch *scratch;
	bool json, first, has_piece;
	struct piece piece; /* not printed yet: it may grow */
};

static void print_json(struct map *m, const struct piece *p)
{
	printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, "
	       "\"present\": %s, \"zero\": %s, \"data\": %s, \"compressed\": %s",
	       m->first ? "[" : ",\n", p->start, p->len, p->depth, p->present ? "true" : "false",
	       p->zero ? "true" : "false", p->data ? "true" : "false",
	       p->compressed ? "true" : "false");
	if (p->has_offset)
		printf(", \"offset\": %" PRIu64, p->offset);
	putchar('}');
	m->first = false;
}

/* Bare 0 for zero, as %#x prints it and qemu-img shows it. */
static int print_human(struct map *m, const struct piece *p)
{
	if (!p->data || p->zero)
		return 0;
	if (p->compressed) {
		fprintf(stderr,
			"qcow: %s has compressed clusters, which have no place to show; "
			"use --json\n",
			host_chain_layer(m->hc, p->layer)->path);
		return -ENOTSUP;
	}
	printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", p->start, p->len, p->offset,
	       host_chain_layer(m->hc, p->layer)->path);
	return 0;
}

static int flush(struct map *m)
{
	if (!m->has_piece)
		return 0;
	m->has_piece = false;
	if (m->json)
		print_json(m, &m->piece);
	return m->json ? 0 : print_human(m, &m->piece);
}

static bool continues(const struct piece *a, const struct piece *b)
{
	return a->depth == b->depth && a->present == b->present && a->zero == b->zero &&
	       a->data == b->data && a->compressed == b->compressed &&
	       a->has_offset == b->has_offset &&
	       (!a->has_offset || (a->layer == b->layer && a->offset + a->len == b->offset));
}

static int add_piece(struct map *m, const struct piece *p)
{
	int r;

	if (m->has_piece && continues(&m->piece, p)) {
		m->piece.len += p->len;
		return 0;
	}
	r = flush(m);
	m->piece = *p;
	m->has_piece = true;
	return r;
}

static int add_extent(struct map *m, const struct qcow_extent *e)
{
	struct piece p = {
		.start = e->guest_off,
		.len = e->len,
		.depth = e->depth,
		.layer = e->layer,
		.present = e->type != QCOW_EXTENT_UNALLOCATED,
		.zero = qcow_extent_is_zero(e),
		.data = !qcow_extent_is_zero(e),
		.compressed = e->type == QCOW_EXTENT_COMPRESSED,
		.has_offset = e->has_host_off && e->type != QCOW_EXTENT_COMPRESSED,
		.offset = e->host_off,
	};

	return add_piece(m, &p);
}

static int walk(struct map *m, struct qcow_error *err)
{
	struct qcow_chain *chain = host_chain_lib(m->hc);
	uint64_t size = qcow_chain_size(chain), off = 0;
	struct qcow_extent e;
	int r;

	while (off < size) {
		r = qcow_chain_extent(chain, off, size - off, &e, m->scratch, err);
		if (!r && e.type == QCOW_EXTENT_BROKEN)
			r = -EIO;
		if (r < 0) {
			fprintf(stderr, "qcow: %s\n", err->text);
			return r;
		}
		if (host_chain_layer(m->hc, e.layer)->kind == QCOW_LAYER_RAW)
			qcow_chain_find_hole(chain, &e);
		r = add_extent(m, &e);
		if (r < 0)
			return r;
		off += e.len;
	}
	return flush(m);
}

static int map_chain(struct map *m)
{
	struct qcow_error err = { 0 };
	int r;

	r = qcow_scratch_create(&m->scratch, host_chain_lib(m->hc), &err);
	if (r < 0) {
		fprintf(stderr, "qcow: %s\n", err.text);
		return r;
	}
	if (!m->json)
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	r = walk(m, &err);
	if (m->json)
		puts(m->first ? "[]" : "]");
	qcow_scratch_destroy(m->scratch);
	return r;
}

static int take(void *request, int opt)
{
	struct map *m = request;

	if (word_is(opt))
		return word_add(&m->line, opt, optarg);
	switch (opt) {
	case VERB_JSON:
	case VERB_OUTPUT:
		return verb_take_output(opt, &m->json);
	case 'U':
		m->flags &= ~(unsigned int)HOST_CHAIN_LOCK;
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_map, "U", options, take, 1, 1, 0 };

int cmd_map(int argc, char **argv)
{
	struct map m = { .first = true, .flags = HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK };
	int status = verb_parse(&verb, argc, argv, &m);

	if (status < 0) {
		status = 1;
		if (!table_line_name(&m.line, argv[optind]) &&
		    !word_open_chain(&m.line, m.flags, &m.hc))
			status = map_chain(&m) < 0 ? 1 : 0;
	}
	host_chain_close(m.hc);
	table_line_exit(&m.line);
	return status;
}
