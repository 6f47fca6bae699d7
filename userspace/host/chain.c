// SPDX-License-Identifier: GPL-2.0-only
#include "host/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/direct.h"
#include "lib/foreign.h"

struct host_chain {
	struct qcow_chain *lib;
	size_t nr;
	struct host_layer layer[QCOW_MAX_LAYERS];
	struct qcow_io *io[QCOW_MAX_LAYERS];
	char *path[QCOW_MAX_LAYERS];
};

static int local_open(void *arg, const struct host_request *req, int *fd, struct qcow_error *err)
{
	return host_open_layer(arg, req, fd, err);
}

struct host_opener host_opener_local(const struct host_policy *policy)
{
	return (struct host_opener){ .open = local_open, .arg = (void *)policy };
}

struct host_chain_params host_chain_params(const struct host_options *o, unsigned int flags)
{
	return (struct host_chain_params){
		.flags = flags,
		.backing_format = o->backing_format,
		.pin = o->backing,
		.no_backing = o->no_backing,
		.snapshot = o->snapshot,
		.drop_bitmaps = o->drop_bitmaps,
	};
}

static int create(struct host_chain **out, const struct host_chain_params *params,
		  struct qcow_error *err)
{
	struct qcow_chain_params lp = { .cache_bytes = params->cache_bytes,
					.raw_ok = params->format == HOST_FORMAT_RAW };
	struct host_chain *hc = calloc(1, sizeof(*hc));
	int r;

	if (!hc)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	r = qcow_chain_create(&hc->lib, &lp, err);
	if (r < 0) {
		free(hc);
		return r;
	}
	*out = hc;
	return 0;
}

void host_chain_close(struct host_chain *hc)
{
	size_t i;

	if (!hc)
		return;
	qcow_chain_destroy(hc->lib);
	for (i = 0; i < hc->nr; i++) {
		qcow_io_destroy(hc->io[i]);
		close(hc->layer[i].fd);
		free(hc->path[i]);
	}
	free(hc);
}

void host_chain_name_layers(struct host_chain *hc)
{
	for (size_t i = 0; i < hc->nr; i++)
		hc->io[i]->name = hc->path[i];
}

bool host_same_file(const struct host_layer *a, const struct host_layer *b)
{
	if (a->is_bdev != b->is_bdev)
		return false;
	return a->is_bdev ? a->rdev == b->rdev : a->dev == b->dev && a->ino == b->ino;
}

bool host_layer_is(const struct host_layer *l, const struct stat *st)
{
	if (l->is_bdev)
		return S_ISBLK(st->st_mode) && l->rdev == st->st_rdev;
	return l->dev == st->st_dev && l->ino == st->st_ino;
}

static int check_loop(const struct host_chain *hc, const struct host_layer *l,
		      struct qcow_error *err)
{
	size_t i;

	for (i = 0; i < hc->nr; i++)
		if (host_same_file(&hc->layer[i], l))
			return qcow_fail(err, ELOOP, QCOW_NO_OFF,
					 "the chain is a loop: layer %zu (%s) is the same file", i,
					 hc->layer[i].path);
	return 0;
}

#define TAG_KIND 0xffull

static int describe(struct host_layer *l, struct qcow_io *io, struct qcow_error *err)
{
	struct stat st;
	int r;

	if (fstat(l->fd, &st) < 0)
		return qcow_fail(err, errno, QCOW_NO_OFF, "%s", strerror(errno));
	l->is_bdev = S_ISBLK(st.st_mode);
	l->read_only = (fcntl(l->fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
	l->rdev = l->is_bdev ? st.st_rdev : 0;
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	l->dio_align = io->align;
	l->mem_align = io->mem_align;
	if (l->tag) {
		l->size = l->tag & ~TAG_KIND;
		return 0;
	}
	r = qcow_io_size(io, &l->size, err);
	l->tag = ((l->size + TAG_KIND) & ~TAG_KIND) | l->kind;
	return r;
}

static int add_to_lib(struct host_chain *hc, enum qcow_layer_kind kind, struct qcow_io *io,
		      const struct host_chain_params *params, struct qcow_error *err)
{
	switch (kind) {
	case QCOW_LAYER_QCOW2:
		return qcow_chain_add_qcow2(hc->lib, io, hc->nr ? NULL : params->snapshot, err);
	case QCOW_LAYER_RAW:
		return qcow_chain_add_raw(hc->lib, io, err);
	case QCOW_LAYER_DATA_FILE:
		return qcow_chain_add_data_file(hc->lib, io, err);
	}
	return qcow_fail(err, EINVAL, QCOW_NO_OFF, "unknown kind of layer");
}

static int check_layer(const struct host_chain *hc, const struct host_chain_params *params,
		       struct qcow_error *err)
{
	const struct qcow_image *img = qcow_chain_layer_image(hc->lib, hc->nr);

	if (!img || params->flags & (HOST_CHAIN_INFO | HOST_CHAIN_ONE))
		return 0;
	return qcow_image_check_readable(img, err);
}

/* Takes over @fd and @path, whatever happens. @tag: 0 = to be made. */
static int add_layer(struct host_chain *hc, enum qcow_layer_kind kind, int fd, char *path,
		     host_tag_t tag, const struct host_chain_params *params, struct qcow_error *err)
{
	struct host_layer l = { .fd = fd, .kind = kind, .path = path, .tag = tag };
	struct qcow_io *io;
	int r;

	r = host_io_create(&io, fd, err);
	if (r < 0)
		goto out_close;
	io->exact_end = params->flags & HOST_CHAIN_COMMAND;
	r = describe(&l, io, err);
	if (!r)
		r = check_loop(hc, &l, err);
	if (!r)
		r = add_to_lib(hc, kind, io, params, err);
	if (r < 0)
		goto out_destroy_io;
	/* The library's chain uses io from here on: both are undone together. */
	r = check_layer(hc, params, err);
	if (r < 0)
		qcow_error_prefix(err, "%s", path);
	hc->layer[hc->nr] = l;
	hc->path[hc->nr] = path;
	hc->io[hc->nr++] = io;
	return r;

out_destroy_io:
	qcow_io_destroy(io);
out_close:
	close(fd);
	qcow_error_prefix(err, "%s", path);
	free(path);
	return r;
}

/* The image, and its own data file. */
static bool is_written(const struct host_chain *hc, enum host_role role)
{
	return role == HOST_ROLE_IMAGE || (role == HOST_ROLE_DATA_FILE && hc->nr == 1);
}

static int open_layer(struct host_chain *hc, enum host_role role, enum qcow_layer_kind kind,
		      char *path, const struct host_chain_params *params,
		      const struct host_opener *opener, struct qcow_error *err)
{
	struct host_request req = {
		.role = role,
		.path = path,
		.buffered_ok = params->flags & HOST_CHAIN_BUFFERED_OK,
		.buffered = params->flags & HOST_CHAIN_BUFFERED,
		.probe_only = params->flags & HOST_CHAIN_PROBE_LOCK,
	};
	int fd, r;

	req.write = params->flags & HOST_CHAIN_WRITE && is_written(hc, role);
	if (params->flags & (HOST_CHAIN_LOCK | HOST_CHAIN_PROBE_LOCK))
		req.lock = req.write ? HOST_LOCK_WRITER : HOST_LOCK_BASE;
	r = opener->open(opener->arg, &req, &fd, err);
	if (r < 0) {
		free(path);
		return r;
	}
	return add_layer(hc, kind, fd, path, 0, params, err);
}

static int copy_path(const char *path, char **out, struct qcow_error *err)
{
	*out = strdup(path);
	return *out ? 0 : qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
}

/* The qcow2 layer that names the next file, and the path names are relative to. */
static size_t namer(const struct host_chain *hc)
{
	size_t i = hc->nr - 1;

	return hc->layer[i].kind == QCOW_LAYER_DATA_FILE ? i - 1 : i;
}

static int refuse_named(const char *what, const char *name, struct qcow_error *err)
{
	return qcow_fail(err, EACCES, QCOW_NO_OFF,
			 "the image names the %s %s, but --no-backing allows none", what, name);
}

static int open_data_file(struct host_chain *hc, const struct host_chain_params *params,
			  const struct host_opener *opener, struct qcow_error *err)
{
	size_t i = namer(hc);
	const char *name = qcow_image_header(qcow_chain_layer_image(hc->lib, i))->data_file;
	char *path;
	int r;

	if (!*name)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "the image keeps its data in another file but does not name it; "
				 "record it with: qemu-img amend -f qcow2 -o data_file=NAME IMAGE");
	if (params->no_backing)
		return refuse_named("data file", name, err);
	r = host_join_name(hc->layer[i].path, name, &path, err);
	if (r < 0)
		return r;
	return open_layer(hc, HOST_ROLE_DATA_FILE, QCOW_LAYER_DATA_FILE, path, params, opener, err);
}

/* "file" and "host_device" are QEMU's ways of saying raw without a format driver. */
static enum host_format recorded_format(const char *name)
{
	if (!strcmp(name, "file") || !strcmp(name, "host_device"))
		return HOST_FORMAT_RAW;
	return host_format_parse(name);
}

static int pick_format(const struct qcow_header *h, bool pinned,
		       const struct host_chain_params *params, enum host_format *format,
		       struct qcow_error *err)
{
	const char *recorded = h->backing_format;

	*format = params->backing_format;
	if (*recorded && !(pinned && *format != HOST_FORMAT_UNKNOWN))
		*format = recorded_format(recorded);
	if (*format != HOST_FORMAT_UNKNOWN)
		return 0;
	if (!strcmp(recorded, "luks"))
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "backing file %s has format luks, which is not supported; "
				 "decrypt it with: " QCOW_LUKS_CONVERT,
				 h->backing_name);
	if (*recorded)
		return qcow_fail(
			err, ENOTSUP, QCOW_NO_OFF,
			"backing file %s has format %s, which is not supported; convert it "
			"with: qemu-img convert -f %s -O qcow2 OLD NEW",
			h->backing_name, recorded, recorded);
	return qcow_fail(err, EINVAL, QCOW_NO_OFF,
			 "the format of backing file %s is not recorded, and guessing is not safe; "
			 "give --backing-format raw|qcow2, or record it with: "
			 "qemu-img rebase -u -b NAME -F FORMAT IMAGE",
			 h->backing_name);
}

static int open_backing(struct host_chain *hc, const struct host_chain_params *params,
			const struct host_opener *opener, struct qcow_error *err)
{
	size_t i = namer(hc);
	const struct qcow_header *h = qcow_image_header(qcow_chain_layer_image(hc->lib, i));
	bool pinned = i == 0 && params->pin;
	enum host_format format;
	char *path;
	int r;

	if (params->no_backing)
		return refuse_named("backing file", h->backing_name, err);
	r = pick_format(h, pinned, params, &format, err);
	if (r < 0)
		return r;
	r = pinned ? copy_path(params->pin, &path, err)
		   : host_join_name(hc->layer[i].path, h->backing_name, &path, err);
	if (r < 0)
		return r;
	return open_layer(hc, pinned ? HOST_ROLE_PINNED : HOST_ROLE_BACKING,
			  format == HOST_FORMAT_RAW ? QCOW_LAYER_RAW : QCOW_LAYER_QCOW2, path,
			  params, opener, err);
}

/* One more file; 0 when the chain is complete. */
static int open_next(struct host_chain *hc, const struct host_chain_params *params,
		     const struct host_opener *opener, bool *more, struct qcow_error *err)
{
	enum qcow_chain_need need = qcow_chain_needs(hc->lib);

	*more = need != QCOW_NEED_NOTHING;
	switch (need) {
	case QCOW_NEED_DATA_FILE:
		return open_data_file(hc, params, opener, err);
	case QCOW_NEED_BACKING:
		return open_backing(hc, params, opener, err);
	case QCOW_NEED_LAYER0:
	case QCOW_NEED_NOTHING:
		break;
	}
	return 0;
}

static int open_rest(struct host_chain *hc, const struct host_chain_params *params,
		     const struct host_opener *opener, struct qcow_error *err)
{
	bool more = true;
	size_t before;
	int r = 0;

	while (!r && more) {
		before = hc->nr;
		r = open_next(hc, params, opener, &more, err);
		/* What is wrong with a name is the fault of the image that records it. */
		if (r < 0 && hc->nr == before)
			qcow_error_prefix(err, "%s", hc->layer[namer(hc)].path);
	}
	return r;
}

static int check_params(const struct host_chain *hc, const struct host_chain_params *params,
			struct qcow_error *err)
{
	const struct qcow_image *img = qcow_chain_layer_image(hc->lib, 0);

	if (!img && (params->snapshot || params->flags & HOST_CHAIN_WRITE))
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "%s is raw: it has no snapshots and no tables to write",
				 hc->layer[0].path);
	if (params->pin && (!img || !qcow_image_header(img)->has_backing))
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "%s has no backing file that --backing could stand for",
				 hc->layer[0].path);
	return 0;
}

/* The kernel's page: what is smaller it cannot write alone. */
#define MIN_CLUSTER 4096u

static int check_sizes(const struct host_chain *hc, struct qcow_error *err)
{
	uint32_t cluster = 1u << qcow_image_cluster_bits(qcow_chain_layer_image(hc->lib, 0));
	uint32_t block = 1u << qcow_chain_block_bits(hc->lib);

	if (cluster < MIN_CLUSTER)
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "clusters of %u bytes are too small for writing; open it "
				 "read-only, or convert it with: qemu-img convert -f qcow2 "
				 "-O qcow2 OLD NEW",
				 cluster);
	if (block < host_chain_sector_size(hc))
		return qcow_fail(err, ENOTSUP, QCOW_NO_OFF,
				 "blocks of %u bytes cannot be written where the storage wants "
				 "%u at a time; open it read-only, or use larger clusters",
				 block, host_chain_sector_size(hc));
	return 0;
}

static int check_writable(const struct host_chain *hc, const struct host_chain_params *params,
			  struct qcow_error *err)
{
	int r;

	if (params->snapshot)
		r = qcow_fail(err, EINVAL, QCOW_NO_OFF,
			      "a snapshot cannot be written to; open it read-only");
	else
		r = qcow_chain_check_writable(hc->lib, params->drop_bitmaps, err);
	if (!r && !(params->flags & HOST_CHAIN_COMMAND))
		r = check_sizes(hc, err);
	if (r < 0)
		qcow_error_prefix(err, "%s", hc->layer[0].path);
	return r;
}

static int open_all(struct host_chain *hc, const char *image,
		    const struct host_chain_params *params, const struct host_opener *opener,
		    struct qcow_error *err)
{
	char *path;
	int r;

	r = copy_path(image, &path, err);
	if (r < 0)
		return r;
	r = open_layer(hc, HOST_ROLE_IMAGE,
		       params->format == HOST_FORMAT_RAW ? QCOW_LAYER_RAW : QCOW_LAYER_QCOW2, path,
		       params, opener, err);
	if (r < 0)
		return r;
	r = check_params(hc, params, err);
	if (r < 0 || params->flags & HOST_CHAIN_ONE)
		return r;
	r = open_rest(hc, params, opener, err);
	if (r < 0 || params->flags & (HOST_CHAIN_INFO | HOST_CHAIN_ONE))
		return r;
	r = qcow_chain_seal(hc->lib, err);
	if (r < 0 || !(params->flags & HOST_CHAIN_WRITE))
		return r;
	return check_writable(hc, params, err);
}

int host_chain_open(struct host_chain **out, const char *image,
		    const struct host_chain_params *params, const struct host_opener *opener,
		    struct qcow_error *err)
{
	struct host_chain *hc;
	int r;

	r = create(&hc, params, err);
	if (r < 0)
		return r;
	r = open_all(hc, image, params, opener, err);
	if (r < 0) {
		host_chain_close(hc);
		return r;
	}
	*out = hc;
	return 0;
}

/* add_layer() wants a path to own; the kernel keeps none. */
static int adopt_layer(struct host_chain *hc, int fd, host_tag_t tag,
		       const struct host_chain_params *params, struct qcow_error *err)
{
	char *path;

	if (asprintf(&path, "layer %zu", hc->nr) < 0) {
		close(fd);
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	}
	return add_layer(hc, (enum qcow_layer_kind)(tag & TAG_KIND), fd, path, tag, params, err);
}

int host_chain_adopt(struct host_chain **out, const int *fds, const host_tag_t *tags, size_t nr,
		     const struct host_chain_params *params, struct qcow_error *err)
{
	struct host_chain *hc = NULL;
	size_t i = 0;
	int r;

	r = create(&hc, params, err);
	for (; !r && i < nr; i++)
		r = adopt_layer(hc, fds[i], tags[i], params, err);
	if (!r)
		r = qcow_chain_seal(hc->lib, err);
	if (r < 0)
		goto out_close;
	*out = hc;
	return 0;

out_close:
	for (; i < nr; i++)
		close(fds[i]);
	host_chain_close(hc);
	return r;
}

struct qcow_chain *host_chain_lib(struct host_chain *hc)
{
	return hc->lib;
}

size_t host_chain_nr_layers(const struct host_chain *hc)
{
	return hc->nr;
}

const struct host_layer *host_chain_layer(const struct host_chain *hc, size_t layer)
{
	return &hc->layer[layer];
}

uint32_t host_chain_sector_size(const struct host_chain *hc)
{
	uint32_t size = 512;
	size_t i;

	for (i = 0; i < hc->nr; i++)
		if (hc->layer[i].dio_align > size)
			size = hc->layer[i].dio_align;
	return size;
}
