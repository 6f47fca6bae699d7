#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Every image reads the same through the block device as through qemu-img, all bytes of it: as a file on ext4, as
# a file on xfs with hardly any memory for map and cache, and written raw onto a block device.
# vm: --disk 1G --disk 256M --disk 256M --mem 1536
# host: tests/images/matrix
# timeout: 900
# shellcheck disable=SC2119,SC2154 # use_images needs no words; use_disk sets its first
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"

# compare NAME IMAGE RAW [OPTION]...
compare() {
	qcow open "$1" "$2" --read-only "${@:4}"
	same_bytes "/dev/mapper/$1" "$3"
	qcow close "$1"
	echo "$2" >>"$SCRATCH/compared-$1"
}

# The folders of all images that have no other file than the top one.
single_images() {
	local dir
	for dir in "$IMAGES_AT"/*/; do
		[ "$(find "$dir" -type f | wc -l)" != 2 ] || echo "${dir%/}"
	done
}

on_ext4() {
	local dir
	! in_vm || equal "the file system" "$(stat -f -c %T "$IMAGES_AT/empty/image")" ext2/ext3
	for dir in "$IMAGES_AT"/*/; do
		compare ext4 "$dir/image" "$dir/raw"
	done
}

# The images have absolute names in them: they must seem to be where they were made.
on_xfs() {
	local raws=$SCRATCH/raws dir
	mkfs.xfs -q "$disk1"
	mkdir -p "$raws" "$SCRATCH/xfs"
	mount "$disk1" "$SCRATCH/xfs"
	cleanup umount "$SCRATCH/xfs"
	cp -a --sparse=always "$IMAGES_AT/." "$SCRATCH/xfs"
	mount --bind "$IMAGES_AT" "$raws"
	cleanup umount "$raws"
	mount --bind "$SCRATCH/xfs" "$IMAGES_AT"
	cleanup umount "$IMAGES_AT"
	equal "the file system" "$(stat -f -c %T "$IMAGES_AT/empty/image")" xfs
	for dir in "$raws"/*/; do
		compare xfs "$IMAGES_AT/$(basename "$dir")/image" "$dir/raw" --map-budget 4 --cache-budget 0
	done
}

on_device() {
	local dir
	while read -r dir; do
		dd if="$dir/image" of="$disk2" bs=1M oflag=direct conv=nocreat,fsync status=none
		compare bdev "$disk2" "$dir/raw"
	done < <(single_images)
}

# Layers on files and on devices, in one chain.
on_both() {
	local dir=$IMAGES_AT/chain-2
	dd if="$dir/layer0.qcow2" of="$disk2" bs=1M conv=nocreat,fsync status=none
	dd if="$dir/layer1.qcow2" of="$disk3" bs=1M conv=nocreat,fsync status=none
	compare both "$dir/layer1.qcow2" "$dir/raw" --backing "$disk2" --backing-format qcow2
	compare both "$disk3" "$dir/raw" --backing "$dir/layer0.qcow2" --backing-format qcow2
	compare both "$disk3" "$dir/raw" --backing "$disk2" --backing-format qcow2
}

# compared NAME AT-LEAST: so that no loop over nothing passes
compared() {
	local nr
	nr=$(wc -l <"$SCRATCH/compared-$1")
	note "$1: $nr devices are as qemu-img says"
	[ "$nr" -ge "$2" ] || fail "$1: only $nr devices were compared"
}

use_images
use_disk disk1 1 1G
use_disk disk2 2 256M
use_disk disk3 3 256M
for name in ext4 xfs bdev both; do
	cleanup drop_device "$name"
done
# On a processor each.
on_ext4 &
ext4=$!
on_device
on_both
wait "$ext4" || fail "the comparison on ext4 failed"
on_xfs
compared ext4 50
compared xfs 50
compared bdev 20
compared both 3
