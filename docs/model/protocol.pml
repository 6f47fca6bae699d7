/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The write protocol of dm-qcow: sections 5 and 6 of docs/design.md. README.md explains it, ./check runs it.
 *
 * The disk is a cache that a power cut empties: of each place the model knows what a read returns (now) and the set
 * of what a power cut may leave (may). Nothing is the power cut's own step: after every step check() looks at all
 * disks it could leave.
 *
 * DROP_... leaves out a barrier or a rule.
 */

#define NG	2	/* guest clusters; 0 is the watched one */
#define NH	3	/* host clusters for data */
#define NT	2	/* host clusters for L2 tables; each guest cluster has an L1 entry and a table of its own */

#define BIT(v)		(1 << (v))
#define HAS(mask, v)	(((mask) >> (v)) & 1)
#define LOWEST(mask)	(HAS(mask, 0) -> 0 : (HAS(mask, 1) -> 1 : 2))

/* ---- the disk ---- */

#define JUNK	7	/* a table that was never written */

typedef Place { byte now; byte may }

Place ref[NH];		/* refcounts: of data clusters ... */
Place tref[NT];		/* ... of table clusters */
Place l1[NG];		/* 0, or table cluster + 1 */
Place tab[NT];		/* the one L2 entry of a table: 0, or host cluster + 1 */
Place data[NH];		/* one sector of each host cluster: where the watched one would be */
byte ro;		/* mask: the guest's pointer to these has no COPIED: shared, or compressed */
byte snap;		/* mask: a snapshot points to these */

#ifdef FRESH
Place autoclear;	/* 1: unknown autoclear bits are set */
Place header;		/* 0: names the old, small refcount table; 1: the new one */
Place newtab;		/* 1: the new refcount table is there */
Place oldref;		/* refcount of the old one */
Place entry;		/* 1: the new one names the refcount block, all of ref[] and tref[] */
#endif
#ifdef CLOSE
Place snaptab;		/* the header names: 0: the old snapshot table; 1: the new one, with the snapshot */
Place snapnew;		/* 1: the new one is there */
Place snapold;		/* refcount of the old one */
#endif

/*
 * What the watched sector can hold. OLD and MARK: before, and by, one write, any one; a later write of the same
 * sector would tell no more than writer 1's, which changes the cluster but not this sector.
 */
#define ZERO	0
#define OLD	1
#define MARK	2
#define FOREIGN	3	/* not guest cluster 0's */

byte phase;		/* of the marked write, or discard: 1 in flight, 2 done, 3 being flushed, 4 flushed */
byte since;		/* mask: contents of it, and of discards since */

/* ---- the kernel ---- */

bit opened;
byte map[NG];		/* 0, or host cluster + 1 */
typedef Op { byte guest, host }
Op op[2];		/* each writer's bio: guest cluster, host cluster + 1; a write to a new cluster if it is in taken */
byte lease, tlease;	/* proposed, not granted: data, tables */
byte tables;		/* granted tables */
byte pool, zero, taken;	/* granted; those that durably read as zeros; with the first write in flight */
byte delta, solid, left;	/* open generation: guests, those whose data must be durable first; exclusive hosts left */
byte sealed, sealed_left;	/* the sealed generation */
byte sealed_to[NG];
bit commit_q, unflushed;	/* COMMIT is unanswered; and is to flush the data too */
byte fence_x, fence_s;	/* behind the fence: exclusive; shared, which the worker remembers for FREE */
byte wait[NH];		/* writers whose bios each one waits for */
byte free_q;		/* FREE is unanswered: of this one */
#ifdef DROP_SEAL
bit flushed;
#endif
#ifdef DROP_LATE
byte late, late_to[NG];	/* a COMMIT that timed out, and that the worker has not begun */
#endif
#ifdef CLOSE
bit close_q;		/* CLOSE is unanswered */
byte back;		/* leases given back before it */
byte suspended;		/* 1: CLOSE is answered; 2, 3: a snapshot is being made */
#endif

/* ---- the worker's memory ---- */

mtype = { IDLE, OPEN, PROPOSE, GRANT, COMMIT, FREE, CLOSING }
mtype at = IDLE;
byte lost;		/* by the running COMMIT: not exclusive */
byte fresh;		/* table + 1, written, not in L1 */

byte leaked;		/* the model's note: a reference that nobody will drop */

byte i, j, m, x, p[NG];	/* scratch, 0 between steps */

#define SET(place, val)	place.now = val; place.may = BIT(val)
#define PUT(place, val)	place.now = val; place.may = place.may | BIT(place.now)

/* ---- what must hold ---- */

#ifdef FRESH
#define COVERED		(header.now && entry.now)
#define MAYBE_BARE	(HAS(header.may, 0) || HAS(entry.may, 0))
#else
#define COVERED		true
#define MAYBE_BARE	false
#endif
#ifdef CLOSE
#define SNAP_MAY	(HAS(snaptab.may, 1) -> snap : 0)
#else
#define SNAP_MAY	snap
#endif
#define REF(place)	(COVERED -> place.now : 0)
#define MINREF(place)	(MAYBE_BARE || HAS(place.may, 0) -> 0 : (HAS(place.may, 1) -> 1 : 2))

/* Every disk that a power cut may leave now. */
inline check_disk()
{
#ifdef FRESH
	assert(!HAS(header.may, 1) || newtab.may == BIT(1));	/* no table is named that is not there */
	assert(!HAS(header.may, 0) || oldref.may == BIT(1));
	for (i : 0 .. NH - 1) { assert(!HAS(entry.may, 1) || !HAS(ref[i].may, JUNK)) }
#endif
#ifdef CLOSE
	assert(!HAS(snaptab.may, 1) || snapnew.may == BIT(1));
	assert(!HAS(snaptab.may, 0) || snapold.may == BIT(1));
#endif
	for (i : 0 .. NG - 1) {
		p[i] = HAS(l1[i].may, 0);
		for (j : 0 .. NT - 1) {
			if :: HAS(l1[i].may, j + 1) ->
				assert(!HAS(tab[j].may, JUNK));
				assert(MINREF(tref[j]) >= 1);		/* refcount not below the pointers */
				p[i] = p[i] | tab[j].may
			   :: else fi
		}
	}
	assert((l1[0].may & l1[1].may & ~1) == 0);
	assert((p[0] & p[1] & ~1) == 0);				/* no host behind two guests */
	for (i : 0 .. NH - 1) {
		x = HAS(p[0] | p[1], i + 1) + HAS(SNAP_MAY, i);
		assert(MINREF(ref[i]) >= x);				/* refcount not below the pointers */
		if :: HAS(p[0], i + 1) ->
			assert(!HAS(data[i].may, FOREIGN));		/* nobody else's bytes */
			assert(phase < 4 || !(data[i].may & ~since))	/* what was flushed is there */
		   :: else fi
	}
	assert(phase < 4 || !HAS(p[0], 0) || HAS(since, ZERO))
}

/* What a read returns now. */
inline check_map()
{
	assert(!map[0] || map[0] != map[1]);
	x = (map[0] -> data[map[0] - 1].now : ZERO);
	assert(x != FOREIGN && (phase < 2 || HAS(since, x)))
}

/* Every reference is somebody's, so that a kill leaks nothing but a FREE in doubt. */
inline check_leaks()
{
	m = pool | taken | lease | left | sealed_left | fence_x | fence_s | lost | free_q | leaked;
#ifdef CLOSE
	m = m | back;
#endif
	for (i : 0 .. NG - 1) {
		if :: map[i] -> m = m | BIT(map[i] - 1) :: else fi;
		x = (l1[i].now -> tab[l1[i].now - 1].now : 0);
		if :: x -> m = m | BIT(x - 1) :: else fi
	}
	for (i : 0 .. NH - 1) { assert(REF(ref[i]) <= HAS(m, i) + HAS(snap, i)) }
	for (i : 0 .. NT - 1) { assert(REF(tref[i]) <= HAS(tables | tlease, i)) }
}

/*
 * Symmetry: which number a host cluster has means nothing, so they are sorted by what they are used for. Two that
 * look alike here and are not only cost states.
 */
#define KEY(h)	((map[0] == h + 1) + 2 * (map[1] == h + 1) + 4 * (op[0].host == h + 1) + 8 * (op[1].host == h + 1) + \
		 16 * (tab[0].now == h + 1) + 32 * (tab[1].now == h + 1) + 64 * HAS(pool, h) + 128 * HAS(zero, h) + \
		 256 * HAS(fence_x, h) + 512 * HAS(left, h) + 1024 * HAS(sealed_left, h) + 2048 * HAS(lease, h) + \
		 4096 * ref[h].now)
#define SWAP(v)		m = v[i]; v[i] = v[i + 1]; v[i + 1] = m
#define SWAP_NAME(v)	v = (v == i + 1 -> i + 2 : (v == i + 2 -> i + 1 : v))
#define SWAP_BITS(mask, n)	m = ((mask >> (n)) ^ (mask >> (n + 1))) & 1; mask = mask ^ ((3 * m) << (n))

inline sort()
{
	for (j : 0 .. 2) {
		i = (j == 1);
		if :: KEY(i) < KEY(i + 1) ->
			SWAP_NAME(map[0]); SWAP_NAME(map[1]);
			SWAP_NAME(sealed_to[0]); SWAP_NAME(sealed_to[1]);
			SWAP_NAME(op[0].host); SWAP_NAME(op[1].host);
			SWAP_NAME(tab[0].now); SWAP_NAME(tab[1].now);
			SWAP_BITS(tab[0].may, i + 1); SWAP_BITS(tab[1].may, i + 1);
			SWAP_BITS(ro, i); SWAP_BITS(snap, i); SWAP_BITS(lease, i); SWAP_BITS(pool, i); SWAP_BITS(zero, i);
			SWAP_BITS(taken, i); SWAP_BITS(left, i); SWAP_BITS(sealed_left, i); SWAP_BITS(fence_x, i);
			SWAP_BITS(fence_s, i); SWAP_BITS(free_q, i); SWAP_BITS(lost, i); SWAP_BITS(leaked, i);
#ifdef CLOSE
			SWAP_BITS(back, i);
#endif
#ifdef DROP_LATE
			SWAP_NAME(late_to[0]); SWAP_NAME(late_to[1]);
#endif
			SWAP(wait);
			m = ref[i].now; ref[i].now = ref[i + 1].now; ref[i + 1].now = m;
			m = ref[i].may; ref[i].may = ref[i + 1].may; ref[i + 1].may = m;
			m = data[i].now; data[i].now = data[i + 1].now; data[i + 1].now = m;
			m = data[i].may; data[i].may = data[i + 1].may; data[i + 1].may = m
		   :: else fi
	}
}

inline check()
{
	check_disk();
	check_map();
	check_leaks();
	sort();
	i = 0; j = 0; m = 0; x = 0; p[0] = 0; p[1] = 0
}

/* ---- writers ---- */

#define VALUE	(phase == 1 -> MARK : OLD)
#define CELL(g)	((op[0].host && op[0].guest == g && HAS(taken, op[0].host - 1)) || (op[1].host && op[1].guest == g && HAS(taken, op[1].host - 1)))
#define BUSY(h)	(op[0].host == h + 1 || op[1].host == h + 1)
#define IN_FLIGHT	((op[0].host != 0) + 2 * (op[1].host != 0))
#define PLAIN(g)	(map[g] && !HAS(ro, map[g] - 1))

/* It has told what it can: another write may be the marked one. */
inline unmark()
{
	phase = 0; since = 0;
	for (i : 0 .. NH - 1) {
		if :: data[i].now == MARK -> data[i].now = OLD :: else fi;
		if :: HAS(data[i].may, MARK) -> data[i].may = (data[i].may & ~BIT(MARK)) | BIT(OLD) :: else fi
	}
}

/* A write of writer 0 to guest cluster 0 covers the watched sector; mark: it is the one to be followed. */
inline begin(w, gg, mark)
{
#ifdef FRESH
	assert(autoclear.may == BIT(0));
#endif
	op[w].guest = gg;
	if :: w == 0 && gg == 0 && phase == 4 -> unmark() :: else fi;
	if :: mark -> phase = 1; since = BIT(MARK) :: else fi
}

inline in_place(w, gg, mark)
{
	begin(w, gg, mark);
	op[w].host = map[gg];
	assert(!HAS(snap, map[gg] - 1));
	if :: w == 0 && gg == 0 -> data[map[gg] - 1].may = data[map[gg] - 1].may | BIT(VALUE) :: else fi;
	check()
}

/* What lies in the watched place of a new cluster: the new bytes, a copy, zeros. */
#define MERGED(w, g)	(g == 1 -> FOREIGN : (w == 0 -> VALUE : (map[0] -> data[map[0] - 1].now : ZERO)))

inline allocate(w, gg, hosts, mark)
{
	j = LOWEST(hosts);
	assert(!BUSY(j));						/* not while a bio goes there */
	assert(map[0] != j + 1 && map[1] != j + 1 && !HAS(snap, j));	/* not while pointed to */
	begin(w, gg, mark);
	op[w].host = j + 1;
	pool = pool & ~BIT(j);
	taken = taken | BIT(j);
	if :: gg == 1 -> SET(data[j], FOREIGN) :: else -> data[j].may = data[j].may | BIT(MERGED(w, gg)) fi;
	check()
}

inline unmap(gg)
{
#ifdef DROP_REUSE
	if :: PLAIN(gg) -> fence_x = fence_x | BIT(map[gg] - 1); wait[map[gg] - 1] = IN_FLIGHT :: else fi;
#else
	if :: PLAIN(gg) -> left = left | BIT(map[gg] - 1) :: else fi;
#endif
#ifdef DROP_PUNCH
	if :: PLAIN(gg) -> PUT(data[map[gg] - 1], FOREIGN) :: else fi;
#endif
	map[gg] = 0;
	delta = delta | BIT(gg);
	solid = solid & ~BIT(gg)
}

inline discard(mark)
{
	if :: mark ->
		if :: phase == 4 -> unmark() :: else fi;
		phase = 2; since = BIT(ZERO)
	   :: else -> since = (phase -> since | BIT(ZERO) : 0) fi;
	unmap(0);
	check()
}

inline end_new(w)
{
	j = op[w].host - 1;
	data[j].now = MERGED(w, op[w].guest);
	x = !HAS(zero, j) || map[op[w].guest];	/* zeros there after a power cut would not do */
	unmap(op[w].guest);
	map[op[w].guest] = j + 1;
	solid = solid | (x -> BIT(op[w].guest) : 0);
	taken = taken & ~BIT(j);
	zero = zero & ~BIT(j)
}

inline end_bio(w)
{
	if :: HAS(taken, op[w].host - 1) -> end_new(w)
	   :: else ->
		if :: HAS(ro | fence_x, op[w].host - 1) -> skip	/* it was a read; nobody will look */
		   :: else -> data[op[w].host - 1].now = (op[w].guest == 1 -> FOREIGN : (w == 0 -> VALUE : data[op[w].host - 1].now)) fi
	fi;
	if :: w == 0 && op[w].guest == 0 && phase == 1 -> phase = 2 :: else fi;
	op[w].guest = 0; op[w].host = 0;
	for (i : 0 .. NH - 1) { wait[i] = wait[i] & ~BIT(w) };
	check()
}

/* Deltas lie only where the commit has a table for them. */
#define BARE(g)		(!l1[g].now)
#define CLAIMED(g)	(BARE(g) && (HAS(delta | sealed, g) || CELL(g)))
#define SPARE		(HAS(tables, 0) + HAS(tables, 1) - (l1[0].now != 0) - (l1[1].now != 0))
#define HAS_TABLE(g)	(!BARE(g) || CLAIMED(g) || SPARE > CLAIMED(0) + CLAIMED(1))
#ifdef FRESH
#define LIVE	(opened && HAS(l1[0].may | l1[1].may, 0))	/* what comes then is in the other configuration */
#else
#define LIVE	opened
#endif
#define IDLE_OP(w)	(LIVE && !op[w].host)
#define NEEDS_NEW(w, g)	(IDLE_OP(w) && !PLAIN(g) && !CELL(g) && HAS_TABLE(g))
#define MAY_WRITE(w)	(w == 1 || phase == 0 || phase == 4)	/* the watched guest cluster */
#ifdef FRESH	/* is about tables, not contents */
#define MAY_MARK(w)	false
#else
#define MAY_MARK(w)	(w == 0 && (phase == 0 || phase == 4))
#endif

proctype Writer(byte w)
{
end:	do
	:: d_step { IDLE_OP(w) && PLAIN(0) && MAY_WRITE(w) -> in_place(w, 0, false) }
	:: d_step { IDLE_OP(w) && PLAIN(0) && MAY_MARK(w) -> in_place(w, 0, true) }
	:: d_step { IDLE_OP(w) && PLAIN(1) -> in_place(w, 1, false) }
	:: d_step { NEEDS_NEW(w, 0) && (pool & zero) && MAY_WRITE(w) -> allocate(w, 0, pool & zero, false) }
	:: d_step { NEEDS_NEW(w, 0) && (pool & zero) && MAY_MARK(w) -> allocate(w, 0, pool & zero, true) }
	:: d_step { NEEDS_NEW(w, 1) && (pool & zero) -> allocate(w, 1, pool & zero, false) }
	:: d_step { NEEDS_NEW(w, 0) && (pool & ~zero) && MAY_WRITE(w) -> allocate(w, 0, pool & ~zero, false) }
	:: d_step { NEEDS_NEW(w, 0) && (pool & ~zero) && MAY_MARK(w) -> allocate(w, 0, pool & ~zero, true) }
	:: d_step { NEEDS_NEW(w, 1) && (pool & ~zero) -> allocate(w, 1, pool & ~zero, false) }
	/* reads matter where the fence is all that keeps their place: exclusive ones are like writes in place */
	:: d_step { w == 1 && IDLE_OP(1) && map[0] && !PLAIN(0) -> op[1].guest = 0; op[1].host = map[0] }
	:: d_step { w == 1 && IDLE_OP(1) && map[1] && !PLAIN(1) -> op[1].guest = 1; op[1].host = map[1] }
	:: d_step { op[w].host -> end_bio(w) }
	od
}

proctype Discarder()
{
end:	do
	:: d_step { LIVE && map[0] && !CELL(0) -> discard(false) }
	:: d_step { LIVE && map[0] && !CELL(0) && MAY_MARK(0) && (op[0].guest || !op[0].host) -> discard(true) }
	:: d_step { LIVE && map[1] && !CELL(1) -> unmap(1); check() }
	od
}

/* ---- the kernel's side of upcalls ---- */

/* What is complete is durable; what is in flight may still come. */
inline flush_data()
{
	for (i : 0 .. NH - 1) { data[i].may = (HAS(taken, i) -> data[i].may : BIT(data[i].now)) }
	if :: op[0].host && !op[0].guest && !HAS(ro | taken, op[0].host - 1) ->
		data[op[0].host - 1].may = data[op[0].host - 1].may | BIT(VALUE)
	   :: else fi
}

inline seal()
{
	sealed = delta; sealed_left = left; unflushed = !(delta & solid);
#ifdef DROP_DATA
	unflushed = 1;
#endif
	for (i : 0 .. NG - 1) { sealed_to[i] = (HAS(delta, i) -> map[i] : 0) }
	delta = 0; left = 0; solid = 0
}

inline flush_starts()	/* a FLUSH that came at the last moment; one that came earlier is promised less */
{
	phase = (phase == 2 -> 3 : phase)
}

inline flush_ends()
{
	if :: phase == 4 && HAS(since, ZERO) && HAS(since, MARK) -> unmark()
	   :: else -> phase = (phase == 3 -> 4 : phase) fi
}

inline behind_fence(h)
{
#ifdef DROP_FENCE
	wait[h] = 0
#else
	wait[h] = IN_FLIGHT
#endif
}

inline committed()
{
	for (i : 0 .. NH - 1) { if :: HAS(sealed_left | lost, i) -> behind_fence(i); SET(data[i], FOREIGN) :: else fi }
	fence_x = fence_x | sealed_left;
	fence_s = fence_s | lost;
	sealed = 0; sealed_left = 0; lost = 0; sealed_to[0] = 0; sealed_to[1] = 0; commit_q = 0; unflushed = 0;
	flush_ends()
}

#define PASSED(set, h)	(HAS(set, h) && !wait[h])

inline recycle(h)	/* punched, or with what was in it */
{
	assert(!BUSY(h));
	fence_x = fence_x & ~BIT(h);
	pool = pool | BIT(h);
#ifdef DROP_ZERO
	zero = zero | BIT(h);
#endif
	check()
}

inline send_free(h)
{
	fence_s = fence_s & ~BIT(h);
	free_q = BIT(h)
}

#ifdef DROP_FREE_ORDER
#define FREEABLE(h)	(HAS(fence_s, h) && (PASSED(fence_s, 0) || PASSED(fence_s, 1) || PASSED(fence_s, 2)))
#else
#define FREEABLE(h)	PASSED(fence_s, h)
#endif

proctype Kernel()
{
end:	do
#ifdef DROP_SEAL
	:: d_step { opened && delta && !commit_q && !flushed -> flush_starts(); flush_data(); flushed = 1; check() }
	:: d_step { flushed -> flushed = 0; seal(); unflushed = 0; commit_q = 1; check() }
#else
	:: d_step { opened && delta && !commit_q ->
		flush_starts();
		seal();
		if :: unflushed -> skip :: else -> flush_data() fi;
		commit_q = 1;
		check()
	   }
#endif
#ifdef DROP_LATE
	:: d_step { commit_q && !late -> late = sealed; late_to[0] = sealed_to[0]; late_to[1] = sealed_to[1] }
#endif
	/* no deltas: a plain flush, but not past a commit that runs */
#ifdef DROP_FLUSH_ORDER
	:: d_step { phase == 2 && !delta -> flush_data(); phase = 4; check() }
#else
	:: d_step { phase == 2 && !delta && !commit_q -> flush_data(); phase = 4; check() }
#endif
	:: d_step { PASSED(fence_x, 0) -> recycle(0) }
	:: d_step { PASSED(fence_x, 1) -> recycle(1) }
	:: d_step { PASSED(fence_x, 2) -> recycle(2) }
	:: d_step { !free_q && FREEABLE(0) -> send_free(0) }
	:: d_step { !free_q && FREEABLE(1) -> send_free(1) }
	:: d_step { !free_q && FREEABLE(2) -> send_free(2) }
	od
}

/* ---- the worker ---- */

inline sync()
{
#ifdef FRESH
	SET(autoclear, autoclear.now); SET(header, header.now); SET(newtab, newtab.now); SET(oldref, oldref.now);
	SET(entry, entry.now);
#endif
#ifdef CLOSE
	SET(snaptab, snaptab.now); SET(snapnew, snapnew.now); SET(snapold, snapold.now);
#endif
	for (i : 0 .. NH - 1) { SET(ref[i], ref[i].now) }
	for (i : 0 .. NT - 1) { SET(tref[i], tref[i].now); SET(tab[i], tab[i].now) }
	for (i : 0 .. NG - 1) { SET(l1[i], l1[i].now) }
	i = 0
}

#define MAY(what)	(at == IDLE || at == what)	/* one at a time */

/* The worker is killed at any moment; the next one attaches, and is told lease, tlease and tables. */
inline die()
{
	leaked = leaked | lost | fence_s;
#ifdef DROP_FREE_ONCE
	at = IDLE;
#else
	leaked = leaked | (at == FREE -> 0 : free_q);
	free_q = 0;
#endif
#ifdef CLOSE
	for (i : 0 .. NH - 1) { if :: HAS(back, i) && ref[i].now -> leaked = leaked | BIT(i) :: else fi }
	back = 0;
#endif
#ifdef DROP_RECORD
	lease = 0; tlease = 0;
#endif
#ifdef DROP_LATE
	late = 0; late_to[0] = 0; late_to[1] = 0;
#endif
	at = IDLE; lost = 0; fence_s = 0; fresh = 0;
#ifndef DROP_ADOPT
	sync();
	/* A leak shows nothing that a host cluster not used does not show: reclaim it. */
	for (i : 0 .. NH - 1) {
		if :: HAS(leaked, i) && !BUSY(i) ->
			SET(ref[i], HAS(snap, i)); ro = ro & ~BIT(i); leaked = leaked & ~BIT(i); wait[i] = 0
		   :: else fi
	}
#endif
	check()
}

#define FREE_HOST(h)	(REF(ref[h]) == 0)
#define FREE_TABLE(t)	(REF(tref[t]) == 0)
#define WANTED		(FREE_TABLE(0) && SPARE < BARE(0) + BARE(1) -> 1 : (FREE_TABLE(1) && SPARE < BARE(0) + BARE(1) -> 2 : 0))

inline propose()	/* nothing is written; the kernel records the answer */
{
	tlease = WANTED;
	lease = (FREE_HOST(0) -> 1 : (FREE_HOST(1) -> 2 : (FREE_HOST(2) -> 4 : 0)));
	check()
}

#define TO_GRANT(h)	(HAS(lease, h) && !ref[h].now)
#define TO_GRANT_T(t)	(HAS(tlease, t) && !tref[t].now)
#define GRANT_LEFT	(TO_GRANT(0) || TO_GRANT(1) || TO_GRANT(2) || TO_GRANT_T(0) || TO_GRANT_T(1))

inline granted()
{
#ifndef DROP_GRANT
	sync();
#endif
	for (i : 0 .. NH - 1) {
		if :: HAS(lease, i) -> assert(!BUSY(i)); SET(data[i], ZERO) :: else fi
	}
	pool = pool | lease; zero = zero | lease; tables = tables | tlease; lease = 0; tlease = 0;
	at = IDLE;
	check()
}

#define TABLE_OF(g)	(l1[g].now - 1)
#define DIFFERS(g)	(HAS(sealed, g) && (l1[g].now -> tab[TABLE_OF(g)].now != sealed_to[g] : sealed_to[g] != 0))
/* Its refcount is 1, and no L1 entry names it: that is all a new worker can know. */
#define RESERVE(t)	(HAS(tables | tlease, t) && tref[t].now == 1 && l1[0].now != t + 1 && l1[1].now != t + 1)

inline put_entry(gg)
{
	at = COMMIT;
	x = tab[TABLE_OF(gg)].now;
	if :: x && HAS(ro, x - 1) ->
#ifdef DROP_FREE
		PUT(ref[x - 1], ref[x - 1].now - 1);
#else
		lost = lost | BIT(x - 1);
#endif
	   :: else fi;
	PUT(tab[TABLE_OF(gg)], sealed_to[gg]);
	check()
}

inline put_table(gg, t)
{
	at = COMMIT;
	PUT(tab[t], sealed_to[gg]);
	fresh = t + 1;
	check()
}

inline put_l1(gg)
{
#ifndef DROP_L2_TABLE
	sync();
#endif
	PUT(l1[gg], fresh);
	fresh = 0;
	check()
}

inline answer_commit()
{
#ifndef DROP_COMMIT
	sync();
	if :: unflushed -> flush_data() :: else fi;
#endif
	at = IDLE;
	committed();
	check()
}

inline lower(h)
{
	at = FREE;
	if :: ref[h].now -> PUT(ref[h], ref[h].now - 1) :: else fi;
	ro = ro & ~BIT(h);
	check()
}

#ifdef CLOSE
inline closed()
{
#ifndef DROP_CLOSE
	sync();
#endif
	at = IDLE; close_q = 0; tables = 0; suspended = 1;
	for (i : 0 .. NG - 1) { if :: l1[i].now -> tables = tables | BIT(TABLE_OF(i)) :: else fi }
	/* clean means that nothing is leaked, on no disk */
	for (i : 0 .. NH - 1) {
		assert(ref[i].may == BIT((map[0] == i + 1 || map[1] == i + 1) + HAS(snap, i) + HAS(leaked, i)))
	}
	for (i : 0 .. NT - 1) { assert(tref[i].may == BIT(HAS(tables, i))) }
	check()
}
#endif

#define COMMIT_STEP(g)	(commit_q && !free_q && MAY(COMMIT) && !fresh && DIFFERS(g))

proctype Worker()
{
end:	do
#ifdef FRESH
	:: d_step { !opened && autoclear.now -> at = OPEN; PUT(autoclear, 0) }
	:: d_step { !opened && !autoclear.now ->
#ifndef DROP_AUTOCLEAR
		if :: at == OPEN -> sync() :: else fi;	/* another worker may find nothing to clear */
#endif
		at = IDLE; opened = 1
	   }
	:: d_step { opened && MAY(PROPOSE) && !newtab.now ->
		assert(autoclear.may == BIT(0));
		at = PROPOSE; PUT(newtab, 1); check() }
	:: d_step { opened && MAY(PROPOSE) && newtab.now && !header.now ->
#ifndef DROP_REFTABLE
		sync();
#endif
		at = PROPOSE; PUT(header, 1); check()
	   }
	:: d_step { at == PROPOSE && header.now && oldref.now ->
#ifndef DROP_REFTABLE_USED
		sync();
#endif
		PUT(oldref, 0); check()
	   }
	:: d_step { opened && MAY(PROPOSE) && header.now && !(at == PROPOSE && oldref.now) && ref[0].now == JUNK ->
		at = PROPOSE;
		for (i : 0 .. NH - 1) { PUT(ref[i], 0) }
		for (i : 0 .. NT - 1) { PUT(tref[i], 0) }
		check()
	   }
	:: d_step { opened && MAY(PROPOSE) && header.now && ref[0].now != JUNK && !entry.now ->
#ifndef DROP_REFBLOCK
		sync();
#endif
		PUT(entry, 1); at = IDLE; check()
	   }
#endif
	:: d_step { opened && at == IDLE && COVERED && !pool && !lease && !tlease && (WANTED || FREE_HOST(0) || FREE_HOST(1) || FREE_HOST(2)) ->
		propose()
	   }
	:: d_step { MAY(GRANT) && TO_GRANT(0) -> at = GRANT; PUT(ref[0], 1); check() }
	:: d_step { MAY(GRANT) && TO_GRANT(1) -> at = GRANT; PUT(ref[1], 1); check() }
	:: d_step { MAY(GRANT) && TO_GRANT(2) -> at = GRANT; PUT(ref[2], 1); check() }
	:: d_step { MAY(GRANT) && TO_GRANT_T(0) -> at = GRANT; PUT(tref[0], 1); check() }
	:: d_step { MAY(GRANT) && TO_GRANT_T(1) -> at = GRANT; PUT(tref[1], 1); check() }
	:: d_step { MAY(GRANT) && (lease || tlease) && !GRANT_LEFT -> granted() }

	:: d_step { COMMIT_STEP(0) && l1[0].now -> put_entry(0) }
	:: d_step { COMMIT_STEP(0) && !l1[0].now && RESERVE(0) -> put_table(0, 0) }
	:: d_step { COMMIT_STEP(0) && !l1[0].now && RESERVE(1) -> put_table(0, 1) }
	:: d_step { at == COMMIT && fresh && DIFFERS(0) -> put_l1(0) }
	:: d_step { COMMIT_STEP(1) && !DIFFERS(0) && l1[1].now -> put_entry(1) }
	:: d_step { COMMIT_STEP(1) && !DIFFERS(0) && !l1[1].now && RESERVE(0) -> put_table(1, 0) }
	:: d_step { COMMIT_STEP(1) && !DIFFERS(0) && !l1[1].now && RESERVE(1) -> put_table(1, 1) }
	:: d_step { at == COMMIT && fresh && !DIFFERS(0) && DIFFERS(1) -> put_l1(1) }
	:: d_step { commit_q && !free_q && MAY(COMMIT) && !DIFFERS(0) && !DIFFERS(1) -> answer_commit() }

#ifdef DROP_LATE
	:: d_step { late && at == IDLE ->
		for (i : 0 .. NG - 1) {
			if :: HAS(late, i) ->
				x = tab[TABLE_OF(i)].now;
				if :: x && x != late_to[i] && HAS(ro, x - 1) -> lost = lost | BIT(x - 1) :: else fi;
				PUT(tab[TABLE_OF(i)], late_to[i])
			   :: else fi
		}
		late = 0; late_to[0] = 0; late_to[1] = 0;
		check()
	   }
#endif

	:: d_step { free_q && at == IDLE -> j = LOWEST(free_q); lower(j) }
	:: d_step { at == FREE -> free_q = 0; at = IDLE; check() }

#ifdef CLOSE
	:: d_step { close_q && MAY(CLOSING) && HAS(back, 0) -> at = CLOSING; back = back & ~1; PUT(ref[0], 0); check() }
	:: d_step { close_q && MAY(CLOSING) && HAS(back, 1) -> at = CLOSING; back = back & ~2; PUT(ref[1], 0); check() }
	:: d_step { close_q && MAY(CLOSING) && HAS(back, 2) -> at = CLOSING; back = back & ~4; PUT(ref[2], 0); check() }
	:: d_step { close_q && MAY(CLOSING) && !back && RESERVE(0) -> at = CLOSING; PUT(tref[0], 0); check() }
	:: d_step { close_q && MAY(CLOSING) && !back && RESERVE(1) -> at = CLOSING; PUT(tref[1], 0); check() }
	:: d_step { close_q && MAY(CLOSING) && !back && !RESERVE(0) && !RESERVE(1) -> closed() }
#endif
	:: d_step { at != IDLE || lost || fence_s || free_q -> die() }
	od
}

#ifdef CLOSE
#define QUIET	(!IN_FLIGHT && !delta && !commit_q && !fence_x && !fence_s && !free_q)

proctype Suspender()
{
end:	do
	:: d_step { opened && QUIET ->
		opened = 0; close_q = 1;
		back = pool | lease; tables = tables | tlease;
		pool = 0; zero = 0; lease = 0; tlease = 0;
		check()
	   }
	/* the device is suspended and the image belongs to others, who make a snapshot, or not */
	:: d_step { suspended == 1 -> suspended = 0; opened = 1 }
	:: d_step { suspended == 1 && !snaptab.now && (map[0] || map[1]) ->
		suspended = 2;
		for (i : 0 .. NG - 1) {
			if :: map[i] -> PUT(ref[map[i] - 1], 2); ro = ro | BIT(map[i] - 1); snap = snap | BIT(map[i] - 1) :: else fi
		}
		PUT(snapnew, 1);
		check()
	   }
	:: d_step { suspended == 2 ->
#ifndef DROP_TABLE
		sync();
#endif
		suspended = 3;
		PUT(snaptab, 1);
		check()
	   }
	:: d_step { suspended == 3 ->
#ifndef DROP_HEADER
		sync();
#endif
		PUT(snapold, 0);
		check();
		sync();
		suspended = 0; opened = 1
	   }
	od
}
#endif

init {
	atomic {
#ifdef FRESH
		d_step {
			autoclear.now = 1; autoclear.may = 2;
			SET(header, 0); SET(newtab, 0); SET(oldref, 1); SET(entry, 0);
			for (i : 0 .. NH - 1) { SET(ref[i], JUNK); SET(data[i], FOREIGN) }
			for (i : 0 .. NT - 1) { SET(tref[i], JUNK); SET(tab[i], JUNK) }
			for (i : 0 .. NG - 1) { SET(l1[i], 0) }
			i = 0
		}
#else
		d_step {
			for (i : 0 .. NH - 1) { SET(ref[i], 0); SET(data[i], FOREIGN) }
			for (i : 0 .. NT - 1) { SET(tref[i], 1); SET(tab[i], 0) }
			for (i : 0 .. NG - 1) { SET(l1[i], i + 1) }
			tables = 3;
			opened = 1;
#ifdef CLOSE
			SET(snaptab, 0); SET(snapnew, 0); SET(snapold, 1);
#endif
			i = 0
		}
#ifndef CLOSE
		/* what a snapshot, or compression, left */
		if :: d_step { SET(ref[0], 1); SET(data[0], OLD); SET(tab[0], 1); map[0] = 1; ro = 1 }
		   :: d_step { SET(ref[0], 2); SET(data[0], OLD); SET(tab[0], 1); map[0] = 1; ro = 1; snap = 1 }
		   :: true
		fi;
		if :: d_step { SET(ref[1], 1); SET(tab[1], 2); map[1] = 2; ro = ro | 2 }
		   :: d_step { SET(ref[1], 2); SET(tab[1], 2); map[1] = 2; ro = ro | 2; snap = snap | 2 }
		   :: true
		fi;
#endif
#endif
		run Writer(0); run Writer(1); run Discarder(); run Kernel(); run Worker();
#ifdef CLOSE
		run Suspender()
#endif
	}
}
