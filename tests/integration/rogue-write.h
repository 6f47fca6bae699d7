/* SPDX-License-Identifier: GPL-2.0-only */
/* rogue's lies to a device that is written. Included by rogue.c alone. */
#ifndef ROGUE_WRITE_H
#define ROGUE_WRITE_H

/* ---- OPEN --------------------------------------------------------------------------- */

static void refuse_writable(const char *what, const struct dm_qcow_layer *layers, int want)
{
	pid_t pid = begin_writable();
	struct event up;

	if (upcall(DM_QCOW_CMD_OPEN, &up))
		check(what, answer_open(&up, &good_shape, layers, 2), want);
	check(what, finish(pid) != 0, 1);
	new_worker();
}

static void set_read_only(int ro)
{
	if (ioctl(device_rw, BLKROSET, &ro))
		die("BLKROSET");
}

static void test_open_writable(void)
{
	const uint32_t w = DM_QCOW_LAYER_WRITABLE;
	pid_t pid;
	struct event up;
	const struct dm_qcow_layer none[] = { { layer_rw, 0, 0 }, { device_fd, 0, 0 } },
				   both[] = { { layer_rw, w, 0 }, { device_rw, w, 0 } },
				   read_only_file[] = { { layer_fd, w, 0 }, { device_fd, 0, 0 } },
				   read_only_base[] = { { layer_rw, 0, 0 }, { device_fd, w, 0 } },
				   good[] = { { layer_rw, w, 0 }, { device_fd, 0, 0 } },
				   on_device[] = { { device_rw, w, 0 }, { layer_fd, 0, 0 } };

	refuse_writable("OPEN: nothing writable", none, EPROTO);
	refuse_writable("OPEN: two data layers", both, EINVAL);
	refuse_writable("OPEN: a writable file, read-only descriptor", read_only_file, EBADF);
	refuse_writable("OPEN: a writable device, read-only descriptor", read_only_base, EBADF);
	if (finish(spawn("chattr +i %s/layer", folder)))
		die("chattr");
	refuse_writable("OPEN: an immutable file", good, EPERM);
	finish(spawn("chattr -i %s/layer", folder));
	/* Opened for writing before. */
	set_read_only(1);
	refuse_writable("OPEN: a device gone read-only", on_device, EROFS);
	set_read_only(0);

	pid = begin_writable();
	upcall(DM_QCOW_CMD_OPEN, &up);
	put_open(&up, &good_shape, good, 2);
	check("OPEN without TABLES", ask(&wrk, NULL), EPROTO);
	check("OPEN without TABLES", finish(pid) != 0, 1);
	new_worker();
}

/* ---- LOAD --------------------------------------------------------------------------- */

#define W DM_QCOW_RUN_WRITABLE
#define R DM_QCOW_RUN_RESERVED
#define B DM_QCOW_RUN_BROKEN

static void test_writable_runs(void)
{
	static const struct {
		const char *what;
		struct dm_qcow_run run;
	} cases[] = {
		{ "LOAD: writable backing device", { 0, 512, 1, DM_QCOW_RUN_DATA, W, 0 } },
		{ "LOAD: writable layer 2 of 2", { 0, 512, 2, DM_QCOW_RUN_DATA, W, 0 } },
		{ "LOAD: writable in the middle of a cluster",
		  { 512, 512, 0, DM_QCOW_RUN_DATA, W, 0 } },
		{ "LOAD: writable before a cluster", { 4096, 1, 0, DM_QCOW_RUN_DATA, W, 0 } },
		{ "LOAD: writable at 2^56", { 1ull << 56, 512, 0, DM_QCOW_RUN_DATA, W, 0 } },
		{ "LOAD: writable across 2^56",
		  { (1ull << 56) - BLOCK, 512, 0, DM_QCOW_RUN_DATA, W, 0 } },
		{ "LOAD: writable at 2^64 - 64k", { -65536ull, 1, 0, DM_QCOW_RUN_DATA, W, 0 } },
		{ "LOAD: writable and reserved", { 0, 512, 0, DM_QCOW_RUN_DATA, W | R, 0 } },
		{ "LOAD: writable zeros", { 0, 512, 0, DM_QCOW_RUN_ZERO, W, 0 } },
		{ "LOAD: writable fetch", { 0, 512, 0, DM_QCOW_RUN_FETCH, W, 0 } },
		{ "LOAD: broken data", { 0, 512, 0, DM_QCOW_RUN_DATA, B, 0 } },
		{ "LOAD: broken zeros", { 0, 512, 0, DM_QCOW_RUN_ZERO, B, 0 } },
		{ "LOAD: reserved at 1", { 0, 512, 0, DM_QCOW_RUN_ZERO, R, 1 } },
		{ "LOAD: reserved in a cluster", { 0, 512, 0, DM_QCOW_RUN_ZERO, R, 512 } },
		{ "LOAD: reserved at 2^56", { 0, 512, 0, DM_QCOW_RUN_FETCH, R, 1ull << 56 } },
		{ "LOAD: reserved across 2^56",
		  { 0, 2, 0, DM_QCOW_RUN_ZERO, R, (1ull << 56) - BLOCK } },
		{ "LOAD: reserved at 2^64 - 64k", { 0, 512, 0, DM_QCOW_RUN_ZERO, R, -65536ull } },
		{ "LOAD: unknown flags, to be written", { 0, 512, 0, DM_QCOW_RUN_ZERO, 8, 0 } },
	};
	static const struct dm_qcow_run past[] = {
		{ 1ull << 40, 512, 0, DM_QCOW_RUN_DATA, W, 0 },
		{ 0, 512, 0, DM_QCOW_RUN_ZERO, R, 1ull << 40 },
	};
	size_t i;

	make_writable();
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refuse_load(cases[i].what, &cases[i].run, sizeof(cases[i].run), 0, 0);
	check("mode after lies about the map", status_has("RW"), 1);
	/* In place, where the worker says; no lease is asked for, and nothing to commit. */
	disk.run = (struct dm_qcow_run){ FREE_FROM, 512, 0, DM_QCOW_RUN_DATA, W, 0 };
	forget_map();
	check("a write in place", serve(writer(BLOCK, 0x21)), 0);
	disk.delta = (struct dm_qcow_delta){ .host_off = FREE_FROM + BLOCK };
	check_written("a write in place", 0x21);
	disk.run = (struct dm_qcow_run){ 0, 512, 0, DM_QCOW_RUN_ZERO, R, FREE_FROM };
	forget_map();
	write_well("a write to a reserved place", 2 * BLOCK, 0x22);
	check("is where it was reserved", (long)disk.delta.host_off, FREE_FROM + 2 * BLOCK);
	disk.run = (struct dm_qcow_run){ 0, 512, 0, DM_QCOW_RUN_FETCH, B, 0 };
	forget_map();
	check("a write to a damaged image", serve(writer(3 * PAGE_BYTES, 0x23)) != 0, 1);
	check("its mode", status_has("RO"), 1);
	remove_writable();

	disk.data_file = true;
	make_writable();
	check("a write to a data file, nowhere", serve(writer(0, 0x25)), EIO);
	disk.run = (struct dm_qcow_run){ 0, 512, 0, DM_QCOW_RUN_ZERO, R, 0 };
	forget_map();
	write_well("and to where the guest has it", BLOCK, 0x26);
	remove_writable();
	disk.data_file = false;

	disk.on_device = true;
	make_writable();
	for (i = 0; i < 2; i++)
		refuse_load("LOAD: to be written past the device", &past[i], sizeof(past[i]), 0, 0);
	write_well("a write on a device", 0, 0x24);
	remove_writable();
	disk.on_device = false;
}

/* ---- COMMIT, FREE, CLOSE ------------------------------------------------------------- */

static int tell_other_generation(const struct event *up)
{
	begin_answer(up);
	put_u32(&wrk, DM_QCOW_ATTR_TABLES, 64);
	put_u64(&wrk, DM_QCOW_ATTR_GENERATION, 0);
	return ask(&wrk, NULL);
}

static bool tell_generation_first(const struct event *up)
{
	if (up->cmd == DM_QCOW_CMD_COMMIT)
		check("COMMIT: with a generation", tell_other_generation(up), EINVAL);
	return false;
}

static void test_commit(void)
{
	static const struct {
		const char *what;
		uint32_t error;
	} errors[] = {
		{ "COMMIT: EIO", EIO },	      { "COMMIT: EROFS", EROFS },
		{ "COMMIT: EINTR", EINTR },   { "COMMIT: ETIMEDOUT", ETIMEDOUT },
		{ "COMMIT: EAGAIN", EAGAIN }, { "COMMIT: ERESTART", ERESTART },
		{ "COMMIT: 4095", 4095 },
	};
	size_t i;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		try_error(errors[i].what, DM_QCOW_CMD_COMMIT, errors[i].error, EIO, "RO");
	lie_to("COMMIT without TABLES", DM_QCOW_CMD_COMMIT, answer_nothing, EPROTO);
	try_lie(EIO, "RO");
	make_writable();
	check("a COMMIT's answer with a generation",
	      serve_but(writer(0, 0x51), tell_generation_first), 0);
	lie_to("COMMIT: ENOSPC", DM_QCOW_CMD_COMMIT, tell_error, 0);
	lie.error = ENOSPC;
	check("fsync without space", serve_but(writer(BLOCK, 0x52), tell_lie), ENOSPC);
	check("mode without space", status_has("RW"), 1);
	write_well("fsync with space again", 2 * BLOCK, 0x53);
	remove_writable();
}

/* To two parts of the disk, each with a table of its own. */
static pid_t writer_of_two(void)
{
	pid_t pid = fork();
	unsigned char *buf;
	int fd;

	if (pid)
		return pid;
	fd = open_to_write(0x54, &buf);
	if (fd < 0 || pwrite(fd, buf, BLOCK, 0) != BLOCK)
		_exit(250);
	_exit(pwrite(fd, buf, BLOCK, PAGE_BYTES) == BLOCK ? 0 : errno);
}

/* With a single table the second write waits for the first's commit. */
static void test_commit_waited_for(void)
{
	pid_t pid = begin_writable();

	disk.tables = 1;
	check("create, with one table", serve(pid), 0);
	lie_to("COMMIT: EIO, while a write waits", DM_QCOW_CMD_COMMIT, tell_error, 0);
	lie.error = EIO;
	check(lie.what, serve_but(writer_of_two(), tell_lie), EIO);
	check(lie.what, lie.done, 1);
	check(lie.what, status_has("RO"), 1);
	remove_writable();
}

static void test_free(void)
{
	lie_to("FREE: EIO", DM_QCOW_CMD_FREE, tell_error, 0);
	lie.error = EIO;
	make_writable();
	disk.lost = UINT64_MAX;
	check("a commit that lost 2^64 - 1 clusters", serve_but(writer(0, 0x61), tell_lie), 0);
	/* At the latest now FREE is on its way: it goes before the next COMMIT. */
	check("and another", serve_but(writer(BLOCK, 0x62), tell_lie), 0);
	check("FREE was asked for", lie.done, 1);
	check("mode after a FREE that failed", status_has("RW"), 1);
	disk.lost = 0;
	remove_writable();
}

static void test_close(void)
{
	lie_to("CLOSE: EIO", DM_QCOW_CMD_CLOSE, tell_error, 0);
	lie.error = EIO;
	make_writable();
	check("a write before CLOSE", serve(writer(0, 0x71)), 0);
	check("suspend", serve_but(spawn("dmsetup suspend %s", NAME), tell_lie), 0);
	check("CLOSE was asked for", lie.done, 1);
	check("not closed", status_has("unclean"), 1);
	check("resume", serve(spawn("dmsetup resume %s", NAME)), 0);
	write_well("a write after CLOSE failed", BLOCK, 0x72);
	remove_writable();
}

/* ---- another worker ------------------------------------------------------------------ */

static void attach_again(struct event *reply)
{
	const struct dm_qcow_lease mine = { FREE_FROM, 1, T };
	const uint32_t version = DM_QCOW_VERSION;
	struct event e;

	new_worker();
	check("START comes, while writing", await(&sup, DM_QCOW_CMD_START, &e, PATIENCE), 1);
	/* What it says of leases is its own affair. */
	begin(&wrk, DM_QCOW_CMD_ATTACH);
	put(&wrk, DM_QCOW_ATTR_VERSION, &version, sizeof(version));
	put_u32(&wrk, DM_QCOW_ATTR_TARGET, target);
	put(&wrk, DM_QCOW_ATTR_LEASES, &mine, sizeof(mine));
	check("ATTACH with leases", ask(&wrk, reply), 0);
	epoch = reply->epoch;
	while (reply->nr_layers)
		close(reply->layers[--reply->nr_layers].fd);
}

/* A GRANT in doubt: the next worker hears of it, and is asked the same. */
static void test_attach_leases(void)
{
	static struct event grant, again, reply;
	pid_t pid;

	make_writable();
	pid = writer(0, 0x81);
	while (await_any(&wrk, &grant, PATIENCE) && grant.cmd != DM_QCOW_CMD_GRANT)
		answer_well(&grant);
	attach_again(&reply);
	check("ATTACH: leases in doubt", reply.nr_leases, grant.nr_leases);
	check("the same",
	      memcmp(reply.leases, grant.leases, grant.nr_leases * sizeof(grant.leases[0])), 0);
	if (upcall(DM_QCOW_CMD_GRANT, &again)) {
		check("GRANT again: cookie", (long)again.cookie, (long)grant.cookie);
		check("GRANT again: leases",
		      memcmp(again.leases, grant.leases, sizeof(grant.leases)), 0);
		check("GRANT again", answer_well(&again), 0);
	}
	check("the write", serve(pid), 0);
	check_written("the write", 0x81);
	attach_again(&reply);
	check("ATTACH: the table", reply.nr_leases, 1);
	check("its flag", reply.leases[0].flags, T);
	check("its place", (long)reply.leases[0].host_off, FREE_FROM);
	write_well("a write after two workers", BLOCK, 0x82);
	remove_writable();
}

/* ---- a suspend that is given up ------------------------------------------------------ */

/* Its dmsetup waits for bios to end. */
static bool suspending(pid_t pid)
{
	int i;

	for (i = 0; i < 200; i++, usleep(50000))
		if (!finish(spawn("grep -q dm_wait /proc/%d/wchan", pid)))
			return true;
	return false;
}

/*
 * It waits for a read on the disk below, which is suspended, and is killed. The GRANT that
 * it cut short is asked again, or the write would wait for ever.
 */
static void test_interrupted_suspend(void)
{
	static struct event grant, again;
	pid_t write, read, suspend;

	disk.on_device = true;
	make_writable();
	disk.run = (struct dm_qcow_run){ 0, 512, 0, DM_QCOW_RUN_DATA, 0, 0 };
	check("a read", serve(reader(3 * PAGE_BYTES, -1)), 0);
	disk.run = (struct dm_qcow_run){ 0, 512, 0, DM_QCOW_RUN_ZERO, 0, 0 };
	write = writer(0, 0x91);
	while (await_any(&wrk, &grant, PATIENCE) && grant.cmd != DM_QCOW_CMD_GRANT)
		answer_well(&grant);
	check("suspend below", finish(spawn("dmsetup suspend --nolockfs %s", device_path)), 0);
	read = reader(3 * PAGE_BYTES, -1);
	usleep(500000); /* or it fails below */
	suspend = spawn("exec dmsetup suspend --noflush --nolockfs %s", NAME);
	check("it waits", suspending(suspend), 1);
	kill(suspend, SIGTERM);
	check("it is interrupted", finish(suspend) != 0, 1);
	check("resume below", finish(spawn("dmsetup resume %s", device_path)), 0);
	check("the read", finish(read), 0);
	if (await(&wrk, DM_QCOW_CMD_GRANT, &again, PATIENCE)) {
		check("the same leases", memcmp(again.leases, grant.leases, sizeof(grant.leases)),
		      0);
		check("GRANT", answer_well(&again), 0);
	} else {
		check("GRANT comes again", ETIME, 0);
		exit(1); /* the write hangs */
	}
	check("the write", serve(write), 0);
	check_written("the write", 0x91);
	remove_writable();
	disk.on_device = false;
}

/* ---- a worker that hangs ------------------------------------------------------------- */

static void set_room(struct nl *nl, int bytes)
{
	if (setsockopt(nl->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)))
		die("SO_RCVBUF");
}

/* How many messages found no room. */
static uint32_t nr_dropped(const struct nl *nl)
{
	uint32_t info[SK_MEMINFO_VARS];
	socklen_t len = sizeof(info);

	if (getsockopt(nl->fd, SOL_SOCKET, SO_MEMINFO, info, &len))
		die("SO_MEMINFO");
	return info[SK_MEMINFO_DROPS];
}

/* Each worker that dies is worth a notice. */
static void fill_supervisor(void)
{
	const uint32_t before = nr_dropped(&sup);
	static struct event e;
	int i;

	set_room(&sup, 1);
	for (i = 0; i < 100 && nr_dropped(&sup) == before; i++) {
		new_worker();
		check("ATTACH, nobody told", attach(&wrk, &target, &e), 0);
		epoch = e.epoch;
		while (e.nr_layers)
			close(e.layers[--e.nr_layers].fd);
	}
	check("the supervisor's socket is full", nr_dropped(&sup) > before, 1);
}

static bool keep_silent(const struct event *up)
{
	return up->cmd == DM_QCOW_CMD_COMMIT;
}

static bool hears_hung(void)
{
	static struct event e;
	int i;

	for (i = 0; i < 1000; i++)
		if (receive(&sup, &e, 10) && e.cmd == DM_QCOW_CMD_HUNG && e.target == target)
			return true;
	return false;
}

/* The supervisor has no room for the notice, and no upcall will be sent that could time out. */
static void test_hung(void)
{
	static struct event reply;
	uint32_t dropped;

	helper_timeout = 2;
	make_writable();
	helper_timeout = 60;
	write_well("a write before the worker hangs", 0, 0x91);
	fill_supervisor();
	dropped = nr_dropped(&sup);
	check("a COMMIT is not answered", serve_but(writer(BLOCK, 0x92), keep_silent), ETIMEDOUT);
	check("HUNG found no room", nr_dropped(&sup) > dropped, 1);
	check("HUNG is said again", hears_hung(), 1);
	set_room(&sup, 1 << 20);
	attach_again(&reply);
	write_well("a write after the worker was killed", 2 * BLOCK, 0x93);
	remove_writable();
}

/* It may open the image yet, when it has long been open: another one is asked. */
static void test_hung_at_open(void)
{
	static struct event up;
	pid_t pid;

	helper_timeout = 5;
	make_writable();
	helper_timeout = 60;
	check("suspend", serve(spawn("dmsetup suspend %s", NAME)), 0);
	pid = spawn("exec dmsetup resume %s 2>/dev/null", NAME);
	upcall(DM_QCOW_CMD_OPEN, &up);
	check("an OPEN is not answered", finish(pid) != 0, 1);
	pid = spawn("exec dmsetup resume %s", NAME);
	check("another OPEN, for the same worker", await(&wrk, DM_QCOW_CMD_OPEN, &up, 1000), 0);
	attach_again(&up);
	check("but for the next", serve(pid), 0);
	write_well("a write after all that", 0, 0x94);
	remove_writable();
}

/* ---- random bytes -------------------------------------------------------------------- */

/* Returns how many messages were sent until the device could not be written any more. */
static int random_until_read_only(unsigned int *seed, int max)
{
	struct event up = { 0 };
	int nr = 0, status = 0;
	pid_t pid = 0;

	while (nr < max && !status) {
		if (!pid)
			pid = writer(rnd(seed, DISK / BLOCK) * (uint64_t)BLOCK, 0x99);
		if (await_any(&wrk, &up, 20)) {
			for (; rnd(seed, 4); nr++)
				send_random(seed, &up);
			answer_well(&up);
		}
		if (waitpid(pid, &status, WNOHANG) == pid)
			pid = 0;
		else
			status = 0;
	}
	if (pid)
		serve(pid);
	return nr;
}

static void test_random_writes(unsigned int seed, int nr_messages)
{
	int nr = 0, devices = 0;

	for (; nr < nr_messages && devices < 400; devices++) {
		make_writable();
		nr += random_until_read_only(&seed, nr_messages - nr);
		remove_writable();
	}
	check("random messages while writing", nr >= nr_messages, 1);
	make_writable();
	write_well("a good write after it all", 3 * BLOCK, 0x9a);
	remove_writable();
}

static void test_writing(unsigned int seed, int nr_messages)
{
	new_worker();
	test_open_writable();
	test_writable_runs();
	test_propose();
	test_grant();
	test_all_commands();
	test_no_tables();
	test_late_tables();
	test_commit();
	test_commit_waited_for();
	test_free();
	test_close();
	test_attach_leases();
	test_interrupted_suspend();
	test_hung();
	test_hung_at_open();
	test_random_writes(seed, nr_messages);
}

#endif
