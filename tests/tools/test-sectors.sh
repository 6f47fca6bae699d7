#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A file system on a disk with sectors of 4096 bytes: a raw file that ends within one does not become longer.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

SIZE=1049088
mkdir disk
truncate -s 32M disk.raw
loop=$(losetup --sector-size 4096 -f --show disk.raw 2>/dev/null) || { echo "skip sectors: no loop devices"; exit 0; }
trap 'umount disk 2>/dev/null; losetup -d "$loop"; rm -rf "$WORK"' EXIT
if ! { mkfs.ext4 -q "$loop" && mount "$loop" disk; } >log 2>&1; then
	echo "skip sectors: $(head -n 1 log)"
	exit 0
fi
cd disk
head -c $SIZE /dev/urandom >"$WORK/a.raw"
cp "$WORK/a.raw" base.raw
head -c 1048576 "$WORK/a.raw" >"$WORK/want.raw"
printf '\7%.0s' {1..512} >>"$WORK/want.raw"

# same NAME FILE: it is the disk, and no byte longer.
same() { if cmp "$WORK/want.raw" "$2" >"$WORK/log" 2>&1; then ok "$1"; else fail "$1" "$(stat -c %s "$2") bytes: $(cat "$WORK/log")"; fi; }

"$QCOW" create -q -b base.raw -F raw i.q
qemu-io -f qcow2 -c 'write -P 7 1048576 512' i.q >"$WORK/log"
"$QCOW" create -q -o data_file=d,data_file_raw=on d.q $SIZE
"$QCOW" convert -n -f qcow2 -O qcow2 i.q d.q
same sectors/convert-data-file d
"$QCOW" convert -f qcow2 -O qcow2 -o data_file=new,data_file_raw=on i.q new.q
same sectors/convert-new-data-file new
cp "$WORK/a.raw" into.raw
"$QCOW" convert -n -f qcow2 -O raw i.q into.raw
same sectors/convert-raw into.raw
"$QCOW" commit -q -f qcow2 i.q
same sectors/commit base.raw
"$QCOW" create -q -b base.raw -F raw -o data_file=rebased r.q
"$QCOW" rebase -f qcow2 -b '' r.q
same sectors/rebase rebased
cd "$WORK"
finish
