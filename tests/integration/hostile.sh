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
requires qemu-img strace

POKES=$TESTS/../build/hostile
nr_read=0 nr_refused=0 nr_either=0

# refused_clearly FOLDER: whatever comes of it, one line says why, and what else it has to say.
refused_clearly() {
	[ "$(wc -l <"$SCRATCH/said")" = 1 ] && grep -q '^qcow: ' "$SCRATCH/said" || return
	[ ! -f "$1/says" ] || grep -qF "$(cat "$1/says")" "$SCRATCH/said"
}

read_device() { # read_device NAME FOLDER
	blockdev --setra 0 /dev/mapper/p
	if [ -f "$2/want" ]; then
		cmp /dev/mapper/p "$2/want" || fail "$1: other bytes"
		return
	fi
	# EIO is as good as data; a hang is not.
	timeout 60 dd if=/dev/mapper/p of=/dev/null bs=64k count=256 conv=noerror status=none 2>/dev/null ||
		[ $? != 124 ] || fail "$1: the read hangs"
}

try_poke() { # try_poke NAME FOLDER EXPECT
	if ! timeout 60 qcow open p "$2/top" --read-only --helper-timeout 20 2>"$SCRATCH/said" </dev/null; then
		[ "$3" != read ] || fail "$1: refused: $(cat "$SCRATCH/said")"
		refused_clearly "$2" || fail "$1: not one clear line: $(cat "$SCRATCH/said")"
		nr_refused=$((nr_refused + 1))
		return
	fi
	[ "$3" != refused ] || fail "$1: should have been refused"
	read_device "$1" "$2"
	qcow close p
	[ "$3" = read ] && nr_read=$((nr_read + 1)) || nr_either=$((nr_either + 1))
}

# All that the helper and its children open, from here on. Only while images name other files: tracing is slow.
watch_opens() {
	strace -f -qq -e trace=open,openat,openat2,name_to_handle_at -o "$SCRATCH/opens" -p "$(supervisors | head -n 1)" &
	tracer=$!
	cleanup kill "$tracer"
	eventually 60 test -e "$SCRATCH/opens"
	sleep 1
}

# Relative ones lie in a folder that was opened before.
check_opens() {
	local paths=$SCRATCH/paths allowed
	kill "$tracer"
	wait "$tracer" || true
	sed -nE 's/^[0-9]+ +(<\.\.\. )?[a-z0-9_]+\([^"]*"(\/[^"]*)".*/\2/p' "$SCRATCH/opens" | sort -u >"$paths"
	grep -qF "$SCRATCH/pokes/" "$paths" || fail "strace saw no image being opened"
	allowed="^($SCRATCH/pokes(/[^/]+){1,2}|/(proc|sys|lib|usr/lib|dev/mapper)/.*|/etc/(qcow\.conf|ld\.so\.cache)|/dev/null)\$"
	! grep -vE "$allowed" "$paths" || fail "the helper opened these"
	note "$(wc -l <"$paths") paths opened by the helper, all of them its business"
}

[ -d "$POKES" ] || "$TESTS/hostile/stage" "$TESTS/.."
qemu-img create -q -f qcow2 "$SCRATCH/good" 4M
qemu-io -f qcow2 -c 'write -q -P 0x33 0 4M' "$SCRATCH/good"
open_device good "$SCRATCH/good"
helper=$(workers)
cleanup drop_device p
# A copy: direct I/O wants a file system, and QEMU's bytes were read before.
cp -r "$POKES" "$SCRATCH/pokes"
dmesg --clear
shopt -s extglob
naming='@(backing-|data-file-|114-)*'
watch_opens
# shellcheck disable=SC2086 # a pattern
for folder in "$SCRATCH"/pokes/$naming; do
	try_poke "${folder##*/}" "$folder" "$(cat "$folder/expect")"
done
check_opens
for folder in "$SCRATCH"/pokes/*; do
	# shellcheck disable=SC2053 # a pattern
	[[ ${folder##*/} == $naming ]] || try_poke "${folder##*/}" "$folder" "$(cat "$folder/expect")"
done
note "$nr_read read, $nr_refused refused, $nr_either read in part"
[ $((nr_read + nr_refused + nr_either)) -ge 170 ] || fail "fewer pokes than there should be"
if [ "$nr_read" -lt 30 ] || [ "$nr_refused" -lt 60 ]; then
	fail "too few of one kind"
fi
equal "the good device's helper" "$(workers)" "$helper"
dmsetup message good 0 drop_caches
head -c 4M /dev/zero | tr '\0' '\063' >"$SCRATCH/want"
same_bytes /dev/mapper/good "$SCRATCH/want"
