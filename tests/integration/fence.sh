#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A read that is on its way when its block is discarded sees what was there, or zeros, never what somebody else
# writes to the same place on the disk: that is used again only when the read has ended.
# vm: --disk 64M
# shellcheck disable=SC2154 # use_disk sets its first
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires qemu-img qemu-io python3 blkdiscard xxd

# As many clusters.
ROUNDS=${ROUNDS:-4}

# slow_reads OFFSET LENGTH MS: from this part of disk1, as /dev/mapper/slow
slow_reads() {
	local first=$(($1 / 512)) nr=$(($2 / 512)) sectors
	sectors=$(blockdev --getsz "$disk1")
	dmsetup create slow <<-TABLE
		0 $first linear $disk1 0
		$first $nr delay $disk1 $first $3 $disk1 $first 0
		$((first + nr)) $((sectors - first - nr)) linear $disk1 $((first + nr))
	TABLE
}

drop_slow() {
	[ ! -b /dev/mapper/slow ] || dmsetup remove slow
}

fill() { # fill BYTE
	head -c 65536 /dev/zero | tr '\0' "\\$(printf %o "$1")"
}

under_way() { # under_way PID: or at its end already
	[ "$(counter f in_flight)" -ge 1 ] || ! kill -0 "$1"
}

one_round() { # one_round ROUND: with the cluster of that number
	local reader
	dd if=/dev/mapper/f of="$SCRATCH/got" bs=64k count=1 skip="$1" iflag=direct status=none &
	reader=$!
	eventually 60 under_way "$reader"
	# -f: or it looks for file systems first, by slow reads.
	blkdiscard -f -o $(($1 << 16)) -l 65536 /dev/mapper/f 2>/dev/null
	sync -d /dev/mapper/f
	# Somebody else takes whatever is to be had.
	head -c 524288 /dev/zero | tr '\0' '\231' | dd of=/dev/mapper/f bs=64k count=8 seek=$((100 + $1 * 8)) \
		iflag=fullblock oflag=direct conv=nocreat status=none
	! kill -0 "$reader" 2>/dev/null || in_time=$((in_time + 1))
	wait "$reader"
	cmp -s "$SCRATCH/got" <(fill 0x11) || cmp -s "$SCRATCH/got" <(head -c 65536 /dev/zero) ||
		fail "round $1: a read got another's bytes: $(xxd "$SCRATCH/got" | head -n 1)"
}

# all_rounds MS: that a read takes. Sets in_time: how many took longer than what came meanwhile.
all_rounds() {
	local place round
	in_time=0
	qemu-img create -q -f qcow2 "$disk1" 32M
	qemu-io -f qcow2 -c "write -q -P 0x11 0 $((ROUNDS * 64))k" "$disk1"
	place=$(qemu-img map -f qcow2 --output=json "$disk1" | python3 -c 'import json, sys
print(json.load(sys.stdin)[0]["offset"])')
	slow_reads "$place" $((ROUNDS * 65536)) "$1"
	open_rw f /dev/mapper/slow
	for ((round = 0; round < ROUNDS; round++)); do
		one_round "$round"
	done
	close_rw f
	checked /dev/mapper/slow
	dmsetup remove slow
	note "$in_time of $ROUNDS reads of $1 ms were on their way"
}

use_disk disk1 1 64M
modprobe -q dm-delay || true
cleanup drop_slow
cleanup drop_rw f
for ms in 2000 8000 30000; do
	all_rounds "$ms"
	[ "$in_time" = 0 ] || exit 0
done
fail "the machine is too slow for this"
