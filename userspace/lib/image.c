// SPDX-License-Identifier: GPL-2.0-only
#include "lib/image.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/bitmap.h"
#include "lib/l2.h"

struct qcow_image {
	struct qcow_io *io;
	struct qcow_header h;
	/* Of the active state or the selected snapshot. */
	uint64_t size; /* as recorded */
	uint64_t l1_off;
	uint32_t l1_size;
};

static int visit_snapshot(const struct qcow_snapshot *snap, void *arg)
{
	(void)snap;
	(void)arg;
	return 0;
}

static int visit_bitmap(const struct qcow_bitmap *bitmap, void *arg)
{
	(void)bitmap;
	(void)arg;
	return 0;
}

/* QEMU refuses an image with a damaged directory of either; so it is seen now, not later. */
static int check_directories(struct qcow_image *img, struct qcow_error *err)
{
	int r = qcow_snapshots_walk(img->io, &img->h, visit_snapshot, NULL, err);

	return r < 0 ? r : qcow_bitmaps_walk(img->io, &img->h, visit_bitmap, NULL, err);
}

int qcow_image_open(struct qcow_image **out, struct qcow_io *io, struct qcow_error *err)
{
	struct qcow_image *img = calloc(1, sizeof(*img));
	int r;

	if (!img)
		return qcow_fail(err, ENOMEM, QCOW_NO_OFF, "out of memory");
	img->io = io;
	r = qcow_header_read(io, &img->h, err);
	if (r < 0)
		goto out_free;
	r = check_directories(img, err);
	if (r < 0)
		goto out_free;
	img->size = img->h.size;
	img->l1_off = img->h.l1_off;
	img->l1_size = img->h.l1_size;
	*out = img;
	return 0;

out_free:
	free(img);
	return r;
}

void qcow_image_close(struct qcow_image *img)
{
	free(img);
}

const struct qcow_header *qcow_image_header(const struct qcow_image *img)
{
	return &img->h;
}

struct qcow_io *qcow_image_io(const struct qcow_image *img)
{
	return img->io;
}

uint64_t qcow_image_size(const struct qcow_image *img)
{
	return img->size & ~511ull;
}

uint64_t qcow_image_l1_off(const struct qcow_image *img)
{
	return img->l1_off;
}

uint32_t qcow_image_l1_size(const struct qcow_image *img)
{
	return img->l1_size;
}

uint32_t qcow_image_cluster_bits(const struct qcow_image *img)
{
	return img->h.cluster_bits;
}

uint32_t qcow_image_block_bits(const struct qcow_image *img)
{
	return qcow_block_bits(&img->h);
}

int qcow_image_check_readable(const struct qcow_image *img, struct qcow_error *err)
{
	if (img->h.crypt_method == QCOW_CRYPT_NONE)
		return 0;
	return qcow_fail(
		err, ENOTSUP, 32,
		"the image is encrypted (%s), which is not supported yet; decrypt it with: "
		"qemu-img convert --object secret,id=s,file=PASSFILE --image-opts "
		"driver=qcow2,encrypt.key-secret=s,file.filename=OLD -O qcow2 NEW",
		img->h.crypt_method == QCOW_CRYPT_LUKS ? "LUKS" : "AES");
}

int qcow_image_select_snapshot(struct qcow_image *img, const char *id_or_name,
			       struct qcow_error *err)
{
	struct qcow_snapshot s;
	int r;

	r = qcow_snapshot_find(img->io, &img->h, id_or_name, QCOW_SNAPSHOT_ID_FIRST, &s, err);
	if (!r)
		r = qcow_snapshot_check(&s, &img->h, err);
	if (r < 0)
		return r;
	img->size = s.disk_size;
	img->l1_off = s.l1_off;
	img->l1_size = s.l1_size;
	return 0;
}
