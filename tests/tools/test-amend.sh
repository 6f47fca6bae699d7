#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow amend beside qemu-img amend.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

io="qemu-io -f qcow2"
data="$io -c 'write -P 7 0 1M' -c 'write -P 8 2M 100k' i"
zeros="$io -c 'write -z 256k 64k' -c 'write -zu 384k 64k' -c 'write -z 1500k 64k' i"
image() { echo "qemu-img create -f qcow2 -o $1 i 3M && $data"; }

sizes='64k'
full && sizes='512 4k 64k 2M'
for c in $sizes; do
	both "amend/$c/to-1.1" i "$(image compat=0.10,cluster_size="$c")" 'TOOL amend -o compat=1.1 i'
	both "amend/$c/to-0.10" i "$(image cluster_size="$c") && $zeros" 'TOOL amend -o compat=0.10 i'
	both "amend/$c/there-and-back" i "$(image compat=v2,cluster_size="$c")" \
		'TOOL amend -o compat=v3 i && TOOL amend -o compat=v2 i'
	widths='1 2 4 8 32 64'
	# A block then counts millions of clusters, and QEMU goes through them for minutes.
	[ "$c" != 2M ] || widths=
	for bits in $widths; do
		both "amend/$c/refcount-$bits" i "$(image cluster_size="$c")" "TOOL amend -o refcount_bits=$bits i"
	done
done
both amend/refcount-back i "$(image refcount_bits=64,cluster_size=512)" \
	'TOOL amend -o refcount_bits=1 i && TOOL amend -o refcount_bits=16 i'
both amend/refcount-extended-l2 i "$(image extended_l2=on)" 'TOOL amend -o refcount_bits=8 i'
both amend/refcount-compressed i "qemu-img create -f qcow2 i 1M && $io -c 'write -c -P 1 0 64k' -c 'write -c -P 2 64k 64k' i" \
	'TOOL amend -o refcount_bits=4 i'
snapshots="$(image compat=1.1) && qemu-img snapshot -c a i && $io -c 'write 0 64k' i && qemu-img snapshot -c b i"
both amend/refcount-snapshots i "$snapshots" 'TOOL amend -o refcount_bits=2 i'
both amend/to-0.10-snapshots i "$snapshots" 'TOOL amend -o compat=0.10 i'
# Zero clusters that the disk and its snapshots share, or not. QEMU zeroes what they have in common with other data
# (7.2: snapshots lose data), so what there was before is what must be there.
kept="$data && $zeros && qemu-img snapshot -c a i && $io -c 'write -P 9 256k 100k' -c 'write -z 0 200k' i &&
	qemu-img snapshot -c b i && $io -c 'write -P 3 1M 64k' i"
keeps() { # keeps NAME MAKE
	local why=
	make_images "$2 && $kept" || { fail "$1" 'cannot make the images'; return; }
	(cd ours && "$QCOW" amend -o compat=0.10 i) 2>log || why="exit status $?: $(cat log)"
	[ -n "$why" ] || why=$(sound ours/i)
	[ -n "$why" ] || why=$(same_disk i)
	[ -n "$why" ] || info ours/i | grep -q '"compat": "0.10"' || why='it is not version 2'
	if [ -n "$why" ]; then fail "$1" "$why"; else ok "$1"; fi
}
for c in $sizes; do
	keeps "amend/$c/to-0.10-zeros-in-snapshots" "qemu-img create -f qcow2 -o cluster_size=$c i 3M"
	keeps "amend/$c/to-0.10-zeros-in-snapshots-over-base" "qemu-img create -f raw b 3M &&
		qemu-io -f raw -c 'write -P 5 0 3M' b && qemu-img create -f qcow2 -o cluster_size=$c -b b -F raw i"
done
both amend/refcount-bitmap i "$(image compat=1.1) && qemu-img bitmap --add i b" 'TOOL amend -o refcount_bits=8 i'
both amend/lazy i "$(image compat=1.1)" 'TOOL amend -o lazy_refcounts=on i'
both amend/not-lazy i "$(image lazy_refcounts=on)" 'TOOL amend -o lazy_refcounts=off i'
both amend/lazy-to-0.10 i "$(image lazy_refcounts=on)" 'TOOL amend -o compat=0.10 i'
both amend/all-at-once i "$(image compat=0.10)" 'TOOL amend -o compat=1.1,lazy_refcounts=on,refcount_bits=32 i'
both amend/same i "$(image compat=1.1)" 'TOOL amend -o compat=1.1,refcount_bits=16 i'
both amend/zstd-to-0.10 i "$(image compression_type=zstd)" 'TOOL amend -o compat=0.10 i'
both amend/not-raw i 'qemu-img create -f qcow2 -o data_file=d,data_file_raw=on i 1M' 'TOOL amend -o data_file_raw=off i'

# A backing file: zeros must go on hiding it. Its name moves; if it is long, not within the first sector.
base='qemu-img create -f raw b 3M && qemu-io -f raw -c "write -P 5 0 3M" b'
long=$(printf 'd%.0s' $(seq 200))/$(printf 'e%.0s' $(seq 200))/$(printf 'f%.0s' $(seq 200))
for name in b ./b "$long/b"; do
	make="$base && mkdir -p $long && cp b $long/b && qemu-img create -f qcow2"
	both "amend/backing-${#name}-to-1.1" i "$make -o compat=0.10 -b $name -F raw i && $data" 'TOOL amend -o compat=1.1 i'
	both "amend/backing-${#name}-to-0.10" i "$make -b $name -F raw i && $data && $zeros" 'TOOL amend -o compat=0.10 i'
done

# What is refused, by both.
both amend/refcount-too-narrow i "$snapshots" 'TOOL amend -o refcount_bits=1 i'
both amend/refcount-3 i "$(image compat=1.1)" 'TOOL amend -o refcount_bits=3 i'
both amend/refcount-of-0.10 i "$(image compat=0.10)" 'TOOL amend -o refcount_bits=8 i'
both amend/0.10-of-refcount i "$(image refcount_bits=8)" 'TOOL amend -o compat=0.10 i'
both amend/lazy-of-0.10 i "$(image compat=0.10)" 'TOOL amend -o lazy_refcounts=on i'
both amend/extended-l2-to-0.10 i "$(image extended_l2=on)" 'TOOL amend -o compat=0.10 i'
both amend/data-file-to-0.10 i "$(image data_file=d)" 'TOOL amend -o compat=0.10 i'
both amend/raw i "$(image data_file=d)" 'TOOL amend -o data_file_raw=on i'
both amend/resized-snapshot-to-0.10 i "$snapshots && qemu-img resize i 5M" 'TOOL amend -o compat=0.10 i'
both amend/zstd-clusters-to-0.10 i "qemu-img create -f qcow2 -o compression_type=zstd i 1M &&
	$io -c 'write -c -P 1 0 64k' i" 'TOOL amend -o compat=0.10 i'
both amend/unknown i "$(image compat=1.1)" 'TOOL amend -o foo=1 i'
finish
