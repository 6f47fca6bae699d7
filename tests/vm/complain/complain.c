// SPDX-License-Identifier: GPL-2.0-only
/*
 * complain: a module that misbehaves on request, so that tests/vm/selftest
 * can show that tests/vm/run notices. Loading it with what=... does one thing.
 */
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>

static char *what = "";
module_param(what, charp, 0444);
MODULE_PARM_DESC(what, "warn, bug, null, leak, cache, uaf, atomic, abba, shift, hang or lockup");

static DEFINE_MUTEX(lock_a);
static DEFINE_MUTEX(lock_b);
static DEFINE_SPINLOCK(spin);
static void *kept;

static void use_after_free(void)
{
	volatile char *p = kmalloc(64, GFP_KERNEL);

	kfree((void *)p);
	if (p)
		(void)p[8];
}

/* A function of its own: no register or stack keeps a pointer that kmemleak would find. */
static noinline void leak(void)
{
	int i;

	for (i = 0; i < 16; i++)
		kept = kmalloc(128, GFP_KERNEL);
	kept = NULL;
}

static void destroy_used_cache(void)
{
	struct kmem_cache *cache = kmem_cache_create("complain", 64, 0, 0, NULL);

	kept = cache ? kmem_cache_alloc(cache, GFP_KERNEL) : NULL;
	kmem_cache_destroy(cache);
}

static void sleep_in_atomic(void)
{
	spin_lock(&spin);
	might_sleep();
	spin_unlock(&spin);
}

static void lock_order(void)
{
	mutex_lock(&lock_a);
	mutex_lock(&lock_b);
	mutex_unlock(&lock_b);
	mutex_unlock(&lock_a);
	mutex_lock(&lock_b);
	mutex_lock(&lock_a);
	mutex_unlock(&lock_a);
	mutex_unlock(&lock_b);
}

static void bad_shift(void)
{
	volatile int by = 40;
	volatile int v = 1 << by;

	(void)v;
}

/* Newer kernels preempt a loop in the kernel, unless it holds a spinlock. */
static void lock_up(void)
{
	spin_lock(&spin);
	for (;;)
		cpu_relax();
}

static int blocked(void *unused)
{
	set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();
	return 0;
}

static int __init complain_init(void)
{
	if (!strcmp(what, "warn"))
		WARN_ON(1);
	else if (!strcmp(what, "bug"))
		BUG();
	else if (!strcmp(what, "null"))
		*(volatile int *)8 = 1;
	else if (!strcmp(what, "leak"))
		leak();
	else if (!strcmp(what, "cache"))
		destroy_used_cache();
	else if (!strcmp(what, "uaf"))
		use_after_free();
	else if (!strcmp(what, "atomic"))
		sleep_in_atomic();
	else if (!strcmp(what, "abba"))
		lock_order();
	else if (!strcmp(what, "shift"))
		bad_shift();
	else if (!strcmp(what, "hang"))
		kthread_run(blocked, NULL, "complain");
	else if (!strcmp(what, "lockup"))
		lock_up();
	return 0;
}

static void __exit complain_exit(void)
{
}

module_init(complain_init);
module_exit(complain_exit);
MODULE_DESCRIPTION("Misbehaves on request, to test the test machine");
MODULE_LICENSE("GPL");
