#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Memory is short: more dirty pages than there is memory, in a small control group and in the whole of a small
# machine, on a file system on the device, whose image is a file; and swap on a device that is all allocated and mapped
# (docs/dm-qcow.rst), for a process that needs more than there is. All goes on, while helpers are killed, and every byte
# is right.
# LONG= is for how many seconds.
# vm: --disk 1G --disk 1G --mem 320
# timeout: 600
# full-timeout: 2700
# shellcheck disable=SC2154 # use_disk sets its first
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires mkfs.ext4 qemu-img python3
in_vm || skip "needs a machine with little memory"

[ "${LEVEL-}" != full ] || LONG=${LONG:-1800}
# And at least one round.
LONG=${LONG:-0}
GROUP=/sys/fs/cgroup/qcowtest
GROUP_MIB=24 IN_GROUP_MIB=64
MEMORY_MIB=$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo)

# stream SEED MIB: every page of it differs from every other
stream() {
	python3 -c 'import random, sys
seed, mib = int(sys.argv[1]), int(sys.argv[2])
tail = random.Random(seed).randbytes(4088)
for n in range(0, mib * 256, 256):
    sys.stdout.buffer.write(b"".join(i.to_bytes(8, "big") + tail for i in range(n, n + 256)))' "$1" "$2"
}

filled_right() { # filled_right FILE SEED MIB
	stream "$2" "$3" | cmp "$1" - || fail "$1 is wrong"
}

in_a_group() { # in_a_group SEED
	mkdir "$GROUP"
	echo $((GROUP_MIB << 20)) >"$GROUP/memory.max"
	(
		echo "$BASHPID" >"$GROUP/cgroup.procs"
		stream "$1" "$IN_GROUP_MIB" >"$SCRATCH/mnt/group"
	)
	sync -f "$SCRATCH/mnt/group"
	[ "$(awk '$1 == "max" { print $2 }' "$GROUP/memory.events")" -gt 0 ] || fail "the group's memory was enough"
	filled_right "$SCRATCH/mnt/group" "$1" "$IN_GROUP_MIB"
	rmdir "$GROUP"
}

# Dirty pages in most of the memory there is, time and again, and no helper.
in_all_memory() { # in_all_memory SEED
	local mib=$((MEMORY_MIB + 50))
	stream "$1" "$mib" >"$SCRATCH/mnt/all"
	kill_helpers both
	sync -f "$SCRATCH/mnt/all"
	filled_right "$SCRATCH/mnt/all" "$1" "$mib"
	rm "$SCRATCH/mnt/group" "$SCRATCH/mnt/all"
	fstrim "$SCRATCH/mnt"
	sync -f "$SCRATCH/mnt"
}

swapped_out() {
	awk '$1 == "pswpout" { print $2 }' /proc/vmstat
}

# Needs more than the machine has, and looks at all of it again. It is nobody's business but the kernel's.
swapping() {
	local before upcalls
	before=$(swapped_out)
	upcalls=$(counter p1 upcalls)
	kill_helpers both
	python3 -c 'import random, sys
pages = [bytearray(random.Random(i).randbytes(4096)) * 256 for i in range(int(sys.argv[1]))]
for i, page in enumerate(pages):
    if page != random.Random(i).randbytes(4096) * 256:
        raise SystemExit("a page came back wrong")' $((MEMORY_MIB * 5 / 4))
	# At least a quarter of the memory, in pages.
	[ $(($(swapped_out) - before)) -gt $((MEMORY_MIB * 64)) ] || fail "hardly anything was swapped out"
	equal "what the helper of the swap device was asked" $(($(counter p1 upcalls) - upcalls)) 0
}

no_swap() {
	! grep -q '^/dev/' <(tail -n +2 /proc/swaps) || swapoff -a
}

use_disk disk1 1 1G
use_disk disk2 2 1G
cleanup drop_rw p1
mkfs.ext4 -q "$disk1"
mkdir "$SCRATCH/below" "$SCRATCH/mnt"
mount "$disk1" "$SCRATCH/below"
cleanup umount "$SCRATCH/below"
cleanup drop_rw p0
qemu-img create -q -f qcow2 "$SCRATCH/below/image" 800M
qemu-img create -q -f qcow2 -o preallocation=metadata "$disk2" 600M
open_rw p0 "$SCRATCH/below/image" --helper-timeout 300
open_rw p1 "$disk2"
dd if="$(node p1)" of=/dev/null bs=1M iflag=direct status=none
mkfs.ext4 -q "$(node p0)"
mount "$(node p0)" "$SCRATCH/mnt"
cleanup umount -q "$SCRATCH/mnt"
mkswap "$(node p1)" >/dev/null
swapon "$(node p1)"
cleanup no_swap
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
echo 60 >/proc/sys/vm/dirty_ratio
echo 50 >/proc/sys/vm/dirty_background_ratio
rounds=0
while [ "$rounds" = 0 ] || [ "$SECONDS" -lt "$LONG" ]; do
	rounds=$((rounds + 1))
	in_a_group "$rounds"
	in_all_memory "$rounds"
	swapping
	note "round $rounds ended after $SECONDS s"
done
no_swap
umount "$SCRATCH/mnt"
e2fsck -fn "$(node p0)" >/dev/null
equal "errors" "$(counter p0 errors) $(counter p1 errors)" "0 0"
[ "$(counter p0 helper_deaths)" -ge "$rounds" ] || fail "$(counter p0 helper_deaths) deaths of helpers in $rounds rounds"
note "$rounds rounds in $SECONDS s: $(dmsetup status p0)"
close_rw p0
close_rw p1
umount "$SCRATCH/below"
mount "$disk1" "$SCRATCH/below"
checked "$SCRATCH/below/image" leaks
checked "$disk2" leaks
