/* SPDX-License-Identifier: GPL-2.0-only */
/* rogue's device that is written, and one lie to it. Included by rogue.c alone. */
#ifndef ROGUE_LIE_H
#define ROGUE_LIE_H

#define FREE_FROM (16ull << 20) /* what the honest worker leases, behind make_layer()'s blocks */
#define CLUSTERS  1024		/* what PROPOSE asks for */

/* ---- a device that is written ------------------------------------------------------ */

/* In a child: the device, or less than 0, and a block of @byte to be written to it. */
static int open_to_write(int byte, unsigned char **buf)
{
	close(wrk.fd);
	close(sup.fd);
	*buf = aligned_alloc(4096, BLOCK);
	memset(*buf, byte, BLOCK);
	return open(NODE, O_RDWR | O_DIRECT | O_CLOEXEC);
}

/* Exits with the errno of a write of one whole block, or of the fsync behind it, or 0. */
static pid_t writer(uint64_t off, int byte)
{
	pid_t pid = fork();
	unsigned char *buf;
	int fd;

	if (pid)
		return pid;
	fd = open_to_write(byte, &buf);
	if (fd < 0 || pwrite(fd, buf, BLOCK, (off_t)off) != BLOCK || fsync(fd))
		_exit(errno ? errno : 251);
	_exit(0);
}

/* Does the device's status have this word? */
static bool status_has(const char *word)
{
	return !finish(spawn("dmsetup status %s | grep -qw '%s'", NAME, word));
}

static pid_t begin_writable(void)
{
	struct event up;
	pid_t pid;

	disk.writable = true;
	disk.next = FREE_FROM;
	disk.tables = 64;
	disk.lost = 0;
	disk.run = (struct dm_qcow_run){ 0, DM_QCOW_PAGE_BLOCKS, 0, DM_QCOW_RUN_ZERO, 0, 0 };
	disk.nr_commits = 0;
	disk.nr_frees = 0;
	pid = create();
	if (upcall(DM_QCOW_CMD_PROBE, &up))
		check("PROBE", answer_well(&up), 0);
	return pid;
}

static void make_writable(void)
{
	check("create, to be written", serve(begin_writable()), 0);
}

static void remove_writable(void)
{
	check("remove, after writing", serve(spawn("dmsetup remove %s", NAME)), 0);
	new_worker();
}

/* What a COMMIT said was written is where it said. */
static void check_written(const char *what, int byte)
{
	static _Alignas(4096) unsigned char buf[BLOCK];
	int fd = disk.on_device || disk.data_file ? device_rw : layer_rw;
	bool same = pread(fd, buf, BLOCK, (off_t)disk.delta.host_off) == BLOCK;
	int i;

	for (i = 0; same && i < BLOCK; i++)
		same = buf[i] == byte;
	check(what, disk.delta.type == DM_QCOW_DELTA_DATA && same, 1);
}

static void write_well(const char *what, uint64_t off, int byte)
{
	check(what, serve(writer(off, byte)), 0);
	check_written(what, byte);
}

/* ---- one lie ------------------------------------------------------------------------ */

/*
 * A lie is told once, to the first upcall with the command. @told: what the kernel says to
 * it; @written: what the writer gets.
 */
static struct {
	const char *what;
	uint8_t cmd;
	int (*tell)(const struct event *up);
	int told;
	bool done;
	/* for tell() */
	const struct dm_qcow_lease *leases;
	unsigned int nr;
	uint32_t error;
} lie;

/* Refused without being believed: the upcall is still open. */
static bool is_open_still(int told)
{
	return told == EPROTO && lie.cmd != DM_QCOW_CMD_COMMIT;
}

static bool tell_lie(const struct event *up)
{
	if (lie.done || up->cmd != lie.cmd)
		return false;
	lie.done = true;
	check(lie.what, lie.tell(up), lie.told);
	return !is_open_still(lie.told) && lie.told != ENOENT && lie.told != ESTALE;
}

static void lie_to(const char *what, uint8_t cmd, int (*tell)(const struct event *up), int told)
{
	lie.what = what;
	lie.cmd = cmd;
	lie.tell = tell;
	lie.told = told;
	lie.done = false;
}

/* On a device of its own, because it may be read-only afterwards. */
static void try_lie(int written, const char *mode)
{
	make_writable();
	check(lie.what, serve_but(writer(0, 0x31), tell_lie), written);
	check(lie.what, lie.done, 1);
	check(lie.what, status_has(mode), 1);
	if (!written)
		check_written(lie.what, 0x31);
	remove_writable();
}

static int tell_error(const struct event *up)
{
	begin_answer(up);
	put_u32(&wrk, DM_QCOW_ATTR_ERROR, lie.error);
	return ask(&wrk, NULL);
}

/* @written: what a write gets when the worker says this. */
static void try_error(const char *what, uint8_t cmd, uint32_t error, int written, const char *mode)
{
	lie_to(what, cmd, tell_error, 0);
	lie.error = error;
	try_lie(written, mode);
}

#endif
