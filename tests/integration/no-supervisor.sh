#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Without a supervisor a device cannot be made: dmsetup fails at once and the kernel says how to start one. `qcow open`
# starts it itself, under a loop that brings it back.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"

IMAGE=$SCRATCH/image

# The one that `qcow open` starts.
end_own_loop() {
	kill "$(cat /run/qcowd.pid)"
}

attached_twice() {
	[ "$(counter n attaches)" = 2 ] && [ "$(state n helper)" = attached ]
}

qemu-img create -q -f qcow2 "$IMAGE" 1M
table=$(qcow table "$IMAGE")
cleanup drop_device n
take_supervisor_away
eventually 10 no_helper

dmesg --clear
SECONDS=0
refused dmsetup create n --readonly --table "$table"
[ "$SECONDS" -le 3 ] || fail "it took $SECONDS s to fail"
grep -q . "$SCRATCH/said" || fail "dmsetup said nothing"
dmesg | grep -q "no helper: start it with 'systemctl start qcowd' or 'qcowd --respawn'" ||
	fail "the kernel does not say how to start a helper"
[ ! -b /dev/mapper/n ] || fail "a device was made"

qcow open n "$IMAGE" --read-only
! [ -f /run/qcowd.pid ] || cleanup end_own_loop
truncate -s 1M "$SCRATCH/zeros"
same_bytes /dev/mapper/n "$SCRATCH/zeros"
equal "attaches" "$(counter n attaches)" 1
if [ -f /run/qcowd.pid ]; then
	supervisor=$(supervisors | grep -vxF "$(cat /run/qcowd.pid)")
else
	supervisor=$(supervisors)
fi
kill -KILL "$supervisor"
eventually 20 attached_twice
dmsetup message n 0 drop_caches
blockdev --flushbufs /dev/mapper/n
same_bytes /dev/mapper/n "$SCRATCH/zeros"
qcow close n
