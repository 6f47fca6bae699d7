#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What people do with a disk: its partitions, its file system's label, a read-only mount; and what the system's tools
# say of the device: lsblk, dmsetup deps and ls --tree, sysfs.
# vm: --disk 256M
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires kpartx sfdisk mke2fs

MIB=1048576

# A disk as an installer makes it: GPT, and two file systems with something in them.
make_disk() {
	truncate -s $((100 * MIB)) "$SCRATCH/disk.raw"
	sfdisk -q "$SCRATCH/disk.raw" <<-TABLE
		label: gpt
		start=1MiB, size=40MiB, name=first
		start=48MiB, size=50MiB, name=second
	TABLE
	mkdir -p "$SCRATCH/files"
	head -c 3M /dev/urandom >"$SCRATCH/files/noise"
	file_system one 1 40
	file_system two 48 50
	qemu-img convert -c -f raw -O qcow2 "$SCRATCH/disk.raw" "$SCRATCH/image"
}

file_system() { # file_system LABEL AT-MIB SIZE-MIB
	echo "$1" >"$SCRATCH/files/name"
	mke2fs -q -t ext4 -L "$1" -E "offset=$(($2 * MIB))" -d "$SCRATCH/files" "$SCRATCH/disk.raw" "$3M"
}

lowest() { # the devices below, as dmsetup says
	dmsetup deps -o devname "$1" | sed 's/.*: *//; s/[()]//g'
}

check_partition() { # check_partition NUMBER LABEL
	local part=/dev/mapper/p$1
	equal "label of $part" "$(blkid -p -o value -s LABEL "$part")" "$2"
	mount -o ro "$part" "$SCRATCH/mnt"
	cmp "$SCRATCH/files/noise" "$SCRATCH/mnt/noise"
	equal "name in $part" "$(cat "$SCRATCH/mnt/name")" "$2"
	umount "$SCRATCH/mnt"
}

partitions() {
	equal "partition table" "$(blkid -p -o value -s PTTYPE /dev/mapper/p)" gpt
	kpartx -a -r -s /dev/mapper/p
	cleanup kpartx -d /dev/mapper/p
	equal "what is below p1" "$(lowest p1)" p
	check_partition 1 one
	check_partition 2 two
	refused qcow close p
	grep -q "'p' is in use" "$SCRATCH/said" || fail "it does not say that the device is in use"
	kpartx -d -s /dev/mapper/p
}

on_file() {
	open_device p "$SCRATCH/image"
	equal "devices below an image in a file" "$(lowest p)" ""
	equal "lsblk" "$(lsblk -dno TYPE,RO,SIZE /dev/mapper/p | xargs)" "qcow 1 100M"
	partitions
	qcow close p
}

on_device() {
	dd if="$SCRATCH/image" of="$disk1" bs=1M conv=nocreat,fsync status=none
	open_device p "$disk1"
	equal "devices below an image on $disk1" "$(lowest p)" "${disk1#/dev/}"
	lsblk -no NAME "$disk1" | grep -qw p || fail "lsblk does not show the device below $disk1"
	dmsetup ls --tree -o ascii | grep -A 1 '^p ' | grep -q "$(lsblk -dno MAJ:MIN "$disk1" | xargs)" ||
		fail "dmsetup ls --tree does not show $disk1"
	partitions
	equal "who holds $disk1" "$(cat "/sys/block/${disk1#/dev/}"/holders/*/dm/name)" p
	qcow close p
}

mkdir "$SCRATCH/mnt"
use_disk disk1 1 256M
make_disk
on_file
on_device
