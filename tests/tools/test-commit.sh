#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow commit beside qemu-img commit: image and base are as QEMU leaves them, and the image shows what it did.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

io='qemu-io -f qcow2'
"$REPO/tests/tools/disk.py" a.raw 3000320

# into NAME BASE MAKE TEMPLATE: BASE is the file committed to.
into() {
	make_images "$3" || { fail "$1" 'cannot make the images'; return; }
	(cd ours && qemu-img convert -f qcow2 -O raw i ../before.raw)
	run_both "$4"
	agree "$1" i
	if [ "$(head -c 3 "ours/$2" | tr -d "\0")" = QFI ]; then
		agree "$1/base" "$2"
	elif cmp -s "ours/$2" "qemu/$2"; then
		ok "$1/base"
	else
		fail "$1/base" "differs: $(stat -c %s "ours/$2" "qemu/$2" | tr '\n' ' ')"
	fi
	(cd ours && qemu-img convert -f qcow2 -O raw i ../after.raw)
	cmp -s before.raw after.raw || fail "$1/view" 'the image shows something else'
}
# over BASE-OPTIONS OPTIONS [SIZE]: i over base.q over a.raw
over() {
	echo "cp ../a.raw . && qemu-img create -f qcow2 -o $1 -b a.raw -F raw base.q && $io -c 'write -P 5 1M 200k' base.q &&
		qemu-img create -f qcow2 -o $2 -b base.q -F qcow2 i ${3-} &&
		$io -c 'write -P 6 1100k 30k' -c 'write -P 7 1500000 3000' -c 'write -P 8 2900k 10k' i && { $io -c 'write -z 0 192k' i || true; }"
}
# What follows a commit of version 2 over zeros differs in kind only: the disks are compared.
variants='compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=1'
full && variants+=' cluster_size=4k,compat=0.10 cluster_size=16k,extended_l2=on refcount_bits=64 lazy_refcounts=on compression_type=zstd'
for v in $variants; do
	into "commit/base-$v" base.q "$(over "$v" compat=1.1)" 'TOOL commit -f qcow2 i'
	into "commit/top-$v" base.q "$(over compat=1.1 "$v")" 'TOOL commit -f qcow2 i'
	full || continue
	into "commit/base-$v/keep" base.q "$(over "$v" compat=1.1)" 'TOOL commit -d -f qcow2 i'
	into "commit/base-$v/grow" base.q "$(over "$v" compat=1.1 5M)" 'TOOL commit -f qcow2 i'
done
raw="cp ../a.raw . && qemu-img create -f qcow2 -b a.raw -F raw i"
into commit/raw a.raw "$raw && $io -c 'write -P 6 1100k 30k' -c 'write -z 0 192k' -c 'write -P 2 2900k 20k' i" 'TOOL commit -f qcow2 i'
into commit/raw-grows a.raw "$raw 5M && $io -c 'write -P 6 4100k 30k' i" 'TOOL commit -f qcow2 i'
into commit/raw-data-file a.raw "cp ../a.raw . && qemu-img create -f qcow2 -o data_file=d -b a.raw -F raw i && $io -c 'write -P 6 1100k 30k' i" \
	'TOOL commit -f qcow2 i'
into commit/base-raw-data-file base.q "qemu-img create -f qcow2 -o data_file=d,data_file_raw=on base.q 3000320 && truncate -s 3000320 d &&
	$io -c 'write -P 5 0 3000320' base.q && qemu-img create -f qcow2 -b base.q -F qcow2 i &&
	$io -c 'write -P 6 1100k 30k' -c 'write -z 0 192k' -c 'write -z 2900k 30720' i" 'TOOL commit -f qcow2 i'
cmp -s ours/d before.raw || fail commit/base-raw-data-file/raw 'the data file is not the disk'
into commit/grows base.q "$(over compat=1.1 compat=1.1 9M)" 'TOOL commit -f qcow2 i'
# Zeros over more refcount blocks than are held in memory at once.
into commit/zeros-64-bit-refcounts base.q "qemu-img create -f qcow2 -o cluster_size=4k,refcount_bits=64 base.q 8M &&
	$io -c 'write -P 1 0 8M' base.q && qemu-img create -f qcow2 -o cluster_size=4k,refcount_bits=64 -b base.q -F qcow2 i &&
	$io -c 'write -z 0 8M' i" 'TOOL commit -f qcow2 i'
# Growing moves tables that were read before.
into commit/grows-2M base.q "$(over cluster_size=2M compat=1.1 5M)" 'TOOL commit -f qcow2 i'
into commit/smaller base.q "$(over compat=1.1 compat=1.1 2960k)" 'TOOL commit -f qcow2 i'
into commit/drop base.q "$(over compat=1.1 compat=1.1)" 'TOOL commit -d -f qcow2 i'
into commit/nothing base.q "cp ../a.raw . && qemu-img create -f qcow2 -b a.raw -F raw base.q && qemu-img create -f qcow2 -b base.q -F qcow2 i" \
	'TOOL commit -f qcow2 i'
into commit/base-with-snapshot base.q "$(over cluster_size=4k compat=1.1) && qemu-img snapshot -c s base.q" 'TOOL commit -f qcow2 i'
into commit/top-with-snapshot base.q "$(over compat=1.1 cluster_size=4k) && qemu-img snapshot -c s i" 'TOOL commit -f qcow2 i'
into commit/compressed base.q "qemu-img convert -c -f raw -O qcow2 ../a.raw base.q && qemu-img create -f qcow2 -b base.q -F qcow2 i &&
	$io -c 'write -P 6 100k 300k' i" 'TOOL commit -f qcow2 i'
three="$(over compat=1.1 compat=1.1) && mv i mid.q && qemu-img create -f qcow2 -b mid.q -F qcow2 i && $io -c 'write -P 1 1M 100k' i"
into commit/chain mid.q "$three" 'TOOL commit -f qcow2 i'
into commit/chain-to-base base.q "$three" 'TOOL commit -f qcow2 -b base.q i'
into commit/chain-to-raw a.raw "$three" 'TOOL commit -f qcow2 -b a.raw i'
both commit/no-base i 'qemu-img create -f qcow2 i 1M' 'TOOL commit -f qcow2 i'
both commit/not-in-chain i "$(over compat=1.1 compat=1.1) && cp a.raw other" 'TOOL commit -f qcow2 -b other i'
both commit/missing-base i "$(over compat=1.1 compat=1.1) && mv base.q b && mv a.raw base.q && qemu-img rebase -u -b '' i" 'TOOL commit -f qcow2 i'
# Bitmaps of the base would be wrong: refused, and nothing is written.
make_images "$(over compat=1.1 compat=1.1) && qemu-img bitmap --add base.q b"
cp ours/base.q before.q
status=0
(cd ours && "$QCOW" commit i) 2>err || status=$?
if [ $status = 1 ] && grep -q 'base.q: .*bitmap' err && [ "$(wc -l <err)" = 1 ] && cmp -s before.q ours/base.q; then ok commit/base-with-bitmaps; else
	fail commit/base-with-bitmaps "$status: $(cat err)"
fi
# The base is in use.
make_images "$(over compat=1.1 compat=1.1)"
mkfifo hold
qemu-io -f qcow2 ours/base.q <hold >hold.out 2>&1 &
exec 3>hold
for _ in $(seq 100); do ! grep -q 'qemu-io>' hold.out || break; sleep 0.1; done
status=0
(cd ours && "$QCOW" commit i) 2>err || status=$?
if [ $status = 1 ] && grep -q 'qemu-io' err; then ok commit/in-use; else fail commit/in-use "$status: $(cat err)"; fi
exec 3>&-
wait
# The base's name stands for it and for a file that the image may not name by turns: what was judged is what is written.
replaced() {
	local swapper
	mkdir -p race/in race/out
	qemu-img create -q -f raw race/in/base 1M
	cp race/in/base race/out/secret
	ln -s ../out/secret race/in/other
	(cd race/in && qemu-img create -q -f qcow2 -b base -F raw i && qemu-io -f qcow2 -c 'write -q -P 9 0 64k' i)
	python3 -c 'import ctypes
libc = ctypes.CDLL(None)
while True:
    libc.renameat2(-100, b"race/in/base", -100, b"race/in/other", 2)' &
	swapper=$!
	for _ in $(seq 300); do
		"$QCOW" commit -q -d race/in/i >/dev/null 2>race/said || cat race/said >>race/refused
	done
	kill $swapper
	wait $swapper 2>/dev/null || true
	if ! cmp -s race/out/secret <(head -c 1M /dev/zero); then
		fail commit/replaced 'a file was written that the image may not name'
	elif ! grep -q 'is not allowed\|replaced' race/refused; then
		fail commit/replaced "nobody met it: $(sort race/refused | uniq -c | head -n 5)"
	else
		ok commit/replaced
	fi
}
replaced

finish
