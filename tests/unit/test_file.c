// SPDX-License-Identifier: GPL-2.0-only
/* Direct I/O on a real file, and QEMU's locks against QEMU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/direct.h"
#include "host/lock.h"

#define SIZE 200123 /* no multiple of anything */

static char path[64], image[80];
static uint8_t want[SIZE];

static int setup(void **state)
{
	unsigned int seed = 1;
	size_t i;
	int fd;

	(void)state;
	for (i = 0; i < SIZE; i++)
		want[i] = (uint8_t)(rand_r(&seed) | 1);
	/* Not in memory: tmpfs need not do direct I/O. */
	snprintf(path, sizeof(path), "/tmp/test_file.XXXXXX");
	fd = mkstemp(path);
	if (fd < 0 || write(fd, want, SIZE) != SIZE || fsync(fd))
		return -1;
	return close(fd);
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

static void check(struct qcow_io *io, uint64_t off, uint8_t *buf, size_t len)
{
	struct qcow_error err;
	size_t i;

	memset(buf, 0xaa, len);
	if (qcow_io_pread(io, buf, len, off, &err) < 0)
		fail_msg("%s", err.text);
	for (i = 0; i < len; i++)
		if (buf[i] != (off + i < SIZE ? want[off + i] : 0))
			fail_msg("wrong byte at %llu", (unsigned long long)(off + i));
}

static void check_all(int flags)
{
	int fd = open(path, O_RDONLY | flags);
	uint8_t *buf = aligned_alloc(4096, 256 << 10);
	struct qcow_error err;
	struct qcow_io *io;
	unsigned int seed = 2;
	uint64_t size;
	int i;

	if (fd < 0 && errno == EINVAL)
		skip();
	assert_int_equal(host_io_create(&io, fd, &err), 0);
	assert_int_equal(qcow_io_size(io, &size, &err), 0);
	assert_true(size == SIZE && !io->fixed_end);
	check(io, 0, buf, 256 << 10);	/* aligned, past the end */
	check(io, 131072, buf, 131072); /* aligned, straddles the end */
	check(io, 196608, buf, 4096);	/* the last, partial block */
	check(io, 1 << 20, buf, 4096);	/* nothing there */
	check(io, SIZE - 1, buf + 1, 3);
	check(io, 1, buf + 1, 250 << 10); /* larger than the bounce buffer */
	for (i = 0; i < 200; i++)
		check(io, (uint64_t)rand_r(&seed) % (SIZE + 5000), buf + i % 8,
		      (size_t)rand_r(&seed) % 100000);
	assert_int_equal(qcow_io_pread(io, buf, 2, INT64_MAX, &err), -EINVAL);
	qcow_io_destroy(io);
	free(buf);
	close(fd);
}

static void test_direct(void **state)
{
	(void)state;
	check_all(O_DIRECT);
}

static void test_buffered(void **state)
{
	(void)state;
	check_all(0);
}

/* Another process that holds a lock until it is killed. */
static pid_t start_holder(enum host_lock mode)
{
	struct qcow_error err;
	int ready[2];
	pid_t pid;
	char byte;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		byte = host_lock_take(open(path, O_RDWR), mode, path, &err) ? 'n' : 'y';
		(void)!write(ready[1], &byte, 1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	assert_int_equal(byte, 'y');
	return pid;
}

static void test_holder_is_named(void **state)
{
	pid_t holder = start_holder(HOST_LOCK_BASE);
	int fd = open(path, O_RDWR);
	struct qcow_error err;
	char pid[32];

	(void)state;
	assert_int_equal(host_lock_take(fd, HOST_LOCK_WRITER, path, &err), -EBUSY);
	snprintf(pid, sizeof(pid), "(pid %d)", holder);
	assert_non_null(strstr(err.text, pid));
	kill(holder, SIGKILL);
	assert_int_equal(waitpid(holder, NULL, 0), holder);
	close(fd);
}

static void test_locks(void **state)
{
	int a = open(path, O_RDONLY), b = open(path, O_RDONLY), c = open(path, O_RDWR);
	struct qcow_error err;

	(void)state;
	assert_int_equal(host_lock_take(a, HOST_LOCK_BASE, path, &err), 0);
	assert_int_equal(host_lock_take(b, HOST_LOCK_BASE, path, &err), 0);
	assert_int_equal(host_lock_probe(c, HOST_LOCK_BASE, path, &err), 0);
	assert_int_equal(host_lock_take(c, HOST_LOCK_WRITER, path, &err), -EBUSY);
	assert_non_null(strstr(err.text, "locked against writers"));
	host_lock_drop(a);
	close(b);
	/* The failed attempt left nothing behind, or this would fail. */
	assert_int_equal(host_lock_take(a, HOST_LOCK_BASE, path, &err), 0);
	host_lock_drop(a);
	assert_int_equal(host_lock_take(c, HOST_LOCK_WRITER, path, &err), 0);
	assert_int_equal(host_lock_probe(a, HOST_LOCK_BASE, path, &err), -EBUSY);
	assert_int_equal(host_lock_take(a, HOST_LOCK_WRITER, path, &err), -EBUSY);
	/* A copy of the descriptor is the same description: the lock lives on. */
	b = dup(c);
	close(c);
	assert_int_equal(host_lock_probe(a, HOST_LOCK_BASE, path, &err), -EBUSY);
	close(b);
	assert_int_equal(host_lock_probe(a, HOST_LOCK_WRITER, path, &err), 0);
	close(a);
}

/* Returns when it holds its lock: any lock is in a writer's way. */
static pid_t start_qemu(const char *option, int fd)
{
	struct qcow_error err;
	pid_t pid = fork();
	int i;

	assert_true(pid >= 0);
	if (!pid) {
		if (!freopen("/dev/null", "w", stdout))
			_exit(127);
		execlp("qemu-io", "qemu-io", option, "-f", "qcow2", "-c", "sleep 30000", image,
		       NULL);
		_exit(127);
	}
	for (i = 0; i < 1000 && !host_lock_probe(fd, HOST_LOCK_WRITER, image, &err); i++)
		usleep(10000);
	/* It takes several bytes, one after the other. */
	usleep(50000);
	return pid;
}

static void stop_qemu(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int qemu_can(const char *option, const char *command)
{
	char line[200];

	snprintf(line, sizeof(line), "qemu-io %s -f qcow2 -c '%s' %s >/dev/null 2>&1", option,
		 command, image);
	return system(line) == 0;
}

static void test_against_qemu(void **state)
{
	struct qcow_error err;
	char line[200];
	pid_t pid;
	int fd;

	(void)state;
	snprintf(image, sizeof(image), "%s.qcow2", path);
	snprintf(line, sizeof(line), "qemu-img create -q -f qcow2 %s 1M", image);
	assert_int_equal(system(line), 0);
	fd = open(image, O_RDWR);
	pid = start_qemu("-n", fd); /* a writer */
	assert_int_equal(host_lock_probe(fd, HOST_LOCK_BASE, image, &err), -EBUSY);
	assert_non_null(strstr(err.text, "qemu-io (pid "));
	assert_int_equal(host_lock_take(fd, HOST_LOCK_WRITER, image, &err), -EBUSY);
	stop_qemu(pid);
	pid = start_qemu("-r", fd);
	assert_int_equal(host_lock_take(fd, HOST_LOCK_BASE, image, &err), 0);
	host_lock_drop(fd);
	assert_int_equal(host_lock_take(fd, HOST_LOCK_WRITER, image, &err), -EBUSY);
	stop_qemu(pid);
	assert_int_equal(host_lock_take(fd, HOST_LOCK_BASE, image, &err), 0);
	assert_true(qemu_can("-r", "read 0 512"));
	assert_false(qemu_can("", "read 0 512"));
	host_lock_drop(fd);
	assert_int_equal(host_lock_take(fd, HOST_LOCK_WRITER, image, &err), 0);
	assert_false(qemu_can("-r", "read 0 512"));
	host_lock_drop(fd);
	assert_true(qemu_can("", "read 0 512"));
	close(fd);
	unlink(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_direct),	     cmocka_unit_test(test_buffered),
		cmocka_unit_test(test_locks),	     cmocka_unit_test(test_holder_is_named),
		cmocka_unit_test(test_against_qemu),
	};

	return cmocka_run_group_tests_name("file", tests, setup, teardown);
}
