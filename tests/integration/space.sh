#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The space below: how much the status says is left, the event before it is used up, and what writes do when it is: on
# a logical volume that is extended, and in a file system where a file is removed. They wait, or fail if told so, and
# nothing is lost.
# vm: --disk 1G
# timeout: 600
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires pvcreate qemu-img mkfs.ext4 model

MIB=1048576

events_of() {
	dmsetup info -c --noheadings -o events "$1"
}

more_events() { # more_events THAN
	[ "$(events_of s)" -gt "$1" ]
}

no_space() {
	[ "$(counter s no_space)" = 1 ]
}

is_low() {
	[ "$(counter s low_space)" = 1 ]
}

# fill OCTAL-BYTE FROM-MIB NR-OF-MIB: writes to the device, and flushes it
fill() {
	head -c $(($3 * MIB)) /dev/zero | tr '\0' "\\$1" |
		dd of="$(node s)" bs=1M seek="$2" iflag=fullblock oflag=direct conv=notrunc,fsync status=none
}

# has OCTAL-BYTE FROM-MIB NR-OF-MIB
has() {
	cmp -n $(($3 * MIB)) <(dd if="$(node s)" bs=1M skip="$2" count="$3" iflag=direct status=none) \
		<(tr '\0' "\\$1" </dev/zero) || fail "not what was written: $*"
}

# fills_later ARG-OF-fill...: it begins, and has to wait for space; its process is $writer
fills_later() {
	local nr
	nr=$(events_of s)
	fill "$@" 2>"$SCRATCH/fill.said" &
	writer=$!
	eventually 300 no_space
	eventually 10 more_events "$nr"
	# Longer than the second in which it would be tried again.
	sleep 3
	kill -0 "$writer" 2>/dev/null || fail "a write did not wait for space: $(cat "$SCRATCH/fill.said")"
	no_space || fail "no longer out of space, although nobody made any"
}

has_filled() {
	wait "$writer" || fail "a write that waited for space failed: $(cat "$SCRATCH/fill.said")"
	equal "errors" "$(counter s errors)" 0
	equal "mode" "$(state s mode)" RW
}

# left_on DEVICE: what qemu-img thinks is behind the last cluster in use, in bytes
left_on() {
	local end
	end=$(qemu-img check -f qcow2 --output=json "$1" | sed -n 's/.*"image-end-offset": *\([0-9]*\).*/\1/p')
	echo $(($(blockdev --getsize64 "$1") - end))
}

# ---- a logical volume -----------------------------------------------------------------------------------------

# volume NAME SIZE
volume() {
	lvcreate -q -y -Wn -n "$1" -L "$2" space >/dev/null
	cleanup lvremove -q -f -y "space/$1"
}

low_water() {
	local image=/dev/space/low left nr
	volume low 256M
	qemu-img create -q -f qcow2 "$image" 700M
	left=$(left_on "$image")
	open_rw s "$image" --low-water 100
	equal "left on the volume of an empty image" "$(counter s space_left)" "$left"
	equal "low" "$(counter s low_space)" 0
	nr=$(events_of s)
	fill 21 0 40
	# What is leased ahead is not left either; a few tables are kept in reserve.
	left=$((left - 40 * MIB - $(counter s clusters_leased) * 65536 - $(counter s space_left)))
	[ "$left" -ge 0 ] && [ "$left" -le $((80 * 65536)) ] || fail "what is left is $left bytes wrong"
	equal "low" "$(counter s low_space)" 0
	equal "events" "$(events_of s)" "$nr"
	fill 22 40 100
	eventually 10 is_low
	eventually 10 more_events "$nr"
	dmesg | grep -q 'less than 100 MiB are left below' || fail "nothing in the log"
	# The status has the new size at once. It is too little: with the next lease there is another event.
	left=$(counter s space_left)
	nr=$(events_of s)
	lvextend -q -q -L +16M space/low >/dev/null
	equal "left after an extension" "$(counter s space_left)" $((left + 16 * MIB))
	fill 23 140 60
	eventually 10 more_events "$nr"
	is_low
	lvextend -q -q -L +200M space/low >/dev/null
	equal "low after a large extension" "$(counter s low_space)" 0
	# What is given back counts, though it does not lie at the end.
	left=$(counter s space_left)
	blkdiscard -o 0 -l $((200 * MIB)) "$(node s)"
	dmsetup suspend s
	dmsetup resume s
	[ "$(counter s space_left)" -ge $((left + 200 * MIB)) ] || fail "discarded clusters are not free"
	close_rw s
	checked "$image"
	lvremove -q -f -y space/low >/dev/null
}

volume_is_extended() {
	local image=/dev/space/full
	volume full 64M
	qemu-img create -q -f qcow2 "$image" 300M
	open_rw s "$image"
	fill 31 0 8
	fills_later 32 8 92
	# Blocks that have a place go on meanwhile.
	has 31 0 8
	fill 33 4 2
	# Who waits is put off by a suspend without flush, and waits again.
	dmsetup suspend --noflush --nolockfs s
	dmsetup resume s
	eventually 10 no_space
	lvextend -q -q -L +100M space/full >/dev/null
	has_filled
	has 31 0 4
	has 33 4 2
	has 31 6 2
	has 32 8 92
	close_rw s
	checked "$image"
	lvremove -q -f -y space/full >/dev/null
}

# Without patience, what finds no cluster learns of it at once; and when there is room, it may be written.
impatient() {
	local image=/dev/space/impatient
	volume impatient 16M
	qemu-img create -q -f qcow2 "$image" 64M
	open_rw s "$image" --no-space-timeout 0
	fill 71 0 2
	refused fill 72 2 40
	grep -q 'No space left on device' "$SCRATCH/said" || fail "said: $(cat "$SCRATCH/said")"
	timeout 60 sync -d "$(node s)" || fail "a flush on a full volume: $?"
	has 71 0 2
	equal "mode" "$(state s mode)" RW
	lvextend -q -q -L +64M space/impatient >/dev/null
	eventually 20 fill 73 2 40
	has 73 2 40
	close_rw s
	checked "$image"
	lvremove -q -f -y space/impatient >/dev/null
}

# Random writes and zeroes, two at a time, until the volume is full: a flush then makes what was acknowledged durable,
# and all goes on when there is room.
random_load() {
	local image=/dev/space/load nr
	volume load 8M
	qemu-img create -q -f qcow2 "$image" 24M
	open_rw s "$image" --no-space-timeout 600
	nr=$(events_of s)
	model run --ops 1500 --no-discard --threads 2 --state "$SCRATCH/state" "$(node s)" >"$SCRATCH/load" 2>&1 &
	writer=$!
	eventually 300 no_space
	eventually 10 more_events "$nr"
	timeout 60 sync -d "$(node s)" || fail "a flush on a full volume: $?"
	kill -0 "$writer" || fail "nobody waited for space: $(cat "$SCRATCH/load")"
	lvextend -q -q -L +80M space/load >/dev/null
	wait "$writer" || fail "$(cat "$SCRATCH/load")"
	equal "mode" "$(state s mode)" RW
	model verify --state "$SCRATCH/state" "$(node s)"
	close_rw s
	checked "$image"
	qemu-img convert -f qcow2 -O raw "$image" "$SCRATCH/raw"
	model verify --state "$SCRATCH/state" "$SCRATCH/raw"
	rm "$SCRATCH/raw" "$SCRATCH/state"
	lvremove -q -f -y space/load >/dev/null
}

# ---- a file ---------------------------------------------------------------------------------------------------

# A file that takes all of the file system but 8 MiB.
fill_up() {
	local free
	free=$(df --output=avail -B1 "$SCRATCH/mnt" | tail -n 1)
	fallocate -l $((free - 8 * MIB)) "$SCRATCH/mnt/filler"
}

# in_file WHAT OPTION-OF-qemu-img...: the image's file has holes where the guest writes, and no room for them
in_file() {
	local what=$1 image=$SCRATCH/mnt/image
	qemu-img create -q -f qcow2 "${@:2}" "$image" 64M
	open_rw s "$image"
	fill 41 0 2
	fill_up
	[ "$(counter s space_left)" -le $((250 * MIB)) ] || fail "more is left than the file system has"
	fills_later 42 2 40
	has 41 0 2
	fill 43 0 1
	# Twice: it is not enough, and then it is.
	truncate -s -4M "$SCRATCH/mnt/filler"
	sleep 2
	kill -0 "$writer" || fail "$what: 4 MiB were enough for 40"
	rm "$SCRATCH/mnt/filler"
	has_filled
	eventually 10 not no_space
	has 43 0 1
	has 41 1 1
	has 42 2 40
	close_rw s
	checked "$image"
	rm -f "$image" "$SCRATCH/mnt/data"
	note "$what: right"
}

not() {
	! "$@"
}

# Synchronous writes in place take another way.
synchronous() {
	local image=$SCRATCH/mnt/image
	qemu-img create -q -f qcow2 -o preallocation=metadata "$image" 64M
	open_rw s "$image"
	fill_up
	head -c 30M /dev/zero | tr '\0' '\51' | dd of="$(node s)" bs=1M iflag=fullblock oflag=direct,dsync status=none &
	writer=$!
	eventually 300 no_space
	rm "$SCRATCH/mnt/filler"
	has_filled
	has 51 0 30
	close_rw s
	checked "$image"
	rm "$image"
}

# times_out SECONDS MIN MAX: what finds no space fails after that time, and with no_space_timeout 0 at once
times_out() {
	local image=$SCRATCH/mnt/image before
	qemu-img create -q -f qcow2 -o preallocation=metadata "$image" 64M
	open_rw s "$image" --no-space-timeout "$1"
	fill 61 0 2
	fill_up
	before=$SECONDS
	refused fill 62 2 40
	grep -q 'No space left on device' "$SCRATCH/said" || fail "said: $(cat "$SCRATCH/said")"
	[ $((SECONDS - before)) -ge "$2" ] && [ $((SECONDS - before)) -le "$3" ] ||
		fail "no_space_timeout $1 took $((SECONDS - before)) s"
	has 61 0 2
	equal "mode" "$(state s mode)" RW
	rm "$SCRATCH/mnt/filler"
	fill 63 2 40
	has 63 2 40
	close_rw s
	checked "$image"
	rm "$image"
}

use_disk disk1 1 1G
pvcreate -q "$disk1" >/dev/null
vgcreate -q space "$disk1" >/dev/null
cleanup vgremove -q -f -y space
cleanup drop_rw s
low_water
volume_is_extended
impatient
random_load
volume fs 256M
mkfs.ext4 -q -m 0 /dev/space/fs
mkdir "$SCRATCH/mnt"
mount /dev/space/fs "$SCRATCH/mnt"
cleanup umount -q "$SCRATCH/mnt"
cleanup drop_rw s
in_file "clusters that were leased before"
in_file "a preallocated image" -o preallocation=metadata
in_file "an external data file" -o "data_file=$SCRATCH/mnt/data"
synchronous
times_out 4 3 40
times_out 0 0 30
