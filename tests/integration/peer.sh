#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What QEMU's own block device reads: the column for qemu-nbd in docs/compatibility.md. Every image of the matrix
# through the kernel's nbd driver, byte for byte, and what we refuse and it does not. A line that comes out otherwise
# means that the table is wrong.
# vm: --mem 1536
# level: full
# host: tests/images/matrix
# timeout: 900
# shellcheck disable=SC2119 # use_images needs no words
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires qemu-nbd qemu-img blockdev

DEV=/dev/nbd0
same=0

size_is_known() {
	[ "$(blockdev --getsize64 "$DEV")" != 0 ]
}

detach() {
	qemu-nbd -d "$DEV" >/dev/null 2>&1 || true
	eventually 20 nobody_serves
}

nobody_serves() {
	! pgrep -x qemu-nbd
}

# attach ARG...: of qemu-nbd
attach() {
	qemu-nbd --read-only --cache=none --aio=native --connect="$DEV" "$@" 2>"$SCRATCH/said" || return
	eventually 20 size_is_known
}

# differs [ARG]... IMAGE RAW: 0 the same bytes, 1 other ones, 2 it does not open
differs() {
	local raw=${*: -1} status=0
	attach "${@:1:$#-1}" || return 2
	cmp -s "$DEV" "$raw" || status=1
	[ "$(blockdev --getsize64 "$DEV")" = "$(stat -L -c %s "$raw")" ] || status=1
	detach
	return "$status"
}

# expect WHAT 0|1|2 ARG...: as differs says
expect() {
	local what=$1 want=$2 got=0
	shift 2
	differs "$@" || got=$?
	equal "qemu-nbd, $what" "$got" "$want"
	note "$what: $(cut -d' ' -f$((got + 1)) <<<"yes other-bytes refused")"
}

matrix() {
	local dir status others=''
	for dir in "$IMAGES_AT"/*/; do
		status=0
		differs --format=qcow2 "$dir/image" "$dir/raw" || status=$?
		if [ "$status" = 0 ]; then
			same=$((same + 1))
		else
			note "$(basename "$dir"): $status ($(cat "$SCRATCH/said"))"
			others+=" $(basename "$dir")"
		fi
	done
	note "$same images read the same through qemu-nbd"
	[ "$same" -ge 50 ] || fail "only $same images"
	equal "images that read otherwise through qemu-nbd" "$others" ''
}

odd_ones() {
	local d=$SCRATCH/odd
	mkdir "$d"
	head -c 1M /dev/urandom >"$d/base"
	qemu-img create -q -f qcow2 -b base -F raw "$d/top"
	# The second u32 of the extension is its length: with another kind its format is not recorded.
	printf '\x12\x34\x56\x78' | dd of="$d/top" bs=1 seek="$(LC_ALL=C grep -obUaP '\xe2\x79\x2a\xca' "$d/top" | head -n 1 | cut -d: -f1)" \
		conv=notrunc status=none
	expect "backing format not recorded" 0 --format=qcow2 "$d/top" "$d/base"
	mkdir "$d/elsewhere"
	cp "$d/base" "$d/elsewhere/base"
	qemu-img create -q -f qcow2 -b "$d/elsewhere/base" -F raw "$d/top"
	expect "a base in another folder" 0 --format=qcow2 "$d/top" "$d/base"
	qemu-img create -q -f qcow2 "$d/snap" 1M
	qemu-io -f qcow2 -c 'write -q -P 7 0 1M' "$d/snap"
	qemu-img snapshot -c s "$d/snap"
	qemu-img convert -f qcow2 -O raw "$d/snap" "$d/snap.raw"
	qemu-io -f qcow2 -c 'write -q -P 8 0 1M' "$d/snap"
	expect "one internal snapshot" 0 --format=qcow2 --load-snapshot=snapshot.name=s "$d/snap" "$d/snap.raw"
	qemu-img convert -f qcow2 -O raw "$d/snap" "$d/snap.raw"
	"$TESTS/tools/header.py" mark "$d/snap"
	expect "unknown bits, fields and extensions" 0 --format=qcow2 "$d/snap" "$d/snap.raw"
	printf '\x80' | dd of="$d/snap" bs=1 seek=72 conv=notrunc status=none
	expect "unknown incompatible bit" 2 --format=qcow2 "$d/snap" "$d/snap.raw"
}

other_formats() {
	local d=$SCRATCH/formats format
	mkdir "$d"
	head -c 1M /dev/urandom >"$d/raw"
	for format in qcow vmdk vdi vpc vhdx parallels qed; do
		qemu-img convert -f raw -O "$format" "$d/raw" "$d/$format"
		qemu-img convert -f "$format" -O raw "$d/$format" "$d/$format.raw"
		expect "$format" 0 --format="$format" "$d/$format" "$d/$format.raw"
		qemu-img create -q -f qcow2 -b "$d/$format" -F "$format" "$d/top"
		expect "a backing file in $format" 0 --format=qcow2 "$d/top" "$d/$format.raw"
	done
}

encrypted() {
	local d=$SCRATCH/encrypted format options try
	mkdir "$d"
	head -c 1M /dev/zero >"$d/zero"
	for format in luks aes; do
		options=encrypt.format=$format,encrypt.key-secret=k
		[ "$format" = aes ] || options+=,encrypt.iter-time=100
		# LUKS measures how fast the processor is, which may fail on a busy one.
		for try in 1 2 3 4 5 last; do
			qemu-img create -q -f qcow2 --object secret,id=k,data=key -o "$options" "$d/$format" 1M 2>/dev/null && break
			[ $try != last ] || fail "qemu-img makes no $format"
		done
		expect "$format, no key" 2 --format=qcow2 "$d/$format" "$d/zero"
		expect "$format, with its key" 0 --object secret,id=k,data=key \
			--image-opts "driver=qcow2,encrypt.key-secret=k,file.filename=$d/$format" "$d/zero"
	done
}

modprobe -q nbd nbds_max=1 max_part=0 || skip "no nbd driver here"
cleanup detach
use_images
matrix
odd_ones
other_formats
encrypted
