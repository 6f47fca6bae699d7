#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A machine that booted from the device: the root is what it should be, every byte of the disk is right, and the
# helper, which stayed behind in the initramfs, can die and come back.
# kernels: 6.1 6.12 7.2
# host: tests/demo/stage
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"

attached_again() {
	[ "$(counter root attaches)" -gt "$1" ]
}

booted_from "the demo's image"
equal "the root's type" "$(findmnt -n -o FSTYPE /)" overlay
findmnt -n -o OPTIONS /media/root-ro | grep -qw ro || fail "the lower file system is writable"
equal "read-only" "$(blockdev --getro /dev/mapper/root)" 1

# Its own files went with the initramfs: what it needs it must have in memory.
worker=$(pgrep -n -x qcowd)
[[ $(readlink "/proc/$worker/exe") == *"(deleted)" ]] || fail "no helper outlived the switch to the root"
[[ $(tr '\0' ' ' <"/proc/$worker/cmdline") == @* ]] || fail "a shutdown would kill the helper"
attaches=$(counter root attaches)
kill -KILL "$worker"
eventually 20 attached_again "$attaches"
dmsetup message root 0 drop_caches
echo 3 >/proc/sys/vm/drop_caches
fetches=$(counter root fetches)
root_is_right
[ "$(counter root fetches)" -ge $((fetches + 1000)) ] || fail "the disk was not read from a compressed image"
