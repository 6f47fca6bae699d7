// SPDX-License-Identifier: GPL-2.0-only
/* The worker's loop, asked what the kernel asks of an image that is open for writing. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE 65536u /* of a cluster */

static void expect_clean(const char *name)
{
	char cmd[200];

	snprintf(cmd, sizeof(cmd), "qemu-img check -f qcow2 %s", name);
	assert_int_equal(guest_shell(cmd), 0);
}

static int data_fd(const struct qnl_msg *opened)
{
	struct dm_qcow_layer layer;

	for (uint32_t i = 0; i < opened->layers.nr; i++) {
		qnl_array_get(&opened->layers, i, &layer, sizeof(layer));
		if (layer.flags & DM_QCOW_LAYER_WRITABLE)
			return layer.fd;
	}
	fail_msg("no data layer");
	return -1;
}

/* What the kernel takes of a PROPOSE or GRANT answer. */
static uint32_t take_leases(const struct qnl_msg *reply, struct dm_qcow_lease *leases, uint32_t max)
{
	assert_answer_ok(reply);
	assert_true(qnl_has(reply, QNL_BIT(LEASES)) && reply->leases.nr <= max);
	for (uint32_t i = 0; i < reply->leases.nr; i++)
		qnl_array_get(&reply->leases, i, &leases[i], sizeof(*leases));
	return reply->leases.nr;
}

static void put_bytes(int fd, uint64_t off, int byte, size_t len)
{
	void *buf = aligned_alloc(4096, len);

	memset(buf, byte, len);
	assert_int_equal(pwrite(fd, buf, len, (off_t)off), len);
	assert_int_equal(fdatasync(fd), 0);
	free(buf);
}

static void test_one_round(void **state)
{
	struct dm_qcow_lease leases[8], rest;
	struct dm_qcow_delta delta = { .guest_off = 3 * SIZE, .nr_blocks = 1 };
	struct dm_qcow_run run;
	struct rig *rig;
	uint32_t nr;
	int fd;

	(void)state;
	guest_make("cluster_size=64k", "64M", "");
	rig = rig_create_rw("w.qcow2", NULL);
	rig_serve(rig);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_PROBE));
	assert_int_equal(rig->reply.shape.flags, DM_QCOW_SHAPE_ZEROES | DM_QCOW_SHAPE_KEEP);
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_OPEN));
	assert_true(qnl_has(&rig->reply, QNL_BIT(TABLES)));
	assert_int_equal(rig->reply.tables, 0);
	/* The file system's; who else uses it meanwhile is not known. */
	assert_true(qnl_has(&rig->reply, QNL_BIT(ROOM)) && rig->reply.room > 0);
	fd = data_fd(&rig->reply);
	run = guest_run(rig_load(rig, 0), 3);
	assert_int_equal(run.type, DM_QCOW_RUN_ZERO);
	assert_int_equal(run.flags, 0);

	nr = take_leases(guest_ask_propose(rig, 4 * SIZE, 9), leases, 8);
	assert_int_equal(nr, 2);
	/* One L1 entry is all that 64 MiB need. */
	assert_int_equal(leases[0].flags, DM_QCOW_LEASE_TABLE);
	assert_int_equal(leases[0].nr_clusters, 1);
	assert_int_equal(leases[1].nr_clusters, 4);
	take_leases(guest_ask_leases(rig, DM_QCOW_CMD_GRANT, leases, nr), leases, 8);
	assert_int_equal(rig->reply.tables, DM_QCOW_TABLES_ENOUGH);
	assert_true(qnl_has(&rig->reply, QNL_BIT(ROOM)));
	assert_int_equal(leases[1].flags, DM_QCOW_LEASE_ZERO);

	put_bytes(fd, leases[1].host_off, 0x5a, SIZE);
	delta.host_off = leases[1].host_off;
	assert_answer_ok(guest_ask_commit(rig, &delta, 1));
	assert_true(rig->reply.lost == 0);
	assert_int_equal(rig->reply.tables, DM_QCOW_TABLES_ENOUGH);
	run = guest_run(rig_load(rig, 0), 3);
	assert_int_equal(run.type, DM_QCOW_RUN_DATA);
	assert_int_equal(run.flags, DM_QCOW_RUN_WRITABLE);
	assert_true(run.host_off == delta.host_off);

	rest = (struct dm_qcow_lease){ .host_off = leases[1].host_off + SIZE, .nr_clusters = 3 };
	assert_answer_ok(guest_ask_leases(rig, DM_QCOW_CMD_FREE, &rest, 1));
	assert_answer_ok(rig_call(rig, DM_QCOW_CMD_CLOSE));
	rig_destroy(rig);
	expect_clean("w.qcow2");
	assert_int_equal(
		guest_shell("qemu-io -f qcow2 -c 'read -P 0x5a 192k 64k' -c 'read -P 0 0 192k' "
			    "-c 'read -P 0 256k 1M' w.qcow2 | grep -c verification | grep -qx 0"),
		0);
}

/* ---- whole guests --------------------------------------------------------------------- */

struct variant {
	const char *options, *size, *more;
	bool shares;
};

#define BASE "qemu-img create -q -f raw base 3M; qemu-io -f raw -c 'write -P 9 64k 2500k' base"
/* One cluster in two, so that what lies below changes within each of the image's own. */
#define QCOW2_BASE                                                                     \
	"qemu-img create -q -f qcow2 -o cluster_size=4k base.qcow2 3M; "               \
	"for i in `seq 4 8 2900`; do echo \"write -P $((i % 251)) ${i}k 4k\"; done | " \
	"qemu-io -f qcow2 base.qcow2"

static const struct variant variants[] = {
	{ "cluster_size=64k", "8M", "", false },
	{ "cluster_size=4k,compat=0.10", "6M", "", false },
	{ "cluster_size=4k,refcount_bits=1", "5000k", "", false },
	{ "cluster_size=2M", "33M", "", false },
	{ "cluster_size=16k,extended_l2=on", "4M", "", false },
	{ "cluster_size=4k,preallocation=metadata", "3M", "", false },
	{ "cluster_size=64k,extended_l2=on,preallocation=metadata", "4M", "", false },
	{ "cluster_size=4k", "3M",
	  "qemu-io -f qcow2 -c 'write -P 7 0 600k' -c 'write -P 7 2M 40k' $1; "
	  "qemu-img snapshot -c a $1; "
	  "qemu-io -f qcow2 -c 'write -P 8 100k 60k' -c 'write -z 200k 8k' $1; "
	  "qemu-img snapshot -c b $1; qemu-io -f qcow2 -c 'write -P 6 120k 60k' $1",
	  true },
	{ "cluster_size=16k,extended_l2=on", "2M",
	  "qemu-io -f qcow2 -c 'write -P 7 0 300k' -c 'write -z 40k 8k' $1; "
	  "qemu-img snapshot -c a $1; qemu-io -f qcow2 -c 'write -P 8 100k 20k' $1",
	  true },
	{ "cluster_size=16k,extended_l2=on", "1M",
	  "for i in 0 16 32 64; do qemu-io -f qcow2 -c \"write -c -P $i ${i}k 16k\" $1; done",
	  true },
	{ "cluster_size=4k,backing_file=base,backing_fmt=raw", "4M", "", false },
	{ "cluster_size=4k,compat=0.10,backing_file=base,backing_fmt=raw", "4M", "", false },
	{ "cluster_size=64k,extended_l2=on,backing_file=base,backing_fmt=raw", "4M", "", false },
	{ "cluster_size=64k,extended_l2=on,preallocation=metadata,backing_file=base.qcow2,"
	  "backing_fmt=qcow2",
	  "4M", "", false },
	{ "cluster_size=64k,data_file=data", "4M", "", false },
	{ "cluster_size=64k,data_file=data,data_file_raw=on", "4M", "", false },
	{ "cluster_size=16k,extended_l2=on,data_file=data", "3M", "", false },
};

#define NR_VARIANTS (sizeof(variants) / sizeof(*variants))

static void make_variant(const struct variant *v)
{
	if (guest_shell(BASE "; " QCOW2_BASE "; rm -f data"))
		fail_msg("no base");
	guest_make(v->options, v->size, v->more);
}

static uint64_t first_seed = 1;

static void test_random_guests(void **state)
{
	static struct guest g;

	(void)state;
	for (size_t i = 0; i < NR_VARIANTS; i++) {
		make_variant(&variants[i]);
		print_message("%s, seed %llu\n", variants[i].options,
			      (unsigned long long)(first_seed + i));
		guest_open(&g, "w.qcow2", NULL, first_seed + i);
		for (int round = 0; round < 2; round++) {
			for (int j = 0; j < 40; j++)
				guest_random_step(&g);
			guest_suspend(&g);
			guest_judge(&g);
			guest_resume(&g);
			guest_compare(&g);
		}
		guest_destroy(&g);
	}
}

/* At every upcall and every write of a session, in every way. */
static void test_killed_guests(void **state)
{
	static struct guest g;
	unsigned int nr = 0;

	(void)state;
	for (size_t i = 0; i < NR_VARIANTS; i++) {
		make_variant(&variants[i]);
		print_message("%s, seed %llu\n", variants[i].options,
			      (unsigned long long)(first_seed + i));
		guest_open(&g, "w.qcow2", NULL, first_seed + i);
		g.shares = variants[i].shares;
		for (int j = 0; j < 88; j++) {
			g.kill = (enum guest_kill)(j % 4);
			g.fail_after = j / 4 % 7;
			guest_random_step(&g);
		}
		g.kill = (enum guest_kill)(i % 4);
		g.fail_after = (long)i % 5;
		guest_suspend(&g);
		guest_judge(&g);
		nr += g.nr_kills;
		guest_destroy(&g);
	}
	print_message("%u kills\n", nr);
	assert_true(nr > 10 * NR_VARIANTS);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_round),
		cmocka_unit_test(test_random_guests),
		cmocka_unit_test(test_killed_guests),
	};

	if (argc > 1 && atoi(argv[1]))
		first_seed = (uint64_t)atoi(argv[1]);
	else if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
