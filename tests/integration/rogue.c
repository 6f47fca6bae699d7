// SPDX-License-Identifier: GPL-2.0-only
/*
 * A supervisor and worker that lie to the kernel: malformed and forged answers must
 * bring the documented errno to their sender, EIO to the reader, and nothing else.
 *
 *     rogue FOLDER DEVICE SEED MESSAGES
 *
 * FOLDER is on a file system with direct I/O, DEVICE a blank disk, of the device mapper;
 * qcowd must not be running. MESSAGES: so many random ones to a device that is read, and
 * again to one that is written. Prints a line for each failed check; the devices that it
 * makes are gone at the end.
 */
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <linux/fs.h>
#include <linux/sock_diag.h>

#include "rogue-wire.h"

#define NAME	   "rogue"
#define NODE	   "/dev/mapper/" NAME
#define BLOCK	   65536
#define PAGE_BYTES ((uint64_t)BLOCK * DM_QCOW_PAGE_BLOCKS)
#define DISK	   (4 * PAGE_BYTES)

static struct nl sup, wrk, other;
static uint32_t target, epoch;
/* layer_fd, device_fd: for reading only; the others for writing too */
static int helper_timeout = 60; /* of the next table */
static int layer_fd, device_fd, layer_rw, device_rw, nr_failed, nr_checks;
static uint64_t device_size;
static dev_t device;
static char folder[256];
static const char *device_path;

static void check(const char *what, long got, long want)
{
	nr_checks++;
	if (got == want)
		return;
	nr_failed++;
	printf("FAIL rogue: %s: got %ld (%s), not %ld\n", what, got, strerror((int)got), want);
	/* What follows would wait for what will not come. */
	if (nr_failed == 10)
		exit(1);
}

/* ---- the device ------------------------------------------------------------------ */

__attribute__((format(printf, 1, 2))) static pid_t spawn(const char *fmt, ...)
{
	char command[1024];
	va_list ap;
	pid_t pid;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	pid = fork();
	if (pid)
		return pid;
	execl("/bin/sh", "sh", "-c", command, NULL);
	_exit(127);
}

static int finish(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

/* Exits with the errno of a read of one block, 0, or 250: other bytes than @want. */
static pid_t reader(uint64_t off, int want)
{
	pid_t pid = fork();
	unsigned char *buf;
	int fd, i;

	if (pid)
		return pid;
	/* Or else the worker's socket would outlive the worker. */
	close(wrk.fd);
	close(sup.fd);
	buf = aligned_alloc(4096, 4096);
	fd = open(NODE, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || pread(fd, buf, 4096, (off_t)off) != 4096)
		_exit(errno ? errno : 251);
	for (i = 0; i < 4096; i++)
		if (want >= 0 && buf[i] != want)
			_exit(250);
	_exit(0);
}

#include "rogue-honest.h"

static void forget_map(void)
{
	finish(spawn("dmsetup message %s 0 drop_caches", NAME));
}

static bool upcall(uint8_t cmd, struct event *up)
{
	if (await(&wrk, cmd, up, PATIENCE))
		return true;
	check("an upcall comes", ETIME, 0);
	memset(up, 0, sizeof(*up));
	return false;
}

/* ---- ATTACH and LIST ----------------------------------------------------------------- */

static int attach_with(struct nl *nl, const void *version, size_t len, const uint32_t *id,
		       struct event *reply)
{
	begin(nl, DM_QCOW_CMD_ATTACH);
	if (version)
		put(nl, DM_QCOW_ATTR_VERSION, version, len);
	if (id)
		put_u32(nl, DM_QCOW_ATTR_TARGET, *id);
	return ask(nl, reply);
}

static int attach(struct nl *nl, const uint32_t *id, struct event *reply)
{
	const uint32_t version = DM_QCOW_VERSION;

	return attach_with(nl, &version, sizeof(version), id, reply);
}

static void be_nobody(void)
{
	if (setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
		die("becoming nobody");
}

/* What somebody without privilege is told, on an own socket or on one of root's. */
static int as_nobody(uint8_t cmd, bool own_socket)
{
	static struct nl mine;
	const uint32_t version = DM_QCOW_VERSION;
	pid_t pid = fork();

	if (pid)
		return finish(pid);
	if (!own_socket)
		nl_open(&mine, 0);
	be_nobody();
	if (own_socket)
		nl_open(&mine, 0);
	begin_raw(&mine, mine.family, cmd, cmd == DM_QCOW_CMD_LIST ? NLM_F_DUMP : NLM_F_ACK);
	put(&mine, DM_QCOW_ATTR_VERSION, &version, sizeof(version));
	_exit(ask(&mine, NULL));
}

static void test_attach(void)
{
	const uint32_t nobody = 0xfffffff0, zero = 0;
	uint32_t wrong = DM_QCOW_VERSION + 1;
	struct event reply;

	check("ATTACH with another version", attach_with(&sup, &wrong, 4, NULL, NULL), EPROTO);
	check("ATTACH without version", attach_with(&sup, NULL, 0, NULL, NULL), EPROTO);
	check("ATTACH with half a version", attach_with(&sup, &wrong, 2, NULL, NULL), EINVAL);
	check("ATTACH to target 0", attach(&sup, &zero, NULL), ENOENT);
	check("ATTACH to no target", attach(&sup, &nobody, NULL), ENOENT);
	check("ATTACH as nobody", as_nobody(DM_QCOW_CMD_ATTACH, true), EPERM);
	check("ATTACH as nobody, root's socket", as_nobody(DM_QCOW_CMD_ATTACH, false), EPERM);
	check("LIST as nobody", as_nobody(DM_QCOW_CMD_LIST, true), EPERM);
	check("ATTACH", attach(&sup, NULL, &reply), 0);
	check("a second supervisor", attach(&other, NULL, NULL), EBUSY);
	check("the same supervisor again", attach(&sup, NULL, NULL), EBUSY);
	begin(&sup, DM_QCOW_CMD_START);
	check("a notice sent to the kernel", ask(&sup, NULL), EOPNOTSUPP);
	begin(&sup, 200);
	check("an unknown command", ask(&sup, NULL), EOPNOTSUPP);
}

#include "rogue-answers.h"

/* ---- OPEN --------------------------------------------------------------------------- */

static int in_folder(const char *name, int flags)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path);
	return fd;
}

/* Resumes, answers OPEN with one layer; the resume must fail. */
static void refuse_open(const char *what, const struct dm_qcow_shape *shape, int fd, uint32_t flags,
			int want)
{
	struct dm_qcow_layer layer = { fd, flags, 0 };
	pid_t pid = spawn("exec dmsetup resume %s 2>/dev/null", NAME);
	struct event up;

	if (upcall(DM_QCOW_CMD_OPEN, &up))
		check(what, answer_open(&up, shape, &layer, 1), want);
	check(what, finish(pid) != 0, 1);
}

static void refuse_fd(const char *what, int fd, int want)
{
	if (fd < 0)
		die(what);
	refuse_open(what, &good_shape, fd, 0, want);
	close(fd);
}

static void test_open_fds(void)
{
	int pipes[2];

	refuse_open("OPEN: descriptor -1", &good_shape, -1, 0, EBADF);
	refuse_open("OPEN: a closed descriptor", &good_shape, 987, 0, EBADF);
	if (pipe(pipes))
		die("pipe");
	refuse_fd("OPEN: a pipe", pipes[0], EINVAL);
	close(pipes[1]);
	refuse_fd("OPEN: a directory", open(folder, O_RDONLY | O_DIRECTORY), EBADF);
	refuse_fd("OPEN: /dev/null", open("/dev/null", O_RDWR), EINVAL);
	refuse_fd("OPEN: a socket", socket(AF_UNIX, SOCK_STREAM, 0), EINVAL);
	refuse_fd("OPEN: an eventfd", eventfd(0, 0), EINVAL);
	refuse_fd("OPEN: a netlink socket", dup(sup.fd), EINVAL);
	refuse_fd("OPEN: not O_DIRECT", in_folder("layer", O_RDONLY), EOPNOTSUPP);
	refuse_fd("OPEN: write-only", in_folder("layer", O_WRONLY | O_DIRECT), EBADF);
	refuse_fd("OPEN: O_PATH", in_folder("layer", O_PATH), EBADF);
	refuse_fd("OPEN: a file in /proc", open("/proc/self/maps", O_RDONLY), EBADF);
	refuse_fd("OPEN: a device that PROBE did not name", open("/dev/loop0", O_RDONLY | O_DIRECT),
		  ENXIO);
	refuse_open("OPEN: writable in a read-only table", &good_shape, layer_fd,
		    DM_QCOW_LAYER_WRITABLE, EINVAL);
	refuse_open("OPEN: unknown flags", &good_shape, layer_fd, 1u << 31, EINVAL);
}

static void test_swap_file(void)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/swap", folder);
	if (finish(spawn(
		    "dd if=/dev/zero of=%s bs=1M count=2 status=none && chmod 600 %s && mkswap -q %s",
		    path, path, path)) ||
	    swapon(path, 0))
		die("swapon");
	refuse_fd("OPEN: a swap file", in_folder("swap", O_RDONLY | O_DIRECT), ETXTBSY);
	swapoff(path);
}

static void refuse_layers(const char *what, unsigned int nr, size_t extra)
{
	static struct dm_qcow_layer layers[DM_QCOW_MAX_LAYERS * 16];
	pid_t pid = spawn("exec dmsetup resume %s 2>/dev/null", NAME);
	struct event up;
	unsigned int i;

	for (i = 0; i < nr; i++)
		layers[i].fd = layer_fd;
	upcall(DM_QCOW_CMD_OPEN, &up);
	begin_answer(&up);
	put(&wrk, DM_QCOW_ATTR_SHAPE, &good_shape, sizeof(good_shape));
	put(&wrk, DM_QCOW_ATTR_LAYERS, layers, nr * sizeof(*layers) + extra);
	check(what, ask(&wrk, NULL), EPROTO);
	if (extra) /* not even decoded: the upcall is still open */
		check("OPEN: well after all", answer_open(&up, &good_shape, layers, 0), EPROTO);
	check(what, finish(pid) != 0, 1);
}

static void test_open_shapes(void)
{
	struct dm_qcow_shape s = good_shape;

	s.identity[1]++;
	refuse_open("OPEN: another image", &s, layer_fd, 0, ESTALE);
	s = good_shape;
	s.block_size /= 2;
	refuse_open("OPEN: another block size", &s, layer_fd, 0, ESTALE);
	s = good_shape;
	s.virtual_size -= 512;
	refuse_open("OPEN: shorter than the table", &s, layer_fd, 0, EINVAL);
	s = good_shape;
	s.logical_block_size = 4096;
	refuse_open("OPEN: larger sectors", &s, layer_fd, 0, ESTALE);
	refuse_layers("OPEN: no layers", 0, 0);
	refuse_layers("OPEN: 257 layers", DM_QCOW_MAX_LAYERS + 1, 0);
	refuse_layers("OPEN: 4000 layers", 4000, 0);
	refuse_layers("OPEN: half a layer", 1, 8);
}

/* Its own node, and a file on a file system that lies on it. */
static void test_open_self(void)
{
	char mounted[512];
	int fd = -1;

	snprintf(mounted, sizeof(mounted), "%s/mnt", folder);
	mkdir(mounted, 0700);
	check("mount", serve(spawn("mount -o ro,noload -t ext4 %s %s", NODE, mounted)), 0);
	strcat(mounted, "/file");
	fd = open(mounted, O_RDONLY | O_DIRECT | O_CLOEXEC);
	check("suspend", serve(spawn("dmsetup suspend --nolockfs %s", NAME)), 0);
	refuse_fd("OPEN: a file on the device itself", fd, ELOOP);
	fd = open(NODE, O_RDONLY | O_CLOEXEC);
	refuse_fd("OPEN: the device itself", fd, ELOOP);
	check("resume", serve(spawn("dmsetup resume %s", NAME)), 0);
	check("umount", serve(spawn("umount %s/mnt", folder)), 0);
}

static void make_layer(void)
{
	static unsigned char block[BLOCK];
	char path[512];
	int i;

	snprintf(path, sizeof(path), "%s/layer", folder);
	if (finish(spawn(
		    "d=$(mktemp -d) && echo x >$d/file && mke2fs -q -t ext4 -d $d %s 8M && rm -r $d",
		    path)))
		die("mke2fs");
	layer_fd = in_folder("layer", O_RDWR);
	/* Behind the file system: each block is its number. */
	for (i = 0; i < 16; i++) {
		memset(block, i + 1, sizeof(block));
		if (pwrite(layer_fd, block, sizeof(block), (8 << 20) + i * BLOCK) != BLOCK)
			die("pwrite");
	}
	fsync(layer_fd);
	close(layer_fd);
	layer_fd = in_folder("layer", O_RDONLY | O_DIRECT);
	layer_rw = in_folder("layer", O_RDWR | O_DIRECT);
}

static void open_device(const char *path)
{
	struct stat st;

	device_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (device_fd < 0 || fstat(device_fd, &st) || !S_ISBLK(st.st_mode) ||
	    ioctl(device_fd, BLKGETSIZE64, &device_size))
		die(path);
	device = st.st_rdev;
	device_rw = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (device_rw < 0)
		die(path);
}

/* The device is made, but not resumed yet: OPEN can be said again and again. */
static void make_device(void)
{
	struct event up;
	pid_t pid = create();

	upcall(DM_QCOW_CMD_PROBE, &up);
	probe_malformed(&up);
	check("a second worker", attach(&other, &target, NULL), EBUSY);
	check("the same worker again", attach(&wrk, &target, NULL), EBUSY);
	check("PROBE", answer_probe(&up, &good_shape, device), 0);
	check("PROBE, answered twice", answer_probe(&up, &good_shape, device), ENOENT);
	upcall(DM_QCOW_CMD_OPEN, &up);
	check("OPEN", answer_open_well(&up), 0);
	check("create", finish(pid), 0);
	check("suspend", serve(spawn("dmsetup suspend %s", NAME)), 0);
}

#include "rogue-lie.h"
#include "rogue-leases.h"
#include "rogue-write.h"

int main(int argc, char **argv)
{
	unsigned int seed;

	if (argc != 5)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(folder, sizeof(folder), "%s", argv[1]);
	seed = (unsigned int)atoi(argv[3]);
	nl_open(&sup, 0);
	nl_open(&wrk, 0);
	nl_open(&other, 0);
	make_layer();
	device_path = argv[2];
	open_device(device_path);
	test_attach();
	test_probe();
	make_device();
	test_open_fds();
	test_swap_file();
	test_open_shapes();
	check("resume after all that", serve(spawn("dmsetup resume %s", NAME)), 0);
	test_open_self();
	test_strangers();
	test_loads();
	test_fetches();
	test_death();
	test_death_after_answers();
	test_random(seed, atoi(argv[4]));
	check("remove", serve(spawn("dmsetup remove %s", NAME)), 0);
	check("nobody there any more", attach(&other, &target, NULL), ENOENT);
	test_writing(seed, atoi(argv[4]));
	printf("rogue: %d checks, %d failed (seed %u)\n", nr_checks, nr_failed, seed);
	return nr_failed != 0;
}
