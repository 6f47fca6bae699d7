/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by the files behind chain.h: chain.c, scratch.c, walk.c, resolve.c, read.c. */
#ifndef QCOW_LIB_CHAIN_PRIV_H
#define QCOW_LIB_CHAIN_PRIV_H

#include "lib/chain.h"
#include "lib/codec.h"
#include "lib/l2.h"
#include "lib/mcache.h"
#include "lib/writer.h"

/* One file. */
struct chain_layer {
	enum qcow_layer_kind kind;
	struct qcow_io *io;
	struct qcow_image *img; /* QCOW2 only; owned */
	uint64_t end;		/* bytes in the file when it was added */
};

/* One link of the backing chain: a qcow2 file, with its data file if it has one, or a raw file. */
struct chain_node {
	uint32_t layer;	     /* where the tables are; raw: the file */
	uint32_t data_layer; /* where the data is */
	uint64_t size;	     /* what the layer above may see; the rest reads as zeros */
};

/* Written during set-up only. */
struct qcow_chain {
	struct chain_layer layers[QCOW_MAX_LAYERS];
	struct chain_node nodes[QCOW_MAX_LAYERS];
	size_t nr_layers, nr_nodes;
	size_t cache_bytes;
	struct qcow_mcache *cache;
	uint32_t max_cluster; /* bytes; largest of all qcow2 layers */
	uint32_t max_align;   /* bytes; largest io->align */
	bool raw_ok;
	bool sealed;
	struct qcow_writer *writer; /* of layer 0; NULL in a chain for reading */
};

/* Some entries of the L2 table a walk is in: those of compressed clusters come one by one. */
struct chain_table {
	bool valid; /* l1_idx and l2_off are */
	uint64_t l1_idx;
	uint64_t l2_off;    /* 0 = no table */
	bool shared;	    /* not for this L1 alone */
	uint64_t first, nr; /* entry indices that are in buf */
	uint8_t buf[512];
};

/* What a walk knows of one node: [start, end) is of one kind. */
struct chain_level {
	uint64_t start, end;
	struct qcow_l2_block b; /* host_off is that of start */
	bool past_end;		/* of the node: whatever is below stays hidden */
	struct chain_table table;
};

/* Which compressed cluster is in scratch->cluster. */
struct chain_memo {
	bool valid;
	uint32_t layer, csize;
	uint64_t host_off;
};

struct qcow_scratch {
	uint8_t *page;	  /* QCOW_MCACHE_PAGE, aligned */
	uint8_t *comp;	  /* compressed bytes with their direct I/O margins, aligned */
	uint8_t *cluster; /* max_cluster, aligned */
	struct qcow_codec *codec;
	struct chain_memo memo;
	size_t nr_levels;
	struct chain_level level[];
};

static inline const struct qcow_header *node_header(const struct qcow_chain *c,
						    const struct chain_node *n)
{
	return qcow_image_header(c->layers[n->layer].img);
}

/* Forgets what an earlier call found out. */
void qcow_walk_begin(struct qcow_scratch *s);
/*
 * The extent at @guest_off, at most @len long. Calls for rising offsets after
 * one qcow_walk_begin() decode each table entry once, however deep the chain.
 */
int qcow_walk(struct qcow_chain *c, uint64_t guest_off, uint64_t len, struct qcow_extent *e,
	      struct qcow_scratch *s, struct qcow_error *err);

#endif
