/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writing into the disk of an image that is there, with what it shows elsewhere kept. A
 * cluster that it has for itself is overwritten in place, which needs no space; others
 * get a new one. Whatever happens, the image stays sound: at most clusters leak.
 */
#ifndef QCOW_LIB_INTO_H
#define QCOW_LIB_INTO_H

#include <stddef.h>
#include <stdint.h>

#include "lib/chain.h"
#include "lib/error.h"

struct qcow_into;

/* @chain was made writable. */
int qcow_into_create(struct qcow_into **i, struct qcow_chain *chain, struct qcow_error *err);
void qcow_into_destroy(struct qcow_into *i); /* NULL is fine */

/* Bytes: a cluster of the image. What follows comes at most once for each of them. */
size_t qcow_into_unit(const struct qcow_into *i);
/*
 * @len bytes at the start of the cluster at @guest_off; @buf has room for all of it, and
 * gets what is there behind them.
 */
int qcow_into_put(struct qcow_into *i, uint64_t guest_off, uint8_t *buf, size_t len,
		  struct qcow_error *err);
/* The range, which begins with a cluster, reads as zeros. */
int qcow_into_zero(struct qcow_into *i, uint64_t guest_off, uint64_t len, struct qcow_error *err);

/* All is durable; the chain's writer is then only good for destroy. @r: what came before failed. */
int qcow_into_finish(struct qcow_into *i, int r, struct qcow_error *err);

#endif
