/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A chain: an image, its backing layers and their external data files, seen as
 * one disk. This is what the daemon resolves LOADs and answers FETCHes from.
 *
 * Set-up, in layer order (layer 0 first):
 *     qcow_chain_create
 *     qcow_chain_add_qcow2 | qcow_chain_add_data_file | qcow_chain_add_raw ...
 *     qcow_chain_seal
 * After a qcow2 layer that uses an external data file comes that file, then its
 * backing layer, and so on down. A layer's number is its position in this
 * order; the kernel uses the same numbers.
 *
 * After the seal the chain is immutable, and resolve, extent and read may be
 * called by any number of threads at once, each with its own scratch. They
 * allocate nothing: all memory is taken by seal (the table cache, a fixed byte
 * budget) and by qcow_scratch_create, bounded by the format's limits.
 */
#ifndef QCOW_LIB_CHAIN_H
#define QCOW_LIB_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "lib/image.h"
#include "lib/io.h"

#define QCOW_MAX_LAYERS 256

enum qcow_layer_kind {
	QCOW_LAYER_QCOW2 = 1,
	QCOW_LAYER_RAW = 2,
	QCOW_LAYER_DATA_FILE = 3, /* of the qcow2 layer just before it */
};

struct qcow_chain;
struct qcow_scratch;

struct qcow_chain_params {
	size_t cache_bytes; /* for L1 and L2 tables; 0 = QCOW_CACHE_DEFAULT */
	bool raw_ok;	    /* layer 0 may be raw: for extent and read, never for resolve */
};

/* 4 KiB of L2 map 32 MiB of 64 KiB clusters, so 4 MiB map 32 GiB. */
#define QCOW_CACHE_DEFAULT (4u << 20)

int qcow_chain_create(struct qcow_chain **chain, const struct qcow_chain_params *params,
		      struct qcow_error *err);
/* Closes the images. The qcow_io of the layers stay the caller's. NULL is fine. */
void qcow_chain_destroy(struct qcow_chain *chain);

/*
 * Each @io must outlive the chain. -E2BIG past QCOW_MAX_LAYERS; -EINVAL for a
 * layer that cannot follow the one before (layer 0 is qcow2, but for raw_ok).
 * add_qcow2 opens the header and, if @snapshot is not NULL, selects it (layer 0 only).
 */
int qcow_chain_add_qcow2(struct qcow_chain *chain, struct qcow_io *io, const char *snapshot,
			 struct qcow_error *err);
int qcow_chain_add_data_file(struct qcow_chain *chain, struct qcow_io *io, struct qcow_error *err);
int qcow_chain_add_raw(struct qcow_chain *chain, struct qcow_io *io, struct qcow_error *err);

/* What the layer added last still needs. Drives the walk that opens files. */
enum qcow_chain_need {
	QCOW_NEED_NOTHING,
	QCOW_NEED_DATA_FILE, /* named by qcow_image_header(...)->data_file */
	QCOW_NEED_BACKING,   /* named by ->backing_name, ->backing_format */
	QCOW_NEED_LAYER0,
};
enum qcow_chain_need qcow_chain_needs(const struct qcow_chain *chain);

/* Ends set-up. -EINVAL if a layer is missing, -ENOTSUP if one is encrypted. */
int qcow_chain_seal(struct qcow_chain *chain, struct qcow_error *err);

struct qcow_writer;

/*
 * Layer 0 becomes writable: after the seal, before anybody resolves; its io must be
 * able to write. Runs may now be writable; blocks that the image has on its own
 * metadata, or where no refcount is, are broken. Readers see what the writer writes.
 * Errors as qcow_writer_create(); -EINVAL at the wrong time or for a snapshot.
 */
int qcow_chain_make_writable(struct qcow_chain *chain, bool drop_bitmaps, struct qcow_error *err);
/* Would it be refused for what the header says? Reads and writes nothing. */
int qcow_chain_check_writable(const struct qcow_chain *chain, bool drop_bitmaps,
			      struct qcow_error *err);
/* Makes durable what was written to the data file of layer 0; nothing to do without one. */
int qcow_chain_flush_data_file(struct qcow_chain *chain, struct qcow_error *err);
/* As qcow_writer_room(), of a writable chain: in its data file as well, if it has one. */
int qcow_chain_room(const struct qcow_chain *chain, uint64_t *bytes, struct qcow_error *err);
/* NULL if it is not. Belongs to the chain. */
struct qcow_writer *qcow_chain_writer(const struct qcow_chain *chain);

size_t qcow_chain_nr_layers(const struct qcow_chain *chain);
enum qcow_layer_kind qcow_chain_layer_kind(const struct qcow_chain *chain, size_t layer);
/* NULL for raw layers and data files. */
const struct qcow_image *qcow_chain_layer_image(const struct qcow_chain *chain, size_t layer);
/* The layer guest writes may go to: 0, or 1 if that is the image's data file. */
size_t qcow_chain_data_layer(const struct qcow_chain *chain);
/* Of layer 0: bytes, a multiple of 512; log2 of the block size. */
uint64_t qcow_chain_size(const struct qcow_chain *chain);
uint32_t qcow_chain_block_bits(const struct qcow_chain *chain);

/* One per thread. Holds bounce space for the largest cluster in the chain. */
int qcow_scratch_create(struct qcow_scratch **s, const struct qcow_chain *chain,
			struct qcow_error *err);
void qcow_scratch_destroy(struct qcow_scratch *s); /* NULL is fine */

/* ---- LOAD ---------------------------------------------------------------- */

enum qcow_run_type {
	QCOW_RUN_ZERO = 1, /* reads as zeros */
	QCOW_RUN_DATA,	   /* @len bytes at @host_off of @layer */
	QCOW_RUN_FETCH,	   /* only qcow_chain_read() knows the bytes */
};

struct qcow_run {
	uint64_t guest_off; /* multiple of the block size */
	uint64_t len;	    /* bytes, multiple of the block size, > 0 */
	enum qcow_run_type type;
	bool writable;	       /* DATA only: the guest may overwrite in place */
	bool reserved;	       /* not writable, but has a place of its own in the data layer */
	bool forbidden;	       /* FETCH only: a guest that could write there would write metadata */
	uint32_t layer;	       /* DATA only */
	uint64_t host_off;     /* DATA only; multiple of 512 and of each layer's io->align */
	uint64_t reserved_off; /* reserved only; as host_off. What is there now is unknown */
};

/*
 * Resolves [guest_off, guest_off + len), both multiples of the block size, into
 * runs that follow each other without gap from @guest_off. At most @max are
 * written; if the range needs more, the runs cover its beginning, and the caller
 * goes on from the end of the last. Neighbouring blocks of one kind are merged
 * (DATA: if contiguous in the same layer; reserved places too). Blocks past the
 * chain's size are ZERO.
 *
 * A block is FETCH if it is compressed, pieced together from more than one
 * place, straddles the end of a layer, lies past the end of a block-device
 * layer or past 2^56, is not aligned for direct I/O on all layers, or has a broken
 * table entry: then the read of that block, and of no other, gives -EIO with the
 * reason. A table that cannot be read for I/O reasons fails the whole call.
 * Everything beyond the end of a backing layer is ZERO.
 *
 * -EINVAL for a bad range, else I/O errors.
 */
int qcow_chain_resolve(struct qcow_chain *chain, uint64_t guest_off, uint64_t len,
		       struct qcow_run *runs, size_t max, size_t *nr, struct qcow_scratch *s,
		       struct qcow_error *err);

/* ---- FETCH --------------------------------------------------------------- */

/*
 * Reads any byte range of the disk through all layers; bytes past its size read
 * as zeros.
 * A whole compressed cluster is inflated straight into @buf; DATA goes straight
 * there too if @buf and the offsets are aligned for direct I/O (4096 always is).
 * -EIO for broken entries or compressed data, -EINVAL for a bad range, else I/O errors.
 * @buf holds rubbish after an error.
 */
int qcow_chain_read(struct qcow_chain *chain, uint64_t guest_off, void *buf, size_t len,
		    struct qcow_scratch *s, struct qcow_error *err);

/* ---- for map and check --------------------------------------------------- */

enum qcow_extent_type {
	QCOW_EXTENT_UNALLOCATED = 1, /* no layer has it, or one ends before: zeros */
	QCOW_EXTENT_ZERO,	     /* the layer at @depth says so */
	QCOW_EXTENT_DATA,
	QCOW_EXTENT_COMPRESSED, /* one cluster, or what is left of it */
	QCOW_EXTENT_BROKEN,	/* @err of the call says why */
};

struct qcow_extent {
	uint64_t guest_off;
	uint64_t len; /* bytes */
	enum qcow_extent_type type;
	uint32_t depth;	       /* 0 = image, 1 = its backing file; UNALLOCATED: last asked */
	uint32_t layer;	       /* where the bytes are: DATA, COMPRESSED */
	bool has_host_off;     /* also for ZERO with a preallocated cluster */
	bool copied;	       /* the entry's COPIED flag: refcount is exactly 1 */
	bool forbidden;	       /* BROKEN, in a writable chain: on metadata, or free */
	bool reserved;	       /* in a writable chain: may be written to reserved_off */
	uint64_t host_off;     /* of guest_off; COMPRESSED: of the cluster's first byte */
	uint32_t csize;	       /* COMPRESSED: bytes the entry claims */
	uint32_t in_cluster;   /* COMPRESSED: guest_off's distance from the cluster's start */
	uint64_t reserved_off; /* of guest_off, in the data layer */
};

/*
 * The extent at @guest_off, as long as it goes but at most @len. A long extent
 * may be returned in pieces. BROKEN is a result (returns 0, fills @err); a
 * negative return is an I/O error or a bad range.
 */
int qcow_chain_extent(struct qcow_chain *chain, uint64_t guest_off, uint64_t len,
		      struct qcow_extent *ext, struct qcow_scratch *s, struct qcow_error *err);

/* DATA of a raw layer or a data file that is a hole there becomes ZERO; what is both is cut. */
void qcow_chain_find_hole(const struct qcow_chain *chain, struct qcow_extent *ext);

/*
 * For who reads all of a disk: as qcow_chain_extent(), but BROKEN is -EIO, and holes are
 * found. NULL is a disk that no layer has anything of.
 */
int qcow_chain_next(struct qcow_chain *chain, uint64_t guest_off, uint64_t len,
		    struct qcow_extent *ext, struct qcow_scratch *s, struct qcow_error *err);

static inline bool qcow_extent_is_zero(const struct qcow_extent *ext)
{
	return ext->type == QCOW_EXTENT_UNALLOCATED || ext->type == QCOW_EXTENT_ZERO;
}

#endif
