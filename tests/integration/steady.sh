#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What a steady stream of writes asks of the helper and leaves below, by the counters: overwrites and flushes with
# nothing to commit ask nothing; allocations never wait, and cost one write of refcounts for each lease; who flushes at
# the same time shares a commit, who never flushes is committed nevertheless; a discard gives space back below unless
# it is to be kept; and what the device says it can do.
# vm: --disk 1G --mem 1536
# timeout: 300
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires fio mkfs.ext4 python3 qemu-img strace

MIB=1048576

# new NAME SIZE [OPTION-OF-qcow-open]...: a fresh image on the file system, opened for writing
new() {
	image=$SCRATCH/mnt/$1
	qemu-img create -q -f qcow2 "$image" "$2"
	cleanup drop_rw "$1"
	open_rw "$1" "$image" "${@:3}"
}

write() { # write NAME FIO-ARG...
	fio --name=w --filename="$(node "$1")" --direct=1 --ioengine=libaio "${@:2}" >"$SCRATCH/fio" 2>&1 || {
		cat "$SCRATCH/fio"
		fail "fio"
	}
}

flush() { # flush NAME
	dd if=/dev/null of="$(node "$1")" conv=notrunc,fsync status=none
}

# mark NAME KEY...: since asks about these
declare -A marks
mark() {
	local key
	for key in "${@:2}"; do
		marks[$key]=$(counter "$1" "$key")
	done
}

since() { # since NAME KEY
	echo $(($(counter "$1" "$2") - marks[$2]))
}

overwrites() {
	new o 64M
	write o --rw=write --bs=1M --size=16M --end_fsync=1
	mark o upcalls writes deferred
	write o --rw=randwrite --bs=4k --size=16M --io_size=8M --iodepth=16
	[ "$(since o writes)" -ge 2048 ] || fail "the device saw $(since o writes) writes"
	equal "deferred" "$(since o deferred)" 0
	equal "upcalls of overwrites" "$(since o upcalls)" 0
	flush o
	mark o upcalls flushes
	flush o
	flush o
	[ "$(since o flushes)" -ge 2 ] || fail "no flush came"
	equal "upcalls of flushes with nothing to commit" "$(since o upcalls)" 0
	close_rw o
}

# Not faster than a helper on a slow machine can follow: the mark is at 32 MiB.
allocations() {
	local tracer pids=() pid refcounts
	new a 512M
	write a --rw=write --bs=64k --size=1M --end_fsync=1
	for pid in $(workers); do pids+=(-p "$pid"); done
	strace -f -qq -s 0 -e trace=pwrite64 -o "$SCRATCH/strace" "${pids[@]}" &
	tracer=$!
	eventually 10 grep -q '^TracerPid:[[:space:]]*[1-9]' "/proc/${pids[1]}/status"
	mark a waits leases upcalls
	write a --rw=randwrite --bs=64k --offset=1M --size=300M --iodepth=8 --rate=40m --randseed=1
	flush a
	kill "$tracer"
	wait "$tracer" || true
	refcounts=$("$TESTS/bench/guest/metawrites" "$image" "$SCRATCH/strace" | sed -n 's/^refblock_writes //p')
	note "4800 allocations: $(since a leases) leases, $refcounts writes of refcounts, $(since a upcalls) upcalls"
	equal "waits" "$(since a waits)" 0
	[ "$(since a leases)" -ge 4 ] || fail "$(since a leases) leases for 300 MiB"
	[ "$refcounts" -le "$(since a leases)" ] || fail "$refcounts writes of refcounts for $(since a leases) leases"
	close_rw a
	checked "$image"
}

durable() { # durable NAME: all of it
	[ "$(counter "$1" deltas)" = 0 ]
}

commits() {
	new c 512M
	write c --rw=write --bs=64k --size=1M --end_fsync=1
	mark c flushes commits
	write c --rw=write --bs=64k --offset=1M --size=1M
	[ "$(counter c deltas)" -gt 0 ] || fail "durable without a flush already"
	eventually 60 durable c
	equal "flushes" "$(since c flushes)" 0
	mark c commits
	write c --rw=randwrite --bs=64k --numjobs=8 --offset=8M --offset_increment=16M --size=4M --fsync=1
	note "512 flushes of 8 jobs made $(since c commits) commits"
	[ "$(since c commits)" -lt 400 ] || fail "hardly any two flushes shared a commit: $(since c commits) for 512"
	close_rw c
	checked "$image"
}

used_below() { # used_below: KiB, of the image
	du -k "$image" | cut -f1
}

# discarded NAME [OPTION-OF-qcow-open]...: sets kib to what the image is smaller after a discard of 8 MiB
discarded() {
	local before
	new "$@"
	write "$1" --rw=write --bs=1M --size=16M --end_fsync=1
	dmsetup suspend "$1"
	before=$(used_below)
	dmsetup resume "$1"
	blkdiscard -o $((4 * MIB)) -l $((8 * MIB)) "$(node "$1")"
	dmsetup suspend "$1"
	kib=$((before - $(used_below)))
	checked "$image"
	dmsetup resume "$1"
	cmp -n $((8 * MIB)) -i $((4 * MIB)):0 "$(node "$1")" /dev/zero
	close_rw "$1"
}

# Clusters of zeros in the image that have a place in it
places_of_zeros() {
	qemu-img map -f qcow2 --output=json "$image" | python3 -c 'import json, sys
print(sum(e["length"] for e in json.load(sys.stdin) if e["zero"] and "offset" in e))'
}

discards() {
	local kib
	discarded d 64M
	[ "$kib" -ge 8000 ] || fail "the file is $kib KiB smaller after a discard of 8 MiB"
	equal "places of what was discarded" "$(places_of_zeros)" 0
	discarded k 64M --keep-discarded
	equal "places of what was discarded, if they are kept" "$(places_of_zeros)" $((8 * MIB))
	[ "$kib" -lt 1024 ] || fail "the file is $kib KiB smaller, although space is to be kept"
}

limit() { # limit NAME FILE: of its queue
	cat "/sys/block/$(dmsetup info -c --noheadings -o blkdevname "$1")/queue/$2"
}

limits() {
	new l 64M
	equal "discard granularity" "$(limit l discard_granularity)" 65536
	[ "$(limit l discard_max_bytes)" -ge $MIB ] || fail "no discard"
	[ "$(limit l write_zeroes_max_bytes)" -ge $MIB ] || fail "no write zeroes"
	equal "write cache" "$(limit l write_cache)" "write back"
	equal "FUA" "$(limit l fua)" 1
	equal "best size of an I/O" "$(limit l optimal_io_size)" 65536
	close_rw l
	# Version 2 has no entry that would hide what the base has.
	qemu-img create -q -f qcow2 -o compat=0.10 -b "$image" -F qcow2 "$SCRATCH/mnt/v2"
	cleanup drop_rw v
	open_rw v "$SCRATCH/mnt/v2"
	equal "discard of version 2 over a base" "$(limit v discard_max_bytes)" 0
	equal "write zeroes of it" "$(limit v write_zeroes_max_bytes)" 0
	close_rw v
}

use_disk disk1 1 1G
mkfs.ext4 -q "$disk1"
mkdir "$SCRATCH/mnt"
mount "$disk1" "$SCRATCH/mnt"
cleanup umount "$SCRATCH/mnt"
overwrites
allocations
commits
discards
limits
