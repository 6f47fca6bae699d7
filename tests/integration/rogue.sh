#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A helper that lies: forged and malformed answers, bad descriptors, bad addresses, strangers, random bytes. The kernel
# says the errno of the contract, ends the read with EIO, and goes on; the device can be removed. Once for a device that
# is read, once for one that is written: leases, commits, places to write to.
# vm: --disk 64M
# kernels: 6.12 debug
# timeout: 600
# full-timeout: 1500
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires mke2fs mkswap chattr

# After a failure: its worker is gone, so nobody waits for an answer.
drop_rogue() {
	umount "$SCRATCH/mnt" 2>/dev/null
	dmsetup remove --force rogue 2>/dev/null
}

SEED=${SEED:-$RANDOM}
MESSAGES=4000
# The debug kernel takes ten times as long, and sees what it has to see in fewer.
[[ $(uname -r) != *-debug ]] || MESSAGES=1000
[ "${LEVEL:-check}" = check ] || MESSAGES=20000
use_disk disk1 1 64M
take_supervisor_away
eventually 10 no_helper
# One that can be suspended.
# shellcheck disable=SC2154 # use_disk sets disk1
dmsetup create rogue-disk --table "0 $(blockdev --getsz "$disk1") linear $disk1 0"
cleanup dmsetup remove --force rogue-disk
cleanup drop_rogue
rogue "$SCRATCH" /dev/mapper/rogue-disk "$SEED" "$MESSAGES" || fail "see above (SEED=$SEED)"
[ ! -b /dev/mapper/rogue ] || fail "the device is still there"
rmmod dm-qcow || fail "the module is in use: something was not given back"
modprobe dm-qcow
