#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# 200 times open and close, and 50 devices at once, leave no process, descriptor, lock or device behind; memory is
# kmemleak's business, which looks after the test, when the module is gone.
# kernels: debug
# vm: --mem 2048
# host: tests/images/matrix chain-8
# timeout: 300
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"

CYCLES=200
AT_ONCE=50
IMAGE=$IMAGES_AT/chain-8

# What must be the same before and after, as text: so a difference says what it is.
inventory() {
	local pid
	echo "qcowd: $(helpers | wc -l)"
	for pid in $(supervisors); do
		echo "descriptors of $pid: $(find "/proc/$pid/fd" -mindepth 1 | wc -l)"
		echo "threads of $pid: $(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)"
	done
	echo "devices: $(dmsetup ls)"
	echo "locks: $(grep -c OFDLCK /proc/locks)"
	echo "users of the module: $(cat /sys/module/dm_qcow/refcnt)"
}

settled() {
	inventory >"$SCRATCH/after"
	cmp -s "$SCRATCH/before" "$SCRATCH/after"
}

# A closed device's worker may take a moment to go.
nothing_left() {
	local end=$((SECONDS + 30))
	until settled; do
		[ "$SECONDS" -lt "$end" ] || {
			diff "$SCRATCH/before" "$SCRATCH/after" || true
			fail "something stayed behind"
		}
		sleep 0.5
	done
}

read_some() {
	cmp -n 65536 "/dev/mapper/$1" "$IMAGE/raw"
}

cycles() { # cycles NAME NUMBER
	local i
	for ((i = 0; i < $2; i++)); do
		qcow open "$1" "$IMAGE/image" --read-only
		read_some "$1"
		qcow close "$1"
		echo >>"$SCRATCH/cycles-$1"
	done
}

# Some at a time, which is how they get in each other's way.
many_cycles() {
	local i pids=() at_a_time=4
	for ((i = 0; i < at_a_time; i++)); do
		cleanup drop_device "c$i"
		cycles "c$i" $((CYCLES / at_a_time)) &
		pids+=($!)
	done
	wait_all "${pids[@]}"
	equal "cycles" "$(cat "$SCRATCH"/cycles-* | wc -l)" "$CYCLES"
}

wait_all() {
	local pid
	for pid; do
		wait "$pid" || fail "a part failed"
	done
}

on_all() { # on_all COMMAND-TAKING-A-NAME...
	local i part pids=()
	for part in 0 1; do
		for ((i = part; i < AT_ONCE; i += 2)); do
			"$@" "m$i"
		done &
		pids+=($!)
	done
	wait_all "${pids[@]}"
}

open_one() {
	qcow open "$1" "$IMAGE/image" --read-only
}

all_at_once() {
	local i
	for ((i = 0; i < AT_ONCE; i++)); do
		cleanup drop_device "m$i"
	done
	on_all open_one
	equal "workers" "$(workers | wc -l)" "$AT_ONCE"
	on_all read_some
	equal "attached" "$(dmsetup status --target qcow | grep -c ' attached open ')" "$AT_ONCE"
	on_all qcow close
}

use_images chain-8
cycles warm-up 2
rm "$SCRATCH/cycles-warm-up"
eventually 10 test -z "$(workers)"
inventory >"$SCRATCH/before"
cat "$SCRATCH/before"
many_cycles
nothing_left
note "$CYCLES cycles: nothing is left"
all_at_once
nothing_left
note "$AT_ONCE devices at once: nothing is left"
