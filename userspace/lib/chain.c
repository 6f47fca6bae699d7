// SPDX-License-Identifier: GPL-2.0-only
#include "lib/chain.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/chain-priv.h"
#include "lib/room.h"

int qcow_chain_create(struct qcow_chain **out, const struct qcow_chain_params *params,
		      struct qcow_error *err)
{
	struct qcow_chain *c = calloc(1, sizeof(*c));

	if (!c)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	c->cache_bytes = params && params->cache_bytes ? params->cache_bytes : QCOW_CACHE_DEFAULT;
	c->raw_ok = params && params->raw_ok;
	*out = c;
	return 0;
}

void qcow_chain_destroy(struct qcow_chain *c)
{
	size_t i;

	if (!c)
		return;
	qcow_writer_destroy(c->writer);
	for (i = 0; i < c->nr_layers; i++)
		qcow_image_close(c->layers[i].img);
	qcow_mcache_destroy(c->cache);
	free(c);
}

enum qcow_chain_need qcow_chain_needs(const struct qcow_chain *c)
{
	const struct chain_layer *last;
	const struct qcow_header *h;

	if (!c->nr_layers)
		return QCOW_NEED_LAYER0;
	last = &c->layers[c->nr_layers - 1];
	if (last->kind == QCOW_LAYER_RAW)
		return QCOW_NEED_NOTHING;
	h = node_header(c, &c->nodes[c->nr_nodes - 1]);
	if (last->kind == QCOW_LAYER_QCOW2 && qcow_has_data_file(h))
		return QCOW_NEED_DATA_FILE;
	return h->has_backing ? QCOW_NEED_BACKING : QCOW_NEED_NOTHING;
}

/* The new layer's place, filled but not yet counted. */
static int new_layer(struct qcow_chain *c, enum qcow_layer_kind kind, struct qcow_io *io,
		     struct chain_layer **out, struct qcow_error *err)
{
	struct chain_layer *l;
	int r;

	if (c->sealed)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "the chain is complete");
	if (c->nr_layers == QCOW_MAX_LAYERS)
		return qcow_fail(err, E2BIG, QCOW_NO_OFF,
				 "the backing chain has more than %d layers; shorten it with: "
				 "qemu-img commit or qemu-img convert",
				 QCOW_MAX_LAYERS);
	l = &c->layers[c->nr_layers];
	*l = (struct chain_layer){ .kind = kind, .io = io };
	r = qcow_io_size(io, &l->end, err);
	if (r < 0)
		return r;
	if (io->align > c->max_align)
		c->max_align = io->align;
	*out = l;
	return 0;
}

static int wrong_place(const struct qcow_chain *c, const char *what, struct qcow_error *err)
{
	return qcow_fail(err, EINVAL, QCOW_NO_OFF, "layer %zu cannot be %s", c->nr_layers, what);
}

int qcow_chain_add_qcow2(struct qcow_chain *c, struct qcow_io *io, const char *snapshot,
			 struct qcow_error *err)
{
	enum qcow_chain_need need = qcow_chain_needs(c);
	struct chain_layer *l;
	struct chain_node *n;
	int r;

	if (need != QCOW_NEED_LAYER0 && need != QCOW_NEED_BACKING)
		return wrong_place(c, "a qcow2 image", err);
	r = new_layer(c, QCOW_LAYER_QCOW2, io, &l, err);
	if (r < 0)
		return r;
	r = qcow_image_open(&l->img, io, err);
	if (r < 0)
		return r;
	if (snapshot) {
		r = qcow_image_select_snapshot(l->img, snapshot, err);
		if (r < 0)
			goto out_close;
	}
	n = &c->nodes[c->nr_nodes++];
	n->layer = n->data_layer = (uint32_t)c->nr_layers++;
	n->size = qcow_image_size(l->img);
	if (qcow_cluster_size(qcow_image_header(l->img)) > c->max_cluster)
		c->max_cluster = (uint32_t)qcow_cluster_size(qcow_image_header(l->img));
	return 0;

out_close:
	qcow_image_close(l->img);
	l->img = NULL;
	return r;
}

int qcow_chain_add_data_file(struct qcow_chain *c, struct qcow_io *io, struct qcow_error *err)
{
	struct chain_layer *l;
	int r;

	if (qcow_chain_needs(c) != QCOW_NEED_DATA_FILE)
		return wrong_place(c, "a data file", err);
	r = new_layer(c, QCOW_LAYER_DATA_FILE, io, &l, err);
	if (r < 0)
		return r;
	c->nodes[c->nr_nodes - 1].data_layer = (uint32_t)c->nr_layers++;
	return 0;
}

int qcow_chain_add_raw(struct qcow_chain *c, struct qcow_io *io, struct qcow_error *err)
{
	struct chain_layer *l;
	struct chain_node *n;
	int r;

	if (qcow_chain_needs(c) != QCOW_NEED_BACKING && (c->nr_layers || !c->raw_ok))
		return wrong_place(c, "a raw image", err);
	r = new_layer(c, QCOW_LAYER_RAW, io, &l, err);
	if (r < 0)
		return r;
	n = &c->nodes[c->nr_nodes++];
	n->layer = n->data_layer = (uint32_t)c->nr_layers++;
	/* The last sector of a file counts whole, as in QEMU. */
	n->size = (l->end + 511) & ~511ull;
	return 0;
}

static int check_complete(const struct qcow_chain *c, struct qcow_error *err)
{
	size_t i;
	int r;

	if (qcow_chain_needs(c) != QCOW_NEED_NOTHING)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "the chain ends after %zu layers, but needs another",
				 c->nr_layers);
	for (i = 0; i < c->nr_layers; i++) {
		r = c->layers[i].img ? qcow_image_check_readable(c->layers[i].img, err) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

int qcow_chain_seal(struct qcow_chain *c, struct qcow_error *err)
{
	int r = check_complete(c, err);

	if (r < 0)
		return r;
	c->cache = qcow_mcache_create(c->cache_bytes);
	if (!c->cache)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF,
				 "no memory for a table cache of %zu bytes", c->cache_bytes);
	c->sealed = true;
	return 0;
}

size_t qcow_chain_nr_layers(const struct qcow_chain *c)
{
	return c->nr_layers;
}

enum qcow_layer_kind qcow_chain_layer_kind(const struct qcow_chain *c, size_t layer)
{
	return c->layers[layer].kind;
}

const struct qcow_image *qcow_chain_layer_image(const struct qcow_chain *c, size_t layer)
{
	return c->layers[layer].img;
}

size_t qcow_chain_data_layer(const struct qcow_chain *c)
{
	return c->nodes[0].data_layer;
}

uint64_t qcow_chain_size(const struct qcow_chain *c)
{
	return c->nodes[0].size;
}

uint32_t qcow_chain_block_bits(const struct qcow_chain *c)
{
	return c->layers[0].img ? qcow_image_block_bits(c->layers[0].img) : 9;
}

int qcow_chain_check_writable(const struct qcow_chain *c, bool drop_bitmaps, struct qcow_error *err)
{
	return qcow_writer_check(c->layers[0].img, drop_bitmaps, err);
}

/* To its full length, sparse: file systems let extending direct writes wait for each other. */
static int extend_data_file(struct qcow_chain *c, struct qcow_error *err)
{
	struct chain_layer *l = &c->layers[qcow_chain_data_layer(c)];
	uint64_t size;
	int r;

	if (l->kind != QCOW_LAYER_DATA_FILE || l->io->fixed_end)
		return 0;
	r = qcow_io_size(l->io, &size, err);
	if (r < 0 || size >= c->nodes[0].size)
		return r;
	return qcow_io_truncate(l->io, c->nodes[0].size, err);
}

int qcow_chain_make_writable(struct qcow_chain *c, bool drop_bitmaps, struct qcow_error *err)
{
	struct qcow_writer_params params = { .cache = c->cache, .drop_bitmaps = drop_bitmaps };
	int r;

	if (!c->sealed || c->writer || !c->layers[0].img)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF, "not the time to make a chain writable");
	r = extend_data_file(c, err);
	return r < 0 ? r : qcow_writer_create(&c->writer, c->layers[0].img, &params, err);
}

int qcow_chain_flush_data_file(struct qcow_chain *c, struct qcow_error *err)
{
	size_t layer = qcow_chain_data_layer(c);

	return layer ? qcow_io_flush(c->layers[layer].io, err) : 0;
}

int qcow_chain_room(const struct qcow_chain *c, uint64_t *bytes, struct qcow_error *err)
{
	struct qcow_io *data = c->layers[qcow_chain_data_layer(c)].io;
	uint64_t more;
	int r = qcow_writer_room(c->writer, bytes, err);

	/* A data file on a device has all the space it will ever need. */
	if (r < 0 || !qcow_chain_data_layer(c) || data->fixed_end)
		return r;
	r = qcow_io_room(data, &more, err);
	if (!r && more < *bytes)
		*bytes = more;
	return r;
}

struct qcow_writer *qcow_chain_writer(const struct qcow_chain *c)
{
	return c->writer;
}
