#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Bad blocks under image and base, as disks have them: reading one fails until it is written. Debian's cloud kernels
# have no dm-dust.
# kernels: debug
# level: full
# vm: --disk 64M
# shellcheck disable=SC2154 # use_disk sets its first
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires qemu-img python3

BLOCK=4096

# place_of NUMBER: where that cluster of the image is, in blocks of the disk
place_of() {
	qemu-img map -U -f qcow2 --output=json /dev/mapper/dusty | python3 -c 'import json, sys
at = int(sys.argv[1]) * 65536
print([e["offset"] + at - e["start"] for e in json.load(sys.stdin) if e["start"] <= at < e["start"] + e["length"]][0])' "$1"
}

go_bad() { # go_bad OFFSET
	dmsetup message dusty 0 addbadblock "$(($1 / BLOCK))"
}

cluster() { # cluster if=|of= NUMBER [COUNT OF 4 KiB]
	if [ "$1" = if= ]; then
		dd if=/dev/mapper/d of=/dev/null bs=4k count="${3-16}" skip=$(($2 * 16)) iflag=direct status=none
	else
		dd if=/dev/zero of=/dev/mapper/d bs="$((${3-16} * 4))k" count=1 seek=$(($2 * 65536)) oflag=direct,seek_bytes \
			conv=nocreat status=none
	fi
}

io_error() {
	refused "$@"
	grep -q 'Input/output error' "$SCRATCH/said" || fail "$*: $(cat "$SCRATCH/said")"
}

# failed_at OFFSET: reading the disk there is what failed last
failed_at() {
	qcow status d | grep -x "  failed:  read: $(dust_name) at byte $1: Input/output error" || fail "$(qcow status d)"
	equal mode "$(state d mode)" RW
}

dust_name() {
	echo "dm-$(dmsetup info -c --noheadings -o minor dusty)"
}

use_disk disk1 1 64M
modprobe -q dm-dust || true
dmsetup targets | grep -q '^dust ' || fail "this kernel has no dm-dust"
dmsetup create dusty --table "0 $(blockdev --getsz "$disk1") dust $disk1 0 $BLOCK"
cleanup dmsetup remove --force dusty
cleanup drop_rw d
qemu-img create -q -f qcow2 /dev/mapper/dusty 16M
qemu-io -f qcow2 -c 'write -q -P 0x61 0 1M' /dev/mapper/dusty
first=$(place_of 1) second=$(place_of 2)
blockdev --flushbufs /dev/mapper/dusty
go_bad $((first + 8 * BLOCK))
go_bad "$second"
dmsetup message dusty 0 enable

note "under the image"
open_rw d /dev/mapper/dusty
io_error cluster if= 1
failed_at $((first + 8 * BLOCK))
cluster if= 1 8
io_error cluster if= 2 1
failed_at "$second"
# Written, it is a good one.
cluster of= 1
cluster if= 1
close_rw d

note "under the base: a copy fails, a whole cluster needs none"
go_bad $((first + 8 * BLOCK))
qemu-img create -q -f qcow2 -b /dev/mapper/dusty -F qcow2 "$SCRATCH/top"
open_rw d "$SCRATCH/top" --backing /dev/mapper/dusty --backing-format qcow2
io_error cluster of= 1 1
failed_at "$first"
cluster of= 1
cluster if= 1
io_error cluster if= 2
failed_at "$second"
cluster of= 3 1
close_rw d
dmsetup message dusty 0 disable
checked /dev/mapper/dusty
checked "$SCRATCH/top"
equal "what QEMU reads" "$(qemu-io -r -f qcow2 -c 'read -q -P 0 64k 64k' -c 'read -q -P 0x61 128k 64k' \
	-c 'read -q -P 0 192k 4k' -c 'read -q -P 0x61 196k 60k' "$SCRATCH/top" 2>&1)" ''
