// SPDX-License-Identifier: GPL-2.0-only
/* The supervisor's book-keeping, with processes and a clock that are made up. */
#include "daemon/targets.h"
#include "daemon/worker.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define EXITED(status) ((status) << 8) /* as waitpid(2) encodes it */

static struct {
	struct targets targets;
	int64_t now;
	pid_t last_pid;
	pid_t killed;
	uint32_t spawned_id;
	bool replaces;
	int nr_spawned;
	int nr_killed;
	bool refuse;
} sim;

static pid_t sim_spawn(void *arg, uint32_t id, const struct table *table)
{
	(void)arg;
	assert_string_equal(table->path, "/images/a.qcow2");
	sim.nr_spawned++;
	sim.spawned_id = id;
	sim.replaces = table->replaces;
	return sim.refuse ? -EAGAIN : ++sim.last_pid;
}

static void sim_kill(void *arg, pid_t pid)
{
	(void)arg;
	sim.killed = pid;
	sim.nr_killed++;
}

static int64_t sim_now(void *arg)
{
	(void)arg;
	return sim.now;
}

static const struct targets_ops sim_ops = { sim_spawn, sim_kill, sim_now };

static int setup(void **state)
{
	(void)state;
	memset(&sim, 0, sizeof(sim));
	sim.last_pid = 100;
	targets_init(&sim.targets, &sim_ops, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	targets_exit(&sim.targets);
	return 0;
}

static struct qnl_msg notice(uint32_t id, uint32_t attached)
{
	struct qnl_msg msg = { 0 };

	qnl_set(&msg, TARGET, target, id);
	qnl_set(&msg, PATH, path, "/images/a.qcow2");
	qnl_set(&msg, ATTACHED, attached, attached);
	return msg;
}

static void start(uint32_t id)
{
	struct qnl_msg msg = notice(id, 0);

	targets_start(&sim.targets, &msg);
}

static void test_start_once(void **state)
{
	(void)state;
	start(1);
	start(1);
	assert_int_equal(targets_run(&sim.targets), -1);
	start(1);
	assert_int_equal(targets_run(&sim.targets), -1);
	assert_int_equal(sim.nr_spawned, 1);
	assert_int_equal(sim.spawned_id, 1);
}

static void test_healthy_worker_is_replaced_at_once(void **state)
{
	(void)state;
	start(1);
	targets_run(&sim.targets);
	sim.now = 60000;
	targets_reaped(&sim.targets, sim.last_pid, EXITED(1));
	targets_run(&sim.targets);
	assert_int_equal(sim.nr_spawned, 2);
}

static void test_killed_worker_is_replaced_at_once(void **state)
{
	(void)state;
	start(1);
	targets_run(&sim.targets);
	targets_reaped(&sim.targets, sim.last_pid, SIGKILL);
	targets_run(&sim.targets);
	assert_int_equal(sim.nr_spawned, 2);
}

static void test_quick_deaths_back_off_and_forgive(void **state)
{
	int pause = 0, longest = 0;

	(void)state;
	start(1);
	targets_run(&sim.targets);
	for (int i = 0; i < 12; i++) {
		targets_reaped(&sim.targets, sim.last_pid, EXITED(1));
		pause = targets_run(&sim.targets);
		assert_true(pause >= longest);
		longest = pause;
		sim.now += pause;
		assert_int_equal(targets_run(&sim.targets), -1);
	}
	assert_int_equal(longest, 2000);
	assert_int_equal(sim.nr_spawned, 13);
	sim.now += 10000;
	targets_reaped(&sim.targets, sim.last_pid, EXITED(1));
	assert_int_equal(targets_run(&sim.targets), -1);
	assert_int_equal(sim.nr_spawned, 14);
}

static void test_hung_worker_is_killed_before_the_next(void **state)
{
	struct qnl_msg msg = notice(1, 1);

	(void)state;
	start(1);
	targets_run(&sim.targets);
	sim.now = 60000;
	targets_hung(&sim.targets, &msg);
	start(1); /* the kernel asks as soon as the socket closes */
	targets_run(&sim.targets);
	assert_int_equal(sim.killed, 101);
	assert_int_equal(sim.nr_spawned, 1);
	targets_reaped(&sim.targets, 101, SIGKILL);
	targets_run(&sim.targets);
	assert_int_equal(sim.nr_spawned, 2);
	targets_reaped(&sim.targets, 101, SIGKILL); /* a stranger by now */
	targets_run(&sim.targets);
	assert_int_equal(sim.nr_spawned, 2);
}

static void test_gone(void **state)
{
	struct qnl_msg msg = notice(1, 0);

	(void)state;
	targets_gone(&sim.targets, &msg); /* never heard of */
	start(1);
	targets_run(&sim.targets);
	targets_gone(&sim.targets, &msg);
	assert_int_equal(sim.nr_killed, 1);
	assert_non_null(sim.targets.first);
	targets_reaped(&sim.targets, sim.last_pid, SIGKILL);
	assert_null(sim.targets.first);
	assert_int_equal(targets_run(&sim.targets), -1);
	assert_int_equal(sim.nr_spawned, 1);
}

static void test_worker_learns_that_target_is_gone(void **state)
{
	(void)state;
	start(1);
	targets_run(&sim.targets);
	targets_reaped(&sim.targets, sim.last_pid, EXITED(WORKER_EXIT_GONE));
	assert_null(sim.targets.first);
}

static void test_list_makes_up_for_lost_notices(void **state)
{
	struct qnl_msg unattached = notice(2, 0), attached = notice(3, 1);

	(void)state;
	start(1);
	targets_run(&sim.targets);
	targets_list_begin(&sim.targets);
	targets_list_entry(&sim.targets, &unattached);
	targets_list_entry(&sim.targets, &attached);
	targets_list_end(&sim.targets, false); /* broke off: 1 may still be there */
	assert_int_equal(sim.nr_killed, 0);
	targets_run(&sim.targets);
	assert_int_equal(sim.spawned_id, 2);
	assert_int_equal(sim.nr_spawned, 2);

	targets_list_begin(&sim.targets);
	targets_list_entry(&sim.targets, &unattached);
	targets_list_end(&sim.targets, true);
	assert_int_equal(sim.killed, 101);
	assert_int_equal(sim.nr_spawned, 2);
}

static void test_failed_spawn_is_tried_again(void **state)
{
	int pause;

	(void)state;
	start(1);
	sim.refuse = true;
	pause = targets_run(&sim.targets);
	assert_true(pause > 0);
	sim.refuse = false;
	assert_int_equal(targets_run(&sim.targets), pause);
	sim.now += pause;
	assert_int_equal(targets_run(&sim.targets), -1);
	assert_int_equal(sim.nr_spawned, 2);
}

/* A second table of one device: what the first holds is not in its way. */
static void test_table_is_replaced(void **state)
{
	struct qnl_msg first = notice(1, 0), other = notice(2, 0), second = notice(3, 0);

	(void)state;
	qnl_set(&first, DEVICE, device, ((struct dm_qcow_device){ 254, 3 }));
	qnl_set(&other, DEVICE, device, ((struct dm_qcow_device){ 254, 4 }));
	qnl_set(&second, DEVICE, device, ((struct dm_qcow_device){ 254, 3 }));
	targets_start(&sim.targets, &first);
	targets_run(&sim.targets);
	assert_false(sim.replaces);
	targets_start(&sim.targets, &other);
	targets_run(&sim.targets);
	assert_false(sim.replaces);
	targets_start(&sim.targets, &second);
	targets_run(&sim.targets);
	assert_int_equal(sim.nr_spawned, 3);
	assert_true(sim.replaces);
	/* It is the only one by the time its worker dies. */
	targets_gone(&sim.targets, &first);
	targets_reaped(&sim.targets, 101, SIGKILL);
	targets_reaped(&sim.targets, sim.last_pid, SIGKILL);
	targets_run(&sim.targets);
	assert_int_equal(sim.nr_spawned, 4);
	assert_false(sim.replaces);
	/* A device that is not known is not the same as another such. */
	start(4);
	start(5);
	targets_run(&sim.targets);
	assert_int_equal(sim.nr_spawned, 6);
	assert_false(sim.replaces);
}

static void test_malformed_notices(void **state)
{
	struct qnl_msg no_path = { 0 }, no_target = { 0 }, no_nul = notice(4, 0);

	(void)state;
	qnl_set(&no_path, TARGET, target, 1);
	qnl_set(&no_target, PATH, path, "/x");
	qnl_set(&no_nul, OPTIONS, options, ((struct qnl_array){ "abc", 3 }));
	targets_start(&sim.targets, &no_path);
	targets_start(&sim.targets, &no_target);
	targets_list_entry(&sim.targets, &no_target);
	targets_start(&sim.targets, &no_nul);
	assert_null(sim.targets.first);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_start_once),
		TEST(test_healthy_worker_is_replaced_at_once),
		TEST(test_killed_worker_is_replaced_at_once),
		TEST(test_quick_deaths_back_off_and_forgive),
		TEST(test_hung_worker_is_killed_before_the_next),
		TEST(test_gone),
		TEST(test_worker_learns_that_target_is_gone),
		TEST(test_list_makes_up_for_lost_notices),
		TEST(test_failed_spawn_is_tried_again),
		TEST(test_table_is_replaced),
		TEST(test_malformed_notices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
