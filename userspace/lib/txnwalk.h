/* SPDX-License-Identifier: GPL-2.0-only */
/* What L1 and L2 tables refer to, in a transaction. */
#ifndef QCOW_LIB_TXNWALK_H
#define QCOW_LIB_TXNWALK_H

#include <stdint.h>

#include "lib/txn.h"

/* Of an L1 table: host order, as on disk. -EIO if an entry cannot be. */
int qcow_txn_read_l1(struct qcow_txn *t, uint64_t l1_off, uint32_t nr, uint64_t *l1,
		     struct qcow_error *err);

/* The L2 table an L1 entry names, into t->table; *@l2_off 0 = none. */
int qcow_txn_read_l2(struct qcow_txn *t, uint64_t l1_entry, uint64_t *l2_off,
		     struct qcow_error *err);

/* UP or DOWN for each L2 table of an L1 table, and for each cluster they refer to. */
int qcow_txn_ref_l1(struct qcow_txn *t, enum qcow_ref_op op, const uint64_t *l1, uint32_t nr,
		    struct qcow_error *err);
/* The same of one L2 entry. */
int qcow_txn_ref_entry(struct qcow_txn *t, enum qcow_ref_op op, uint64_t entry, uint64_t bitmap,
		       struct qcow_error *err);

/*
 * COPIED flags of t->l1 and its L2 tables, after refcounts have changed. Tables where
 * one changes become new ones.
 */
int qcow_txn_fix_copied(struct qcow_txn *t, struct qcow_error *err);

/* t->table becomes the L2 table that @l1_entry names, instead of the one it named before. */
int qcow_txn_put_table(struct qcow_txn *t, uint64_t *l1_entry, struct qcow_error *err);
/* The same of @slot of t->l1. */
int qcow_txn_put_l2(struct qcow_txn *t, uint32_t slot, struct qcow_error *err);

#endif
