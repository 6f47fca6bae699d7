/* SPDX-License-Identifier: GPL-2.0-only */
/* rogue's lies about leases. Included by rogue.c alone. */
#ifndef ROGUE_LEASES_H
#define ROGUE_LEASES_H

/* ---- PROPOSE ------------------------------------------------------------------------- */

#define T DM_QCOW_LEASE_TABLE

static int tell_leases(const struct event *up)
{
	return answer_leases(up, lie.leases, lie.nr);
}

static void test_propose(void)
{
	static const struct {
		const char *what;
		struct dm_qcow_lease leases[2];
	} cases[] = {
		{ "PROPOSE: offset 512", { { FREE_FROM + 512, 1, 0 } } },
		{ "PROPOSE: offset 4096", { { FREE_FROM + 4096, 1, 0 } } },
		{ "PROPOSE: no clusters", { { FREE_FROM, 0, 0 } } },
		{ "PROPOSE: 2^32 - 1 clusters", { { FREE_FROM, UINT32_MAX, 0 } } },
		{ "PROPOSE: one more than asked for", { { FREE_FROM, CLUSTERS + 1, 0 } } },
		{ "PROPOSE: one more in two",
		  { { FREE_FROM, CLUSTERS, 0 }, { FREE_FROM + CLUSTERS * BLOCK, 1, 0 } } },
		{ "PROPOSE: at 2^56", { { 1ull << 56, 1, 0 } } },
		{ "PROPOSE: across 2^56", { { (1ull << 56) - BLOCK, 2, 0 } } },
		{ "PROPOSE: at 2^63", { { 1ull << 63, 1, 0 } } },
		{ "PROPOSE: at 2^64 - 64k", { { -65536ull, 1, 0 } } },
		{ "PROPOSE: zeros already", { { FREE_FROM, 1, DM_QCOW_LEASE_ZERO } } },
		{ "PROPOSE: an unknown flag", { { FREE_FROM, 1, 4 } } },
		{ "PROPOSE: all flags", { { FREE_FROM, 1, UINT32_MAX } } },
		{ "PROPOSE: the same twice", { { FREE_FROM, 4, 0 }, { FREE_FROM, 4, 0 } } },
		{ "PROPOSE: on the last one's end",
		  { { FREE_FROM, 4, 0 }, { FREE_FROM + 3 * BLOCK, 4, 0 } } },
		{ "PROPOSE: around the last one",
		  { { FREE_FROM + BLOCK, 1, 0 }, { FREE_FROM, 4, 0 } } },
		{ "PROPOSE: a table in the data",
		  { { FREE_FROM, 4, 0 }, { FREE_FROM + BLOCK, 1, T } } },
		{ "PROPOSE: 65 tables", { { FREE_FROM, 65, T } } },
		{ "PROPOSE: a table at 2^56", { { 1ull << 56, 1, T } } },
		{ "PROPOSE: a table at 512", { { FREE_FROM + 512, 1, T } } },
	};
	static const struct dm_qcow_lease past_device = { 64ull << 20, 1, 0 };
	static struct dm_qcow_lease many[DM_QCOW_MAX_LEASES + 1];
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		lie_to(cases[i].what, DM_QCOW_CMD_PROPOSE, tell_leases, EINVAL);
		lie.leases = cases[i].leases;
		/* An offset of 0 ends the list. */
		lie.nr = cases[i].leases[1].host_off ? 2 : 1;
		try_lie(EIO, "RO");
	}
	for (i = 0; i <= DM_QCOW_MAX_LEASES; i++)
		many[i] = (struct dm_qcow_lease){ FREE_FROM + i * BLOCK, 1, 0 };
	lie_to("PROPOSE: 1025 leases", DM_QCOW_CMD_PROPOSE, tell_leases, EINVAL);
	lie.leases = many;
	lie.nr = DM_QCOW_MAX_LEASES + 1;
	try_lie(EIO, "RO");
	lie_to("PROPOSE: nothing", DM_QCOW_CMD_PROPOSE, tell_leases, 0);
	lie.nr = 0;
	/* Told again and again that there is nothing, it would give up; once is an excuse. */
	try_lie(0, "RW");
	disk.on_device = true;
	lie_to("PROPOSE: past the device", DM_QCOW_CMD_PROPOSE, tell_leases, EINVAL);
	lie.leases = &past_device;
	lie.nr = 1;
	try_lie(EIO, "RO");
	disk.on_device = false;
	try_error("PROPOSE: EIO", DM_QCOW_CMD_PROPOSE, EIO, EIO, "RO");
	try_error("PROPOSE: ETIMEDOUT", DM_QCOW_CMD_PROPOSE, ETIMEDOUT, EIO, "RO");
	try_error("PROPOSE: no space, then some", DM_QCOW_CMD_PROPOSE, ENOSPC, 0, "RW");
}

/* ---- GRANT --------------------------------------------------------------------------- */

enum twist {
	OTHER_OFF,
	OTHER_NR,
	TABLE_OR_NOT,
	UNKNOWN_FLAG,
	ONE_LESS,
	ONE_MORE,
	REVERSED,
	NR_TWISTS
};

static enum twist twist;

static int tell_twisted(const struct event *up)
{
	struct dm_qcow_lease l[4];
	unsigned int nr = up->nr_leases;

	memcpy(l, up->leases, 3 * sizeof(l[0]));
	l[3] = l[2];
	switch (twist) {
	case OTHER_OFF:
		l[1].host_off += BLOCK;
		break;
	case OTHER_NR:
		l[1].nr_clusters++;
		break;
	case TABLE_OR_NOT:
		l[0].flags ^= T;
		break;
	case UNKNOWN_FLAG:
		l[0].flags |= 8;
		break;
	case ONE_LESS:
		nr--;
		break;
	case ONE_MORE:
		nr++;
		break;
	default:
		l[0] = l[2];
		l[2] = up->leases[0];
		break;
	}
	return answer_leases(up, l, nr);
}

static int tell_without_tables(const struct event *up)
{
	begin_answer(up);
	put(&wrk, DM_QCOW_ATTR_LEASES, up->leases, up->nr_leases * sizeof(up->leases[0]));
	return ask(&wrk, NULL);
}

static int tell_half_a_lease(const struct event *up)
{
	begin_answer(up);
	put(&wrk, DM_QCOW_ATTR_LEASES, up->leases, sizeof(up->leases[0]) + 8);
	return ask(&wrk, NULL);
}

/* The answer to another question. */
static int tell_unasked(const struct event *up)
{
	const uint8_t cmds[] = { DM_QCOW_CMD_GRANT, DM_QCOW_CMD_COMMIT, DM_QCOW_CMD_FREE,
				 DM_QCOW_CMD_CLOSE, DM_QCOW_CMD_PROPOSE };
	struct event e = *up;
	size_t i;

	for (i = 0; i < sizeof(cmds); i++) {
		e.cmd = cmds[i];
		e.nr_leases = 1;
		e.leases[0] = (struct dm_qcow_lease){ FREE_FROM, 1, 0 };
		if (e.cmd != up->cmd)
			check(lie.what, answer_leases(&e, e.leases, 1), ENOENT);
	}
	e.cmd = up->cmd;
	e.cookie += 1000;
	return answer_nothing(&e);
}

static int tell_twice(const struct event *up)
{
	check(lie.what, answer_well(up), 0);
	return answer_well(up);
}

/* The stranger's port, and an epoch that is over. */
static int tell_from_elsewhere(const struct event *up)
{
	const uint32_t old = epoch - 1;

	check(lie.what, forge(&wrk, &target, &old, &up->cookie, up->cmd), ESTALE);
	return forge(&other, &target, &epoch, &up->cookie, up->cmd);
}

static void test_grant(void)
{
	static const char *const twists[NR_TWISTS] = {
		"GRANT: another offset",  "GRANT: another length", "GRANT: data for a table",
		"GRANT: an unknown flag", "GRANT: one less",	   "GRANT: one more",
		"GRANT: in reverse",
	};
	unsigned int i;

	for (i = 0; i < NR_TWISTS; i++) {
		twist = (enum twist)i;
		lie_to(twists[i], DM_QCOW_CMD_GRANT, tell_twisted, EINVAL);
		try_lie(EIO, "RO");
	}
	lie_to("GRANT without TABLES", DM_QCOW_CMD_GRANT, tell_without_tables, EINVAL);
	try_lie(EIO, "RO");
	lie_to("GRANT without anything", DM_QCOW_CMD_GRANT, answer_nothing, EINVAL);
	try_lie(EIO, "RO");
	lie_to("GRANT: half a lease", DM_QCOW_CMD_GRANT, tell_half_a_lease, EPROTO);
	try_lie(0, "RW");
	try_error("GRANT: EIO", DM_QCOW_CMD_GRANT, EIO, EIO, "RO");
	try_error("GRANT: ETIMEDOUT", DM_QCOW_CMD_GRANT, ETIMEDOUT, EIO, "RO");
	try_error("GRANT: no space, then some", DM_QCOW_CMD_GRANT, ENOSPC, 0, "RW");
}

static void test_all_commands(void)
{
	static const struct {
		const char *what;
		int (*tell)(const struct event *up);
		int told;
	} lies[] = {
		{ "never asked for", tell_unasked, ENOENT },
		{ "answered twice", tell_twice, ENOENT },
		{ "from elsewhere", tell_from_elsewhere, ESTALE },
	};
	static const uint8_t cmds[] = { DM_QCOW_CMD_PROPOSE, DM_QCOW_CMD_GRANT,
					DM_QCOW_CMD_COMMIT };
	size_t i, j;

	for (i = 0; i < sizeof(cmds); i++) {
		for (j = 0; j < sizeof(lies) / sizeof(lies[0]); j++) {
			lie_to(lies[j].what, cmds[i], lies[j].tell, lies[j].told);
			try_lie(0, "RW");
		}
	}
}

/* Tables are promised, and never come; they are asked for a few times. */
static void test_no_tables(void)
{
	make_writable();
	disk.tables = 0;
	check("a write that never gets a table", serve(writer(0, 0x41)), EIO);
	check("its mode", status_has("RO"), 1);
	remove_writable();
}

/* There is no space for tables, while there is some for data; a second later there is. */
static bool short_of_tables(const struct event *up)
{
	if (up->cmd == DM_QCOW_CMD_COMMIT)
		disk.tables = 0;
	if (up->cmd != DM_QCOW_CMD_PROPOSE || up->bytes || lie.done)
		return false;
	lie.done = true;
	disk.tables = 64;
	lie.error = ENOSPC;
	check("PROPOSE: no space for tables", tell_error(up), 0);
	return true;
}

static void test_late_tables(void)
{
	make_writable();
	lie.done = false;
	check("a commit that takes all tables", serve_but(writer(0, 0x43), short_of_tables), 0);
	check("a write that waits for tables", serve_but(writer(PAGE_BYTES, 0x44), short_of_tables),
	      0);
	check("no space was said", lie.done, 1);
	remove_writable();
}

#endif
