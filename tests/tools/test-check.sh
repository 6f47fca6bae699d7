#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow check beside qemu-img check: verdicts, fields and exit codes on damaged images, and what repairs leave.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

io='qemu-io -f qcow2'
damage=$REPO/tests/tools/damage.py

fields() { tr -d ' \t' <"$1" | tr ',' '\n' | grep -E '^"(check-errors|corruptions|leaks|.*-clusters|image-end-offset)"' | sort; }

# verdict NAME: after run_both of a check with --output=json
verdict() {
	local why=''
	[ "$mine" = "$theirs" ] || why="exit status $mine, qemu-img $theirs; $(head -n 1 ours.err)"
	[ -n "$why" ] || why=$(diff <(fields qemu.out) <(fields ours.out) | tr '\n' ' ') || true
	if [ -n "$why" ]; then fail "$1" "$why"; else ok "$1"; fi
}

# repaired NAME: after run_both of a repair. Ours is sound, and shows what QEMU's does. It may succeed where QEMU's fails
# or leaves what it cannot open itself; then ours shows what it did before the damage.
repaired() {
	local why=''
	[ "$mine" = "$theirs" ] || [ "$mine$theirs" = 01 ] || why="exit status $mine, qemu-img $theirs; $(head -n 1 ours.err)"
	[ -n "$why" ] || [ "$mine" != 0 ] || why=$(sound ours/i)
	if [ -z "$why" ] && ! qemu-img info qemu/i >/dev/null 2>&1; then
		rm -r qemu
		cp -a whole qemu
	fi
	[ -n "$why" ] || why=$(same_disk i)
	if [ -n "$why" ]; then fail "$1" "$why"; else ok "$1"; fi
}

# cases NAME MAKE: the image i, sound and damaged in each way
cases() {
	local what
	for what in sound $damages; do
		make_images "$2" || { fail "check/$1/$what" "$(tail -n 1 log)"; continue; }
		rm -rf whole
		cp -a qemu whole
		[ $what = sound ] || for d in qemu ours; do "$damage" $d/i $what; done
		run_both 'TOOL check -f qcow2 --output=json i'
		verdict "check/$1/$what"
		run_both 'TOOL check -f qcow2 -r all i'
		repaired "check/$1/$what/repaired"
	done
}

damages='leak too-high too-low l2-too-low copied l1-copied no-refblock refblock-past-end data-on-refblock new-area hole no-reftable'
for o in compat=0.10 compat=1.1 cluster_size=4k extended_l2=on; do
	cases $o "qemu-img create -f qcow2 -o $o i 4M && $io -c 'write -P 7 0 1M' i"
done
full && for o in cluster_size=512 cluster_size=2M cluster_size=4k,compat=0.10 cluster_size=16k,extended_l2=on; do
	cases $o "qemu-img create -f qcow2 -o $o i 40M && $io -c 'write -P 7 0 30M' i"
done
cases snapshots "qemu-img create -f qcow2 i 4M && $io -c 'write -P 7 0 1M' i && qemu-img snapshot -c a i &&
	$io -c 'write -P 8 640k 64k' i"
damages='dirty corrupt no-reftable-clusters'
cases marks "qemu-img create -f qcow2 i 4M && $io -c 'write -P 7 0 1M' i"
# The header as the refcount table: an entry with reserved bits that points nowhere is two findings for us, one for QEMU.
make_images "qemu-img create -f qcow2 i 4M && $io -c 'write -P 7 0 1M' i"
rm -rf whole
cp -a qemu whole
for d in qemu ours; do "$damage" $d/i reftable-is-header; done
run_both 'TOOL check -f qcow2 i'
if [ $mine = 2 ] && [ $theirs = 2 ]; then ok check/reftable-is-header; else
	fail check/reftable-is-header "exit status $mine, qemu-img $theirs"
fi
run_both 'TOOL check -f qcow2 -r all i'
repaired check/reftable-is-header/repaired
# Entries that no repair makes good, neither QEMU's nor ours: said, before and after. Of two that name one cluster only the
# refcounts are wrong.
for what in data-past-end unaligned-data compressed-copied two-point-to-one; do
	c='' after=2
	[ $what != compressed-copied ] || c=-c
	[ $what != two-point-to-one ] || after=0
	make_images "qemu-img create -f qcow2 i 4M && $io -c 'write $c -P 7 0 64k' -c 'write -P 7 64k 960k' i"
	for d in qemu ours; do "$damage" $d/i $what; done
	seen=''
	for options in '' '-r all' ''; do
		run_both "TOOL check -f qcow2 $options i"
		seen+=" $mine$theirs"
	done
	if [ "$seen" = " 22 $after$after $after$after" ]; then ok check/$what; else
		fail check/$what "exit statuses, and qemu-img's, before, of and after the repair:$seen"
	fi
done

# Only leaks: -r leaks gives them back, and touches nothing of worse damage.
make_images "qemu-img create -f qcow2 i 4M && $io -c 'write -P 7 0 1M' i"
for d in qemu ours; do "$damage" $d/i leak; done
run_both 'TOOL check -q -f qcow2 i'
if [ $mine = 3 ] && [ $theirs = 3 ]; then ok check/leaks; else fail check/leaks "exit status $mine, qemu-img $theirs"; fi
run_both 'TOOL check -r leaks -f qcow2 i'
repaired check/leaks/repaired
for d in qemu ours; do "$damage" $d/i too-low; done
run_both 'TOOL check -r leaks -q -f qcow2 i || true; TOOL check -q -f qcow2 i'
if [ $mine = 2 ] && [ $theirs = 2 ]; then ok check/leaks/damage-stays; else fail check/leaks/damage-stays "exit status $mine, qemu-img $theirs"; fi

# Refcounts made anew go where nobody is, not behind the end: a block device has no more.
make_images "qemu-img create -f qcow2 i 4M && $io -c 'write -P 7 0 1M' i"
"$damage" ours/i hole
size=$(stat -c %s ours/i)
"$QCOW" check -q -r all ours/i || fail check/hole-is-filled "exit status $?"
if [ "$(stat -c %s ours/i)" = "$size" ]; then ok check/hole-is-filled; else fail check/hole-is-filled "$(stat -c %s ours/i) bytes, not $size"; fi

# Many references to one cluster: more than a byte counts.
make_images "qemu-img create -f qcow2 i 2M && $io -c 'write -P 7 0 2M' i && for n in \$(seq 270); do qemu-img snapshot -c \$n i || exit; done"
run_both 'TOOL check -f qcow2 --output=json i'
verdict check/270-snapshots

# What QEMU does not see: a cluster that does not decompress, a zero flag in version 2; a missing base is no obstacle.
qemu-img create -q -f qcow2 z 1M && $io -c 'write -c -P 7 0 64k' z >log && "$damage" z compressed-bytes
status=0 data=0
"$QCOW" check -q z || status=$?
"$QCOW" check -q --data z || data=$?
if [ $status$data = 02 ]; then ok check/data; else fail check/data "exit status $status, with --data $data"; fi
make_images "qemu-img create -f qcow2 -o compat=0.10 i 4M && $io -c 'write -P 7 0 1M' i"
"$damage" ours/i zero-flag
status=0
qemu-img check -q ours/i || status=$?
run_both 'TOOL check -r all i'
if [ $status$mine = 02 ] && grep -q 'version 2' ours.out; then ok check/zero-flag; else
	fail check/zero-flag "exit status $mine, qemu-img $status: $(head -n 1 ours.out)"
fi
qemu-img create -q -f qcow2 -u -b missing -F raw over 1M
if "$QCOW" check -q over; then ok check/no-base; else fail check/no-base "exit status $?"; fi

# The keys of an encrypted image are in use, too; to count them no key is needed. LUKS measures how fast the processor is,
# which may fail on a busy one.
luks=encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10
for try in 1 2 3 4 5 last; do
	qemu-img create -q -f qcow2 --object secret,id=s,data=x -o $luks luks 1M 2>err && break
	[ $try != last ] || { cat err; exit 1; }
done
qemu-io --object secret,id=s,data=x --image-opts -c 'write 0 300k' driver=qcow2,file.filename=luks,encrypt.key-secret=s >log
if "$QCOW" check luks >out 2>&1 && grep -q 'No errors' out; then ok check/luks; else fail check/luks "$(head -n 2 out)"; fi

# A chain that bites its tail: info shows one image, and the chain is refused.
qemu-img create -q -f qcow2 x 1M && qemu-img create -q -f qcow2 -b x -F qcow2 y && qemu-img rebase -u -b y -F qcow2 x
status=0
"$QCOW" info x >log && timeout 10 "$QCOW" check -q x || status=$?
if [ $status = 0 ] && ! timeout 10 "$QCOW" info --backing-chain x >log 2>err && grep -q loop err; then ok check/loop; else
	fail check/loop "$status: $(cat err)"
fi

"$QCOW" check -p z >log 2>err
if grep -q '100.0/100%' err; then ok check/progress; else fail check/progress "$(cat err)"; fi

# Exit codes 1 and 63.
for want in '1 missing' '63 raw' '1 -f qcow2 raw' '63 -f raw raw'; do
	head -c 65536 /dev/zero >raw
	status=0
	# shellcheck disable=SC2086
	"$QCOW" check ${want#* } >out 2>err || status=$?
	if [ $status = "${want%% *}" ] && [ "$(wc -l <err)" = 1 ]; then ok "check/status-${want// /-}"; else
		fail "check/status-${want// /-}" "exit status $status: $(cat err)"
	fi
done

# 16 TiB within 512 MiB, wherever its clusters lie.
"$damage" far far
cat >limit.py <<'EOP'
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
print(f"exit status {status}, {used} MiB")
sys.exit(status or used > 512)
EOP
if timeout 300 python3 limit.py "$QCOW" check -q far >out 2>&1; then ok check/16-tib-in-512-mib; else
	fail check/16-tib-in-512-mib "$(cat out)"
fi
finish
