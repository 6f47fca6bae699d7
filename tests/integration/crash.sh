#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Power cuts: devices are written to, snapshot and written to again, while their helpers are killed, and dm-log-writes
# logs what reaches the disk. Afterwards, on the host, the disk is made as it could have been at a thousand moments.
# vm: --mem 2048
# host: tests/crash/stage
# after: tests/crash/replay
# timeout: 400
# full-timeout: 3600
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
# shellcheck source=tests/variants.sh
. "$TESTS/variants.sh"
# shellcheck source=tests/crash/cases.sh
. "$TESTS/crash/cases.sh"
requires crashload qemu-img
in_vm || skip "needs the disks of a test machine"

OPS=${OPS:-150}
[ "${LEVEL-}" != full ] || OPS=3000

disk() { # disk NR WHICH: 0 the image's, 1 the log, 2 the notes
	local letters=abcdefghijklmnopqrstuvwx
	echo "/dev/vd${letters:$(($1 * 3 + $2)):1}"
}

# Sets image.
put_on() { # put_on KIND NR
	image=/dev/mapper/cut$2
	case $1 in
	ext4)
		mkdir "$dir/mnt"
		mount "$image" "$dir/mnt"
		image=$dir/mnt/top
		;;
	data)
		image=/dev/mapper/image$2
		dmsetup create "image$2" --table "0 $((CRASH_DATA_MIB << 11)) linear /dev/mapper/cut$2 0"
		dmsetup create "data$2" --table \
			"0 $((DISK_SIZE >> 9)) linear /dev/mapper/cut$2 $((CRASH_DATA_MIB << 11))"
		echo "block-device /dev/mapper/data$2" >>/etc/qcow.conf
		;;
	esac
}

take_off() { # take_off NR: undoes put_on
	local device
	! mountpoint -q "$SCRATCH/$1/mnt" || umount "$SCRATCH/$1/mnt"
	for device in "image$1" "data$1" "cut$1"; do
		[ ! -b "/dev/mapper/$device" ] || dmsetup remove --retry "$device"
	done
}

# load SEED: with a helper killed on the way
load() {
	local pid
	crashload --log "cut$nr" --seed "$1" --ops "$OPS" --flush 12 "$notes" "$(node "c$nr")" &
	pid=$!
	if [ "$SUBJECT" = qcow ]; then
		sleep "0.$((RANDOM % 10))"
		kill_helpers "$2"
	fi
	wait "$pid"
}

# What a power cut makes of qemu-img's own work is not ours to judge.
take_snapshot() {
	dmsetup message "cut$nr" 0 mark pause
	qemu-img snapshot -c cut "$image"
	dmsetup message "cut$nr" 0 mark go
	qemu-img convert -f qcow2 -O raw -l snapshot.name=cut "$image" "$dir/contents"
	dd if="$dir/contents" of="$notes" bs=1M seek="$CRASH_CONTENTS_MIB" conv=nocreat,notrunc,fsync status=none
	rm "$dir/contents"
}

in_between() { # in_between VARIANT
	if [ "$SUBJECT" = qcow ]; then
		dmsetup suspend "c$nr"
	else
		close_rw "c$nr"
	fi
	checked "$image" leaks
	! variant_can "$1" snapshots || take_snapshot
	if [ "$SUBJECT" = qcow ]; then
		dmsetup resume "c$nr"
	else
		open_rw "c$nr" "$image"
	fi
}

one_case() { # one_case NR VARIANT KIND
	local nr=$1 image notes dir=$SCRATCH/$1
	RANDOM=$((nr + ${SEED:-1}))
	mkdir "$dir"
	notes=$(disk "$nr" 2)
	dmsetup create "cut$nr" --table \
		"0 $(blockdev --getsz "$(disk "$nr" 0)") log-writes $(disk "$nr" 0) $(disk "$nr" 1)"
	put_on "$3" "$nr"
	open_rw "c$nr" "$image" --backing-dir "$VARIANTS_AT" --helper-timeout 120
	load $((nr * 10 + 1)) worker
	in_between "$2"
	load $((nr * 10 + 2)) both
	load $((nr * 10 + 3)) none
	# Who is killed between two loads is not counted: nobody noticed.
	[ "$SUBJECT" != qcow ] || equal "deaths" "$(counter "c$nr" helper_deaths)" 2
	close_rw "c$nr"
	checked "$image" leaks
	take_off "$nr"
	note "case $nr ($2 on $3) has been written"
}

drop_case() {
	drop_rw "c$1"
	take_off "$1"
}

use_variants
for line in "${CRASH_CASES[@]}"; do
	read -r nr variant kind <<<"$line"
	[ -z "${CASES-}" ] || [[ " $CASES " == *" $nr "* ]] || continue
	cleanup drop_case "$nr"
	(one_case "$nr" "$variant" "$kind")
done
