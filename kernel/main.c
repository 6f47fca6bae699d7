// SPDX-License-Identifier: GPL-2.0-only
/* dm-qcow: qcow2 images as device-mapper devices. Module entry and exit. */

#include <linux/module.h>
#include <linux/net.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>

#include "cell.h"
#include "dm-qcow.h"
#include "genl.h"
#include "map.h"
#include "upcall.h"

struct workqueue_struct *qcow_wq;
struct workqueue_struct *qcow_read_wq;
struct workqueue_struct *qcow_write_wq;
struct workqueue_struct *qcow_written_wq;
struct workqueue_struct *qcow_commit_wq;
struct workqueue_struct *qcow_dispatch_wq;
struct workqueue_struct *qcow_deferred_wq;

static void destroy_queues(void)
{
	struct workqueue_struct *queues[] = { qcow_deferred_wq, qcow_dispatch_wq, qcow_commit_wq,
					      qcow_written_wq, qcow_write_wq, qcow_read_wq,
					      qcow_wq };
	int i;

	for (i = 0; i < ARRAY_SIZE(queues); i++)
		if (queues[i])
			destroy_workqueue(queues[i]);
}

static int create_queues(void)
{
	/*
	 * All are on the way of memory reclaim when swap lies on a qcow device. What waits for
	 * memory of our pools must not sit where what gives it back has to run.
	 */
	qcow_wq = alloc_workqueue("qcow", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	qcow_read_wq = alloc_workqueue("qcow_read", WQ_MEM_RECLAIM | WQ_PERCPU, 0);
	qcow_write_wq = alloc_workqueue("qcow_write", WQ_MEM_RECLAIM | WQ_PERCPU, 0);
	/* On the CPU that submits, so that one worker does both without a switch. */
	qcow_written_wq = alloc_workqueue("qcow_written", WQ_MEM_RECLAIM | WQ_PERCPU, 0);
	qcow_commit_wq = alloc_workqueue("qcow_commit", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	qcow_dispatch_wq = alloc_workqueue("qcow_dispatch", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	qcow_deferred_wq = alloc_workqueue("qcow_deferred", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	if (qcow_wq && qcow_read_wq && qcow_write_wq && qcow_written_wq && qcow_commit_wq &&
	    qcow_dispatch_wq && qcow_deferred_wq)
		return 0;
	destroy_queues();
	return -ENOMEM;
}

static int __init qcow_init(void)
{
	int r;

	BUILD_BUG_ON(BITS_PER_LONG != 64);	/* map entries need 60-bit xarray values */
	r = create_queues();
	if (r)
		return r;
	r = qcow_map_module_init();
	if (r)
		goto out_queues;
	r = qcow_upcall_module_init();
	if (r)
		goto out_map;
	r = qcow_cell_module_init();
	if (r)
		goto out_upcall;
	r = qcow_genl_init();
	if (r)
		goto out_cell;
	r = qcow_target_init();
	if (r)
		goto out_genl;
	return 0;

out_genl:
	qcow_genl_exit();
out_cell:
	qcow_cell_module_exit();
out_upcall:
	qcow_upcall_module_exit();
out_map:
	qcow_map_module_exit();
out_queues:
	destroy_queues();
	return r;
}

static void __exit qcow_exit(void)
{
	qcow_target_exit();
	qcow_genl_exit();
	qcow_cell_module_exit();
	qcow_upcall_module_exit();
	qcow_map_module_exit();
	destroy_queues();
}

module_init(qcow_init);
module_exit(qcow_exit);

MODULE_DESCRIPTION("device-mapper target for qcow2 images");
MODULE_LICENSE("GPL");
MODULE_ALIAS_GENL_FAMILY("dm-qcow");
