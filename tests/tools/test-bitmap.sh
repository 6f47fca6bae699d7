#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow bitmap beside qemu-img bitmap; bitmaps beside the other verbs.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

io="qemu-io -f qcow2"
image() { echo "qemu-img create -f qcow2 -o $1 i ${2-20M} && $io -c 'write 0 1M' i"; }
# b has bits, of 64k; fine has others, of 4k.
bits="qemu-img bitmap --add i b && $io -c 'write 1M 100k' -c 'write 5M 64k' i && qemu-img bitmap --disable i b &&
	qemu-img bitmap --add -g 4k i fine && $io -c 'write 7M 5k' i"

# dirty IMAGE NAME: what a bitmap says, as ranges. QEMU reads it: a backup job's view.
dirty() {
	local sock=$PWD/nbd.sock pid i
	qemu-nbd -f qcow2 -r -B "$2" -x '' -k "$sock" -t --pid-file nbd.pid "$1" >nbd.log 2>&1 &
	pid=$!
	for i in $(seq 100); do
		[ ! -S "$sock" ] || break
		sleep 0.05
	done
	[ "$i" != 100 ] || echo "nobody serves $2: $(cat nbd.log)"
	qemu-img map --output=json --image-opts \
		"driver=nbd,server.type=unix,server.path=$sock,x-dirty-bitmap=qemu:dirty-bitmap:$2" 2>&1 |
		tr -d ' \n' | tr '}' '\n' | sed -E 's/.*"start":([0-9]+),"length":([0-9]+).*"data":(true|false).*/\1 \2 \3/'
	kill "$pid"
	wait "$pid" 2>/dev/null || true
	rm -f "$sock"
}

# bits_agree NAME BITMAP...: after run_both
bits_agree() {
	local name=$1 b
	shift
	for b in "$@"; do
		dirty qemu/i "$b" >qemu.bits
		dirty ours/i "$b" >ours.bits
		if [ ! -s qemu.bits ] || ! cmp -s qemu.bits ours.bits; then
			fail "$name/bits-$b" "$(diff qemu.bits ours.bits | head -n 3 | tr '\n' ' ')"
		else
			ok "$name/bits-$b"
		fi
	done
}

# Short options of qemu-img's own order: everything before the image.
for v in compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on; do
	both "bitmap/$v/add" i "$(image "$v")" 'TOOL bitmap --add i new'
	both "bitmap/$v/add-more" i "$(image "$v") && $bits" 'TOOL bitmap --add -g 512 i x && TOOL bitmap --add -g 2M i y'
	both "bitmap/$v/remove" i "$(image "$v") && $bits" 'TOOL bitmap --remove i b'
	both "bitmap/$v/remove-all" i "$(image "$v") && $bits" 'TOOL bitmap --remove i fine && TOOL bitmap --remove i b'
	both "bitmap/$v/merge" i "$(image "$v") && $bits" 'TOOL bitmap --merge fine i b'
	bits_agree "bitmap/$v/merge" b fine
done
plain=$(image compat=1.1)
both bitmap/merge-finer i "$plain && $bits" 'TOOL bitmap --merge b i fine'
bits_agree bitmap/merge-finer b fine
both bitmap/add-and-merge i "$plain && $bits" 'TOOL bitmap --add --disable -g 32k --merge b --merge fine i all'
bits_agree bitmap/add-and-merge all
both bitmap/clear i "$plain && $bits" 'TOOL bitmap --clear i b'
bits_agree bitmap/clear b fine
both bitmap/clear-and-merge i "$plain && $bits" 'TOOL bitmap --clear --merge fine i b'
bits_agree bitmap/clear-and-merge b
both bitmap/disable i "$plain && $bits" 'TOOL bitmap --disable i fine'
both bitmap/enable i "$plain && $bits" 'TOOL bitmap --enable i b'
both bitmap/merge-file i "$plain && $bits && cp i src && qemu-img bitmap --remove i fine" \
	'TOOL bitmap --merge fine -b src -F qcow2 i b'
bits_agree bitmap/merge-file b
both bitmap/with-snapshot i "$plain && $bits" 'TOOL snapshot -c s i && TOOL snapshot -d s i'
bits_agree bitmap/with-snapshot b fine
both bitmap/resize-grow i "$plain && $bits" 'TOOL resize i 30M'
bits_agree bitmap/resize-grow b fine
both bitmap/resize-shrink i "$plain && $bits" 'TOOL resize --shrink i 7300096'
bits_agree bitmap/resize-shrink b fine
both bitmap/amend i "$plain && $bits" 'TOOL amend -o refcount_bits=64 i'
bits_agree bitmap/amend b fine
both bitmap/backing i "qemu-img create -f raw base 20M && qemu-img create -f qcow2 -b base -F raw i && $bits" \
	'TOOL bitmap --add i new'

# What is refused, by both.
both bitmap/add-again i "$plain && $bits" 'TOOL bitmap --add i b'
both bitmap/remove-missing i "$plain" 'TOOL bitmap --remove i b'
both bitmap/merge-missing i "$plain && $bits" 'TOOL bitmap --merge x i b'
both bitmap/fine-granularity i "$plain" 'TOOL bitmap --add -g 256 i b'
both bitmap/odd-granularity i "$plain" 'TOOL bitmap --add -g 3000 i b'
both bitmap/version-2 i "$(image compat=0.10)" 'TOOL bitmap --add i b'
both bitmap/remove-and-fail i "$plain && $bits" 'TOOL bitmap --remove i x'

# To apply a snapshot changes the disk: whoever records says so.
make_images "$plain && qemu-img snapshot -c s i && $bits"
"$QCOW" snapshot -a s ours/i
dirty ours/i fine >ours.bits
if [ "$(grep -E '^[0-9]' ours.bits)" = '0 20971520 false' ] && [ -z "$(sound ours/i)" ]; then ok bitmap/apply; else
	fail bitmap/apply "$(cat ours.bits) $(sound ours/i)"
fi

# One that was not saved can only go.
lost="$plain && $bits && $REPO/tests/tools/in-use.py i"
make_images "$lost"
if "$QCOW" bitmap --clear ours/i b 2>err || ! grep -q 'only be removed' err; then fail bitmap/not-saved "$(cat err)"; else
	ok bitmap/not-saved
fi
both bitmap/not-saved-remove i "$lost" 'TOOL bitmap --remove i b'
if [ "$("$QCOW" bitmap ours/i | awk 'NR == 2 { print $1, $2, $3, $4 }')" = '4 KiB records fine' ]; then ok bitmap/list; else
	fail bitmap/list "$("$QCOW" bitmap ours/i)"
fi
finish
