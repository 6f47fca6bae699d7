#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# File systems on a writable device: made, filled with a tree of files, trimmed, checked, and mounted again after the
# device was closed: the tree is the same, and QEMU reads the disk that the file system was on.
# vm: --disk 1G --mem 2048
# timeout: 600
# shellcheck disable=SC2154 # use_disk sets its first
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires mkfs.ext4 mkfs.xfs qemu-img

# About 100 MB, or 500 at full length; below /.
TREES=(usr/bin usr/share/perl etc)
[ "${LEVEL-}" != full ] || TREES=(usr/bin usr/sbin usr/lib usr/share etc)
SIZE=1G

copy() { # copy DIR
	tar -C / -cf - "${TREES[@]}" | tar -C "$1" -xf -
}

same() { # same DIR
	local tree
	for tree in "${TREES[@]}"; do
		diff -r --no-dereference "/$tree" "$1/$tree"
	done
}

fsck() { # fsck TYPE DEVICE
	case $1 in
	ext4) e2fsck -fn "$2" ;;
	xfs) xfs_repair -n "$2" ;;
	esac >"$SCRATCH/fsck" 2>&1 || fail "$1: $(cat "$SCRATCH/fsck")"
}

on() { # on TYPE IMAGE
	local mnt=$SCRATCH/mnt
	mkdir -p "$mnt"
	open_rw f "$2"
	"mkfs.$1" -q "$(node f)"
	mount "$(node f)" "$mnt"
	copy "$mnt"
	rm -r "${mnt:?}/etc"
	sync
	fstrim "$mnt"
	copy "$mnt"
	same "$mnt"
	umount "$mnt"
	fsck "$1" "$(node f)"
	close_rw f
	checked "$2"
	open_rw f "$2"
	mount -o ro "$(node f)" "$mnt"
	same "$mnt"
	umount "$mnt"
	equal "errors" "$(counter f errors)" 0
	close_rw f
	checked "$2"
	qemu-img convert -f qcow2 -O raw "$2" "$SCRATCH/raw"
	fsck "$1" "$SCRATCH/raw"
	rm "$SCRATCH/raw"
	note "$1 on $2: right"
}

use_disk disk1 1 1G
cleanup drop_rw f
cleanup umount -q "$SCRATCH/mnt"
qemu-img create -q -f qcow2 "$SCRATCH/image" "$SIZE"
on ext4 "$SCRATCH/image"
rm "$SCRATCH/image"
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k "$SCRATCH/image" "$SIZE"
on xfs "$SCRATCH/image"
qemu-img create -q -f qcow2 "$disk1" "$SIZE"
on xfs "$disk1"
