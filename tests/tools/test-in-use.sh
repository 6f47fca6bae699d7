#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# An image that QEMU has open, or that is a backing file of one it has open: every verb that writes refuses it in one
# line which says who has it; who only reads may, where nobody writes. tests/integration/tools-devices.sh has the same
# with the device.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

# hold NAME WORD...: qemu-io keeps an image open until let_go
hold() {
	rm -f keys && mkfifo keys
	qemu-io "$@" <keys >hold.out 2>&1 &
	holder=$!
	exec 3>keys
	for _ in $(seq 300); do ! grep -q 'qemu-io>' hold.out || return 0; sleep 0.1; done
	fail in-use/hold "$(cat hold.out)"
}
let_go() { exec 3>&-; wait "$holder"; }

sums() { md5sum image base other over; }

refused() { # refused VERB...: in one line with the holder's name and number, and nothing is changed
	local status=0
	"$QCOW" "$@" >out 2>err || status=$?
	if [ $status != 0 ] && [ "$(wc -l <err)" = 1 ] && grep -q "by \(a writer: \)\?qemu-io (pid $holder)" err && [ ! -e new ]; then
		ok "$case/$*"
	else
		fail "$case/$*" "$status: $(cat err)"
	fi
}

allowed() {
	local status=0
	"$QCOW" "$@" >out 2>err || status=$?
	if [ $status = 0 ]; then ok "$case/$*"; else fail "$case/$*" "$status: $(cat err)"; fi
}

qemu-img create -q -f raw base 1M
qemu-img create -q -f qcow2 -b base -F raw image
qemu-img snapshot -c s image
qemu-img create -q -f qcow2 other 1M
qemu-img create -q -f qcow2 -b image -F qcow2 over
sums >before

writers() {
	refused check -r leaks image
	refused check -r all image
	refused snapshot -c x image
	refused snapshot -a s image
	refused snapshot -d s image
	refused resize image 2M
	refused resize --shrink image 512k
	refused amend -o lazy_refcounts=on image
	refused rebase -b '' image
	refused rebase -u -b '' image
	refused commit image
	refused bitmap --add image x
	refused bitmap --remove image x
	refused create image 1M
	refused convert -O qcow2 other image
	refused convert -n -O qcow2 other image
	refused convert -n other image
	refused commit over
}

case=in-use/written
hold -f qcow2 image
writers
for verb in check info map 'snapshot -l' 'bitmap --list' 'measure -O qcow2' 'map --json' 'info --json'; do
	# shellcheck disable=SC2086
	refused $verb image
done
refused compare image other
refused compare other image
refused convert image new
refused convert over new
refused map over
refused info --backing-chain over
refused create -q -b image -F qcow2 new
refused rebase -b image -F qcow2 other
allowed check -U image
allowed info -U image
allowed map -U --json image
allowed snapshot -l -U image
allowed info over
let_go
if sums | cmp -s - before; then ok $case/unchanged; else fail $case/unchanged "$(sums | diff - before)"; fi

# By another who reads: QEMU shares it with readers, not with writers.
case=in-use/read
hold -r -f qcow2 image
writers
allowed check image
allowed info image
allowed map --json image
allowed snapshot -l image
allowed compare image over
allowed measure -O qcow2 image
allowed create -q -b image -F qcow2 overlay
let_go

# Over it somebody else's image is written to: then it must not change either.
case=in-use/backing
hold -f qcow2 over
writers
allowed check image
allowed map --json image
let_go
if sums | cut -d ' ' -f 1 | head -3 | cmp -s - <(cut -d ' ' -f 1 before | head -3); then ok $case/unchanged; else
	fail $case/unchanged "$(sums | diff - before)"
fi
finish
