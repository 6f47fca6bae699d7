// SPDX-License-Identifier: GPL-2.0-only
/*
 * LOAD of an image that is open for writing: what may be written in place, what has a
 * place reserved for it, and what must never be written to.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/be.h"

#define COPIED (1ull << 63)

static struct rig *open_image(const char *word)
{
	struct rig *rig = rig_create_rw("w.qcow2", word);

	rig_serve(rig);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	return rig;
}

/* ---- beside qemu-img map -------------------------------------------------------------- */

/* Of a page: where each block may be written to without an allocation; 0 = nowhere. */
static void places(struct rig *rig, uint32_t block_size, uint64_t *place)
{
	const struct qnl_msg *reply = rig_load(rig, 0);
	struct dm_qcow_run run;
	uint32_t b = 0;

	assert_answer_ok(reply);
	for (uint32_t i = 0; i < reply->runs.nr; i++) {
		qnl_array_get(&reply->runs, i, &run, sizeof(run));
		for (uint32_t j = 0; j < run.nr_blocks; j++, b++) {
			place[b] = 0;
			if (run.flags & DM_QCOW_RUN_WRITABLE)
				place[b] = run.host_off + (uint64_t)j * block_size;
			if (run.flags & DM_QCOW_RUN_RESERVED)
				place[b] = run.reserved_off + (uint64_t)j * block_size;
			/* One or the other. */
			assert_true(run.flags != (DM_QCOW_RUN_WRITABLE | DM_QCOW_RUN_RESERVED));
		}
	}
	assert_int_equal(b, DM_QCOW_PAGE_BLOCKS);
}

/* Lines of: { "start": N, "length": N, "depth": N, ... "offset": N}; returns blocks with one. */
static unsigned int qemu_places(uint32_t block_size, uint64_t *place)
{
	unsigned long long start, len, off;
	unsigned int depth, nr = 0;
	char path[128], line[400], *at;
	FILE *f;

	memset(place, 0, DM_QCOW_PAGE_BLOCKS * sizeof(*place));
	assert_int_equal(guest_shell("qemu-img map -U -f qcow2 --output=json w.qcow2"), 0);
	snprintf(path, sizeof(path), "%s/log", rig_dir);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		at = strchr(line, '{');
		if (!at || sscanf(at, "{ \"start\": %llu, \"length\": %llu, \"depth\": %u", &start,
				  &len, &depth) != 3)
			continue;
		at = strstr(line, "\"offset\": ");
		if (depth || !at || sscanf(at, "\"offset\": %llu", &off) != 1)
			continue;
		for (; len; len -= block_size, start += block_size, off += block_size, nr++)
			place[start / block_size] = off;
	}
	fclose(f);
	return nr;
}

static void test_places_are_qemus(void **state)
{
	static const struct {
		const char *options, *size, *more;
		uint32_t block_size;
	} cases[] = {
		{ "cluster_size=64k", "8M", "qemu-io -f qcow2 -c 'write 64k 300k' $1", 65536 },
		{ "cluster_size=64k,preallocation=metadata", "8M", "", 65536 },
		{ "cluster_size=64k,preallocation=falloc", "8M",
		  "qemu-io -f qcow2 -c 'write -z 0 1M' -c 'discard 2M 1M' -c 'write 128k 64k' $1",
		  65536 },
		{ "cluster_size=4k,compat=0.10,preallocation=metadata", "1M", "", 4096 },
		{ "cluster_size=16k,extended_l2=on,preallocation=metadata", "256k",
		  "qemu-io -f qcow2 -c 'write 1k 2k' -c 'write -z 20k 1k' -c 'write 100k 30k' $1",
		  512 },
		{ "cluster_size=128k,extended_l2=on", "2M",
		  "qemu-io -f qcow2 -c 'write 4k 8k' -c 'write -z 16k 8k' -c 'write 300k 4k' $1",
		  4096 },
	};
	uint64_t ours[DM_QCOW_PAGE_BLOCKS], qemus[DM_QCOW_PAGE_BLOCKS];
	struct rig *rig;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		guest_make(cases[i].options, cases[i].size, cases[i].more);
		rig = open_image(NULL);
		places(rig, cases[i].block_size, ours);
		assert_true(qemu_places(cases[i].block_size, qemus) > 0);
		for (int b = 0; b < DM_QCOW_PAGE_BLOCKS; b++)
			if (ours[b] != qemus[b])
				fail_msg("%s, block %d: %#llx, qemu says %#llx", cases[i].options,
					 b, (unsigned long long)ours[b],
					 (unsigned long long)qemus[b]);
		assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
		rig_destroy(rig);
	}
}

/* With a snapshot nothing is the image's alone, wherever qemu says it is. */
static void test_shared_has_no_place(void **state)
{
	uint64_t ours[DM_QCOW_PAGE_BLOCKS];
	struct rig *rig;

	(void)state;
	guest_make("cluster_size=64k,preallocation=metadata", "8M",
		   "qemu-io -f qcow2 -c 'write -z 64k 64k' $1; qemu-img snapshot -c a $1; "
		   "qemu-io -f qcow2 -c 'write 256k 64k' $1");
	rig = open_image(NULL);
	places(rig, 65536, ours);
	for (int b = 0; b < DM_QCOW_PAGE_BLOCKS; b++)
		assert_int_equal(ours[b] != 0, b == 4);
	rig_destroy(rig);
}

static void test_data_file_is_identity(void **state)
{
	uint64_t ours[DM_QCOW_PAGE_BLOCKS];
	struct dm_qcow_layer layer;
	struct rig *rig;

	(void)state;
	guest_make("cluster_size=64k,data_file=data", "8M",
		   "qemu-io -f qcow2 -c 'write 128k 64k' -c 'write -z 256k 128k' $1");
	rig = open_image(NULL);
	qnl_array_get(&rig->reply.layers, 0, &layer, sizeof(layer));
	assert_int_equal(layer.flags, 0);
	qnl_array_get(&rig->reply.layers, 1, &layer, sizeof(layer));
	assert_int_equal(layer.flags, DM_QCOW_LAYER_WRITABLE);
	places(rig, 65536, ours);
	for (uint64_t b = 0; b < 128; b++)
		assert_true(ours[b] == b * 65536);
	rig_destroy(rig);
}

/* ---- hostile images ----------------------------------------------------------------------- */

static uint64_t peek(uint64_t off)
{
	uint8_t be[8];
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/w.qcow2", rig_dir);
	fd = open(path, O_RDONLY);
	assert_int_equal(pread(fd, be, sizeof(be), (off_t)off), sizeof(be));
	close(fd);
	return qcow_be64(be);
}

static void poke(uint64_t off, uint64_t value)
{
	uint8_t be[8];
	char path[128];
	int fd;

	qcow_put_be64(be, value);
	snprintf(path, sizeof(path), "%s/w.qcow2", rig_dir);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, be, sizeof(be), (off_t)off), sizeof(be));
	close(fd);
}

static uint64_t entry_off(uint64_t off)
{
	return peek(off) & 0x00fffffffffffe00ull;
}

#define NR_TARGETS 9

/* Each kind of metadata there is, and what is free. */
static void find_targets(uint64_t *target)
{
	uint64_t snapshots = peek(64), snap_l1 = peek(snapshots);

	target[0] = 0;
	target[1] = peek(40);		  /* L1 */
	target[2] = entry_off(target[1]); /* L2 */
	target[3] = peek(48);		  /* refcount table */
	target[4] = entry_off(target[3]); /* refcount block */
	target[5] = snapshots & ~0xffffull;
	target[6] = snap_l1;
	target[7] = entry_off(snap_l1); /* an L2 table of the snapshot alone */
	target[8] = 200 * 65536;	/* free */
	assert_true(target[7] != target[2]);
}

static void expect_broken(struct rig *rig, uint32_t block, uint32_t block_size)
{
	struct dm_qcow_run run = guest_run(rig_load(rig, 0), block);

	assert_int_equal(run.type, DM_QCOW_RUN_FETCH);
	assert_int_equal(run.flags, DM_QCOW_RUN_BROKEN);
	assert_answer_error(rig_fetch(rig, (uint64_t)block * block_size, block_size), EIO,
			    "metadata or free space");
}

/* Entries marked as the guest's own; @flags: how they say it has no data there yet. */
static void check_hostile(uint64_t flags)
{
	uint64_t target[NR_TARGETS];
	struct rig *rig;

	guest_make("cluster_size=64k", "32M",
		   "qemu-io -f qcow2 -c 'write 0 2M' $1; qemu-img snapshot -c a $1; "
		   "qemu-io -f qcow2 -c 'write 0 2M' $1");
	find_targets(target);
	for (uint32_t i = 0; i < NR_TARGETS; i++)
		/* Offset 0 is how an entry says "nowhere". */
		poke(target[2] + 8ull * i, (i ? target[i] : 65536ull * 500) | COPIED | flags);
	rig = open_image(NULL);
	for (uint32_t i = 0; i < NR_TARGETS; i++)
		expect_broken(rig, i, 65536);
	assert_int_equal(guest_run(rig_load(rig, 0), NR_TARGETS).flags, DM_QCOW_RUN_WRITABLE);
	/* Nor can a lease, or a commit, get there. */
	for (uint32_t i = 0; i + 1 < NR_TARGETS; i++) {
		struct dm_qcow_lease lease = { .host_off = target[i], .nr_clusters = 1 };
		struct dm_qcow_delta delta = { .guest_off = 65536ull * 20,
					       .host_off = target[i],
					       .nr_blocks = 1 };

		assert_answer_error(guest_ask_leases(rig, DM_QCOW_CMD_GRANT, &lease, 1), EIO,
				    "metadata");
		assert_answer_error(guest_ask_commit(rig, &delta, 1), EIO, "metadata");
	}
	rig_destroy(rig);
}

static void test_hostile_entries(void **state)
{
	(void)state;
	check_hostile(0);
}

static void test_hostile_zero_entries(void **state)
{
	(void)state;
	check_hostile(1);
}

/* A subcluster without data, in a cluster that is the refcount block. */
static void test_hostile_subclusters(void **state)
{
	struct dm_qcow_run run;
	struct rig *rig;
	uint64_t l2;

	(void)state;
	guest_make("cluster_size=64k,extended_l2=on", "8M",
		   "qemu-io -f qcow2 -c 'write 0 256k' $1");
	l2 = entry_off(peek(40));
	poke(l2, entry_off(peek(48)) | COPIED);
	poke(l2 + 8, 0);
	rig = open_image(NULL);
	for (uint32_t i = 0; i < 32; i++)
		expect_broken(rig, i, 2048);
	run = guest_run(rig_load(rig, 0), 32);
	assert_int_equal(run.flags, DM_QCOW_RUN_WRITABLE);
	rig_destroy(rig);
}

/* Damaged, but no danger: that block cannot be read, and the rest may be written. */
static void test_damaged_is_not_broken(void **state)
{
	struct dm_qcow_run run;
	struct rig *rig;

	(void)state;
	guest_make("cluster_size=64k", "8M", "qemu-io -f qcow2 -c 'write 0 256k' $1");
	poke(entry_off(peek(40)), 0x50200 | COPIED);
	rig = open_image(NULL);
	run = guest_run(rig_load(rig, 0), 0);
	assert_int_equal(run.type, DM_QCOW_RUN_FETCH);
	assert_int_equal(run.flags, 0);
	assert_int_equal(guest_run(rig_load(rig, 0), 1).flags, DM_QCOW_RUN_WRITABLE);
	rig_destroy(rig);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places_are_qemus),
		cmocka_unit_test(test_shared_has_no_place),
		cmocka_unit_test(test_data_file_is_identity),
		cmocka_unit_test(test_hostile_entries),
		cmocka_unit_test(test_hostile_zero_entries),
		cmocka_unit_test(test_hostile_subclusters),
		cmocka_unit_test(test_damaged_is_not_broken),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
