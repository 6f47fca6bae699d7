#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What a header has that neither qcow nor qemu-img knows is there after every verb that changes the image, but for the
# autoclear bits, which must go; and the extensions are in QEMU's order. An incompatible bit stops all of them, info and check too.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

header=$REPO/tests/tools/header.py
data="qemu-io -f qcow2 -c 'write -P 7 0 1M' i"

# keeps NAME MAKE TEMPLATE [WORDS]: WORDS are in what header.py shows afterwards
mark=mark
keeps() {
	local word why words=${4:-a future,nobody knows,compatible: True,autoclear: False}
	make_images "$2 && $header $mark i" || { fail "$1" 'cannot make the image'; return; }
	run_both "$3"
	if [ "$mine$theirs" != 00 ]; then
		fail "$1" "exit status $mine, qemu-img $theirs: $(head -n 1 ours.err)"
		return
	fi
	"$header" show ours/i >shown
	why=$(diff <("$header" show qemu/i) shown | head -n 3 | tr '\n' ' ') || true
	while read -rd , word; do
		grep -q "$word" shown || why+="no $word: $(tr '\n' ' ' <shown)"
	done <<<"$words,"
	why+=$(sound ours/i)
	if [ -n "$why" ]; then fail "$1" "$why"; else ok "$1"; fi
}

create='qemu-img create -f qcow2'
keeps header/amend "$create i 3M && $data" 'TOOL amend -f qcow2 -o lazy_refcounts=on i'
keeps header/amend-refcounts "$create i 3M && $data" 'TOOL amend -f qcow2 -o refcount_bits=8 i'
keeps header/bitmap "$create i 3M && $data" 'TOOL bitmap --add -f qcow2 i b'
keeps header/resize "$create i 3M && $data" 'TOOL resize -q -f qcow2 i 5M'
keeps header/resize-l1 "$create -o cluster_size=4k i 1M" 'TOOL resize -q -f qcow2 i 4G'
keeps header/snapshot "$create i 3M && $data" 'TOOL snapshot -c a i'
keeps header/snapshot-apply "$create i 3M && $data && qemu-img snapshot -c a i" 'TOOL snapshot -a a i'
keeps header/snapshot-delete "$create i 3M && $data && qemu-img snapshot -c a i" 'TOOL snapshot -d a i'
keeps header/rebase "$create b 3M && $create -b b -F qcow2 i && cp b c" 'TOOL rebase -u -f qcow2 -b c -F qcow2 i'
keeps header/rebase-flat "$create b 3M && $create -b b -F qcow2 i && $data" 'TOOL rebase -f qcow2 -b "" i'
keeps header/commit "$create b 3M && $create -b b -F qcow2 i && $data" 'TOOL commit -q -f qcow2 i'

# One of everything: format of the base, data file, bitmaps, the unknown one, whatever the order was.
mark='mark-first'
keeps header/order "$create b 3M && $create -o data_file=d -b b -F qcow2 i && cp b c && qemu-img bitmap --add i m" \
	'TOOL rebase -u -f qcow2 -b c -F qcow2 i' 'order: 0xe2792aca 0x44415441 0x23852875 0x12345678'
keeps header/order-flat "$create b 3M && $create -b b -F qcow2 i && qemu-img bitmap --add i m" \
	'TOOL rebase -u -f qcow2 -b "" i' 'order: 0x23852875 0x12345678'
mark=mark

v2="$create -o compat=0.10"
keeps header/v2-resize "$v2 i 3M && $data" 'TOOL resize -q -f qcow2 i 5M' 'nobody knows'
keeps header/v2-rebase "$create b 3M && $v2 -b b -F qcow2 i && cp b c" 'TOOL rebase -u -f qcow2 -b c -F qcow2 i' 'nobody knows'
keeps header/v2-snapshot "$v2 i 3M && $data" 'TOOL snapshot -c a i' 'nobody knows'
keeps header/v2-amend "$v2 i 3M && $data" 'TOOL amend -f qcow2 -o compat=1.1 i' 'nobody knows,compatible: False'

# stopped NAME TEMPLATE: by both, and nothing is changed
stopped() {
	make_images "$create i 3M && $data && printf '\x80' | dd of=i bs=1 seek=72 conv=notrunc"
	cp ours/i before
	run_both "$2"
	if [ "$mine" != 1 ] || [ "$theirs" != 1 ]; then
		fail "$1" "exit status $mine, qemu-img $theirs"
	elif ! grep -q 'feature bit 63' ours.err; then
		fail "$1" "does not say why: $(head -n 1 ours.err)"
	elif ! cmp -s ours/i before; then
		fail "$1" 'changed the image'
	else
		ok "$1"
	fi
}

# full_header NAME MAKE ARGS...: a header that cannot be moved within one sector is left alone, and says so
full_header() {
	make_images "$2 && $header mark-long i"
	cp ours/i before
	if (cd ours && "$QCOW" "${@:3}" >../out 2>../err); then
		fail "$1" 'should have been refused'
	elif [ "$(wc -l <err)" != 1 ] || ! grep -q 'no room' err; then
		fail "$1" "does not say why: $(head -n 1 err)"
	elif ! cmp -s ours/i before; then
		fail "$1" 'changed the image'
	else
		ok "$1"
	fi
}

full_header header/full-bitmap "$create i 3M" bitmap --add i b
full_header header/full-rebase "$create b 3M && $create -b b -F qcow2 i && cp b c" rebase -u -b c -F qcow2 i
full_header header/full-amend "$create i 3M" amend -o compat=0.10 i

stopped header/incompatible-info 'TOOL info i'
stopped header/incompatible-check 'TOOL check -f qcow2 i'
stopped header/incompatible-repair 'TOOL check -f qcow2 -r all i'
stopped header/incompatible-map 'TOOL map i'
stopped header/incompatible-resize 'TOOL resize -f qcow2 i 5M'
stopped header/incompatible-snapshot 'TOOL snapshot -c a i'
stopped header/incompatible-convert 'TOOL convert -f qcow2 -O raw i o'
finish
