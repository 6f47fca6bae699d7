# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154 # the other files use or set the variables
# What is written to: up_to_NAME GROUND makes it and sets $dev, $size and, for ours, $name, and $image where there
# is a qcow2 image; down_to_NAME removes it. GROUND says what is there before:
#
#	full	what is in /host/raw
#	fresh	nothing, FRESH_MIB of it
#	cow	what is in /host/raw, but it lies below and must not change

FRESH_MIB=256
# Holds the largest of those with its metadata: after an internal snapshot twice the data.
POOL_MIB=544

image='' expected=''

# ---- disks -------------------------------------------------------------------------------------------

# soil DISK MIB: a disk that was in use before. What is not written there must not show; and a RAM disk needs no
# memory any more while it is measured.
soil() {
	fio --name=soil --ioengine=psync --direct=1 --rw=write --bs=1M --buffer_pattern=0xaa --filename="$1" --size="$2M" \
		>/dev/null
}

spare_disks=() taken_disks=()

# take_disk: one of POOL_MIB with whatever on it; sets $disk
take_disk() {
	if [ ${#spare_disks[@]} = 0 ]; then
		ram_disk $POOL_MIB
		soil "$disk" $POOL_MIB
		spare_disks=("$disk")
	fi
	disk=${spare_disks[-1]}
	unset 'spare_disks[-1]'
	taken_disks+=("$disk")
}

give_disks() {
	spare_disks+=(${taken_disks[@]+"${taken_disks[@]}"})
	taken_disks=()
}

drop_disks() {
	local one
	give_disks
	for one in ${spare_disks[@]+"${spare_disks[@]}"}; do
		drop_ram_disk "$one"
	done
	spare_disks=()
	[ -n "$fs_disk" ] || return 0
	umount "$FS"
	drop_ram_disk "$fs_disk"
	fs_disk=''
}

fill() { # fill FILE-OR-DEVICE: with what is in /host/raw
	dd if=/host/raw of="$1" bs=1M oflag=direct conv=notrunc status=none
}

# blank DISK: takes it for one that holds no metadata of the device mapper
blank() {
	dd if=/dev/zero of="$1" bs=1M count=1 oflag=direct status=none
}

# target GROUND: start values
target() {
	dev='' name='' image='' offset=0
	size=$((FRESH_MIB << 20))
	[ "$1" = fresh ] || size=$(stat -c %s /host/raw)
}

sectors() {
	echo $((size / 512))
}

# ---- peers -------------------------------------------------------------------------------------------

up_to_ram() {
	target "$1"
	take_disk
	[ "$1" != full ] || fill "$disk"
	[ "$1" != fresh ] || dd if=/dev/zero of="$disk" bs=1M count=$FRESH_MIB oflag=direct status=none
	dev=$disk
}

down_to_ram() {
	give_disks
}

up_to_linear() {
	up_to_ram "$1"
	dmsetup create linear --table "0 $(sectors) linear $dev 0"
	dev=/dev/mapper/linear
}

down_to_linear() {
	dmsetup remove linear
	give_disks
}

# 64 KiB blocks like the images' clusters.
up_to_thin() {
	target "$1"
	modprobe dm-thin-pool
	take_disk
	thin_data=$disk
	if [ -z "${thin_meta-}" ]; then
		ram_disk 16
		thin_meta=$disk
	fi
	blank "$thin_meta"
	dmsetup create pool --table "0 $(blockdev --getsz "$thin_data") thin-pool $thin_meta $thin_data 128 0"
	dmsetup message pool 0 'create_thin 0'
	dmsetup create thin --table "0 $(sectors) thin /dev/mapper/pool 0"
	[ "$1" = fresh ] || fill /dev/mapper/thin
	dev=/dev/mapper/thin
	[ "$1" = cow ] || return 0
	dmsetup suspend thin
	dmsetup message pool 0 'create_snap 1 0'
	dmsetup resume thin
	dmsetup create snap --table "0 $(sectors) thin /dev/mapper/pool 1"
	dev=/dev/mapper/snap
}

down_to_thin() {
	[ "$dev" != /dev/mapper/snap ] || dmsetup remove snap
	dmsetup remove thin
	dmsetup remove pool
	give_disks
}

# A persistent one, in chunks of 64 KiB. Nothing is a device of zeros.
up_to_snapshot() {
	local origin=/dev/mapper/nothing
	target "$1"
	modprobe dm-snapshot
	take_disk
	blank "$disk"
	dev=$disk
	if [ "$1" = cow ]; then
		take_disk
		fill "$disk"
		origin=$disk
	else
		dmsetup create nothing --table "0 $(sectors) zero"
	fi
	dmsetup create shot --table "0 $(sectors) snapshot $origin $dev P 128"
	dev=/dev/mapper/shot
	[ "$1" != full ] || fill $dev
}

down_to_snapshot() {
	dmsetup remove shot
	[ ! -b /dev/mapper/nothing ] || dmsetup remove nothing
	give_disks
}

# A snapshot as above of a file, in a sparse file: what an image in a file over a base in a file is to be held to.
up_to_snapshot_files() { # up_to_snapshot_files cow
	local origin
	target "$1"
	need_fs
	modprobe dm-snapshot
	modprobe loop
	rm -f "$FS/image.qcow2" "$FS/base"
	: >"$FS/origin"
	fill "$FS/origin"
	truncate -s "${POOL_MIB}M" "$FS/store"
	sync -f "$FS"
	loop "$FS/origin"
	origin=$dev
	loop "$FS/store"
	dmsetup create shot --table "0 $(sectors) snapshot $origin $dev P 128"
	shot_loops=("$origin" "$dev")
	dev=/dev/mapper/shot
}

down_to_snapshot_files() {
	dmsetup remove shot
	losetup -d "${shot_loops[@]}"
	rm "$FS/origin" "$FS/store"
}

# loop FILE: sets $dev
loop() {
	dev=$(losetup --find --show --direct-io=on "$1")
	[ "$(losetup -n -O DIO "$dev" | tr -d ' ')" = 1 ] || die "$dev does no direct I/O"
}

# A sparse file, if it is fresh.
up_to_loop() {
	target "$1"
	need_fs
	modprobe loop
	truncate -s "$size" "$FS/sparse"
	[ "$1" = fresh ] || fill "$FS/sparse"
	sync -f "$FS"
	loop "$FS/sparse"
}

down_to_loop() {
	losetup -d "$dev"
	rm "$FS/sparse"
}

# ---- images -----------------------------------------------------------------------------------------------

# make_image PATH GROUND BASE: a qcow2 image; BASE is where /host/raw is put, if it lies below
make_image() {
	local options=(-q -f qcow2 -o cluster_size=64k)
	case $2 in
	full)
		cat /host/plain.head /host/raw |
			dd of="$1" bs=1M iflag=fullblock oflag=direct conv=notrunc status=none
		;;
	fresh) qemu-img create "${options[@]}" "$1" "$size" ;;
	cow)
		fill "$3"
		qemu-img create "${options[@]}" -b "$3" -F raw "$1" "$size"
		;;
	esac
	image=$1
}

# In the file system. What is left of the last one is not in the page cache: direct I/O would ask it first.
make_file() { # make_file GROUND
	need_fs
	rm -f "$FS/image.qcow2" "$FS/base"
	: >"$FS/image.qcow2"
	make_image "$FS/image.qcow2" "$1" "$FS/base"
	sync -f "$FS"
	echo 3 >/proc/sys/vm/drop_caches
}

# make_blocks GROUND: on RAM disks
make_blocks() {
	local at base=''
	take_disk
	at=$disk
	if [ "$1" = cow ]; then
		take_disk
		base=$disk
	fi
	make_image "$at" "$1" "$base"
}

open_image() {
	local below=()
	name=bench
	[ "$1" != cow ] || below=(--backing "$2")
	qcow open $name "$image" ${below[@]+"${below[@]}"}
	dev=/dev/mapper/$name
}

up_to_qcow_file() {
	target "$1"
	make_file "$1"
	open_image "$1" "$FS/base"
}

close_image() {
	qcow close "$name"
	name=''
	check_image
}

# By the oracle, if it is known what is to be there
check_image() {
	[ -n "$expected" ] || return 0
	qemu-img check -q -f qcow2 "$image" || die "$image: qemu-img finds errors or leaks"
	qemu-img compare -q -f raw -F qcow2 "$expected" "$image" || die "$image is not what it should be"
}

down_to_qcow_file() {
	close_image
}

up_to_qcow_bdev() {
	target "$1"
	make_blocks "$1"
	open_image "$1" "$disk"
}

down_to_qcow_bdev() {
	close_image
	give_disks
}

# On a block device that can write zeros by itself, which null_blk cannot: a loop device over memory.
up_to_qcow_zeroing() {
	local file=/dev/shm/zeroing
	target "$1"
	truncate -s $POOL_MIB"M" $file
	zeroing=$(losetup --find --show $file)
	make_image "$zeroing" "$1" ''
	open_image "$1" ''
}

down_to_qcow_zeroing() {
	close_image
	losetup -d "$zeroing"
	rm /dev/shm/zeroing
}

up_to_nbd() {
	target "$1"
	make_file "$1"
	serve_nbd "$image"
}

down_to_nbd() {
	down_nbd
	check_image
}
