# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Images of every variant of the format, to be written to; sourced after lib.sh,
# or by tests/images/variants. All their contents are stamped by
# the program model: tag 1, version 1 from the base, 2 from what lies over it.

# They have absolute names in them.
VARIANTS_AT=/mnt/variants
DISK_SIZE=$((32 << 20))
# name, create's options, what is in it (nothing, part, compressed), backing, what it cannot (snapshots)
VARIANTS=(
	'v3 cluster_size=64k nothing -'
	'v3-part cluster_size=64k part -'
	'v2 compat=0.10 part -'
	'v3-4k cluster_size=4k nothing -'
	'v3-4k-backed cluster_size=4k part base.qcow2'
	'v3-8k-compressed cluster_size=8k compressed -'
	'v3-2M cluster_size=2M nothing -'
	'v3-2M-backed cluster_size=2M part base.qcow2'
	'backed cluster_size=64k nothing base.qcow2'
	'backed-part cluster_size=64k part base.qcow2'
	'backed-raw cluster_size=64k part base.raw'
	'backed-v2 compat=0.10 part base.qcow2'
	'backed-compressed cluster_size=64k nothing compressed.qcow2'
	'backed-short cluster_size=64k nothing short.raw'
	'chain cluster_size=32k part middle.qcow2'
	'compressed cluster_size=64k compressed -'
	'compressed-zstd compression_type=zstd compressed base.qcow2'
	'extended extended_l2=on,cluster_size=128k part -'
	'extended-backed extended_l2=on,cluster_size=128k part base.qcow2'
	'extended-2M extended_l2=on,cluster_size=2M part base.raw'
	'extended-preallocated extended_l2=on,cluster_size=128k,preallocation=metadata nothing base.qcow2'
	'preallocated preallocation=metadata nothing -'
	'allocated preallocation=falloc nothing -'
	'zeroed cluster_size=64k zeroed base.qcow2'
	'snapshots cluster_size=64k snapshots base.qcow2'
	'snapshots-4k cluster_size=4k snapshots -'
	'refcounts-1 refcount_bits=1 part - snapshots'
	'refcounts-64 refcount_bits=64 part base.qcow2'
	'data-file data_file=data,data_file_raw=off nothing - snapshots'
	'data-file-part data_file=data,data_file_raw=off part - snapshots'
	'data-file-raw data_file=data,data_file_raw=on nothing - snapshots'
)

# variant_line NAME
variant_line() {
	printf '%s\n' "${VARIANTS[@]}" | grep -E "^$1 " || {
		echo "no variant $1" >&2
		return 1
	}
}

# variant_of NUMBER: each in turn
variant_of() {
	local line=${VARIANTS[$1 % ${#VARIANTS[@]}]}
	echo "${line%% *}"
}

# variant_can NAME snapshots
variant_can() {
	local cannot
	read -r _ _ _ _ cannot <<<"$(variant_line "$1")"
	[[ ,$cannot, != *,$2,* ]]
}

# In the folder VARIANTS_AT: what the variants stand on
make_bases() {
	model fill --seed 1 base.raw "$DISK_SIZE"
	model fill --seed 2 --version 2 --percent 30 part.raw "$DISK_SIZE"
	# Ends within a cluster, and a page.
	model fill --seed 3 --percent 90 short.raw $((7 * 65536 + 512))
	qemu-img convert -f raw -O qcow2 base.raw base.qcow2
	qemu-img convert -f raw -O qcow2 -c base.raw compressed.qcow2
	qemu-img convert -f raw -O qcow2 -o cluster_size=16k part.raw middle.qcow2
	stand middle.qcow2 base.qcow2
}

# stand TOP BACKING
stand() {
	[ "$2" = - ] || qemu-img rebase -u -f qcow2 -F "${2##*.}" -b "$VARIANTS_AT/$2" "$1"
}

create() { # create OPTIONS BACKING
	local words=(-o "$1" top "$DISK_SIZE")
	[ "$2" = - ] || words=(-o "$1" -b "$VARIANTS_AT/$2" -F "${2##*.}" top "$DISK_SIZE")
	qemu-img create -q -f qcow2 "${words[@]}"
}

# make_variant NAME: the folder NAME with "top", and "raw" as QEMU reads it
make_variant() {
	local options contents backing
	read -r _ options contents backing _ <<<"$(variant_line "$1")"
	mkdir "$1"
	cd "$1" || return
	case $contents in
	nothing) create "$options" "$backing" ;;
	compressed) qemu-img convert -f raw -O qcow2 -c -o "$options" ../part.raw top ;;
	*) qemu-img convert -f raw -O qcow2 -o "$options" ../part.raw top ;;
	esac
	[ "$contents" = nothing ] || stand top "$backing"
	case $contents in zeroed | snapshots) "add_$contents" ;; esac
	qemu-img convert -f qcow2 -O raw top raw
	cd ..
}

# Zero clusters of both kinds: with a place of their own, and without.
add_zeroed() {
	qemu-io -f qcow2 -c 'write -q -z 1M 8M' -c 'write -q -z -u 12M 8M' -c 'write -q -z 21000k 300k' top
}

# One snapshot shares all, the other all but what was discarded since.
add_snapshots() {
	qemu-img snapshot -c first top
	qemu-io -f qcow2 -c 'discard -q 2M 4M' -c 'write -q -z 9M 2M' top
	qemu-img snapshot -c second top
}

make_variants() {
	local line
	cd "$VARIANTS_AT" || return
	make_bases
	for line in "${VARIANTS[@]}"; do
		make_variant "${line%% *}"
	done
}

# use_variants: has them below VARIANTS_AT. A test that calls it has "tests/images/variants" as its host header.
use_variants() {
	local made=$TESTS/../build/variants
	mkdir -p "$VARIANTS_AT"
	if ! in_vm; then
		made=$SCRATCH/variants
		mkdir "$made"
	fi
	mount --bind "$made" "$VARIANTS_AT"
	cleanup umount "$VARIANTS_AT"
	in_vm || (make_variants)
}
