// SPDX-License-Identifier: GPL-2.0-only
#include "daemon/image.h"

#include "daemon/util.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

static int init_write_first(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attr;
	int r;

	r = -pthread_rwlockattr_init(&attr);
	if (r)
		return r;
	/* The default would let a stream of FETCHes keep CLOSE out. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	r = -pthread_rwlock_init(lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	return r;
}

static bool is_read_only(const struct image *image)
{
	return image->table.flags & DM_QCOW_FLAG_READ_ONLY;
}

static void empty_lanes(struct image *image)
{
	for (unsigned int i = 0; i < image->nr_lanes; i++) {
		struct lane *lane = &image->lanes[i];

		qcow_scratch_destroy(lane->scratch);
		free(lane->bytes);
		lane->scratch = NULL;
		lane->bytes = NULL;
	}
}

/* Writes nothing: what is not finished stays for the next worker. */
static void let_go(struct image *image)
{
	if (image->writing)
		writing_end(image->writing);
	empty_lanes(image);
	host_chain_close(image->chain);
	image->chain = NULL;
	image->lost = false;
}

int image_init(struct image *image, const struct qnl_msg *attached,
	       const struct host_opener *opener, unsigned int nr_lanes)
{
	int r;

	memset(image, 0, sizeof(*image));
	image->opener = *opener;
	image->nr_lanes = nr_lanes;
	r = table_init(&image->table, attached);
	if (r)
		return r;
	image->lanes = aligned_alloc(_Alignof(struct lane), nr_lanes * sizeof(*image->lanes));
	if (!image->lanes) {
		table_exit(&image->table);
		return -ENOMEM;
	}
	memset(image->lanes, 0, nr_lanes * sizeof(*image->lanes));
	if (!is_read_only(image)) {
		image->writing = writing_create();
		if (!image->writing) {
			free(image->lanes);
			table_exit(&image->table);
			return -ENOMEM;
		}
	}
	pthread_mutex_init(&image->write_lock, NULL);
	return init_write_first(&image->lock);
}

void image_exit(struct image *image)
{
	let_go(image);
	pthread_rwlock_destroy(&image->lock);
	pthread_mutex_destroy(&image->write_lock);
	writing_destroy(image->writing);
	free(image->lanes);
	table_exit(&image->table);
}

/* ---- opening ------------------------------------------------------------------- */

static int fill_lane(struct lane *lane, struct host_chain *chain, uint32_t block_size,
		     struct qcow_error *err)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size = block_size < page ? page : block_size;

	lane->bytes = aligned_alloc(page, size);
	if (!lane->bytes)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	return qcow_scratch_create(&lane->scratch, host_chain_lib(chain), err);
}

/* Takes @chain in any case. */
static int use_chain(struct image *image, struct host_chain *chain, struct qcow_error *err)
{
	int r = 0;

	image->block_size = 1U << qcow_chain_block_bits(host_chain_lib(chain));
	for (unsigned int i = 0; i < image->nr_lanes && !r; i++)
		r = fill_lane(&image->lanes[i], chain, image->block_size, err);
	if (r) {
		empty_lanes(image);
		host_chain_close(chain);
		return r;
	}
	image->chain = chain;
	return 0;
}

static int open_chain(struct image *image, unsigned int lock_flag, struct host_chain **chain,
		      bool *drop_bitmaps, struct qcow_error *err)
{
	unsigned int flags = lock_flag | (is_read_only(image) ? 0 : HOST_CHAIN_WRITE);
	struct host_chain_params params;
	struct host_options options;
	int r;

	r = table_options(&image->table, &options, err);
	if (r)
		return r;
	params = host_chain_params(&options, flags);
	r = host_chain_open(chain, image->table.path, &params, &image->opener, err);
	*drop_bitmaps = options.drop_bitmaps;
	host_options_exit(&options);
	return r;
}

/* Two image files must differ in it; a device is its number, not its node's inode. */
static void put_identity(struct dm_qcow_shape *shape, const struct host_layer *layer)
{
	shape->identity[0] = layer->is_bdev ? layer->rdev : layer->dev;
	shape->identity[1] = layer->is_bdev ? UINT64_MAX : layer->ino;
}

static uint32_t cluster_size(struct qcow_chain *lib)
{
	const struct qcow_image *top = qcow_chain_layer_image(lib, 0);

	return 1U << (top ? qcow_image_cluster_bits(top) : qcow_chain_block_bits(lib));
}

/*
 * Version 2 has no zero flag: it can only forget a cluster, and only where no backing
 * file shines through. A raw data file must hold the zeros themselves.
 */
static uint32_t shape_flags(struct qcow_chain *lib)
{
	const struct qcow_header *h = qcow_image_header(qcow_chain_layer_image(lib, 0));

	if (h->autoclear & QCOW_AUTOCLEAR_DATA_RAW)
		return 0;
	if (h->version >= 3)
		return DM_QCOW_SHAPE_ZEROES | DM_QCOW_SHAPE_KEEP;
	return h->has_backing ? 0 : DM_QCOW_SHAPE_ZEROES;
}

static void put_shape(struct qnl_msg *answer, struct host_chain *chain)
{
	struct qcow_chain *lib = host_chain_lib(chain);
	size_t nr = host_chain_nr_layers(chain);
	struct dm_qcow_shape shape = {
		.virtual_size = qcow_chain_size(lib),
		.cluster_size = cluster_size(lib),
		.block_size = 1U << qcow_chain_block_bits(lib),
		.logical_block_size = host_chain_sector_size(chain),
		.nr_layers = (uint32_t)nr,
		.flags = shape_flags(lib),
	};

	put_identity(&shape, host_chain_layer(chain, 0));
	for (size_t i = 0; i < nr; i++) {
		uint32_t mask = host_chain_layer(chain, i)->mem_align - 1;

		shape.dma_alignment |= mask;
	}
	qnl_set(answer, SHAPE, shape, shape);
}

static void put_devices(struct qnl_msg *answer, struct lane *lane, const struct host_chain *chain)
{
	uint32_t nr = 0;

	for (size_t i = 0; i < host_chain_nr_layers(chain); i++) {
		const struct host_layer *layer = host_chain_layer(chain, i);

		if (layer->is_bdev)
			lane->out.devices[nr++] = (struct dm_qcow_device){
				.major = major(layer->rdev),
				.minor = minor(layer->rdev),
			};
	}
	if (nr)
		qnl_set(answer, DEVICES, devices, ((struct qnl_array){ lane->out.devices, nr }));
}

static void put_layers(struct qnl_msg *answer, struct lane *lane, struct host_chain *chain)
{
	size_t nr = host_chain_nr_layers(chain);
	size_t data_layer = qcow_chain_data_layer(host_chain_lib(chain));

	for (size_t i = 0; i < nr; i++) {
		const struct host_layer *layer = host_chain_layer(chain, i);

		lane->out.layers[i] = (struct dm_qcow_layer){
			.fd = layer->fd,
			.flags = i == data_layer && !layer->read_only ? DM_QCOW_LAYER_WRITABLE : 0,
			.tag = layer->tag,
		};
	}
	qnl_set(answer, LAYERS, layers, ((struct qnl_array){ lane->out.layers, (uint32_t)nr }));
}

int image_probe(struct image *image, struct lane *lane, struct qnl_msg *answer,
		struct qcow_error *err)
{
	struct host_chain *chain;
	bool drop_bitmaps;
	int r;

	r = open_chain(image, HOST_CHAIN_PROBE_LOCK, &chain, &drop_bitmaps, err);
	if (r)
		return r;
	put_shape(answer, chain);
	put_devices(answer, lane, chain);
	host_chain_close(chain);
	return 0;
}

static int begin_writing(struct image *image, bool drop_bitmaps, struct qcow_error *err)
{
	int r = writing_begin(image->writing, host_chain_lib(image->chain), drop_bitmaps, err);

	if (!r)
		return 0;
	qcow_error_prefix(err, "%s", image->table.path);
	let_go(image);
	return r;
}

int image_open(struct image *image, struct lane *lane, struct qnl_msg *answer,
	       struct qcow_error *err)
{
	struct host_chain *chain;
	bool drop_bitmaps;
	int r;

	let_go(image);
	r = open_chain(image, HOST_CHAIN_LOCK, &chain, &drop_bitmaps, err);
	if (r)
		return r;
	r = use_chain(image, chain, err);
	if (!r && image->writing)
		r = begin_writing(image, drop_bitmaps, err);
	if (r)
		return r;
	host_chain_name_layers(image->chain);
	put_shape(answer, image->chain);
	put_layers(answer, lane, image->chain);
	if (image->writing) {
		writing_put_tables(image->writing, answer);
		writing_put_room(image->writing, answer);
	}
	return 0;
}

int image_close(struct image *image, const struct qnl_msg *up, struct qcow_error *err)
{
	int r = 0;

	if (image->chain && image->writing)
		r = writing_finish(image->writing, up, err);
	if (!r)
		let_go(image);
	return r;
}

static int adopt_chain(struct image *image, const struct qnl_array *layers,
		       struct host_chain **chain, bool *drop_bitmaps, struct qcow_error *err)
{
	host_tag_t tags[DM_QCOW_MAX_LAYERS];
	int fds[DM_QCOW_MAX_LAYERS];
	struct host_chain_params params;
	struct host_options options;
	int r;

	if (!layers->nr || layers->nr > DM_QCOW_MAX_LAYERS)
		return qcow_fail(err, EPROTO, QCOW_NO_OFF, "%u layers handed back", layers->nr);
	for (uint32_t i = 0; i < layers->nr; i++) {
		struct dm_qcow_layer layer;

		qnl_array_get(layers, i, &layer, sizeof(layer));
		fds[i] = layer.fd;
		tags[i] = layer.tag;
	}
	r = table_options(&image->table, &options, err);
	if (r) {
		/* They carry the image's locks, which CLOSE must be able to end. */
		for (uint32_t i = 0; i < layers->nr; i++)
			close(fds[i]);
		return r;
	}
	params = host_chain_params(&options, 0);
	r = host_chain_adopt(chain, fds, tags, layers->nr, &params, err);
	*drop_bitmaps = options.drop_bitmaps;
	host_options_exit(&options);
	return r;
}

static void adopt_writing(struct image *image, bool drop_bitmaps, const struct qnl_array *leases)
{
	uint64_t first_size = host_chain_layer(image->chain, 0)->size;
	struct qcow_error err = { 0 };

	if (writing_adopt(image->writing, host_chain_lib(image->chain), drop_bitmaps, first_size,
			  leases, &err))
		log_line("%s can be read only: %s", image->table.path, err.text);
}

int image_adopt(struct image *image, const struct qnl_array *layers, const struct qnl_array *leases,
		struct qcow_error *err)
{
	struct host_chain *chain;
	bool drop_bitmaps = false;
	int r;

	r = adopt_chain(image, layers, &chain, &drop_bitmaps, err);
	if (!r)
		r = use_chain(image, chain, err);
	if (!r && image->writing)
		adopt_writing(image, drop_bitmaps, leases);
	if (!r)
		host_chain_name_layers(image->chain);
	image->lost = r;
	return r;
}

/* ---- resolving ------------------------------------------------------------------ */

static int check_open(const struct image *image, struct qcow_error *err)
{
	if (image->chain)
		return 0;
	if (image->lost)
		return qcow_fail(err, EIO, QCOW_NO_OFF,
				 "%s: the restarted helper cannot read it; suspend and resume",
				 image->table.path);
	return qcow_fail(err, EIO, QCOW_NO_OFF, "%s is not open", image->table.path);
}

static struct dm_qcow_run convert_run(const struct qcow_run *run, uint32_t block_size)
{
	struct dm_qcow_run out = {
		.nr_blocks = (uint32_t)(run->len / block_size),
		.type = DM_QCOW_RUN_FETCH,
	};

	if (run->type == QCOW_RUN_ZERO)
		out.type = DM_QCOW_RUN_ZERO;
	if (run->type == QCOW_RUN_DATA) {
		out.type = DM_QCOW_RUN_DATA;
		out.host_off = run->host_off;
		out.layer = (uint16_t)run->layer;
	}
	if (run->reserved)
		out.reserved_off = run->reserved_off;
	out.flags = (run->writable ? DM_QCOW_RUN_WRITABLE : 0) |
		    (run->reserved ? DM_QCOW_RUN_RESERVED : 0) |
		    (run->forbidden ? DM_QCOW_RUN_BROKEN : 0);
	return out;
}

/* The page's bytes that lie on the disk, rounded up to whole blocks. */
static uint64_t page_len(const struct image *image, uint64_t start, uint64_t page_size)
{
	uint64_t size = qcow_chain_size(host_chain_lib(image->chain));
	uint64_t end = (size + image->block_size - 1) / image->block_size * image->block_size;

	if (start >= end)
		return 0;
	return end - start < page_size ? end - start : page_size;
}

int image_load(struct image *image, struct lane *lane, const struct qnl_msg *up,
	       struct qnl_msg *answer, struct qcow_error *err)
{
	uint64_t page_size = (uint64_t)image->block_size * DM_QCOW_PAGE_BLOCKS;
	uint64_t len;
	size_t nr = 0;
	int r;

	r = check_open(image, err);
	if (r)
		return r;
	if (!qnl_has(up, QNL_BIT(PAGE) | QNL_BIT(SEQ)) || up->page > INT64_MAX / page_size)
		return qcow_fail(err, EPROTO, QCOW_NO_OFF, "malformed LOAD");
	len = page_len(image, up->page * page_size, page_size);
	if (len)
		r = qcow_chain_resolve(host_chain_lib(image->chain), up->page * page_size, len,
				       lane->runs, DM_QCOW_PAGE_BLOCKS, &nr, lane->scratch, err);
	if (r)
		return r;
	for (size_t i = 0; i < nr; i++)
		lane->out.runs[i] = convert_run(&lane->runs[i], image->block_size);
	if (len < page_size)
		lane->out.runs[nr++] = (struct dm_qcow_run){
			.nr_blocks = (uint32_t)((page_size - len) / image->block_size),
			.type = DM_QCOW_RUN_ZERO,
		};
	qnl_set(answer, PAGE, page, up->page);
	qnl_set(answer, SEQ, seq, up->seq);
	qnl_set(answer, RUNS, runs, ((struct qnl_array){ lane->out.runs, (uint32_t)nr }));
	return 0;
}

int image_fetch(struct image *image, struct lane *lane, const struct qnl_msg *up,
		struct qnl_msg *answer, struct qcow_error *err)
{
	int r;

	r = check_open(image, err);
	if (r)
		return r;
	if (!qnl_has(up, QNL_BIT(OFFSET) | QNL_BIT(LENGTH)) || !up->length ||
	    up->length > image->block_size || up->offset > (uint64_t)INT64_MAX)
		return qcow_fail(err, EPROTO, QCOW_NO_OFF, "malformed FETCH");
	r = qcow_chain_read(host_chain_lib(image->chain), up->offset, lane->bytes, up->length,
			    lane->scratch, err);
	if (r)
		return r;
	qnl_set(answer, OFFSET, offset, up->offset);
	qnl_set(answer, LENGTH, length, up->length);
	qnl_set(answer, ADDR, addr, (uint64_t)(uintptr_t)lane->bytes);
	return 0;
}
