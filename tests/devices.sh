# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What tests of whole devices share; sourced after lib.sh. In the VM the disks and images are there already; on a
# real host they are made below $SCRATCH.

IMAGES_AT=/mnt/images

in_vm() {
	[ -f /vm/settings ]
}

# use_images [CASE]...: has the images of tests/images/matrix below $IMAGES_AT. A test that calls it has the same
# words in its "host" header.
use_images() {
	local made=$TESTS/../build/images
	if ! in_vm; then
		made=$SCRATCH/build/images
		"$TESTS/images/matrix" "$@" "$SCRATCH"
	fi
	mkdir -p "$IMAGES_AT"
	mount --bind "$made" "$IMAGES_AT"
	cleanup umount "$IMAGES_AT"
}

# use_disk VARIABLE NUMBER SIZE: sets VARIABLE to a blank disk: the NUMBER-th of the VM, from 1 on
use_disk() {
	local device
	if in_vm; then
		device=/dev/vd$(tr 1-6 a-f <<<"$2")
	else
		truncate -s "$3" "$SCRATCH/disk$2"
		device=$(losetup --find --show --direct-io=on "$SCRATCH/disk$2")
		cleanup losetup -d "$device"
	fi
	printf -v "$1" '%s' "$device"
}

# open_device NAME IMAGE [OPTION-OF-qcow-open]...
open_device() {
	cleanup drop_device "$1"
	qcow open "$1" "$2" --read-only "${@:3}"
}

# However the test ended, and whether or not the device is there.
drop_device() {
	[ ! -b "/dev/mapper/$1" ] || qcow close "$1" --force
}

# counter NAME KEY: a number in the device's status
counter() {
	qcow status "$1" --json | sed -n "s/^ *\"$2\": *\([0-9]\+\),\?\$/\1/p" | grep .
}

# state NAME mode|helper|image-state|state: a word in the device's status
state() {
	qcow status "$1" --json | sed -n "s/^ *\"$2\": *\"\(.*\)\",\?\$/\1/p" | grep .
}

# booted_from WHAT: this machine's root lies on the device "root"
booted_from() {
	if [ ! -d /media/root-ro ]; then
		! in_vm || fail "this machine did not boot from $1"
		skip "needs a machine that booted from $1"
	fi
	equal "the lower file system" "$(findmnt -n -o SOURCE /media/root-ro)" /dev/mapper/root
	equal "the target" "$(dmsetup table root | cut -d' ' -f3)" qcow
}

# every byte of the disk that this machine booted from
root_is_right() {
	equal "the disk's hash" "$(sha256sum /dev/mapper/root | cut -d' ' -f1)" "$(cat /host/demo/sha256)"
	equal "errors" "$(counter root errors)" 0
}

# same_bytes DEVICE FILE: the whole device, not a sector more or less
same_bytes() {
	equal "size of $1" "$(blockdev --getsize64 "$1")" "$(stat -L -c %s "$2")"
	cmp "$1" "$2" || fail "$1 differs from $2"
}

# Zombies hold nothing any more.
helpers() {
	pgrep -r D,R,S,T -x qcowd || true
}

workers() {
	pgrep -r D,R,S,T -f '^@?[^ ]*qcowd --worker' || true
}

# With --respawn also the loop that restarts it.
supervisors() {
	helpers | grep -vxF "$(workers)" || true
}

# Whoever would start it again must not: in the VM a shell loop, elsewhere systemd.
take_supervisor_away() {
	local pid parent
	if [ -d /run/systemd/system ]; then
		systemctl stop qcowd
		cleanup systemctl start qcowd
		return
	fi
	for pid in $(supervisors); do
		parent=$(ps -o ppid= -p "$pid" | tr -d ' ')
		kill -STOP "$parent"
		cleanup kill -CONT "$parent"
		kill -KILL "$pid"
	done
}

no_helper() {
	[ -z "$(helpers)" ]
}
