#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow rebase beside qemu-img rebase: the same disk before, after and as QEMU leaves it.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

io='qemu-io -f qcow2'
disk=$REPO/tests/tools/disk.py
"$disk" a.raw 3000320 && "$disk" b.raw 4194304 7

# chain OPTIONS: i over mid.q over a.raw; other bases beside it.
chain() {
	echo "cp ../a.raw ../b.raw . && qemu-img create -f qcow2 -b a.raw -F raw mid.q && $io -c 'write -P 5 1M 200k' mid.q &&
		qemu-img create -f qcow2 -o $1 -b mid.q -F qcow2 i ${2-3500k} &&
		$io -c 'write -P 6 1100k 30k' -c 'write -P 7 1500000 3000' i && { $io -c 'write -z 0 128k' i || true; } &&
		cp a.raw copy.raw && qemu-img convert -f raw -O qcow2 b.raw b.q"
}
# kept NAME MAKE TEMPLATE: as both, and the disk is what it was.
kept() {
	both "$1" i "$2" "qemu-img convert -f qcow2 -O raw i ../before.raw && $3 && qemu-img convert -f qcow2 -O raw i ../after.raw"
	cmp -s before.raw after.raw || fail "$1" 'the disk has changed'
}

variants='compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=1 refcount_bits=64'
full && variants+=' cluster_size=4k,compat=0.10 cluster_size=16k,extended_l2=on lazy_refcounts=on compression_type=zstd data_file=d'
for v in $variants; do
	kept "rebase/$v/flatten" "$(chain "$v")" 'TOOL rebase -f qcow2 -b "" i'
	kept "rebase/$v/base-of-chain" "$(chain "$v")" 'TOOL rebase -f qcow2 -b a.raw -F raw i'
	kept "rebase/$v/other" "$(chain "$v")" 'TOOL rebase -f qcow2 -b b.q -F qcow2 i'
	full || continue
	kept "rebase/$v/longer-raw" "$(chain "$v")" 'TOOL rebase -f qcow2 -b b.raw -F raw i'
	kept "rebase/$v/twice" "$(chain "$v")" 'TOOL rebase -f qcow2 -b b.q -F qcow2 i && TOOL rebase -f qcow2 -b copy.raw -F raw i'
	kept "rebase/$v/unaligned" "$(chain "$v" 2999808)" 'TOOL rebase -f qcow2 -b b.q -F qcow2 i'
done
kept rebase/to-a-first-one 'cp ../b.raw . && qemu-img create -f qcow2 i 2M && '"$io"' -c "write -P 3 64k 64k" i' \
	'TOOL rebase -f qcow2 -b b.raw -F raw i'
kept rebase/longer-image "$(chain compat=1.1 6M)" 'TOOL rebase -f qcow2 -b b.q -F qcow2 i'
kept rebase/snapshots "$(chain cluster_size=4k) && qemu-img snapshot -c s i && $io -c 'write -P 9 2M 64k' i" \
	'TOOL rebase -f qcow2 -b b.q -F qcow2 i'
kept rebase/bitmaps "$(chain compat=1.1) && qemu-img bitmap --add i one" 'TOOL rebase -f qcow2 -b b.q -F qcow2 i'
long=$(printf 'x%.0s' $(seq 200))
kept rebase/long-name "$(chain compat=1.1) && mkdir $long $long/$long && cp b.q $long/$long/b" \
	"TOOL rebase -f qcow2 -b $long/$long/b -F qcow2 i"
both rebase/unsafe i "$(chain compat=1.1)" 'TOOL rebase -f qcow2 -u -b b.raw -F raw i'
both rebase/unsafe-none i "$(chain compat=1.1)" 'TOOL rebase -f qcow2 -u -b "" i'
both rebase/unsafe-back-and-forth i "$(chain cluster_size=512)" 'for n in b.raw a.raw b.raw; do TOOL rebase -u -f qcow2 -b $n -F raw i; done'
both rebase/unsafe-missing i "$(chain compat=1.1)" 'TOOL rebase -f qcow2 -u -b nothing -F raw i; TOOL rebase -f qcow2 -u -b a.raw -F raw i'
both rebase/missing i "$(chain compat=1.1)" 'TOOL rebase -f qcow2 -b nothing -F raw i'
both rebase/no-format i "$(chain compat=1.1)" 'TOOL rebase -f qcow2 -b b.raw i'
both rebase/raw-data-file i 'cp ../a.raw . && qemu-img create -f qcow2 -o data_file=d,data_file_raw=on i 2M' \
	'TOOL rebase -f qcow2 -b a.raw -F raw i'
make_images "$(chain compat=1.1)"
for b in i ./i; do
	status=0
	(cd ours && "$QCOW" rebase -b $b -F qcow2 i) 2>err || status=$?
	if [ $status = 1 ] && grep -q 'its own' err; then ok "rebase/loop-$b"; else fail "rebase/loop-$b" "$status: $(cat err)"; fi
done
(cd ours && qemu-img create -q -f qcow2 -b i -F qcow2 over.q)
status=0
(cd ours && "$QCOW" rebase -b over.q -F qcow2 i) 2>err || status=$?
if [ $status = 1 ] && [ -z "$(sound ours/i)" ]; then ok rebase/longer-loop; else fail rebase/longer-loop "$(cat err)"; fi
finish
