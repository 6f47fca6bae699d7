#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow snapshot beside qemu-img snapshot.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

io="qemu-io -f qcow2"
# Two snapshots and a present state, none like the other.
history="$io -c 'write -P 7 0 300k' i && qemu-img snapshot -c one i &&
	$io -c 'write -P 8 100k 90k' -c 'discard 0 64k' i && qemu-img snapshot -c two i && $io -c 'write -P 9 1M 30k' i"

# cases NAME MAKE: every verb on the image i.
cases() {
	both "snapshot/$1/create" i "$2" "TOOL snapshot -c three i"
	both "snapshot/$1/apply-first" i "$2" "TOOL snapshot -a one i"
	both "snapshot/$1/delete-first" i "$2" "TOOL snapshot -d one i"
	full || return 0
	both "snapshot/$1/apply-last" i "$2" "TOOL snapshot -a 2 i"
	both "snapshot/$1/delete-last" i "$2" "TOOL snapshot -d two i"
	both "snapshot/$1/delete-all" i "$2" "TOOL snapshot -d one i && TOOL snapshot -d two i"
	both "snapshot/$1/again" i "$2" "TOOL snapshot -c three i && TOOL snapshot -a one i && TOOL snapshot -d three i"
}

image() { # image OPTIONS [SIZE]
	echo "qemu-img create -f qcow2 -o $1 i ${2-4M} && $history"
}

variants='compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=2 refcount_bits=64'
full && variants+=' cluster_size=4k,compat=0.10 cluster_size=16k,extended_l2=on cluster_size=1k,refcount_bits=4
	refcount_bits=8 refcount_bits=32 preallocation=metadata lazy_refcounts=on compression_type=zstd'
for v in $variants; do
	cases "$v" "$(image "$v")"
done
for type in zlib zstd; do
	cases "compressed-$type" "qemu-img create -f qcow2 -o compression_type=$type i 4M &&
		for n in 0 64 128 192; do $io -c \"write -c -P \$n \${n}k 64k\" i; done && $history"
done
cases unaligned "$(image compat=1.1 2500k)"
cases overlay "qemu-img create -f raw base 3M && qemu-io -f raw -c 'write -P 3 0 3M' base &&
	qemu-img create -f qcow2 -b base -F raw i 4M && $history"
cases resized "qemu-img create -f qcow2 i 3M && $history && qemu-img resize i 5M && $io -c 'write -P 4 4M 64k' i"
cases shrunk "qemu-img create -f qcow2 -o cluster_size=512 i 3M && $history && qemu-img resize --shrink i 1M"

# What is refused, by both.
plain='qemu-img create -f qcow2 i 1M'
both snapshot/apply-missing i "$plain" 'TOOL snapshot -a x i'
both snapshot/delete-missing i "$plain" 'TOOL snapshot -d x i'
both snapshot/delete-by-name-of-another i "$plain && qemu-img snapshot -c 2 i && qemu-img snapshot -c x i" \
	'TOOL snapshot -d 2 i'
both snapshot/apply-by-id-of-another i "$plain && qemu-img snapshot -c 2 i && $io -c 'write 0 64k' i &&
	qemu-img snapshot -c x i" 'TOOL snapshot -a 2 i'
both snapshot/refcount-bits-1 i "qemu-img create -f qcow2 -o refcount_bits=1 i 1M && $io -c 'write 0 64k' i" \
	'TOOL snapshot -c x i'
both snapshot/data-file i 'qemu-img create -f qcow2 -o data_file=d i 1M' 'TOOL snapshot -c x i'
both snapshot/same-name-twice i "$plain" 'TOOL snapshot -c x i && TOOL snapshot -c x i'
both snapshot/with-bitmap i "$plain && qemu-img bitmap --add i b" 'TOOL snapshot -c x i && TOOL snapshot -d x i'
both snapshot/two-verbs i "$plain" 'TOOL snapshot -c x -d y i'

# A refcount too narrow: nothing happened, where QEMU leaks a cluster.
make_images "qemu-img create -f qcow2 -o refcount_bits=2 i 1M && $io -c 'write 0 64k' i &&
	qemu-img snapshot -c 1 i && qemu-img snapshot -c 2 i"
size=$(stat -c %s ours/i)
if "$QCOW" snapshot -c 3 ours/i 2>err; then
	fail snapshot/refcount-bits-2 'made a third one'
elif [ "$size" != "$(stat -c %s ours/i)" ] || [ -n "$(sound ours/i; same_disk i)" ] || ! grep -q '2 bits' err; then
	fail snapshot/refcount-bits-2 "the image has changed, or: $(cat err)"
else
	ok snapshot/refcount-bits-2
fi

# An L1 table of 4 MiB; zero clusters of both kinds.
both snapshot/huge-l1/create i "$(image cluster_size=4k 1T)" "TOOL snapshot -c three i"
both snapshot/huge-l1/delete-first i "$(image cluster_size=4k 1T)" "TOOL snapshot -d one i"
cases zeros "qemu-img create -f qcow2 i 4M && $io -c 'write -P 7 0 1M' -c 'write -z 0 128k' -c 'write -zu 256k 128k' i && $history"

# The lists read the same, whatever has to go into the columns.
make_images "$(image compat=1.1) && qemu-img snapshot -c 'a name that is much longer than any column is wide' i"
if [ "$("$QCOW" snapshot -l ours/i)" = "$(qemu-img snapshot -l ours/i)" ]; then ok snapshot/list; else
	fail snapshot/list "$("$QCOW" snapshot -l ours/i)"
fi

# The state of a virtual machine goes with its snapshot: behind the disk, in the L1 table.
vmstate="qemu-img create -f qcow2 i 1G && $io -c 'write -P 1 1M 64k' -c 'write -P 2 600M 64k' i &&
	qemu-img snapshot -c vm i && '$REPO/tests/tools/vmstate.py' i"
both snapshot/vm-state-create i "$vmstate" 'TOOL snapshot -c x i'
both snapshot/vm-state-apply i "$vmstate" 'TOOL snapshot -a vm i'
both snapshot/vm-state-delete i "$vmstate" 'TOOL snapshot -c x i && TOOL snapshot -d vm i'

# s1-s2-s3-s4, back to s2, s5: a tree. Each is then what it was.
tree() {
	local s
	"$QCOW" create -q t 8M
	for s in 1 2 3 4; do
		qemu-io -f qcow2 -c "write -P $s ${s}M 2M" t >log
		"$QCOW" snapshot -c s$s t
		qemu-img convert -f qcow2 -O raw t s$s.raw
	done
	"$QCOW" snapshot -a s2 t
	[ "$(qemu-img compare -f qcow2 -F raw t s2.raw)" = 'Images are identical.' ] || echo 'not back at s2'
	qemu-io -f qcow2 -c 'write -P 5 3M 3M' t >log
	"$QCOW" snapshot -c s5 t
	qemu-img convert -f qcow2 -O raw t s5.raw
	tree_holds 1 2 3 4 5
	# A parent goes, its children stay.
	"$QCOW" snapshot -d s2 t
	"$QCOW" snapshot -d s3 t
	tree_holds 1 4 5
	"$QCOW" snapshot -a s4 t
	qemu-img compare -f qcow2 -F raw t s4.raw >log || echo 's4 cannot be applied'
	for s in 1 4 5; do
		"$QCOW" snapshot -d s$s t
	done
	sound t
	qemu-img compare -f qcow2 -F raw t s4.raw >log || echo 'deleting changed the disk'
}

tree_holds() {
	local s
	for s in "$@"; do
		qemu-img convert -f qcow2 -O raw -l s"$s" t now.raw
		cmp -s now.raw s"$s".raw || echo "s$s is not what it was"
	done
	sound t
}

why=$(tree)
if [ -z "$why" ]; then ok snapshot/tree; else fail snapshot/tree "$why"; fi

# In use: who it is.
in_use() {
	local writer i
	qemu-img create -q -f qcow2 u 1M
	qemu-io -f qcow2 -c 'sleep 20000' u >log 2>&1 &
	writer=$!
	# Not by trying: whoever tries holds a lock for a moment, and the writer would give up.
	for i in $(seq 200); do
		! grep -qs 'OFDLCK.* 201 ' /proc/"$writer"/fdinfo/* || break
		sleep 0.1
	done
	! "$QCOW" snapshot -c x u 2>err || echo "made beside a writer ($i)"
	grep -q 'qemu-io (pid' err || echo "does not say who: $(cat err)"
	"$QCOW" snapshot -lU u >log || echo 'cannot list with -U'
	kill "$writer"
	wait "$writer" 2>/dev/null || true
}

why=$(in_use)
if [ -z "$why" ]; then ok snapshot/in-use; else fail snapshot/in-use "$why"; fi
finish
