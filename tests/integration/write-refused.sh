#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Images that must not be written to are refused, with a line that says why and what to do, and stay as they are;
# whoever else would write is kept off; and where an image has its guest's data on its own metadata, nothing is
# written.
# vm: --disk 256M
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires qemu-img qemu-io python3 xxd

image=$SCRATCH/image

new() { # new OPTION-OF-create...: with a MiB of data
	rm -f "$image"
	qemu-img create -q -f qcow2 "$@" "$image" 1G
	qemu-io -f qcow2 -c 'write -q -P 0x11 0 1M' "$image"
}

# poke OFFSET BYTES: in hexadecimal
poke() {
	xxd -r -p <<<"$2" | dd of="$image" bs=1 seek="$1" conv=notrunc status=none
}

# u64 OFFSET: from the image
u64() {
	python3 -c 'import struct, sys
with open(sys.argv[1], "rb") as f:
    f.seek(int(sys.argv[2]))
    print(struct.unpack(">Q", f.read(8))[0])' "$image" "$1"
}

# byte DEVICE OFFSET: in hexadecimal
byte() {
	od -An -tx1 -j"$2" -N1 "/dev/mapper/$1" | tr -d ' '
}

# ---- refused ---------------------------------------------------------------------------------------

# not_opened WORD [OPTION]...: refused with WORD in what is said, the image unchanged, and read-only as good as ever
not_opened() {
	local before
	before=$(sha256sum <"$image")
	refused qcow open r "$image" "${@:2}"
	grep -qi -- "$1" "$SCRATCH/said" || fail "'$(cat "$SCRATCH/said")' does not say '$1'"
	equal "lines" "$(wc -l <"$SCRATCH/said")" 1
	equal "the image" "$(sha256sum <"$image")" "$before"
	qcow open r "$image" --read-only
	equal "first byte" "$(byte r 0)" 11
	qcow close r
}

flags() {
	new
	poke 79 01
	not_opened 'check -r'
	new
	poke 79 02
	not_opened 'check -r'
}

small_clusters() {
	new -o cluster_size=512
	not_opened 'too small for writing'
	new -o cluster_size=2k
	not_opened 'too small for writing'
}

no_direct_io() {
	local image
	mkdir "$SCRATCH/ram"
	mount -t ramfs none "$SCRATCH/ram"
	cleanup umount "$SCRATCH/ram"
	image=$SCRATCH/ram/image
	new
	refused qcow open r "$image"
	grep -q 'without direct I/O' "$SCRATCH/said" || fail "$(cat "$SCRATCH/said")"
	equal "lines" "$(wc -l <"$SCRATCH/said")" 1
}

bitmaps() {
	new
	qemu-img bitmap --add -f qcow2 "$image" b
	not_opened drop-bitmaps
	open_rw r "$image" --drop-bitmaps
	dd if=/dev/zero of=/dev/mapper/r bs=4k count=1 oflag=direct conv=fsync status=none
	close_rw r
	# Nobody counts their clusters any more.
	checked "$image" leaks
}

# ---- kept off --------------------------------------------------------------------------------------

second_writer() {
	new
	open_rw r "$image"
	refused qemu-io -f qcow2 -c 'write 0 4k' "$image"
	refused qemu-img snapshot -c s "$image"
	refused qcow open r2 "$image"
	# Not even with all helpers gone.
	kill_helpers both
	refused qemu-io -f qcow2 -c 'write 0 4k' "$image"
	close_rw r
	qemu-io -f qcow2 -c 'write -q 0 4k' "$image"
}

locked() {
	grep -q OFDLCK /proc/locks
}

# Somebody who has the image is not written under.
used_by_qemu() {
	local user
	new
	qemu-io "$@" -f qcow2 -c 'read -q 0 4k' -c 'sleep 600000' "$image" >/dev/null &
	user=$!
	eventually 60 locked
	refused qcow open r "$image"
	kill -0 "$user" || fail "qemu-io has ended"
	kill "$user"
	wait "$user" || true
	open_rw r "$image"
	close_rw r
}

base_in_use() {
	new
	qemu-img create -q -f qcow2 -b "$image" -F qcow2 "$SCRATCH/top"
	open_rw r "$SCRATCH/top"
	refused qemu-io -f qcow2 -c 'write 0 4k' "$image"
	refused qcow open r2 "$image"
	# Others may read it, and stand on it.
	qemu-io -r -f qcow2 -c 'read -q 0 4k' "$image" >/dev/null
	qemu-img create -q -f qcow2 -b "$image" -F qcow2 "$SCRATCH/other"
	open_rw r2 "$SCRATCH/other"
	close_rw r2
	close_rw r
	open_rw r "$image"
	close_rw r
}

# ---- the guest's data on metadata ------------------------------------------------------------------

# place_of l1|l2|other-l2|table|block|snapshots: where that is in the image
place_of() {
	local l1
	l1=$(u64 40)
	case $1 in
	l1) echo "$l1" ;;
	l2) echo $(($(u64 "$l1") & 0x00fffffffffffe00)) ;;
	other-l2) echo $(($(u64 $((l1 + 8))) & 0x00fffffffffffe00)) ;;
	table) u64 48 ;;
	block) u64 "$(u64 48)" ;;
	snapshots) u64 64 ;;
	esac
}

# A lease rightly raises refcounts; it lowers or changes none.
refcounts_kept() { # refcounts_kept BEFORE AFTER
	python3 -c 'import sys
before, after = (open(name, "rb").read() for name in sys.argv[1:])
for i in range(0, len(before), 2):
    if after[i:i + 2] != before[i:i + 2] and (before[i:i + 2], after[i:i + 2]) != (b"\0\0", b"\0\1"):
        sys.exit(f"refcount {i // 2}: {before[i:i + 2].hex()} became {after[i:i + 2].hex()}")' "$1" "$2"
}

cluster_at() { # cluster_at OFFSET FILE
	dd if="$image" of="$2" bs=64k skip=$(($1 / 65536)) count=1 iflag=fullblock status=none
}

# on_metadata WHAT: guest cluster 5 claims to own that one's host cluster
on_metadata() {
	local place
	new
	qemu-io -f qcow2 -c 'write -q -P 0x12 600M 1M' "$image"
	if [ "$1" = snapshots ]; then
		qemu-img snapshot -c s "$image"
		# An L2 table that the snapshot does not share: else nothing that it names is written in place.
		qemu-io -f qcow2 -c 'write -q -P 0x13 512k 64k' "$image"
	fi
	place=$(place_of "$1")
	[ "$place" -gt 0 ] || fail "no $1"
	poke $(($(place_of l2) + 5 * 8)) "$(printf '80%014x' "$place")"
	cluster_at "$place" "$SCRATCH/before"
	open_rw r "$image"
	refused dd if=/dev/urandom of=/dev/mapper/r bs=64k seek=5 count=1 oflag=direct conv=fsync,nocreat
	grep -q 'Input/output error' "$SCRATCH/said" || fail "$1: $(cat "$SCRATCH/said")"
	equal "mode" "$(state r mode)" RO
	# In part neither, and what is beside it can be read.
	refused dd if=/dev/urandom of=/dev/mapper/r bs=4k seek=81 count=1 oflag=direct conv=fsync,nocreat
	equal "its neighbour's byte" "$(byte r 262144)" 11
	qcow close r --force
	cluster_at "$place" "$SCRATCH/after"
	if [ "$1" = block ]; then
		refcounts_kept "$SCRATCH/before" "$SCRATCH/after"
	else
		cmp "$SCRATCH/before" "$SCRATCH/after" || fail "$1 has changed"
	fi
	note "data on $1: refused"
}

# An entry for cluster 0, where the header is, names no cluster: what is written goes elsewhere.
on_header() {
	new
	poke $(($(place_of l2) + 5 * 8)) 8000000000000000
	cluster_at 0 "$SCRATCH/before"
	open_rw r "$image"
	dd if=/dev/urandom of=/dev/mapper/r bs=64k seek=5 count=1 oflag=direct conv=fsync,nocreat status=none ||
		equal "mode" "$(state r mode)" RO
	qcow close r --force
	cluster_at 0 "$SCRATCH/after"
	cmp "$SCRATCH/before" "$SCRATCH/after" || fail "the header has changed"
}

cleanup drop_rw r2
cleanup drop_rw r
flags
small_clusters
no_direct_io
bitmaps
second_writer
used_by_qemu
used_by_qemu -r
base_in_use
on_header
for what in l1 l2 other-l2 table block snapshots; do
	on_metadata "$what"
done
