#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The image verbs on block devices: images made, copied, changed and repaired on logical volumes that held other bytes
# before, raw disks in and out of them, pipes; QEMU reads the same. An attached image, in a file or on a volume, is
# refused to every verb that writes, with the name of who has it; verbs that only read may, where that is safe.
# vm: --disk 1G --mem 1024
# timeout: 600
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires qemu-img qemu-io lvcreate

SIZE=$((24 << 20))
V=/dev/qcowtools

volumes() {
	local name
	use_disk disk1 1 1G
	pvcreate -q "$disk1" >/dev/null
	cleanup pvremove -q -f -y "$disk1"
	vgcreate -q qcowtools "$disk1" >/dev/null
	cleanup vgremove -q -f -y qcowtools
	for name in a b c d; do
		lvcreate -q -y -Wn -n $name -L 64M qcowtools >/dev/null
		# What was there before must not shine through.
		head -c 64M /dev/urandom >"$V/$name"
	done
	lvcreate -q -y -Wn -n small -L 8M qcowtools >/dev/null
}

# holds WHAT FORMAT IMAGE: it shows what $SCRATCH/raw does, and an image is sound
holds() {
	head -c "$SIZE" "$SCRATCH/raw" >"$SCRATCH/want"
	if [ "$2" = raw ]; then
		cmp -n "$SIZE" "$3" "$SCRATCH/want" || fail "$1: other bytes"
	else
		qemu-img check -q -f qcow2 "$3" || fail "$1: qemu-img check says $?"
		qcow check -q "$3" || fail "$1: qcow check says $?"
		qemu-img compare -q -f qcow2 -F raw "$3" "$SCRATCH/want" || fail "$1: other contents"
	fi
	note "$1"
}

copies() {
	local raw=$SCRATCH/raw o
	truncate -s "$SIZE" "$raw"
	dd if=/dev/urandom of="$raw" bs=1M seek=2 count=9 conv=notrunc status=none
	dd if=/dev/urandom of="$raw" bs=512 seek=40001 count=700 conv=notrunc status=none
	for o in cluster_size=64k compat=0.10 extended_l2=on cluster_size=4k,compression_type=zstd cluster_size=2M; do
		qcow convert -f raw -O qcow2 -o $o "$raw" $V/a
		holds "raw file to image on a volume, $o" qcow2 $V/a
		[[ $o == *compat* ]] || {
			qcow convert -c -f raw -O qcow2 -o $o "$raw" $V/a
			holds "compressed on a volume, $o" qcow2 $V/a
		}
	done
	qcow convert -n $V/a $V/b
	holds "image on a volume to raw volume" raw $V/b
	head -c 64M /dev/urandom >$V/b
	qcow convert $V/a $V/b
	holds "the same without -n" raw $V/b
	qcow convert -f raw -S 0 "$raw" $V/c
	holds "raw file to raw volume, nothing skipped" raw $V/c
	dd if=$V/b bs=1M count=24 iflag=direct status=none | qcow convert -f raw -O qcow2 - $V/c
	holds "standard input to image on a volume" qcow2 $V/c
	qcow convert $V/c - | dd of=$V/d bs=1M iflag=fullblock conv=notrunc status=none
	holds "image on a volume to standard output" raw $V/d
	# Its end is the volume's, not the disk's.
	qcow convert -f raw -O qcow2 $V/d "$SCRATCH/all.qcow2"
	equal "disk of a raw volume" "$(qemu-img info --output=json "$SCRATCH/all.qcow2" | grep -c '"virtual-size": 67108864')" 1
	qemu-img compare -q -f raw -F qcow2 $V/d "$SCRATCH/all.qcow2"
	refused qcow convert -f raw -O qcow2 $V/d $V/small
	refused qcow convert -n $V/c $V/small
	refused qcow convert $V/c $V/c
}

# number FILE OFFSET: 64 bits, big-endian
number() {
	od -An -t u8 --endian=big -j "$2" -N 8 "$1" | tr -d ' '
}

# An image's whole life, without a file. A base elsewhere is trusted by the admin's word only.
life() {
	local conf=/etc/qcow.conf saved=$SCRATCH/qcow.conf table status=0
	if [ -e $conf ]; then
		cp $conf "$saved"
		cleanup cp "$saved" $conf
	else
		cleanup rm -f $conf
	fi
	printf 'volume-group qcowtools\nbacking-dir %s\n' "$SCRATCH" >>$conf
	qcow create -q $V/a 40M
	qemu-io -f qcow2 -c 'write -q -P 7 0 3M' $V/a
	qcow snapshot -c one $V/a
	qemu-io -f qcow2 -c 'write -q -P 8 1M 3M' $V/a
	qcow resize -q $V/a 48M
	qcow create -q -b $V/a -F qcow2 $V/b
	qemu-io -f qcow2 -c 'write -q -P 9 2M 1M' $V/b
	qcow amend -o lazy_refcounts=on,refcount_bits=32 $V/b
	qcow commit -q $V/b
	qcow rebase -b '' $V/b
	qcow compare -q $V/a $V/b
	qcow bitmap --add $V/b b0
	qcow map --json $V/b >/dev/null
	qcow snapshot -a one $V/a
	qemu-io -f qcow2 -c 'read -q -P 7 0 3M' -c 'read -q -P 0 3M 1M' $V/a
	qcow snapshot -d one $V/a
	for v in a b; do
		qemu-img check -q -f qcow2 $V/$v || fail "qemu-img check of $v says $?"
	done
	# A leak, given back.
	table=$(number $V/a 48)
	printf '\0\1' | dd of=$V/a bs=1 seek=$(($(number $V/a "$table") + 2 * 900)) conv=notrunc status=none
	qcow check -q $V/a || status=$?
	equal "a leak" $status 3
	qcow check -q -r leaks $V/a
	note "a life on volumes"
}

poke() { # poke IMAGE OFFSET, from standard input
	dd of="$1" bs=64k seek="$2" oflag=seek_bytes iflag=fullblock conv=notrunc status=none
}

# The first refcount block, says the table, is far behind the volume.
lose_refblock() {
	printf '\0\0\0\0\7\0\0\0' | poke "$1" "$(number "$1" 48)"
}

# Refcounts that are lost are made anew, in free clusters of the volume; on one without any the image stays as it is.
rebuilt() {
	qcow convert -f raw -O qcow2 "$SCRATCH/raw" $V/a
	head -c 64k /dev/zero | poke $V/a "$(number $V/a "$(number $V/a 48)")"
	repaired "a refcount block of zeros"
	lose_refblock $V/a
	repaired "a refcount block behind the volume"
	printf '\0\0\0\0\7\0\0\0' | poke $V/a 48
	repaired "a refcount table behind the volume"
	qcow create -q $V/small 16M
	# All but header, refcount table and block, L1 and L2.
	qemu-io -f qcow2 -c "write -q -P 7 0 $((8192 - 5 * 64))k" $V/small
	qemu-img check -q -f qcow2 $V/small
	lose_refblock $V/small
	cp $V/small "$SCRATCH/small"
	refused qcow check -q -r all $V/small
	grep -q "no room for new refcounts on the device" "$SCRATCH/said" || fail "$(cat "$SCRATCH/said")"
	cmp $V/small "$SCRATCH/small"
	rm "$SCRATCH/small"
	note "no room on a volume: refused"
}

repaired() {
	local status=0
	refused qcow check -q $V/a
	qcow check -q -r all $V/a || status=$?
	equal "status of the repair" $status 0
	holds "$1: repaired" qcow2 $V/a
}

# held WORD...: refused, in one line that says who
held() {
	refused "$@"
	equal "lines: $*" "$(wc -l <"$SCRATCH/said")" 1
	grep -qE "by (a writer: )?qcowd.* \(pid [0-9]+\)" "$SCRATCH/said" || fail "$*: '$(cat "$SCRATCH/said")' does not say who"
}

attached() { # attached WHAT IMAGE
	local image=$2
	qemu-img create -q -f qcow2 -b "$SCRATCH/base" -F raw "$image" 32M
	qcow snapshot -c s "$image"
	qcow open t "$image"
	cleanup drop_device t
	held qcow check -r all "$image"
	held qcow check "$image"
	held qcow snapshot -c x "$image"
	held qcow snapshot -l "$image"
	held qcow resize "$image" 64M
	held qcow amend -o compat=1.1 "$image"
	held qcow rebase -b '' "$image"
	held qcow commit "$image"
	held qcow bitmap --add "$image" x
	held qcow create "$image" 1M
	held qcow convert -O qcow2 "$SCRATCH/other" "$image"
	held qcow convert -n -O qcow2 "$SCRATCH/other" "$image"
	held qcow convert "$image" "$SCRATCH/out"
	held qcow compare "$image" "$SCRATCH/other"
	held qcow map "$image"
	held qcow info "$image"
	held qcow measure -O qcow2 "$image"
	held qcow bitmap --list "$image"
	held qcow create -q -b "$image" -F qcow2 "$SCRATCH/new"
	held qcow rebase -b "$image" -F qcow2 "$SCRATCH/other"
	held qcow open second "$image"
	held qcow open second "$image" --read-only
	held qcow open second "$image" --read-only --snapshot s
	equal "completion" "$(qcow --complete close '')" t
	qcow info -U "$image" >/dev/null
	qcow check -U "$image" >/dev/null
	qcow map -U --json "$image" >/dev/null
	qcow snapshot -l -U "$image" >/dev/null
	qcow close t
	qemu-img check -q -f qcow2 "$image"
	# For reading, all who read may.
	qcow open t "$image" --read-only
	held qcow resize "$image" 64M
	qcow check -q "$image"
	qcow info "$image" >/dev/null
	qcow convert "$image" "$SCRATCH/out"
	same_bytes /dev/mapper/t "$SCRATCH/out"
	qcow open second "$image" --read-only --snapshot s
	qcow close second
	qcow close t
	rm -f "$SCRATCH/out"
	note "$1: refused while attached, and by whom it is said"
}

volumes
copies
life
rebuilt
truncate -s 32M "$SCRATCH/base"
qemu-img create -q -f qcow2 "$SCRATCH/other" 32M
attached "a file" "$SCRATCH/image"
attached "a volume" $V/c
