#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# After a suspend the image belongs to whoever wants it, and resume sees what they wrote: on a file, and on a logical
# volume, where the page cache of the device could show old bytes to either side. Also a reload of the table, and
# what resume refuses.
# vm: --disk 512M
# timeout: 300
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires pvcreate qemu-io qemu-img

SIZE=67108864

# new_image FILE-OR-DEVICE: a qcow2 image with 0x11 in its first MiB
new_image() {
	qemu-img create -q -f qcow2 "$1" "$SIZE"
	qemu-io -f qcow2 -c 'write -q -P 0x11 0 1M' "$1"
}

# first_byte NAME: through the page cache of the device, in hexadecimal
first_byte() {
	blockdev --flushbufs "/dev/mapper/$1"
	od -An -tx1 -N1 "/dev/mapper/$1" | tr -d ' '
}

# Twice in a row: the first suspend could be right by luck. In between the device is written to, fresh clusters and old.
change_while_suspended() {
	local image=$1 n
	cleanup drop_device d
	qcow open d "$image"
	for n in 2 3; do
		# Whoever reads the device through the page cache, as this does, must not leave stale blocks there.
		qemu-img check -q -f qcow2 -U "$image" || true
		put d 10$n 1
		put d 10$n $n
		dmsetup suspend d
		equal "image word" "$(dmsetup status d | cut -d' ' -f6)" closed
		qemu-img check -q -f qcow2 "$image"
		qemu-io -f qcow2 -c "read -q -P 0x4$n 1M 1M" -c "read -q -P 0x4$n ${n}M 1M" \
			-c "write -q -P 0x$n$n 0 1M" -c "write -q -P 0x$n$n $((n + 8))M 1M" "$image"
		qemu-img check -q -f qcow2 "$image"
		dmsetup resume d
		equal "the first byte after resume" "$(first_byte d)" $n$n
		qemu-img convert -U -f qcow2 -O raw "$image" "$SCRATCH/now"
		same_bytes /dev/mapper/d "$SCRATCH/now"
	done
	# A writer is kept off while it is open.
	refused qemu-io -f qcow2 -c 'write 0 4k' "$image"
	qcow close d
	qemu-img check -q -f qcow2 "$image"
}

on_file() {
	new_image "$SCRATCH/image"
	change_while_suspended "$SCRATCH/image"
}

on_volume() {
	pvcreate -q "$disk1" >/dev/null
	vgcreate -q qcowtest "$disk1" >/dev/null
	cleanup vgremove -q -f -y qcowtest
	lvcreate -q -y -Wn -n image -L 128M qcowtest >/dev/null
	cleanup lvremove -q -f -y qcowtest/image
	new_image /dev/qcowtest/image
	open_device d /dev/qcowtest/image
	dmsetup deps -o devname d | grep -q qcowtest-image
	qcow close d
	change_while_suspended /dev/qcowtest/image
}

reload() {
	local table
	new_image "$SCRATCH/one"
	new_image "$SCRATCH/two"
	qemu-io -f qcow2 -c 'write -q -P 0x44 0 1M' "$SCRATCH/two"
	open_device d "$SCRATCH/one"
	equal "one" "$(first_byte d)" 11
	table=$(dmsetup table d)
	dmsetup load d --readonly --table "${table/one/two}"
	dmsetup resume d
	equal "two, after loading another table" "$(first_byte d)" 44
	# The old table's image is free again, the new one's is not.
	qemu-io -f qcow2 -c 'write -q 0 4k' "$SCRATCH/one"
	refused qemu-io -f qcow2 -c 'write 0 4k' "$SCRATCH/two"
	# What TABLE prints can be loaded.
	dmsetup load d --readonly --table "$(dmsetup table d)"
	dmsetup resume d
	equal "two, from its own table line" "$(first_byte d)" 44
	qcow close d
}

# Without a flush an image that is only read stays open, and goes on where it was.
noflush() {
	open_device d "$SCRATCH/two"
	dmsetup suspend --noflush --nolockfs d
	equal "image word" "$(dmsetup status d | cut -d' ' -f6)" open
	refused qemu-io -f qcow2 -c 'write 0 4k' "$SCRATCH/two"
	dmsetup resume d
	equal "two" "$(first_byte d)" 44
	qcow close d
}

# What a device that is written to has in memory is on disk after a suspend without a flush, too: another table finds it.
noflush_writes() {
	local image=$SCRATCH/noflush table
	qemu-img create -q -f qcow2 "$image" "$SIZE"
	cleanup drop_device n
	qcow open n "$image"
	table=$(dmsetup table n)
	# The first write ever asks for a table, and is committed at once.
	put n 111 1
	put n 111 0
	[ "$(counter n deltas)" -gt 0 ] || fail "a write that nobody flushed is durable already"
	dmsetup suspend --noflush --nolockfs n
	equal "image word" "$(dmsetup status n | cut -d' ' -f6)" closed
	qemu-img check -q -f qcow2 "$image"
	qemu-io -f qcow2 -c 'read -q -P 0x49 0 1M' "$image"
	dmsetup load n --table "$table"
	dmsetup resume n
	equal "the byte written" "$(first_byte n)" 49
	# The same once more, by a table that is only a line longer.
	put n 112 0
	dmsetup load n --table "${table} 1 keep_discarded"
	dmsetup suspend --noflush --nolockfs n
	dmsetup resume n
	equal "the byte written" "$(first_byte n)" 4a
	qcow close n
	qemu-img check -q -f qcow2 "$image"
}

# put NAME OCTAL-BYTE MIB: writes that MiB, without a flush
put() {
	head -c 1M /dev/zero | tr '\0' "\\$2" |
		dd of="/dev/mapper/$1" bs=1M seek="$3" iflag=fullblock oflag=direct conv=notrunc status=none
}

# Without a helper, or with one that hangs, it ends nevertheless, and resume goes on with what there was.
noflush_alone() {
	local image=$SCRATCH/noflush signal begin
	cleanup drop_device n
	cleanup killall -q -CONT qcowd
	for signal in KILL STOP; do
		qcow open n "$image"
		put n 113 3
		begin=$SECONDS
		# shellcheck disable=SC2046 # several numbers
		kill -STOP $(supervisors)
		# shellcheck disable=SC2046
		kill -$signal $(workers)
		[ "$signal" = STOP ] || eventually 10 test "$(state n helper)" = lost
		dmsetup suspend --noflush --nolockfs n
		[ $((SECONDS - begin)) -le 30 ] || fail "a suspend without flush took $((SECONDS - begin)) s"
		[[ $(dmsetup status n | cut -d' ' -f6) == @(open|unclean) ]] || fail "closed without a helper"
		killall -CONT qcowd
		dmsetup resume n
		cmp -n 1048576 <(dd if=/dev/mapper/n bs=1M skip=3 count=1 iflag=direct status=none) <(tr '\0' '\113' </dev/zero)
		eventually 60 test "$(state n helper)" = attached
		qcow close n
		qemu-img check -q -f qcow2 "$image"
		qemu-io -f qcow2 -c 'read -q -P 0x4b 3M 1M' "$image"
	done
}

# resume_refused WHAT: resume fails, says so in the log, and a new table helps
resume_refused() {
	refused dmsetup resume d
	dmesg | tail -n 5 | grep -q "$1" || fail "the log does not say '$1'"
	dmsetup remove --force d
	cleanup_done d
}

cleanup_done() {
	eventually 5 test ! -b "/dev/mapper/$1"
}

misfits() {
	cp "$SCRATCH/one" "$SCRATCH/image"
	open_device d "$SCRATCH/image"
	dmsetup suspend d
	cp "$SCRATCH/one" "$SCRATCH/other"
	mv "$SCRATCH/other" "$SCRATCH/image"
	resume_refused 'load a new table'

	open_device d "$SCRATCH/image"
	dmsetup suspend d
	qemu-img resize -q --shrink -f qcow2 "$SCRATCH/image" 1M
	resume_refused 'the table has 131072 sectors, the image 2048'

	qemu-img resize -q -f qcow2 "$SCRATCH/image" "$SIZE"
	open_device d "$SCRATCH/image"
	dmsetup suspend d
	rm "$SCRATCH/image"
	resume_refused 'No such file'
}

# amend_suspended NAME COMPAT COMMAND...: does that to an image of this version, with the device d suspended
amend_suspended() {
	qemu-img create -q -f qcow2 -o "compat=$2" "$SCRATCH/$1" "$SIZE"
	cleanup drop_device d
	qcow open d "$SCRATCH/$1"
	dmsetup suspend d
	"${@:3}" "$SCRATCH/$1"
}

# Version 2 has no zero flag: over a backing file it cannot discard, and what it discards cannot keep its place.
express_less() {
	truncate -s "$SIZE" "$SCRATCH/base"
	amend_suspended v2 0.10 qemu-img rebase -u -f qcow2 -F raw -b "$SCRATCH/base"
	resume_refused 'load a new table'
	amend_suspended v3 1.1 qemu-img amend -q -f qcow2 -o compat=0.10
	resume_refused 'load a new table'
	amend_suspended more 0.10 qemu-img amend -q -f qcow2 -o compat=1.1
	dmsetup resume d
	dmsetup suspend d
	qemu-img amend -q -f qcow2 -o compat=0.10 "$SCRATCH/more"
	dmsetup resume d
	qcow close d
}

use_disk disk1 1 512M
on_file
on_volume
reload
noflush
noflush_writes
noflush_alone
misfits
express_less
