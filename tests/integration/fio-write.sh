#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# fio writes, reads back and verifies: four jobs with random sizes, many at once, mixed with reads, on an image whose
# clusters are shared with a snapshot. Then again while allocations of the kernel's workers fail at random, which
# nobody may notice; and last random operations while requests to the disk fail at random, when what failed may have
# happened or not, and nothing else is wrong. A kernel that makes no faults is given the first part only.
# The environment changes the run: MIB= of each job, ROUNDS= of failing requests, SEED=.
# kernels: debug
# vm: --disk 1G --mem 2048
# timeout: 150
# full-timeout: 1500
# shellcheck disable=SC2154 # use_disk sets its first
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires fio qemu-img qemu-io model

if [ "${LEVEL-}" = full ]; then
	MIB=${MIB:-100} ROUNDS=${ROUNDS:-40}
fi
MIB=${MIB:-2} ROUNDS=${ROUNDS:-2} SEED=${SEED:-7}
FAULTS=/sys/kernel/debug MANY=1000000000
marker=

# new BYTE: an image of which half of what will be written is that byte, and shared with a snapshot
new() {
	qemu-img create -q -f qcow2 "$disk1" $((MIB * 6))M
	qemu-io -f qcow2 -c "write -q -P $1 0 $((MIB * 2))M" "$disk1"
	qemu-img snapshot -c s "$disk1"
}

# Each job ends in the cluster where the next one begins.
verify() {
	fio --name=w --filename=/dev/mapper/w --direct=1 --ioengine=libaio --iodepth=16 --numjobs=4 --rw=randrw \
		--rwmixread=25 --bsrange=512-256k --blockalign=512 --size="${MIB}M" \
		--offset_increment=$(((MIB << 20) + 512)) --verify=crc32c --verify_fatal=1 --fsync=32 \
		--group_reporting --randseed="$SEED" --output="$SCRATCH/fio" || {
		cat "$SCRATCH/fio"
		fail "fio"
	}
	grep -qE 'write: IOPS=' "$SCRATCH/fio" || fail "fio wrote nothing"
}

# knobs KIND NAME=VALUE...: of a kind of fault
knobs() {
	local knob
	for knob in interval=1 verbose=0 times=-1 "${@:2}"; do
		echo "${knob#*=}" >"$FAULTS/$1/${knob%%=*}"
	done
}

# Of the workers only: whatever fio itself asks for may fail it.
allocations_fail() { # allocations_fail PERCENT
	knobs failslab task-filter=Y ignore-gfp-wait=N times="$MANY" probability="$1"
	knobs fail_page_alloc task-filter=Y ignore-gfp-wait=N min-order=0 times="$MANY" probability="$1"
}

# Since allocations_fail.
failed_of() { # failed_of KIND
	echo $((MANY - $(cat "$FAULTS/$1/times")))
}

# Workers come and go.
mark_workers() {
	local pid
	while :; do
		for pid in $(pgrep kworker); do
			echo 1 2>/dev/null >"/proc/$pid/make-it-fail" || true
		done
		sleep 0.5
	done
}

no_more_failures() {
	allocations_fail 0
	[ -n "$marker" ] || return 0
	kill "$marker"
	wait "$marker" || true
	marker=''
}

# Of the disk below only.
requests_fail() { # requests_fail PERCENT
	knobs fail_make_request task-filter=N probability="$1"
	echo $((!!$1)) >"/sys/block/${disk1#/dev/}/make-it-fail"
}

# Without memory for the list it should be on, a freed cluster is forgotten: it leaks, and is counted.
sound() { # sound WHEN
	dmsetup suspend w
	no_more_leaks_than_counted w "$disk1"
	checked "$disk1" leaks
	dmsetup resume w
	equal "errors" "$(counter w errors)" 0
	equal "mode" "$(state w mode)" RW
	close_rw w
	note "$1: verified ($SECONDS s)"
}

without_faults() {
	new 0x11
	open_rw w "$disk1"
	verify
	sound "without faults"
	checked "$disk1"
}

while_allocations_fail() {
	local slabs pages
	new 0x11
	open_rw w "$disk1"
	cleanup no_more_failures
	mark_workers &
	marker=$!
	allocations_fail 10
	verify
	slabs=$(failed_of failslab) pages=$(failed_of fail_page_alloc)
	note "$slabs allocations of slabs and $pages of pages have failed"
	if [ "$slabs" = 0 ] || [ "$pages" = 0 ]; then
		fail "not both kinds of allocation have failed"
	fi
	no_more_failures
	sound "while allocations failed"
}

# The snapshot is zeros, which is what the model begins with.
while_requests_fail() {
	local round errors=0
	cleanup requests_fail 0
	for ((round = 1; round <= ROUNDS; round++)); do
		new 0
		rm -f "$SCRATCH/state"
		open_rw w "$disk1"
		requests_fail 1
		model run --failures --seed $((SEED + round)) --ops 200 --state "$SCRATCH/state" /dev/mapper/w
		requests_fail 0
		errors=$((errors + $(counter w errors)))
		note "round $round: $(state w mode), $(counter w errors) errors ($SECONDS s)"
		model verify --state "$SCRATCH/state" /dev/mapper/w
		qcow close w --force
		checked "$disk1" leaks
	done
	[ "$errors" -gt 0 ] || fail "no request has failed"
}

use_disk disk1 1 1G
cleanup drop_rw w
without_faults
if [ -e "$FAULTS/failslab" ]; then
	while_allocations_fail
	while_requests_fail
else
	note "only without faults: this kernel makes none, debug does"
fi
