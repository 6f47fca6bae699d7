#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Every poke of tests/hostile/pokes.py, and every format of foreign.py, as a device: it is refused with one line, or read
# whole, byte for byte or with EIO; the kernel is silent, and a device that was there before all of them goes on. No
# helper opens any file but the image's own folder's and the system's.
# vm: --mem 1536
# kernels: 6.12
# host: tests/hostile/stage
# timeout: 600
# full-timeout: 1500
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires qemu-img strace python3

POKES=$TESTS/../build/hostile
MEMORY=$((256 << 20)) SECONDS_OF_CPU=2 HZ=$(getconf CLK_TCK)
# The VM's processor is emulated and shared; check-pokes holds the same code to 2 s on a real one.
! in_vm || SECONDS_OF_CPU=8
nr_read=0 nr_in_part=0 nr_refused=0 most_memory=0 most_time=0

# refused_clearly FOLDER: whatever comes of it, one line says why, and what else it has to say.
refused_clearly() {
	[ "$(wc -l <"$SCRATCH/said")" = 1 ] && grep -q '^qcow: ' "$SCRATCH/said" || return
	[ ! -f "$1/says" ] || grep -qF "$(cat "$1/says")" "$SCRATCH/said"
}

# count_ticks: of all processes of the helper that have ended, and of the one that starts them; in $ticks
count_ticks() {
	local field
	read -ra field <"/proc/$supervisor/stat"
	ticks=$((field[13] + field[14] + field[15] + field[16]))
}

# Of what opened it; who refused it is gone, and held by the control group.
note_memory() {
	local kib
	kib=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$(workers | grep -vxF "$helper")/status")
	[ "$kib" -le $((MEMORY >> 10)) ] || fail "$1: $kib KiB of memory"
	[ "$kib" -le "$most_memory" ] || most_memory=$kib
}

note_time() {
	count_ticks
	ticks=$((ticks - $2))
	[ "$ticks" -le $((SECONDS_OF_CPU * HZ)) ] || fail "$1: the helper computes for $ticks ticks"
	[ "$ticks" -le "$most_time" ] || most_time=$ticks
}

read_device() { # read_device FOLDER
	if [ "$(wc -l <"$1/bad")" = 1 ]; then
		cmp /dev/mapper/p "$1/want"
		return
	fi
	nr_in_part=$((nr_in_part + 1))
	timeout 60 "$TESTS/hostile/read-device" /dev/mapper/p "$1"
}

try_poke() { # try_poke FOLDER
	local name=${1##*/} expect before
	expect=$(<"$1/expect")
	count_ticks
	before=$ticks
	if ! timeout 60 qcow open p "$1/top" --read-only --helper-timeout 20 2>"$SCRATCH/said" </dev/null; then
		[ "$expect" != read ] || fail "$name: refused: $(cat "$SCRATCH/said")"
		refused_clearly "$1" || fail "$name: not one clear line: $(cat "$SCRATCH/said")"
		nr_refused=$((nr_refused + 1))
	else
		[ "$expect" != refused ] || fail "$name: should have been refused"
		read_device "$1" >"$SCRATCH/said" 2>&1 || fail "$name: $(cat "$SCRATCH/said")"
		note_memory "$name"
		qcow close p
		nr_read=$((nr_read + 1))
	fi
	# Being traced costs more.
	[ -f "$1/traced" ] || note_time "$name" "$before"
}

# 256 MiB for the helper and all its workers, also those that are gone before one can look.
limit_memory() {
	local pid group=/sys/fs/cgroup/hostile
	mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir "$group"
	echo "$MEMORY" >"$group/memory.max"
	# Later processes are born there. It stays with them, without its limit.
	cleanup eval "echo max >$group/memory.max"
	for pid in $(helpers); do
		echo "$pid" >"$group/cgroup.procs"
	done
	events=$group/memory.events
}

# All that the helper and its children open, from here on. Only while images name other files: tracing is slow.
watch_opens() {
	strace -f -y -qq -e trace=open,openat,openat2,name_to_handle_at -o "$SCRATCH/opens" -p "$supervisor" &
	tracer=$!
	cleanup kill "$tracer"
	eventually 60 test -e "$SCRATCH/opens"
	sleep 1
}

# However they were named: what the descriptors are.
check_opens() {
	local paths=$SCRATCH/paths allowed
	kill "$tracer"
	wait "$tracer" || true
	python3 "$TESTS/hostile/tools.py" "$SCRATCH/opens" >"$paths"
	grep -qF "$SCRATCH/pokes/" "$paths" || fail "strace saw no image being opened"
	allowed="^($SCRATCH/pokes(/[^/]+){1,2}|/(proc|sys|lib|usr/lib|dev/mapper)/.*|/etc/(qcow\.conf|ld\.so\.cache)|/dev/null)\$"
	! grep -vE "$allowed" "$paths" || fail "the helper opened these"
	note "$(wc -l <"$paths") paths opened by the helper, all of them its business"
}

# Our own lines say which image was refused, and why; and a busy host shows in its clocks.
kernel_is_silent() {
	local known='device-mapper: (qcow|table|ioctl): |qcow_[a-z_]+: [0-9]+ callbacks suppressed|hrtimer: interrupt took|clocksource: '
	! dmesg | grep -vE "^\[[^]]*\](\[[^]]*\])? ($known)" || fail "the kernel said more than it should"
}

[ -d "$POKES" ] || "$TESTS/hostile/stage" "$TESTS/.."
qemu-img create -q -f qcow2 "$SCRATCH/good" 4M
qemu-io -f qcow2 -c 'write -q -P 0x33 0 4M' "$SCRATCH/good"
open_device good "$SCRATCH/good"
helper=$(workers) supervisor=$(supervisors | head -n 1)
cleanup drop_device p
# A copy: direct I/O wants a file system, and QEMU's bytes were read before.
cp -r "$POKES" "$SCRATCH/pokes"
dmesg --clear
limit_memory
watch_opens
for folder in "$SCRATCH"/pokes/*; do
	[ ! -f "$folder/traced" ] || try_poke "$folder"
done
check_opens
for folder in "$SCRATCH"/pokes/*; do
	[ -f "$folder/traced" ] || try_poke "$folder"
done
kernel_is_silent
equal "times that the helper had no memory" "$(sed -n 's/^oom //p' "$events")" 0
note "$nr_read read, $nr_in_part of them in part, $nr_refused refused; at most $most_memory KiB, $most_time ticks"
[ $((nr_read + nr_refused)) -ge 170 ] || fail "fewer pokes than there should be"
if [ "$nr_read" -lt 60 ] || [ "$nr_in_part" -lt 15 ] || [ "$nr_refused" -lt 60 ]; then
	fail "too few of one kind"
fi
equal "the good device's helper" "$(workers)" "$helper"
dmsetup message good 0 drop_caches
head -c 4M /dev/zero | tr '\0' '\063' >"$SCRATCH/want"
same_bytes /dev/mapper/good "$SCRATCH/want"
