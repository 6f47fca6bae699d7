#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow resize beside qemu-img resize.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

io="qemu-io -f qcow2"
image() { # image OPTIONS [SIZE]: full, so that an end that is cut off was data
	echo "qemu-img create -f qcow2 -o $1 i ${2-3M} && $io -c 'write -P 7 0 ${2-3M}' -c 'discard 1M 128k' i"
}

cases() { # cases NAME MAKE: both ways, aligned or not
	both "resize/$1/grow" i "$2" 'TOOL resize i 5M'
	both "resize/$1/shrink" i "$2" 'TOOL resize --shrink i 1M'
	both "resize/$1/grow-odd" i "$2" 'TOOL resize i 3200k && TOOL resize i +33k && TOOL resize i 3400192'
	both "resize/$1/shrink-odd" i "$2" 'TOOL resize --shrink i 1100288'
	full || return 0
	both "resize/$1/much" i "$2" 'TOOL resize i 100M'
	both "resize/$1/grow-little" i "$2" 'TOOL resize i +512'
	both "resize/$1/shrink-little" i "$2" 'TOOL resize i --shrink -- -512'
	both "resize/$1/prealloc" i "$2" 'TOOL resize --preallocation=metadata i 5M'
	both "resize/$1/falloc" i "$2" 'TOOL resize --preallocation=falloc i 4M'
	both "resize/$1/full" i "$2" 'TOOL resize --preallocation=full i 4M'
}

variants='compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=1'
full && variants+=' cluster_size=4k,compat=0.10 cluster_size=16k,extended_l2=on cluster_size=1k,refcount_bits=64
	refcount_bits=8 preallocation=metadata lazy_refcounts=on cluster_size=512,preallocation=metadata'
for v in $variants; do
	cases "$v" "$(image "$v")"
done
for type in zlib zstd; do
	cases "compressed-$type" "qemu-img create -f qcow2 -o compression_type=$type i 1300k &&
		for n in 0 64 128 1216; do $io -c \"write -c -P 3 \${n}k 64k\" i; done && $io -c 'write -c -P 9 1280k 20k' i"
done
cases snapshots "$(image compat=1.1) && qemu-img snapshot -c a i && $io -c 'write -P 8 2M 64k' i"
cases data-file "$(image data_file=d)"
cases data-file-raw "$(image data_file=d,data_file_raw=on)"
for v in compat=1.1 extended_l2=on cluster_size=512 data_file=d data_file=d,extended_l2=on; do
	for size in 1300k 2M; do
		# A base that is longer must not come to light.
		cases "base-longer-$v-$size" "qemu-img create -f raw b 3M && qemu-io -f raw -c 'write -P 5 0 3M' b &&
			qemu-img create -f qcow2 -o $v -b b -F raw i $size && $io -c 'write -P 6 1M 10k' i"
	done
done
cases base-shorter "qemu-img create -f raw b 500k && qemu-io -f raw -c 'write -P 5 0 500k' b &&
	qemu-img create -f qcow2 -b b -F raw i 3M && $io -c 'write -P 6 1M 10k' i"
# Bitmaps get the new size.
cases bitmaps "$(image compat=1.1) && qemu-img bitmap --add i b && qemu-img bitmap --add -g 4k i fine &&
	qemu-img bitmap --disable i fine && $io -c 'write -P 8 500k 600k' i"
both resize/bitmap-not-saved i "$(image compat=1.1) && qemu-img bitmap --add i b && $REPO/tests/tools/in-use.py i" 'TOOL resize i 5M'

plain='qemu-img create -f qcow2 i 3M'
both resize/prealloc i "$plain" 'TOOL resize --preallocation=metadata i 5M'
both resize/prealloc-falloc i "$plain" 'TOOL resize --preallocation=falloc i 5M'
both resize/prealloc-full i "$plain" 'TOOL resize --preallocation=full i 4M'
both resize/prealloc-tiny i 'qemu-img create -f qcow2 -o cluster_size=512 i 1M' 'TOOL resize --preallocation=metadata i 3M'
both resize/from-0 i 'qemu-img create -f qcow2 i 0' 'TOOL resize i 3M'
both resize/far-and-back i "$plain" 'TOOL resize i 200G && TOOL resize --shrink i 2M'
both resize/same i "$plain" 'TOOL resize i 3M'
both resize/relative i "$plain" 'TOOL resize i +1M'
both resize/negative i "$plain" 'TOOL resize --shrink i -1M'
# What is refused, by both.
both resize/without-shrink i "$plain" 'TOOL resize i 1M 2>/dev/null || { echo no >&2; false; }'
both resize/to-nothing i "$plain" 'TOOL resize --shrink i 0'
both resize/below-nothing i "$plain" 'TOOL resize --shrink i -4M'
both resize/prealloc-shrink i "$plain" 'TOOL resize --shrink --preallocation=metadata i 1M'
both resize/too-big-for-64k i "$plain" 'TOOL resize i 4P'
both resize/too-big-for-512 i 'qemu-img create -f qcow2 -o cluster_size=512 i 1M' 'TOOL resize i 1T'
both resize/too-big i "$plain" 'TOOL resize i 9E'
both resize/version-2-with-snapshot i "qemu-img create -f qcow2 -o compat=0.10 i 3M && qemu-img snapshot -c a i" \
	'TOOL resize i 5M'

# holds NAME PATTERN FROM LENGTH: what the disk shows, in ours/i
shows() {
	if qemu-io -f qcow2 -c "read -P $2 $3 $4" ours/i >log 2>&1 && ! grep -q 'Pattern verification failed' log &&
		[ -z "$(sound ours/i)" ]; then ok "$1"; else fail "$1" "$(cat log) $(sound ours/i)"; fi
}

# Smaller and bigger again: zeros, where QEMU shows the end of the last cluster again.
make_images "$(image compat=1.1)"
"$QCOW" resize -q --shrink ours/i 1025k
"$QCOW" resize -q ours/i 3M
shows resize/no-stale-tail 0 1025k 2047k
# QEMU has shrunk it: its leftovers do not come back either.
make_images "$(image compat=1.1) && qemu-img resize --shrink i 1000k"
"$QCOW" resize -q ours/i 3M
shows resize/no-stale-tail-of-qemu 0 1000k 2072k
# A longer base: version 2 has no zero flag, and QEMU refuses.
make_images "qemu-img create -f raw b 3M && qemu-io -f raw -c 'write -P 5 0 3M' b &&
	qemu-img create -f qcow2 -o compat=0.10 -b b -F raw i 1300k"
"$QCOW" resize -q ours/i 4M
shows resize/version-2-over-longer-base 0 1300k 2796k
# More than 2 GiB given back at once. The disk's beginning lies at the file's end, so that cutting that does not help.
make_images "qemu-img create -f qcow2 -o cluster_size=1M,preallocation=metadata i 2100M &&
	$io -c 'discard 0 10M' -c 'discard 2090M 10M' -c 'write -P 4 2090M 10M' -c 'write -P 6 0 10M' i &&
	$io -c 'write -P 5 1000M 5M' i"
"$QCOW" resize -q --shrink ours/i 5M
shows resize/gives-back-2g 6 0 5M
used=$(du -m ours/i | cut -f 1)
[ "$used" -le 20 ] || fail resize/gives-back-2g/space "$used MiB are in use"
# The state of a machine lies behind the disk.
make_images "qemu-img create -f qcow2 i 1G && $io -c 'write -P 1 1M 64k' -c 'write -P 2 600M 64k' i &&
	qemu-img snapshot -c vm i && '$REPO/tests/tools/vmstate.py' i"
"$QCOW" resize -q ours/i 1G
shows resize/no-vm-state 0 600M 64k
finish
