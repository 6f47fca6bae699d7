#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow create beside qemu-img create. The matrix of its options is in tests/unit/test_create.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

base='cp ../a.raw base'
"$REPO/tests/tools/disk.py" a.raw 3000320

# neither NAME MAKE TEMPLATE: both refuse to make i, in one line, and leave nothing behind
neither() {
	make_images "$2" || { fail "$1" 'cannot make the images'; return; }
	run_both "$3"
	if [ "$mine" = 0 ] || [ "$theirs" = 0 ] || [ "$(wc -l <ours.err)" != 1 ]; then
		fail "$1" "exit status $mine, qemu-img $theirs: $(cat ours.err)"
	elif [ -e ours/i ]; then
		fail "$1" 'it left an image'
	else
		ok "$1"
	fi
}

both create/size-with-unit i true 'TOOL create -f qcow2 i 3M'
both create/size-with-fraction i true 'TOOL create -f qcow2 i 1.5M'
both create/size-with-small-fraction i true 'TOOL create -f qcow2 i 2.000732421875M'
neither create/size-fraction-of-bytes true 'TOOL create -f qcow2 i 1.5'
both create/size-point-only i true 'TOOL create -f qcow2 i 1.M'
neither create/size-too-large true 'TOOL create -f qcow2 i 16E'
neither create/larger-than-64k-clusters-allow true 'TOOL create -f qcow2 i 1048576T'
neither create/size-unknown-unit true 'TOOL create -f qcow2 i 3X'
both create/size-with-k i true 'TOOL create -f qcow2 i 3000k'
both create/size-unaligned i true 'TOOL create -f qcow2 i 1000001'
both create/as-large-as-base i "$base" 'TOOL create -f qcow2 -b base -F raw i'
both create/larger-than-base i "$base" 'TOOL create -f qcow2 -b base -F raw i 5M'
both create/smaller-than-base i "$base" 'TOOL create -f qcow2 -b base -F raw i 1M'
both create/over-an-image i "$base && qemu-img convert -f raw -O qcow2 base mid && qemu-img snapshot -c s mid" \
	'TOOL create -f qcow2 -b mid -F qcow2 i'
both create/base-in-other-folder sub/i "mkdir sub && cp ../a.raw sub/base" 'TOOL create -f qcow2 -b base -F raw sub/i'
both create/base-above sub/i "mkdir sub && $base" 'TOOL create -f qcow2 -b ../base -F raw sub/i'
neither create/without-format "$base" 'TOOL create -f qcow2 -b base i'
neither create/missing-base true 'TOOL create -f qcow2 -b missing -F raw i'
both create/missing-base-unsafe i true 'TOOL create -u -f qcow2 -b missing -F raw i 1M; qemu-img rebase -u -b "" i'
neither create/missing-base-unsafe-size true 'TOOL create -u -f qcow2 -b missing -F raw i'
neither create/wrong-base-format "$base" 'TOOL create -f qcow2 -b base -F qcow2 i'
neither create/no-size true 'TOOL create -f qcow2 i'
both create/replaces i 'qemu-img convert -f raw -O qcow2 ../a.raw i' 'TOOL create -f qcow2 i 1M'
# A name with a colon is a path once it has a slash, and else a protocol.
both create/colon-path i 'cp ../a.raw base:x' 'TOOL create -f qcow2 -b ./base:x -F raw i'
neither create/colon-name 'cp ../a.raw base:x' 'TOOL create -f qcow2 -b base:x -F raw i'
both create/colon-image i true 'TOOL create -f qcow2 ./x:i 1M && mv x:i i'
for o in cluster_size=512 cluster_size=2M compat=0.10 extended_l2=on refcount_bits=1 preallocation=metadata \
	preallocation=falloc preallocation=full data_file=d data_file=d,data_file_raw=on lazy_refcounts=on \
	compression_type=zstd cluster_size=1k,refcount_bits=64; do
	both "create/$o" i true "TOOL create -f qcow2 -o $o i 5M"
	[[ $o == prealloc* || $o == *raw=on ]] || both "create/$o/over" i "$base" "TOOL create -f qcow2 -o $o -b base -F raw i 5M"
	full || continue
	both "create/$o/large" i true "TOOL create -f qcow2 -o $o i 100M"
	both "create/$o/odd" i true "TOOL create -f qcow2 -o $o i 1234567"
	both "create/$o/empty" i true "TOOL create -f qcow2 -o $o i 0"
done
# What lies over a base cannot be preallocated without subclusters, nor be seen through a raw file.
for o in preallocation=metadata preallocation=full data_file=d,data_file_raw=on; do
	neither "create/$o/over" "$base" "TOOL create -f qcow2 -o $o -b base -F raw i 5M"
done
both create/extended-l2-preallocated i "$base" 'TOOL create -f qcow2 -o extended_l2=on,preallocation=metadata -b base -F raw i'

# untouched NAME WORD...: files that are named in two roles are refused in one line, none is changed and none is left.
untouched() {
	local name=create/untouched/$1 status=0
	shift
	rm -rf one && mkdir one && cp a.raw one/base && (cd one && qemu-img convert -f raw -O qcow2 base b.q && ln -s b.q link)
	(cd one && ls && md5sum base b.q) >before
	(cd one && "$QCOW" create -q "$@") >out 2>err || status=$?
	if [ $status != 1 ] || [ "$(wc -l <err)" != 1 ] || ! grep -q 'cannot be' err; then
		fail "$name" "$status: $(cat err)"
	elif ! (cd one && ls && md5sum base b.q) | cmp -s - before; then
		fail "$name" 'a file is changed'
	else
		ok "$name"
	fi
}
untouched base -b b.q -F qcow2 b.q
untouched base-raw -b base -F raw base
untouched base-by-path -b ./b.q -F qcow2 b.q
untouched base-by-link -b b.q -F qcow2 link
untouched base-is-link -b link -F qcow2 b.q
untouched base-unsafe -u -b b.q -F qcow2 b.q 1M
untouched data-file -o data_file=b.q b.q 1M
untouched data-file-new -o data_file=i i 1M
untouched data-file-is-base -o data_file=base -b base -F raw i
# All but the one that is the base.
(cd one && "$QCOW" create -q -b b.q -F qcow2 x.q b.q y.q) 2>err && fail create/all-but-the-base 'no error'
if [ "$(wc -l <err)" = 1 ] && qemu-img compare -q -f qcow2 -F qcow2 one/x.q one/y.q && [ -z "$(sound one/b.q)" ] &&
	qemu-img compare -q -f raw -F qcow2 a.raw one/y.q; then ok create/all-but-the-base; else fail create/all-but-the-base "$(cat err)"; fi
# As QEMU has it.
make_images "$base && qemu-img convert -f raw -O qcow2 base b.q"
run_both 'TOOL create -f qcow2 -b b.q -F qcow2 b.q'
if [ $mine = 1 ] && [ $theirs = 1 ] && cmp -s qemu/b.q ours/b.q; then ok create/own-base; else fail create/own-base "$mine, qemu-img $theirs"; fi

# Many overlays in one call.
cp a.raw base && names=$(seq -f 'o%g' 200)
# shellcheck disable=SC2086
"$QCOW" create -q -b base -F raw $names
count=0
for name in $names; do
	! qemu-img compare -q -f qcow2 -F raw "$name" base || count=$((count + 1))
done
if [ $count = 200 ]; then ok create/200-overlays; else fail create/200-overlays "$count show the base"; fi

# What is in use is not replaced.
mkfifo hold
qemu-io -f qcow2 o1 <hold >hold.out 2>&1 &
exec 3>hold
for _ in $(seq 100); do ! grep -q 'qemu-io>' hold.out || break; sleep 0.1; done
status=0
"$QCOW" create o1 1M 2>err || status=$?
if [ $status = 1 ] && grep -q 'qemu-io (pid' err && [ "$(wc -l <err)" = 1 ]; then ok create/in-use; else fail create/in-use "$status: $(cat err)"; fi
exec 3>&-
wait
finish
