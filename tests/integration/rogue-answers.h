/* SPDX-License-Identifier: GPL-2.0-only */
/* rogue's answers to PROBE, LOAD and FETCH, and who may give them. Included by rogue.c alone. */
#ifndef ROGUE_ANSWERS_H
#define ROGUE_ANSWERS_H

/* ---- PROBE --------------------------------------------------------------------------- */

static pid_t create(void)
{
	struct event e;
	pid_t pid =
		spawn("exec dmsetup create %s %s --table '0 %llu qcow /rogue 2 helper_timeout:%d "
		      "no_space_timeout:2' 2>/dev/null",
		      NAME, disk.writable ? "" : "--readonly", (unsigned long long)DISK / 512,
		      helper_timeout);

	if (!await(&sup, DM_QCOW_CMD_START, &e, PATIENCE))
		die("no START");
	target = e.target;
	if (attach(&wrk, &target, &e))
		die("ATTACH to the target");
	epoch = e.epoch;
	return pid;
}

/* The worker's socket is for one target only, here as in qcowd. */
static void new_worker(void)
{
	close(wrk.fd);
	nl_open(&wrk, 0);
}

static void refuse_probe(const char *what, const struct dm_qcow_shape *shape, dev_t dev)
{
	pid_t pid = create();
	struct event up;

	if (upcall(DM_QCOW_CMD_PROBE, &up))
		check(what, answer_probe(&up, shape, dev), 0);
	check(what, finish(pid) != 0, 1);
	new_worker();
}

static void test_probe(void)
{
	struct dm_qcow_shape s;
	struct event up;
	pid_t pid;

#define REFUSE(field, value)                                           \
	do {                                                           \
		s = good_shape;                                        \
		s.field = value;                                       \
		refuse_probe("PROBE: " #field " " #value, &s, device); \
	} while (0)
	REFUSE(virtual_size, 0);
	REFUSE(virtual_size, DISK - 512);
	REFUSE(virtual_size, DISK + 1);
	REFUSE(virtual_size, UINT64_MAX - 511);
	REFUSE(block_size, 0);
	REFUSE(block_size, 256);
	REFUSE(block_size, 3 * 512);
	REFUSE(block_size, 4u << 20);
	REFUSE(block_size, BLOCK / 2 / DM_QCOW_SUBCLUSTERS);
	REFUSE(cluster_size, BLOCK / 2);
	REFUSE(cluster_size, 4u << 20);
	REFUSE(logical_block_size, 0);
	REFUSE(logical_block_size, 4096);
	REFUSE(logical_block_size, 1u << 31);
	REFUSE(dma_alignment, 512);
	REFUSE(dma_alignment, UINT32_MAX);
	REFUSE(nr_layers, 0);
	REFUSE(nr_layers, DM_QCOW_MAX_LAYERS + 1);
	refuse_probe("PROBE: no such device", &good_shape, makedev(4095, 1048575));
	refuse_probe("PROBE: device 0:0", &good_shape, 0);

	pid = create();
	upcall(DM_QCOW_CMD_PROBE, &up);
	begin_answer(&up);
	check("PROBE without a shape", ask(&wrk, NULL), EPROTO);
	check("create fails then", finish(pid) != 0, 1);
	new_worker();

	pid = create();
	upcall(DM_QCOW_CMD_PROBE, &up);
	begin_answer(&up);
	put_u32(&wrk, DM_QCOW_ATTR_ERROR, ENOENT);
	put(&wrk, DM_QCOW_ATTR_ERROR_TEXT, "the rogue says no", 18);
	check("PROBE with an error", ask(&wrk, NULL), 0);
	check("create fails then too", finish(pid) != 0, 1);
	new_worker();
}

/* Sizes that generic netlink itself refuses leave the upcall open. */
static void probe_malformed(const struct event *up)
{
	static char devices[257 * 8];

	begin_answer(up);
	put(&wrk, DM_QCOW_ATTR_SHAPE, &good_shape, sizeof(good_shape) - 1);
	check("PROBE: a shape too short", ask(&wrk, NULL), ERANGE);
	begin_answer(up);
	put(&wrk, DM_QCOW_ATTR_SHAPE, &good_shape, sizeof(good_shape));
	put(&wrk, DM_QCOW_ATTR_DEVICES, devices, 12);
	check("PROBE: a device and a half", ask(&wrk, NULL), EPROTO);
	begin_answer(up);
	put_u32(&wrk, DM_QCOW_ATTR_ERROR, 0);
	check("PROBE: error 0", ask(&wrk, NULL), ERANGE);
	begin_answer(up);
	put_u32(&wrk, DM_QCOW_ATTR_ERROR, 0xffffffff);
	check("PROBE: an error that is none", ask(&wrk, NULL), ERANGE);
	begin_answer(up);
	put(&wrk, DM_QCOW_ATTR_ERROR_TEXT, "no end", 6);
	check("PROBE: a text without end", ask(&wrk, NULL), EINVAL);
	begin_answer(up);
	put_u32(&wrk, DM_QCOW_ATTR_MAX + 1, 0);
	check("PROBE: an unknown attribute", ask(&wrk, NULL), EINVAL);
}

/* ---- LOAD -------------------------------------------------------------------------- */

/* One read, one bad answer to its LOAD: the read fails, the device lives. */
static void refuse_load(const char *what, const void *runs, size_t len, uint64_t page, uint64_t seq)
{
	pid_t pid = reader(0, -1);
	struct event up;

	if (upcall(DM_QCOW_CMD_LOAD, &up))
		check(what, answer_runs(&up, up.page + page, up.map_seq + seq, runs, len), EINVAL);
	check(what, finish(pid), EIO);
}

/* Not even decoded: the upcall stays, and a good answer ends it. */
static void misspell_load(const char *what, size_t len, int want)
{
	static const struct dm_qcow_run runs[2];
	pid_t pid = reader(8 << 20, 1);
	struct event up;

	if (upcall(DM_QCOW_CMD_LOAD, &up)) {
		check(what, answer_runs(&up, up.page, up.map_seq, runs, len), want);
		check(what, answer_load_well(&up), 0);
	}
	check(what, finish(pid), 0);
	forget_map();
}

static void test_one_run(void)
{
	static const struct {
		const char *what;
		struct dm_qcow_run run;
	} cases[] = {
		{ "LOAD: 511 blocks", { 0, 511, 0, DM_QCOW_RUN_ZERO, 0, 0 } },
		{ "LOAD: 513 blocks", { 0, 513, 0, DM_QCOW_RUN_ZERO, 0, 0 } },
		{ "LOAD: no blocks", { 0, 0, 0, DM_QCOW_RUN_ZERO, 0, 0 } },
		{ "LOAD: 2^32 - 1 blocks", { 0, UINT32_MAX, 0, DM_QCOW_RUN_ZERO, 0, 0 } },
		{ "LOAD: 2^32 - 1 blocks of data", { 0, UINT32_MAX, 0, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: type 3", { 0, 512, 0, 3, 0, 0 } },
		{ "LOAD: type 255", { 0, 512, 0, 255, 0, 0 } },
		{ "LOAD: unknown flags", { 0, 512, 0, DM_QCOW_RUN_DATA, 2, 0 } },
		{ "LOAD: all flags", { 0, 512, 0, DM_QCOW_RUN_DATA, 255, 0 } },
		{ "LOAD: zeros with flags", { 0, 512, 0, DM_QCOW_RUN_ZERO, 1, 0 } },
		{ "LOAD: fetch with flags", { 0, 512, 0, DM_QCOW_RUN_FETCH, 1, 0 } },
		{ "LOAD: writable, read-only layer",
		  { 0, 512, 0, DM_QCOW_RUN_DATA, DM_QCOW_RUN_WRITABLE, 0 } },
		{ "LOAD: writable backing device",
		  { 0, 1, 1, DM_QCOW_RUN_DATA, DM_QCOW_RUN_WRITABLE, 0 } },
		{ "LOAD: layer 2 of 2", { 0, 512, 2, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: layer 255", { 0, 512, 255, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: layer 65535", { 0, 512, 65535, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: offset 1", { 1, 512, 0, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: offset 256", { 256, 512, 0, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: offset 511", { 511, 512, 0, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: offset 2^56", { 1ull << 56, 512, 0, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: across 2^56", { (1ull << 56) - 512, 512, 0, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: offset 2^63", { 1ull << 63, 512, 0, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: offset 2^64 - 512", { -512ull, 512, 0, DM_QCOW_RUN_DATA, 0, 0 } },
		{ "LOAD: past the device", { 1ull << 40, 512, 1, DM_QCOW_RUN_DATA, 0, 0 } },
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refuse_load(cases[i].what, &cases[i].run, sizeof(cases[i].run), 0, 0);
}

static void test_many_runs(void)
{
	static struct dm_qcow_run runs[2700];
	struct dm_qcow_run whole = { 0, 512, 0, DM_QCOW_RUN_ZERO, 0, 0 };
	unsigned int i;

	refuse_load("LOAD: no runs", NULL, 0, 0, 0);
	refuse_load("LOAD: another page", &whole, sizeof(whole), 1, 0);
	refuse_load("LOAD: another sequence number", &whole, sizeof(whole), 0, 1);
	refuse_load("LOAD: an old sequence number", &whole, sizeof(whole), 0, -1ull);
	runs[0].nr_blocks = 256;
	runs[1].nr_blocks = 257;
	refuse_load("LOAD: 256 and 257 blocks", runs, 2 * sizeof(runs[0]), 0, 0);
	refuse_load("LOAD: 256 blocks, then none", runs, sizeof(runs[0]), 0, 0);
	/* Starts within the device, ends a block behind it. */
	runs[0] = (struct dm_qcow_run){ device_size - BLOCK, 2, 1, DM_QCOW_RUN_DATA, 0, 0 };
	runs[1] = (struct dm_qcow_run){ 0, 510, 0, DM_QCOW_RUN_ZERO, 0, 0 };
	refuse_load("LOAD: across the device's end", runs, 2 * sizeof(runs[0]), 0, 0);
	for (i = 0; i < 2700; i++)
		runs[i] = (struct dm_qcow_run){ 0, 1, 0, DM_QCOW_RUN_ZERO, 0, 0 };
	refuse_load("LOAD: 2700 runs", runs, sizeof(runs), 0, 0);
	misspell_load("LOAD: a run and a half", sizeof(whole) + 8, EPROTO);
	misspell_load("LOAD: a byte", 1, EPROTO);
}

static void test_loads(void)
{
	struct dm_qcow_run runs[2] = { { device_size - BLOCK, 1, 1, DM_QCOW_RUN_DATA, 0, 0 },
				       { (8 << 20) + BLOCK, 511, 0, DM_QCOW_RUN_DATA, 0, 0 } };
	pid_t pid = reader(BLOCK, 2);
	struct event up;

	/* A judge that accepts nothing would refuse all that follows, too. */
	upcall(DM_QCOW_CMD_LOAD, &up);
	check("LOAD: the device's last block, then a file",
	      answer_runs(&up, 0, up.map_seq, runs, sizeof(runs)), 0);
	check("and its data", finish(pid), 0);
	forget_map();
	test_one_run();
	test_many_runs();
}

/* ---- FETCH -------------------------------------------------------------------------- */

/* @want: of the answer; the read then gives @read. */
static void try_fetch(const char *what, uint64_t addr, uint64_t off, uint32_t len, int want,
		      int read)
{
	const struct dm_qcow_run fetch = { 0, 512, 0, DM_QCOW_RUN_FETCH, 0, 0 };
	pid_t pid = reader(BLOCK, read ? -1 : 0x5a);
	struct event up;

	upcall(DM_QCOW_CMD_LOAD, &up);
	check("LOAD: all FETCH", answer_runs(&up, 0, up.map_seq, &fetch, sizeof(fetch)), 0);
	if (upcall(DM_QCOW_CMD_FETCH, &up)) {
		check("FETCH asks for the block", (long)(up.offset == BLOCK && up.length == BLOCK),
		      1);
		begin_answer(&up);
		put_u64(&wrk, DM_QCOW_ATTR_OFFSET, up.offset + off);
		put_u32(&wrk, DM_QCOW_ATTR_LENGTH, up.length + len);
		put_u64(&wrk, DM_QCOW_ATTR_ADDR, addr);
		check(what, ask(&wrk, NULL), want);
	}
	check(what, finish(pid), read);
	forget_map();
}

static void test_fetches(void)
{
	char *mem =
		mmap(NULL, 3 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t at = (uintptr_t)mem;

	if (mem == MAP_FAILED)
		die("mmap");
	memset(mem, 0x5a, 2 * BLOCK);
	mprotect(mem + 2 * BLOCK, BLOCK, PROT_NONE);
	try_fetch("FETCH", at, 0, 0, 0, 0);
	try_fetch("FETCH from an odd address", at + 13, 0, 0, 0, 0);
	try_fetch("FETCH from address 0", 0, 0, 0, EFAULT, EIO);
	try_fetch("FETCH from the kernel", 0xffff888000000000, 0, 0, EFAULT, EIO);
	try_fetch("FETCH from the kernel's text", 0xffffffff81000000, 0, 0, EFAULT, EIO);
	try_fetch("FETCH from no canonical address", 1ull << 63, 0, 0, EFAULT, EIO);
	try_fetch("FETCH from the last address", UINT64_MAX, 0, 0, EFAULT, EIO);
	try_fetch("FETCH across the end of user space", 0x7ffffffff000, 0, 0, EFAULT, EIO);
	try_fetch("FETCH into a hole", at + BLOCK + 4096, 0, 0, EFAULT, EIO);
	try_fetch("FETCH of another block", at, BLOCK, 0, EINVAL, EIO);
	try_fetch("FETCH of half a block", at, 0, -BLOCK / 2, EINVAL, EIO);
	try_fetch("FETCH of too much", at, 0, BLOCK, EINVAL, EIO);
	try_fetch("FETCH of nothing", at, 0, -BLOCK, EINVAL, EIO);
	munmap(mem, 3 * BLOCK);
}

/* ---- who may answer ----------------------------------------------------------------- */

static int forge(struct nl *nl, const uint32_t *id, const uint32_t *ep, const uint64_t *cookie,
		 uint8_t cmd)
{
	begin(nl, cmd);
	if (id)
		put_u32(nl, DM_QCOW_ATTR_TARGET, *id);
	if (ep)
		put_u32(nl, DM_QCOW_ATTR_EPOCH, *ep);
	if (cookie)
		put_u64(nl, DM_QCOW_ATTR_COOKIE, *cookie);
	put_u32(nl, DM_QCOW_ATTR_ERROR, EIO);
	return ask(nl, NULL);
}

/* A socket with the worker's own port id, in another network namespace. */
static int forge_from_namespace(uint64_t cookie)
{
	static struct nl far;
	pid_t pid = fork();

	if (pid)
		return finish(pid);
	if (unshare(CLONE_NEWNET))
		_exit(255);
	nl_open(&far, wrk.port);
	_exit(forge(&far, &target, &epoch, &cookie, DM_QCOW_CMD_LOAD));
}

static int forge_as_nobody(uint64_t cookie)
{
	static struct nl mine;
	pid_t pid = fork();

	if (pid)
		return finish(pid);
	be_nobody();
	nl_open(&mine, 0);
	_exit(forge(&mine, &target, &epoch, &cookie, DM_QCOW_CMD_LOAD));
}

static void test_strangers(void)
{
	const uint32_t old = epoch - 1, next = epoch + 1, zero = 0, none = target + 1000;
	uint64_t cookie, wrong;
	struct event up;
	pid_t pid;

	forget_map();
	pid = reader(8 << 20, 1);
	upcall(DM_QCOW_CMD_LOAD, &up);
	cookie = up.cookie;
	wrong = cookie + 1;
	check("another's port", forge(&other, &target, &epoch, &cookie, DM_QCOW_CMD_LOAD), ESTALE);
	check("the supervisor's port", forge(&sup, &target, &epoch, &cookie, DM_QCOW_CMD_LOAD),
	      ESTALE);
	check("another namespace, same port", forge_from_namespace(cookie), ESTALE);
	check("nobody answers", forge_as_nobody(cookie), EPERM);
	check("an old epoch", forge(&wrk, &target, &old, &cookie, DM_QCOW_CMD_LOAD), ESTALE);
	check("a coming epoch", forge(&wrk, &target, &next, &cookie, DM_QCOW_CMD_LOAD), ESTALE);
	check("another target", forge(&wrk, &none, &epoch, &cookie, DM_QCOW_CMD_LOAD), ENOENT);
	check("target 0", forge(&wrk, &zero, &epoch, &cookie, DM_QCOW_CMD_LOAD), ENOENT);
	check("another cookie", forge(&wrk, &target, &epoch, &wrong, DM_QCOW_CMD_LOAD), ENOENT);
	check("another question", forge(&wrk, &target, &epoch, &cookie, DM_QCOW_CMD_FETCH), ENOENT);
	check("OPEN's answer to a LOAD", forge(&wrk, &target, &epoch, &cookie, DM_QCOW_CMD_OPEN),
	      ENOENT);
	check("no target", forge(&wrk, NULL, &epoch, &cookie, DM_QCOW_CMD_LOAD), EPROTO);
	check("no epoch", forge(&wrk, &target, NULL, &cookie, DM_QCOW_CMD_LOAD), EPROTO);
	check("no cookie", forge(&wrk, &target, &epoch, NULL, DM_QCOW_CMD_LOAD), EPROTO);
	/* All that has not answered the question. */
	check("the worker itself", answer_load_well(&up), 0);
	check("the read", finish(pid), 0);
	check("the same answer again", answer_load_well(&up), ENOENT);
	forget_map();
}

/* ---- death and return --------------------------------------------------------------- */

static int attach_with_few_descriptors(void)
{
	static struct nl mine;
	struct rlimit few = { 1, 1 };
	pid_t pid = fork();

	if (pid)
		return finish(pid);
	nl_open(&mine, 0);
	setrlimit(RLIMIT_NOFILE, &few);
	_exit(attach(&mine, &target, NULL));
}

static void check_layers(const struct event *e)
{
	struct stat mine, theirs;
	unsigned int i;

	check("layers come back", e->nr_layers, 2);
	check("state", e->state, DM_QCOW_STATE_OPEN);
	for (i = 0; i < e->nr_layers; i++) {
		fstat(i ? device_fd : layer_fd, &mine);
		check("a layer's descriptor", fstat(e->layers[i].fd, &theirs), 0);
		check("is the same file", (long)(mine.st_ino == theirs.st_ino), 1);
		check("its tag", (long)e->layers[i].tag, 71 + i);
		check("close-on-exec", fcntl(e->layers[i].fd, F_GETFD), FD_CLOEXEC);
		close(e->layers[i].fd);
	}
}

static void test_death(void)
{
	const uint32_t old = epoch;
	struct event e, up, again;
	pid_t pid;

	pid = reader(8 << 20, 1);
	upcall(DM_QCOW_CMD_LOAD, &up);
	new_worker();
	check("START comes", await(&sup, DM_QCOW_CMD_START, &e, PATIENCE), 1);
	check("for this target", e.target, target);
	check("an answer between workers", answer_load_well(&up), ESTALE);
	check("ATTACH without room for descriptors", attach_with_few_descriptors(), EMFILE);
	check("ATTACH again", attach(&wrk, &target, &e), 0);
	check_layers(&e);
	epoch = e.epoch;
	check("a later epoch", (long)(epoch > old), 1);
	check("with the old epoch", forge(&wrk, &target, &old, &up.cookie, DM_QCOW_CMD_LOAD),
	      ESTALE);
	upcall(DM_QCOW_CMD_LOAD, &again);
	check("the same cookie is asked again", (long)(again.cookie == up.cookie), 1);
	check("and answered", answer_load_well(&again), 0);
	check("the read", finish(pid), 0);
	forget_map();
}

/* On the one processor where whom we wake runs: it waits until we sleep. */
static void run_first(bool first)
{
	const struct sched_param param = { .sched_priority = first };

	if (sched_setscheduler(0, first ? SCHED_FIFO : SCHED_OTHER, &param))
		die("sched_setscheduler");
}

/*
 * The worker answers and dies, and another attaches, before whoever waits for the answer
 * has had the time to look at it.
 */
static void die_after(uint8_t cmd, const char *verb, int (*answer)(const struct event *up),
		      struct event *reply)
{
	cpu_set_t before, one;
	struct event up, start;
	pid_t pid;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	if (sched_getaffinity(0, sizeof(before), &before) ||
	    sched_setaffinity(0, sizeof(one), &one))
		die("sched_setaffinity");
	pid = spawn("exec dmsetup %s %s", verb, NAME);
	upcall(cmd, &up);
	run_first(true);
	check(verb, answer(&up), 0);
	new_worker();
	check("ATTACH at once", attach(&wrk, &target, reply), 0);
	run_first(false);
	sched_setaffinity(0, sizeof(before), &before);
	epoch = reply->epoch;
	check("START comes", await(&sup, DM_QCOW_CMD_START, &start, PATIENCE), 1);
	check(verb, finish(pid), 0);
}

static void test_death_after_answers(void)
{
	struct event e;

	die_after(DM_QCOW_CMD_CLOSE, "suspend", answer_nothing, &e);
	check("state after CLOSE", e.state, DM_QCOW_STATE_CLOSED);
	check("layers after CLOSE", e.nr_layers, 0);
	die_after(DM_QCOW_CMD_OPEN, "resume", answer_open_well, &e);
	check_layers(&e);
}

/* ---- random bytes ------------------------------------------------------------------- */

static unsigned int rnd(unsigned int *seed, unsigned int n)
{
	return (unsigned int)rand_r(seed) % n;
}

static void put_random(unsigned int *seed, const struct event *up)
{
	char bytes[600];
	size_t len = rnd(seed, 4) ? 4u << rnd(seed, 2) : rnd(seed, sizeof(bytes)), i;
	uint16_t attr = (uint16_t)rnd(seed, DM_QCOW_ATTR_MAX + 3);

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)rnd(seed, rnd(seed, 2) ? 256 : 2);
	if (attr == DM_QCOW_ATTR_COOKIE && rnd(seed, 4))
		put_u64(&wrk, attr, up->cookie);
	else
		put(&wrk, attr | (rnd(seed, 50) ? 0 : NLA_F_NESTED), bytes, len);
}

static void send_random(unsigned int *seed, const struct event *up)
{
	unsigned int n = rnd(seed, 8);
	size_t i;

	begin_answer(up);
	((struct genlmsghdr *)NLMSG_DATA((struct nlmsghdr *)wrk.out))->cmd =
		(uint8_t)rnd(seed, DM_QCOW_CMD_MAX + 2);
	if (!rnd(seed, 3))
		wrk.len = NLMSG_HDRLEN + GENL_HDRLEN;
	while (n--)
		put_random(seed, up);
	if (!rnd(seed, 10))
		for (i = NLMSG_HDRLEN + 1; i < wrk.len; i++)
			if (!rnd(seed, 8))
				wrk.out[i] ^= (char)(1u << rnd(seed, 8));
	if (!rnd(seed, 20))
		wrk.len -= rnd(seed, (unsigned int)(wrk.len - NLMSG_HDRLEN));
	ask(&wrk, NULL);
}

#define PER_READER 100 /* messages at most */

static void test_random(unsigned int seed, int nr_messages)
{
	struct event up = { 0 };
	pid_t pid = 0;
	int i, nr = 0;

	for (i = 0; i < nr_messages; i++) {
		if (!pid) {
			pid = reader(rnd(&seed, DISK / 4096) * 4096ull, -1);
			/* A page may be known: some random answer was a good one. */
			await(&wrk, DM_QCOW_CMD_LOAD, &up, 300);
			nr++;
		}
		send_random(&seed, &up);
		/* Counted, not drawn: a run with few messages must not lack readers by chance. */
		if (waitpid(pid, NULL, WNOHANG) == pid || i % PER_READER == PER_READER - 1) {
			kill(pid, SIGKILL);
			forge(&wrk, &target, &epoch, &up.cookie, DM_QCOW_CMD_LOAD);
			waitpid(pid, NULL, 0);
			wrk.nr_saved = 0;
			pid = 0;
		}
	}
	if (pid)
		check("the last random read ends", (serve(pid), 0), 0);
	check("some reads were disturbed", nr >= nr_messages / PER_READER, 1);
	forget_map();
	check("a good read after it all", serve(reader((8 << 20) + 3 * BLOCK, 4)), 0);
}

#endif
