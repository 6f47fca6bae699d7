#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow compare and qcow measure: messages, numbers and exit codes of qemu-img.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

io='qemu-io -f qcow2'
mkdir set && cd set
"$REPO/tests/tools/disk.py" a.raw 5000192
{
	qemu-img convert -f raw -O qcow2 a.raw a.q && cp a.q b.q && $io -c 'write -P 77 3M 512' b.q
	cp a.q longer.q && qemu-img resize longer.q 8M && cp longer.q differs.q && $io -c 'write -P 1 7M 64k' differs.q
	qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd,cluster_size=8k a.raw z.q
	qemu-img create -f qcow2 -b a.raw -F raw over.q && qemu-img create -f qcow2 -b a.q -F qcow2 -o extended_l2=on changed.q
	$io -c 'write -z 100k 3000k' changed.q
	qemu-img create -f qcow2 empty.q 5000192 && qemu-img create -f qcow2 zeroed.q 5000192 && $io -c 'write -z 0 5000192' zeroed.q
	qemu-img create -f qcow2 v2.q -o compat=0.10 5000192 && qemu-img create -f qcow2 zero.q 0
	cp --sparse=never a.q bitmaps.q && qemu-img bitmap --add bitmaps.q one && qemu-img bitmap --add -g 1M bitmaps.q two
	cp a.q snap.q && qemu-img snapshot -c s snap.q && $io -c 'discard 0 4M' snap.q
	head -c 1000 a.raw >odd.raw && cp empty.q data.q && $io -c 'write -P 0 64k 64k' data.q
	qemu-img create -f qcow2 huge.q 100T && qemu-img create -f qcow2 huge2.q 100T
} >log 2>&1 || { cat log; exit 1; }
cd ..

# same_words NAME ARGUMENTS: both say the same and end the same.
same_words() {
	local theirs=0 mine=0
	# shellcheck disable=SC2086
	(cd set && qemu-img $2 2>/dev/null) >qemu.out || theirs=$?
	# shellcheck disable=SC2086
	(cd set && timeout 60 "$QCOW" $2 2>/dev/null) >ours.out || mine=$?
	if [ "$mine" != "$theirs" ]; then
		fail "$1" "exit status $mine, qemu-img $theirs"
	elif ! cmp -s <(${3-cat} qemu.out) <(${3-cat} ours.out); then
		fail "$1" "says $(tr '\n' ' ' <ours.out), qemu-img $(tr '\n' ' ' <qemu.out)"
	else
		ok "$1"
	fi
}

for pair in 'a.q a.q' 'a.q b.q' 'b.q a.q' 'a.q longer.q' 'longer.q a.q' 'a.q differs.q' 'a.q z.q' 'z.q over.q' \
	'a.q changed.q' 'empty.q zeroed.q' 'a.q empty.q' 'v2.q empty.q' 'zero.q empty.q' 'zero.q a.q' 'huge.q huge2.q'; do
	same_words "compare/${pair/ /-}" "compare -f qcow2 -F qcow2 $pair"
	same_words "compare/${pair/ /-}/quiet" "compare -q -f qcow2 -F qcow2 $pair"
done
same_words compare/raw 'compare -f raw -F qcow2 a.raw a.q'
same_words compare/raw-raw 'compare -f raw -F raw a.raw a.q'
same_words compare/odd 'compare -f raw -F qcow2 odd.raw a.q'
same_words compare/strict-same 'compare -s -f qcow2 -F qcow2 a.q a.q'
same_words compare/strict-size 'compare -s -f qcow2 -F qcow2 a.q longer.q'
nodigits() { tr -d '[:digit:]' <"$1"; }
# QEMU counts the image's end as a kind of its own, so only that it differs is the same.
same_words compare/strict-zeros 'compare -s -f qcow2 -F qcow2 a.q empty.q' nodigits
same_words compare/missing 'compare -f qcow2 -F qcow2 a.q missing.q'
same_words compare/no-image 'compare -f qcow2 -F qcow2 a.raw a.q'

# For programs: qemu-img has no such answer.
answers() { # answers NAME STATUS JSON ARGUMENTS
	local status=0 said
	# shellcheck disable=SC2086
	said=$(cd set && "$QCOW" compare --json $4 | tr -d ' \n\t') || status=$?
	if [ "$status $said" = "$2 $3" ]; then ok "$1"; else fail "$1" "$status $said"; fi
}
answers compare/json/same 0 '{"identical":true,"virtual-sizes":[5000192,5000192]}' 'a.q a.q'
answers compare/json/content 1 '{"identical":false,"virtual-sizes":[5000192,5000192],"difference":"content","offset":3145728}' 'a.q b.q'
answers compare/json/longer 0 '{"identical":true,"virtual-sizes":[5000192,8388608]}' 'a.q longer.q'
answers compare/json/size 1 '{"identical":false,"virtual-sizes":[5000192,8388608],"difference":"size","offset":5000192}' '-s a.q longer.q'
answers compare/json/status 1 '{"identical":false,"virtual-sizes":[5000192,5000192],"difference":"block-status","offset":65536}' '-s empty.q data.q'

# Compressed bytes that do not inflate: 4, and where.
cp set/z.q bad.q
"$QCOW" map --json set/z.q >map
l2=$(python3 - set/z.q <<'EOP'
import struct, sys
b = open(sys.argv[1], "rb").read()
l1 = struct.unpack(">Q", b[40:48])[0]
l2 = struct.unpack(">Q", b[l1:l1 + 8])[0] & ~(1 << 63)
bits = struct.unpack(">I", b[20:24])[0]
for i in range(1 << (bits - 3)):
    e = struct.unpack(">Q", b[l2 + 8 * i:l2 + 8 * i + 8])[0]
    if e >> 62 & 1:
        print(e & ((1 << (70 - bits)) - 1))
        break
EOP
)
printf 'garbage garbage' | dd of=bad.q bs=1 seek="$l2" conv=notrunc 2>log
status=0
"$QCOW" compare bad.q set/a.q >out 2>err || status=$?
if [ $status = 4 ] && grep -q 'does not decompress' err; then ok compare/unreadable; else
	fail compare/unreadable "exit status $status: $(cat out err)"
fi

# ---- measure
json() { tr -d ' \t' <"$1" | tr ',' '\n' | grep -E '"(required|fully-allocated|bitmaps)"' | sort; }
for o in cluster_size=64k cluster_size=512 cluster_size=2M compat=0.10 extended_l2=on refcount_bits=1 refcount_bits=64 \
	preallocation=metadata preallocation=full cluster_size=4k,refcount_bits=8,extended_l2=off; do
	for size in 0 1 5000192 1G 100G; do
		same_words "measure/$o/$size" "measure --output=json -O qcow2 -o $o --size $size" json
	done
	for i in a.q z.q over.q changed.q zeroed.q bitmaps.q v2.q zero.q; do
		same_words "measure/$o/$i" "measure --output=json -O qcow2 -o $o -f qcow2 $i" json
	done
	same_words "measure/$o/raw" "measure --output=json -O qcow2 -o $o -f raw a.raw" json
done
# Ours says each size with a unit, too.
no_units() { sed 's/ (.*)$//' <"$1"; }
same_words measure/to-raw 'measure -f qcow2 z.q' no_units
same_words measure/human 'measure -O qcow2 -f qcow2 bitmaps.q' no_units
same_words measure/size-to-raw 'measure --size 1000' no_units
same_words measure/snapshot 'measure -O qcow2 -l s -f qcow2 snap.q' no_units
same_words measure/too-large 'measure -O qcow2 --size 3P'
same_words measure/no-size 'measure -O qcow2'
same_words measure/odd 'measure -f raw -O qcow2 odd.raw' no_units
if "$QCOW" measure -O qcow2 --size 1.5T | grep -q '^fully allocated size: 1649519362048 (1.5 TiB)$'; then ok measure/units; else
	fail measure/units "$("$QCOW" measure -O qcow2 --size 1.5T)"
fi
finish
