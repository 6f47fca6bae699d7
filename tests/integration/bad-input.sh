#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What must be refused is refused with one clear line, by `qcow open` as by `dmsetup create` (there in the kernel's
# log), and leaves everything as it was: files, devices, locks, processes.
# vm: --disk 64M
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"

DIR=$SCRATCH/images
OUTSIDE=$SCRATCH/elsewhere
SECTORS=2048

# Everything that a refusal must leave alone, as text.
inventory() {
	find "$DIR" "$OUTSIDE" -type f -exec sha256sum {} + | sort -k 2
	find "$DIR" "$OUTSIDE" -printf '%p %s %m %t %l\n' | sort
	dmsetup ls
	losetup --list --noheadings
	grep OFDLCK /proc/locks || true
	ls /dev/mapper
}

unchanged() {
	inventory >"$SCRATCH/after"
	diff "$SCRATCH/before" "$SCRATCH/after" || fail "$1: changed something"
	eventually 10 no_worker
}

no_worker() {
	[ -z "$(workers)" ]
}

# one_line WHAT REGEX: $SCRATCH/said is one line and matches
one_line() {
	equal "lines about: $1" "$(wc -l <"$SCRATCH/said")" 1
	grep -qE "$2" "$SCRATCH/said" || fail "$1: '$(cat "$SCRATCH/said")' does not match $2"
	note "$1: $(cat "$SCRATCH/said")"
}

# log_says WHAT REGEX: the target's own lines in the kernel's log since --clear
log_says() {
	dmesg | grep -oE 'device-mapper: qcow: .*' >"$SCRATCH/said" || true
	one_line "$1" "$2"
}

# bad WHAT REGEX IMAGE [SECTORS]: both ways of making a device refuse IMAGE
bad() {
	inventory >"$SCRATCH/before"
	refused qcow open bad "$3" --read-only
	one_line "$1" "^qcow: .*$2"
	unchanged "$1"
	bad_table "$1" "$2" "0 ${4:-$SECTORS} qcow $3"
}

# bad_table WHAT REGEX TABLE
bad_table() {
	inventory >"$SCRATCH/before"
	dmesg --clear
	refused dmsetup create bad --readonly --table "$3"
	log_says "$1" "$2"
	unchanged "$1"
}

image() { # image NAME [OPTION-OF-qemu-img-create]...
	qemu-img create -q -f qcow2 "${@:2}" "$DIR/$1" 1M
}

# rename_backing NAME BACKING: as written, without a look at what it is
rename_backing() {
	qemu-img rebase -q -u -f qcow2 -F qcow2 -b "$2" "$DIR/$1"
}

files() {
	head -c 1M /dev/urandom >"$DIR/noise"
	bad "not a qcow2" "noise: .*not a qcow2" "$DIR/noise"
	image whole
	head -c 60 "$DIR/whole" >"$DIR/short"
	bad "a truncated header" "short: .*header" "$DIR/short"
	: >"$DIR/nothing"
	bad "an empty file" "nothing: .*(header|not a qcow2)" "$DIR/nothing"
	bad "no such file" "absent: No such file" "$DIR/absent"
	bad "a folder" "images is neither a regular file nor a block device" "$DIR"
	bad "a character device" "/dev/zero is neither a regular file nor a block device" /dev/zero
}

names() {
	image a
	image b
	rename_backing a gone
	bad "a missing backing file" "gone: No such file" "$DIR/a"
	cp "$DIR/whole" "$OUTSIDE/base"
	rename_backing a "$OUTSIDE/base"
	bad "a backing file in another folder" "base .*not allowed.* --backing-dir $OUTSIDE( |$)" "$DIR/a"
	ln -s "$OUTSIDE/base" "$DIR/link"
	rename_backing a link
	bad "a symlink to another folder" "link .*not allowed.* --backing-dir $OUTSIDE( |$)" "$DIR/a"
	rename_backing a 'json:{"driver":"raw","file.filename":"/etc/shadow"}'
	bad "a json: name" "json: or protocol" "$DIR/a"
	rename_backing a 'nbd:localhost:10809'
	bad "a protocol" "json: or protocol" "$DIR/a"
	rename_backing a b
	rename_backing b a
	bad "two images that back each other" "(loop|itself|circle|cycle)" "$DIR/a"
	rename_backing a a
	bad "an image that backs itself" "(loop|itself|circle|cycle)" "$DIR/a"
	# The flag that the line named does help.
	rename_backing a "$OUTSIDE/base"
	qcow open good "$DIR/a" --read-only --backing-dir "$OUTSIDE"
	qcow close good
}

tables() {
	image whole2
	bad_table "a table longer than the image" "2049 sectors, the image 2048" "0 2049 qcow $DIR/whole2"
	bad_table "an unknown option" 'unknown option "colour:red"' "0 $SECTORS qcow $DIR/whole2 1 colour:red"
	bad_table "an option out of range" "helper_timeout:0: want a number" "0 $SECTORS qcow $DIR/whole2 1 helper_timeout:0"
	inventory >"$SCRATCH/before"
	refused qcow open bad "$DIR/whole2" --read-only --sector-size 1000
	refused qcow open a/b "$DIR/whole2" --read-only
	one_line "a name with a slash" "cannot be the name of a device"
	refused qcow close bad
	one_line "close what is not there" "no qcow device is named 'bad'"
	refused qcow status bad
	one_line "status of what is not there" "no qcow device is named 'bad'"
	unchanged "wrong words"
	qcow open good "$DIR/whole2" --read-only
	refused qcow open good "$DIR/whole2" --read-only
	one_line "a name that is taken" "a device named 'good' exists"
	qcow close good
}

# A writer that stays: qemu-io with commands from a pipe that nobody closes.
locked() {
	local writer
	image busy
	mkfifo "$SCRATCH/commands"
	qemu-io -f qcow2 "$DIR/busy" <"$SCRATCH/commands" >"$SCRATCH/qemu-io" &
	writer=$!
	exec {pipe}>"$SCRATCH/commands"
	echo 'write -P 1 0 64k' >&"$pipe"
	eventually 20 grep -q wrote "$SCRATCH/qemu-io"
	bad "an image that a writer has" "busy is .*(in use|locked).*qemu-io \(pid $writer\)" "$DIR/busy"
	exec {pipe}>&-
	wait "$writer"
	qcow open good "$DIR/busy" --read-only
	refused qemu-io -f qcow2 -c 'write 0 4k' "$DIR/busy"
	qcow close good
}

# The image lies in a file system on the very device that the table is for.
own_device() {
	cleanup drop_any own
	dmsetup create own --table "0 $(blockdev --getsz "$disk1") linear $disk1 0"
	mkfs.ext4 -q /dev/mapper/own
	mkdir "$SCRATCH/own"
	mount /dev/mapper/own "$SCRATCH/own"
	cleanup umount "$SCRATCH/own"
	qemu-img create -q -f qcow2 "$SCRATCH/own/image" 1M
	sync
	dmesg --clear
	refused dmsetup load own --table "0 $SECTORS qcow $SCRATCH/own/image"
	log_says "an image in its own device's file system" "stored on the very device"
	dmesg --clear
	refused dmsetup load own --table "0 $SECTORS qcow /dev/mapper/own"
	log_says "an image on its own device" "stored on the very device"
	equal "the table" "$(dmsetup table own | cut -d' ' -f3)" linear
	equal "the table in waiting" "$(dmsetup table --inactive own)" ""
	umount "$SCRATCH/own"
	dmsetup remove own
}

drop_any() {
	[ ! -b "/dev/mapper/$1" ] || dmsetup remove --force "$1"
}

zoned() {
	local config=/sys/kernel/config/nullb/nullbz
	modprobe -q null_blk nr_devices=0 || true
	mkdir "$config" || {
		! in_vm || fail "no null_blk in the test machine"
		note "no null_blk on this host: zoned devices were not tried"
		return
	}
	cleanup rmdir "$config"
	printf '%s\n' 1 >"$config/zoned"
	printf '%s\n' 256 >"$config/size"
	printf '%s\n' 1 >"$config/memory_backed"
	printf '%s\n' 1 >"$config/power"
	# The name of the node is the kernel's choice.
	local device
	device=/dev/$(lsblk -dno NAME,ZONED | awk '$2 == "host-managed" { print $1; exit }')
	[ -b "$device" ] || fail "null_blk made no zoned device"
	bad "a zoned device" "$device is a zoned device" "$device"
}

mkdir "$DIR" "$OUTSIDE"
cleanup drop_device bad
cleanup drop_device good
use_disk disk1 1 64M
files
names
tables
locked
own_device
zoned
