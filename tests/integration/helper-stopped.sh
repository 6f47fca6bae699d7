#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A helper that hangs, as SIGSTOP makes it, keeps nobody from mapped blocks; other reads fail after helper_timeout, and
# the device can be removed at once. A worker that hangs alone is killed by its supervisor, which starts another.
# kernels: 6.12 debug
# host: tests/images/matrix plain-64k-large
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"

IMAGE=$IMAGES_AT/plain-64k-large
# The image has two map pages.
PAGE=$((32 << 20))
TIMEOUT=3

now_ms() {
	local uptime
	read -r uptime _ </proc/uptime
	echo $((10#${uptime/./} * 10))
}

# took MIN MAX COMMAND...: the command must take that many milliseconds
took() {
	local begin end
	begin=$(now_ms)
	"${@:3}"
	end=$((($(now_ms) - begin)))
	note "$end ms: ${*:3}"
	[ "$end" -ge "$1" ] && [ "$end" -le "$2" ] || fail "took $end ms, not $1 to $2: ${*:3}"
}

# stop_helpers PID...
stop_helpers() {
	cleanup continue_helpers
	kill -STOP "$@"
}

continue_helpers() {
	killall -q -CONT qcowd || true
}

read_at() { # read_at OFFSET
	dd if=/dev/mapper/s of=/dev/null bs=4k count=1 skip=$(($1 / 4096)) iflag=direct status=none
}

# Its second page is not loaded, its first is.
open_half() {
	open_device s "$IMAGE/image" "$@"
	readcheck --to "$PAGE" --count 1000 /dev/mapper/s "$IMAGE/raw" >/dev/null
	equal "pages in the map" "$(counter s map_pages)" 1
}

# A read that waits for a LOAD is in no epoch, and so not in flight: a fence may pass it.
asks() {
	[ "$(counter s loads)" -gt "$loads" ]
}

mapped_goes_on() {
	local timeouts
	timeouts=$(counter s timeouts)
	readcheck --to "$PAGE" --count 5000 /dev/mapper/s "$IMAGE/raw" || fail "reads of mapped blocks failed"
	equal "time-outs by mapped reads" "$(counter s timeouts)" "$timeouts"
}

all_stopped() {
	open_half --helper-timeout "$TIMEOUT"
	# shellcheck disable=SC2046
	stop_helpers $(helpers)
	mapped_goes_on
	took $((TIMEOUT * 1000 - 100)) $((TIMEOUT * 1000 + 5000)) refused read_at "$PAGE"
	mapped_goes_on
	[ "$(counter s timeouts)" -gt 0 ] || fail "no time-out was counted"
	continue_helpers
	eventually 30 read_at "$PAGE"
	readcheck --count 2000 /dev/mapper/s "$IMAGE/raw"
	qcow close s
}

# The supervisor is well: it is told, and acts. Who read meanwhile had bad luck, who reads then has not.
worker_stopped() {
	local attaches
	open_half --helper-timeout "$TIMEOUT"
	attaches=$(counter s attaches)
	stop_helpers "$(workers)"
	refused read_at "$PAGE"
	eventually 30 read_at "$PAGE"
	[ "$(counter s attaches)" -gt "$attaches" ] || fail "no new worker attached"
	qcow close s
}

# removed_at_once COMMAND...: although a read waits, and would wait for minutes
removed_at_once() {
	local reader loads
	open_half --helper-timeout 600
	loads=$(counter s loads)
	# shellcheck disable=SC2046
	stop_helpers $(helpers)
	read_at "$PAGE" 2>/dev/null &
	reader=$!
	eventually 10 asks
	took 0 5000 "$@"
	! wait "$reader" || fail "the read succeeded without a helper"
	[ ! -b /dev/mapper/s ] || qcow close s --force
	[ ! -b /dev/mapper/s ] || fail "the device is there still"
	continue_helpers
	eventually 30 no_worker
}

no_worker() {
	[ -z "$(workers)" ]
}

use_images plain-64k-large
all_stopped
worker_stopped
removed_at_once dmsetup remove --force --retry s
removed_at_once qcow close s --force
