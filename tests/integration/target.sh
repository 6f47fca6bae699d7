#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What dm users expect of any target: a table line that loads again, events, messages, RWF_NOWAIT, a module that stays
# while it is used, limits, flushes, writes that are refused, polling, and memory.
# timeout: 300
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires fio python3 qemu-io qemu-img

SECTORS=131072

image() {
	qemu-img create -q -f qcow2 "$1" $((SECTORS * 512))
	qemu-io -f qcow2 -c 'write -q -P 0x11 0 1M' -c 'write -q -P 0x22 40M 4M' "$1"
}

table_line() {
	local odd=$SCRATCH/a,b%c:d line
	image "$odd"
	# libdevmapper and the kernel between them let no blank through.
	cp "$odd" "$SCRATCH/a b"
	refused qcow table "$SCRATCH/a b"
	grep -q 'use a symlink' "$SCRATCH/said" || fail "said: $(cat "$SCRATCH/said")"
	cleanup drop_device d
	line=$(qcow table "$odd" --helper-timeout 7)
	dmsetup create d --readonly --table "$line"
	equal "the table" "$(dmsetup table d)" "$line"
	dmsetup remove d
	dmsetup create d --readonly --table "$line"
	equal "the first byte" "$(od -An -tx1 -N1 /dev/mapper/d | tr -d ' ')" 11
	dmsetup remove d
}

# wait_event COMMAND...: runs it, and a dm event must come
wait_event() {
	local nr
	nr=$(dmsetup info -c --noheadings -o events d)
	timeout 20 dmsetup wait d "$nr" &
	local waiter=$!
	"$@"
	wait "$waiter" || fail "no event: $*"
}

kill_worker() {
	kill -KILL "$(workers)"
}

read_fails() {
	! dd if=/dev/mapper/d of=/dev/null bs=4k count=1 skip=1000 iflag=direct status=none 2>/dev/null ||
		fail "reading should have failed"
}

attached() {
	[ "$(state d helper)" = attached ]
}

# An L2 entry with a host offset that is no multiple of the cluster: one bad block, its neighbours are fine.
io_error() {
	local bad=$SCRATCH/bad
	image "$bad"
	python3 - "$bad" <<-'PY'
		import struct, sys
		with open(sys.argv[1], "r+b") as f:
		    head = f.read(48)
		    l1 = struct.unpack(">Q", head[40:48])[0]
		    f.seek(l1)
		    l2 = struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00
		    f.seek(l2 + 8 * 3)
		    f.write(struct.pack(">Q", 0x8000000000123400))
	PY
	open_device d "$bad"
	wait_event bad_block
	equal "errors" "$(counter d errors)" 1
	cmp -n 196608 /dev/mapper/d <(tr '\0' '\21' </dev/zero | head -c 196608)
	qcow close d
}

bad_block() {
	! dd if=/dev/mapper/d of=/dev/null bs=64k skip=3 count=1 iflag=direct status=none 2>"$SCRATCH/said" ||
		fail "a corrupt entry was read"
	grep -q 'Input/output error' "$SCRATCH/said"
}

events() {
	image "$SCRATCH/image"
	open_device d "$SCRATCH/image"
	wait_event kill_worker
	eventually 10 attached
	equal "deaths" "$(counter d helper_deaths)" 1
	wait_event dmsetup message d 0 mode fail
	equal "mode" "$(state d mode)" FAIL
	read_fails
	# One way only.
	dmsetup message d 0 mode ro
	equal "mode" "$(state d mode)" FAIL
	# A new table starts afresh.
	dmsetup load d --readonly --table "$(dmsetup table d)"
	dmsetup resume d
	equal "mode" "$(state d mode)" RO
	refused dmsetup message d 0 mode rw
	refused dmsetup message d 0 nonsense
	qcow close d
}

caches() {
	open_device d "$SCRATCH/image"
	cmp -n 1048576 /dev/mapper/d <(tr '\0' '\21' </dev/zero | head -c 1048576)
	[ "$(counter d map_pages)" -ge 1 ] || fail "nothing is mapped after a read"
	dmsetup message d 0 drop_caches
	equal "pages after drop_caches" "$(counter d map_pages)" 0
	equal "bytes after drop_caches" "$(counter d map_bytes)" 0
	blockdev --flushbufs /dev/mapper/d
	cmp -n 1048576 /dev/mapper/d <(tr '\0' '\21' </dev/zero | head -c 1048576)
	equal "loads" "$(counter d loads)" 2
}

# A read that must not wait is served all the same when it misses: EAGAIN for a part of a request would reach users of
# io_uring if another part was on its way already.
nowait() {
	dmsetup message d 0 drop_caches
	python3 - /dev/mapper/d <<-'PY'
		import mmap, os, sys
		fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
		buf = mmap.mmap(-1, 4096)
		for _ in range(2):
		    buf[:] = bytes(4096)
		    assert os.preadv(fd, [buf], 40 << 20, os.RWF_NOWAIT) == 4096 and buf[:] == b"\x22" * 4096
	PY
}

limits() {
	equal "sector size" "$(blockdev --getss /dev/mapper/d)" 512
	equal "sectors" "$(blockdev --getsz /dev/mapper/d)" "$SECTORS"
	equal "read-only" "$(blockdev --getro /dev/mapper/d)" 1
	equal "discard" "$(lsblk -bno DISC-MAX /dev/mapper/d | tr -d ' ')" 0
}

module_stays() {
	refused rmmod dm-qcow
	qcow close d
}

# A table that was loaded for writing takes writes, and leaves a clean image.
writes() {
	cleanup drop_device w
	dmsetup create w --table "$(qcow table "$SCRATCH/image")"
	equal "mode" "$(state w mode)" RW
	equal "the first byte" "$(od -An -tx1 -N1 /dev/mapper/w | tr -d ' ')" 11
	head -c 4096 /dev/zero | tr '\0' '\167' | dd of=/dev/mapper/w bs=4k count=1 iflag=fullblock oflag=direct conv=fsync status=none
	equal "the byte written" "$(od -An -tx1 -N1 /dev/mapper/w | tr -d ' ')" 77
	equal "the byte behind" "$(od -An -tx1 -j4096 -N1 /dev/mapper/w | tr -d ' ')" 11
	dmsetup remove w
	qemu-img check -q -f qcow2 "$SCRATCH/image"
	qemu-io -r -f qcow2 -c 'read -P 0x77 0 4096' "$SCRATCH/image" >/dev/null
}

# Nor is a write refused that must not wait, wherever it goes: to a place of its own, to a new one, to what is not loaded.
nowait_writes() {
	cleanup drop_device w
	qcow open w "$SCRATCH/image"
	python3 - /dev/mapper/w <<-'PY'
		import mmap, os, sys
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
		buf = mmap.mmap(-1, 4096)
		for mib in (0, 10, 0, 60, 40):
		    buf[:] = bytes([mib + 1]) * 4096
		    assert os.pwritev(fd, [buf], mib << 20, os.RWF_NOWAIT) == 4096
		    buf[:] = bytes(4096)
		    assert os.preadv(fd, [buf], mib << 20) == 4096 and buf[:] == bytes([mib + 1]) * 4096
	PY
	equal "errors" "$(counter w errors)" 0
	qcow close w
}

# Who polls finds what was sent on at once; what had to wait, and goes out in pieces, comes back by interrupt.
polled() {
	local null=/sys/kernel/config/nullb/polled device
	modprobe -q null_blk nr_devices=0
	mkdir "$null"
	cleanup rmdir "$null"
	echo 256 >"$null/size"
	echo 1 >"$null/memory_backed"
	echo 1 >"$null/poll_queues"
	echo 1 >"$null/power"
	device=/dev/nullb$(cat "$null/index")
	qemu-img create -q -f qcow2 "$device" 128M
	cleanup drop_device w
	qcow open w "$device"
	equal "polling" "$(cat "/sys/block/$(dmsetup info -c --noheadings -o blkdevname w)/queue/io_poll")" 1
	timeout 120 fio --name=polled --filename=/dev/mapper/w --ioengine=io_uring --hipri=1 --direct=1 --rw=randrw --bs=192k \
		--size=96M --iodepth=8 --verify=crc32c --minimal >"$SCRATCH/fio" 2>&1 ||
		fail "fio: $(tail -n 5 "$SCRATCH/fio")"
	qcow close w
	qemu-img check -q -f qcow2 "$device"
}

# What the kernel cannot give back, in KiB.
kernel_memory() {
	awk '/^(SUnreclaim|VmallocUsed|Percpu):/ { sum += $2 } END { print sum }' /proc/meminfo
}

# memory_of OPTION-OF-qcow-open...: sets kib to what one device takes, its worker included
memory_of() {
	local i before
	before=$(kernel_memory)
	for i in 1 2 3 4 5 6 7 8; do
		qemu-img create -q -f qcow2 "$SCRATCH/m$i" 1M
		cleanup drop_device "m$i"
		qcow open "m$i" "$SCRATCH/m$i" "$@"
	done
	kib=$((($(kernel_memory) - before) / 8))
	for i in 1 2 3 4 5 6 7 8; do
		qcow close "m$i"
	done
}

# What only writing needs, room for 32,768 deltas above all, a read-only table does not take; one that is loaded later
# for writing does.
memory() {
	local kib read_only
	memory_of --read-only
	memory_of --read-only
	read_only=$kib
	memory_of
	note "kernel memory of a device: $read_only KiB read-only, $kib KiB for writing"
	[ $((kib - read_only)) -ge 768 ] || fail "a read-only device takes as much as one for writing"
	qcow open w "$SCRATCH/image" --read-only
	refused dd if=/dev/zero of=/dev/mapper/w bs=4k count=1 oflag=direct
	dmsetup load w --table "$(dmsetup table w)"
	dmsetup resume w
	dd if=/dev/zero of=/dev/mapper/w bs=1M count=8 seek=20 oflag=direct conv=fsync status=none
	qcow close w
	qemu-img check -q -f qcow2 "$SCRATCH/image"
}

table_line
io_error
events
caches
nowait
limits
module_stays
writes
nowait_writes
polled
memory
