/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Opens an image with all that belongs to it, and puts a qcow_chain over it.
 *
 * Parsing and opening are split, so that in the daemon the sandboxed worker
 * parses and the supervisor opens: whoever calls host_chain_open() passes a
 * struct host_opener; the worker's asks the supervisor over a socket, which calls
 * host_open_layer() with its own policy; the command line's calls it directly
 * (host_opener_local). A worker that lies about a path gets no further than the
 * policy lets an image get.
 */
#ifndef QCOW_HOST_CHAIN_H
#define QCOW_HOST_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "host/lock.h"
#include "host/options.h"
#include "host/trust.h"
#include "lib/chain.h"
#include "lib/error.h"

struct host_opener {
	/* As host_open_layer(), locks included; *@fd then belongs to the chain. */
	int (*open)(void *arg, const struct host_request *req, int *fd, struct qcow_error *err);
	void *arg;
};

/* An opener in this process; @policy must outlive its use. */
struct host_opener host_opener_local(const struct host_policy *policy);

/*
 * What the kernel stores with a layer and hands back on re-attach; opaque there.
 * Bits 0..7 enum qcow_layer_kind; the rest the file's size when it was opened, rounded
 * up to 256.
 */
typedef uint64_t host_tag_t;

struct host_layer {
	int fd; /* owned by the chain */
	enum qcow_layer_kind kind;
	host_tag_t tag;
	bool is_bdev;
	bool read_only; /* opened for reading only */
	dev_t rdev;	/* block device: its number; else 0 */
	dev_t dev;	/* identity: file system and inode */
	ino_t ino;
	uint64_t size;	    /* bytes, when opened; by whom the kernel has it from, if adopted */
	uint32_t dio_align; /* bytes: offset and length of direct I/O */
	uint32_t mem_align; /* bytes: buffer address */
	const char *path;   /* as written, joined; "layer <n>" after adopt */
};

struct host_chain;

enum {
	HOST_CHAIN_WRITE = 1 << 0, /* layer 0 (and its data file) for writing by the kernel */
	HOST_CHAIN_LOCK = 1 << 1,  /* take QEMU's locks: WRITER with WRITE on the data layer and
				      image, else BASE */
	HOST_CHAIN_PROBE_LOCK = 1 << 2, /* only look for conflicts */
	HOST_CHAIN_BUFFERED_OK = 1 << 3,
	HOST_CHAIN_INFO = 1 << 4,     /* for headers only: the chain is not sealed, and layers may
					 be encrypted */
	HOST_CHAIN_ONE = 1 << 5,      /* only the image itself; implies INFO */
	HOST_CHAIN_COMMAND = 1 << 7,  /* with WRITE: by a command, not by the kernel, which cannot
					 write to small clusters */
	HOST_CHAIN_BUFFERED = 1 << 6, /* regular files through the page cache */
};

/*
 * What the worker knows of the policy: only what decides names and formats, not
 * what may be opened.
 */
struct host_chain_params {
	unsigned int flags;
	enum host_format format;	 /* of the image: RAW for reading alone, else qcow2 */
	enum host_format backing_format; /* for layers that record none; wins for a pinned one */
	const char *pin;		 /* backing file of layer 0 instead of the recorded one */
	bool no_backing;		 /* refuse an image that names any other file */
	const char *snapshot;		 /* of layer 0 */
	bool drop_bitmaps;		 /* with WRITE: not refused for its bitmaps */
	size_t cache_bytes;		 /* 0 = default */
};

/* From options (strings are borrowed from @o). */
struct host_chain_params host_chain_params(const struct host_options *o, unsigned int flags);

/*
 * Walks image -> data file -> backing -> ... and seals the chain. Refused, each
 * with one line that says what to do: a backing file without recorded or given
 * format; formats other than raw and qcow2; json: and protocol names; the same
 * file twice (by dev:ino or device number); more than QCOW_MAX_LAYERS; what
 * the opener refuses. Messages about a deeper layer start with its path.
 * With WRITE also what the kernel cannot write to, or only with damage: an image that
 * is dirty, corrupt or has bitmaps, a snapshot, clusters smaller than a page.
 */
int host_chain_open(struct host_chain **hc, const char *image,
		    const struct host_chain_params *params, const struct host_opener *opener,
		    struct qcow_error *err);

/*
 * Rebuilds the chain from descriptors handed back by the kernel, in layer order,
 * with their tags. Opens nothing and takes no lock (the descriptions still hold
 * theirs). Takes over the descriptors in any case, also on error.
 */
int host_chain_adopt(struct host_chain **hc, const int *fds, const host_tag_t *tags, size_t nr,
		     const struct host_chain_params *params, struct qcow_error *err);

/* Closes everything, and with it the locks unless the kernel keeps a copy. NULL is fine. */
void host_chain_close(struct host_chain *hc);

/* From now on what the library says of reading and writing begins with the layer's path. */
void host_chain_name_layers(struct host_chain *hc);

struct qcow_chain *host_chain_lib(struct host_chain *hc);
size_t host_chain_nr_layers(const struct host_chain *hc);
const struct host_layer *host_chain_layer(const struct host_chain *hc, size_t layer);

struct stat;
/* Whatever the names: the same file, or the same device. */
bool host_same_file(const struct host_layer *a, const struct host_layer *b);
bool host_layer_is(const struct host_layer *l, const struct stat *st);

/* The smallest logical block size the kernel may offer: no layer needs a larger one. */
uint32_t host_chain_sector_size(const struct host_chain *hc);

#endif
