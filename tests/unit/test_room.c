// SPDX-License-Identifier: GPL-2.0-only
/* What is left on a device is right after each change; in a file it is the file system's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/be.h"
#include "lib/lease.h"
#include "lib/room.h"
#include "workdir.h"

struct disk {
	struct memio *m;
	struct qcow_image *img;
	struct qcow_writer *w;
	struct qcow_error err;
};

static void open_disk(struct disk *d, struct memio *m)
{
	struct qcow_writer_params params = { 0 };

	*d = (struct disk){ .m = m };
	if (qcow_image_open(&d->img, &m->io, &d->err) < 0 ||
	    qcow_writer_create(&d->w, d->img, &params, &d->err) < 0)
		fail_msg("%s", d->err.text);
}

static void close_disk(struct disk *d)
{
	qcow_writer_destroy(d->w);
	qcow_image_close(d->img);
	memio_destroy(d->m);
}

/* Clusters of the device that no refcount block has as used, from the raw bytes. */
static uint64_t free_clusters(const struct memio *m, uint64_t cluster)
{
	uint64_t table = qcow_be64(m->data + 48), entries = qcow_be32(m->data + 56) * cluster / 8;
	uint64_t nr = m->size / cluster, per = cluster / 2, c, block;

	for (c = 0; c < m->size / cluster; c++) {
		block = c / per < entries ? qcow_be64(m->data + table + c / per * 8) : 0;
		nr -= block && qcow_be16(m->data + block + c % per * 2);
	}
	return nr;
}

static void expect_room(struct disk *d, uint64_t cluster)
{
	uint64_t bytes;

	assert_int_equal(qcow_writer_room(d->w, &bytes, &d->err), 0);
	assert_true(bytes == free_clusters(d->m, cluster) * cluster);
}

/* So small that blocks come, and the table grows. */
static void test_room_on_device(void **state)
{
	struct memio *m = work_create("compat=1.1,cluster_size=512", "8M",
				      "qemu-io -f qcow2 -c 'write 0 40k' $1");
	struct qcow_lease_extent e[16];
	uint64_t cluster = 512, seed = 3;
	struct disk d;
	size_t nr;
	int i;

	(void)state;
	m->size = 2 << 20;
	m->io.fixed_end = true;
	open_disk(&d, m);
	expect_room(&d, cluster);
	for (i = 0; i < 100; i++) {
		if (i % 20 == 19)
			m->size += 4 << 20;
		if (qcow_lease_propose(d.w, (1 + memio_random(&seed) % 1600) * cluster, i % 3, e,
				       16, &nr, &d.err) < 0)
			continue;
		assert_int_equal(qcow_lease_grant(d.w, e, nr, &d.err), 0);
		expect_room(&d, cluster);
		if (i % 2)
			assert_int_equal(qcow_lease_return(d.w, e, nr, &d.err), 0);
		expect_room(&d, cluster);
	}
	assert_true(m->size > 20 << 20 && qcow_be32(m->data + 56) > 1);
	close_disk(&d);
}

static void test_room_in_file(void **state)
{
	struct memio *m = work_create("compat=1.1", "64M", "");
	struct disk d;
	uint64_t bytes;

	(void)state;
	open_disk(&d, m);
	assert_int_equal(qcow_writer_room(d.w, &bytes, &d.err), -EOPNOTSUPP);
	m->space_end = m->size + 12345;
	assert_int_equal(qcow_writer_room(d.w, &bytes, &d.err), 0);
	assert_int_equal(bytes, 12345);
	close_disk(&d);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_room_on_device),
		cmocka_unit_test(test_room_in_file),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, work_dir_make, work_dir_remove);
}
