#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Once the map is loaded, 100,000 reads wake the helper not once: for an image in a file, and on a block device.
# vm: --disk 64M
# host: tests/images/matrix plain-64k-large
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"

READS=100000
IMAGE=$IMAGES_AT/plain-64k-large

check() { # check IMAGE
	local upcalls reads
	open_device hot "$1"
	same_bytes /dev/mapper/hot "$IMAGE/raw"
	upcalls=$(counter hot upcalls)
	reads=$(counter hot reads)
	[ "$(counter hot loads)" -gt 0 ] || fail "the counters do not count"
	readcheck --count "$READS" /dev/mapper/hot "$IMAGE/raw"
	[ "$(counter hot reads)" -ge $((reads + READS)) ] || fail "the device did not see all reads"
	equal "upcalls after $READS reads of $1" "$(($(counter hot upcalls) - upcalls))" 0
	qcow close hot
}

use_images plain-64k-large
use_disk disk1 1 64M
dd if="$IMAGE/image" of="$disk1" bs=1M oflag=direct conv=nocreat,fsync status=none
check "$IMAGE/image"
check "$disk1"
