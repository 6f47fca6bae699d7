#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# An internal snapshot as a device: by id, by name, by the table's option; every byte as qemu-img converts it, also
# after the helper died. Refused: to write to one, one that is not there, one beside a running writer.
# vm: --mem 1024
# timeout: 240
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires qemu-img qemu-io

IMAGE=$SCRATCH/image
nr=0

write() { # write PATTERN OFFSET LENGTH [-c]
	qemu-io -f qcow2 -c "write -q ${4-} -P $1 $2 $3" "$IMAGE"
}

# Over a backing file; shared, replaced, compressed and zeroed clusters. The third is named as the first's id: ids
# go before names.
make_image() {
	qemu-img create -q -f raw "$SCRATCH/base" 8M
	qemu-io -f raw -c 'write -q -P 0x77 0 8M' "$SCRATCH/base"
	qemu-img create -q -f qcow2 -b base -F raw "$IMAGE" 8M
	write 0x11 0 3M
	write 0x12 5M 64k -c
	qemu-img snapshot -c first "$IMAGE"
	write 0x21 1M 1M
	qemu-io -f qcow2 -c 'write -q -z 2M 64k' "$IMAGE"
	write 0x22 6M 64k -c
	qemu-img snapshot -c 'the second' "$IMAGE"
	write 0x31 0 100k
	qemu-img snapshot -c 1 "$IMAGE"
	write 0x41 4M 4M
	for name in first 'the second' 1; do
		qemu-img convert -f qcow2 -O raw -l "snapshot.name=$name" "$IMAGE" "$SCRATCH/want-$name"
	done
	qemu-img convert -f qcow2 -O raw "$IMAGE" "$SCRATCH/want-now"
	equal "different states" "$(sha256sum "$SCRATCH"/want-* | cut -c1-64 | sort -u | wc -l)" 4
}

same_snapshot() { # same_snapshot ID-OR-NAME NAME
	qcow open snap "$IMAGE" --read-only --snapshot "$1"
	same_bytes /dev/mapper/snap "$SCRATCH/want-$2"
	qcow close snap
	nr=$((nr + 1))
}

by_id_and_name() {
	same_snapshot 1 first
	same_snapshot first first
	same_snapshot 2 'the second'
	same_snapshot 3 1
	qcow open snap "$IMAGE" --read-only
	same_bytes /dev/mapper/snap "$SCRATCH/want-now"
	qcow close snap
	equal "snapshots compared" "$nr" 4
}

by_table() {
	local table
	table=$(qcow table "$IMAGE" --snapshot first)
	equal "the option" "${table##* }" snapshot:first
	dmsetup create snap --readonly --table "$table"
	same_bytes /dev/mapper/snap "$SCRATCH/want-first"
	equal "what can be loaded again" "$(dmsetup table snap)" "$table"
	dmsetup remove snap
}

# The disk was smaller, and larger, when they were taken; so were their L1 tables. What QEMU read then is what they are:
# it would read a snapshot at the size of now.
other_sizes() {
	local image=$SCRATCH/sized size name
	qemu-img create -q -f qcow2 -o cluster_size=4k "$image" 1M
	for size in 3M 40M 5M; do
		qemu-img resize -q --shrink -f qcow2 "$image" "$size"
		qemu-io -f qcow2 -c "write -q -P ${size%M} 0 300k" -c "write -q -P ${size%M} $((${size%M} - 1))M 1M" "$image"
		qemu-img snapshot -c "at-$size" "$image"
		qemu-img convert -f qcow2 -O raw "$image" "$SCRATCH/want-at-$size"
	done
	for name in at-3M at-40M at-5M; do
		qcow open snap "$image" --read-only --snapshot "$name"
		same_bytes /dev/mapper/snap "$SCRATCH/want-$name"
		qcow close snap
	done
}

attached_again() {
	[ "$(counter snap attaches)" -gt 1 ]
}

# The new one must find the same snapshot, not the active state.
helper_dies() {
	open_device snap "$IMAGE" --snapshot first
	head -c 4096 /dev/mapper/snap >/dev/null
	kill -KILL "$(workers)"
	eventually 20 attached_again
	dmsetup message snap 0 drop_caches
	echo 3 >/proc/sys/vm/drop_caches
	same_bytes /dev/mapper/snap "$SCRATCH/want-first"
	qcow close snap
}

said() { # said WHAT REGEX
	equal "lines about: $1" "$(wc -l <"$SCRATCH/said")" 1
	grep -qE "$2" "$SCRATCH/said" || fail "$1: '$(cat "$SCRATCH/said")' does not match $2"
	note "$1: $(cat "$SCRATCH/said")"
}

refusals() {
	refused qcow open snap "$IMAGE" --read-only --snapshot fourth
	said "no such snapshot" '^qcow: .*image: .*no snapshot with id or name "fourth"'
	refused qcow open snap "$IMAGE" --read-only --snapshot 'the second'
	said "a name that no table can have" "^qcow: .*blanks.*a snapshot's id"
	refused qcow open snap "$IMAGE" --snapshot first
	said "writing" '^qcow: .*image: a snapshot cannot be written to; open it read-only'
	# Whoever writes to the image may delete the snapshot, and put other data where it was.
	open_device snap "$IMAGE" --snapshot first
	refused qemu-img snapshot -d first "$IMAGE"
	refused qemu-io -f qcow2 -c 'write 0 4k' "$IMAGE"
	same_bytes /dev/mapper/snap "$SCRATCH/want-first"
	qcow close snap
}

beside_writer() {
	local writer
	mkfifo "$SCRATCH/commands"
	qemu-io -f qcow2 "$IMAGE" <"$SCRATCH/commands" >"$SCRATCH/qemu-io" &
	writer=$!
	exec {pipe}>"$SCRATCH/commands"
	echo 'write -P 1 0 64k' >&"$pipe"
	eventually 20 grep -q wrote "$SCRATCH/qemu-io"
	refused qcow open snap "$IMAGE" --read-only --snapshot first
	said "beside a writer" "^qcow: .*image is .*writer.*qemu-io \(pid $writer\)"
	exec {pipe}>&-
	wait "$writer"
	same_snapshot first first
}

cleanup drop_device snap
make_image
by_id_and_name
by_table
other_sizes
helper_dies
refusals
beside_writer
