/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One qcow2 file, without its backing chain. Opening reads the header only;
 * tables are read when a guest range is resolved.
 *
 * Immutable once set up, so any number of threads may use one image.
 */
#ifndef QCOW_LIB_IMAGE_H
#define QCOW_LIB_IMAGE_H

#include "lib/error.h"
#include "lib/header.h"
#include "lib/io.h"
#include "lib/snapshot.h"

struct qcow_image;

/* @io stays the caller's and must outlive the image. Errors as qcow_header_read(). */
int qcow_image_open(struct qcow_image **img, struct qcow_io *io, struct qcow_error *err);
void qcow_image_close(struct qcow_image *img); /* NULL is fine */

const struct qcow_header *qcow_image_header(const struct qcow_image *img);
struct qcow_io *qcow_image_io(const struct qcow_image *img);

/*
 * What the guest sees, in bytes: the recorded size (of the selected snapshot, if
 * any) rounded down to 512, because disks have whole sectors and QEMU rounds
 * down too. 0 is legal.
 */
uint64_t qcow_image_size(const struct qcow_image *img);

/* The L1 table in use: the active one, or the selected snapshot's. */
uint64_t qcow_image_l1_off(const struct qcow_image *img);
uint32_t qcow_image_l1_size(const struct qcow_image *img); /* entries */

/* The allocation unit, and the unit of the kernel's map: the same, or 1/32 with extended L2. */
uint32_t qcow_image_cluster_bits(const struct qcow_image *img);
uint32_t qcow_image_block_bits(const struct qcow_image *img);

/* -ENOTSUP for an encrypted image: its header can be shown, its data not be read. */
int qcow_image_check_readable(const struct qcow_image *img, struct qcow_error *err);

/*
 * From now on the image is the internal snapshot with this id, or else this name.
 * -ENOENT names the image's lack of it. Call before the image joins a chain.
 */
int qcow_image_select_snapshot(struct qcow_image *img, const char *id_or_name,
			       struct qcow_error *err);

#endif
