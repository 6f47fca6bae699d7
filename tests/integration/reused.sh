#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Clusters that were discarded are used again for little writes: around those there are zeros, and nothing of what was
# there before. That is still on the disk, because here nobody tells it of discards.
# vm: --disk 512M
# timeout: 120
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires qemu-img qemu-io python3 blkdiscard

# The guest's: discarded are the first, so few that they are kept, written the others: more than a lease has, so that
# it is used up.
DISCARDED_KIB=256
WRITTEN_MIB=8
NR_WRITTEN=1200

# little write|compare FILE CLUSTER-SIZE: 4 KiB in each of the clusters
little() {
	python3 -c 'import mmap, os, sys
what, path, size, first, nr = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
new = b"\x22" * 4096
whole = bytes(4096) + new + bytes(size - 8192)
if what == "write":
    page = mmap.mmap(-1, 4096)
    page.write(new)
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    for i in range(nr):
        os.pwrite(fd, page, first + i * size + 4096)
    os.fsync(fd)
else:
    fd = os.open(path, os.O_RDONLY)
    for i in range(nr):
        got = os.pread(fd, size, first + i * size)
        if got != whole:
            bad = next(j for j in range(size) if got[j] != whole[j])
            sys.exit(f"cluster {i} has {got[bad]:#x} at {bad}: what was there before")' \
		"$1" "$2" "$3" $((WRITTEN_MIB << 20)) "$NR_WRITTEN"
}

# places IMAGE CLUSTER-SIZE: where the image's data is, a line for each cluster
places() {
	qemu-img map -f qcow2 --output=json "$1" | python3 -c 'import json, sys
size = int(sys.argv[1])
for e in json.load(sys.stdin):
    if e["data"]:
        for place in range(e["offset"] // size * size, e["offset"] + e["length"], size):
            print(place)' "$2" | sort -u
}

# reused IMAGE CLUSTER-SIZE [OPTION-OF-create]...
reused() {
	local image=$1 size=$2 nr
	qemu-img create -q -f qcow2 -o "cluster_size=$size" "${@:3}" "$image" 256M
	qemu-io -f qcow2 -c "write -q -P 0x11 0 ${DISCARDED_KIB}k" "$image"
	places "$image" "$size" >"$SCRATCH/before"
	nr=$((DISCARDED_KIB * 1024 / size))
	equal "clusters" "$(wc -l <"$SCRATCH/before")" "$nr"
	open_rw z "$image" --no-discard-passdown
	blkdiscard -f -o 0 -l $((DISCARDED_KIB << 10)) "$(node z)"
	sync -d "$(node z)"
	little write "$(node z)" "$size"
	little compare "$(node z)" "$size" || fail "seen on the device"
	close_rw z
	checked "$image"
	places "$image" "$size" >"$SCRATCH/after"
	equal "clusters used again" "$(comm -12 "$SCRATCH/before" "$SCRATCH/after" | wc -l)" "$nr"
	qemu-img convert -f qcow2 -O raw "$image" "$SCRATCH/raw"
	little compare "$SCRATCH/raw" "$size" || fail "seen by QEMU"
	rm "$SCRATCH/raw"
	note "$image: $nr clusters of $size bytes were used again"
}

use_disk disk1 1 512M
cleanup drop_rw z
reused "$disk1" 65536
reused "$SCRATCH/image" 65536
rm "$SCRATCH/image"
reused "$SCRATCH/image" 131072 -o extended_l2=on
