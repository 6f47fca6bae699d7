#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow convert: what it makes is sound for both, holds what QEMU reads, and is described as what QEMU makes is.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

disk=$REPO/tests/tools/disk.py

# made NAME IMAGE RAW: IMAGE is sound for both, holds what RAW does, and we read it as QEMU does.
made() {
	local why
	why=$(sound "$2")
	[ -n "$why" ] || why=$(qemu-img compare -f qcow2 -F raw "$2" "$3" 2>&1) && [ "$why" = 'Images are identical.' ] || {
		fail "$1" "$why"
		return
	}
	why=$("$QCOW" convert "$2" back.raw 2>&1) || true
	[ -n "$why" ] || why=$(cmp back.raw "$3" 2>&1) || true
	if [ -n "$why" ]; then fail "$1" "reading it back: $why"; else ok "$1"; fi
}

# converted NAME IMAGE RAW OPTION...: the options make the image, say that all went well, and it shows what the raw file has
converted() {
	"$QCOW" convert -O qcow2 "${@:4}" "$2" || { fail "$1" "exit status $?"; return; }
	made "$1" "$2" "$3"
}

files() { find . -type f ! -name err -printf '%p %s %i\n' | sort; }

# refused NAME WORDS COMMAND...: status 1, one line with WORDS, and no file is left or changed.
refused() {
	local before status=0 name=$1 words=$2
	before=$(files)
	shift 2
	"$@" >/dev/null 2>err || status=$?
	if [ "$status" != 1 ] || [ "$(wc -l <err)" != 1 ] || ! grep -qF -- "$words" err; then
		fail "$name" "exit status $status: $(cat err)"
	elif [ "$(files)" != "$before" ]; then
		fail "$name" 'it left something behind'
	else
		ok "$name"
	fi
}

# ---- into images of every kind, the unaligned end included
"$disk" a.raw 9000448 && "$disk" small.raw 1500160 2

options='cluster_size=64k cluster_size=2M compat=0.10 extended_l2=on refcount_bits=1 refcount_bits=64
	cluster_size=4k,refcount_bits=2 preallocation=metadata preallocation=falloc preallocation=full
	extended_l2=on,preallocation=metadata lazy_refcounts=on cluster_size=512'
full && options+=' cluster_size=512,compat=0.10 cluster_size=512,refcount_bits=64 cluster_size=1k,refcount_bits=8
	cluster_size=16k,extended_l2=on cluster_size=2M,extended_l2=on cluster_size=32k cluster_size=512,refcount_bits=1
	cluster_size=4k,preallocation=metadata'
for o in $options; do
	raw=a.raw
	[[ $o != *=512* ]] || raw=small.raw
	rm -f o.q
	"$QCOW" convert -f raw -O qcow2 -o "$o" $raw o.q || true
	made "convert/$o" o.q $raw
	[[ $o != *prealloc* ]] || continue
	for type in zlib zstd; do
		[[ $type != zstd || $o != *0.10* ]] || continue
		rm -f o.q
		"$QCOW" convert -c -f raw -O qcow2 -o "$o,compression_type=$type" $raw o.q || true
		made "convert/$o/$type" o.q $raw
	done
done

# What info says of it is what it says of QEMU's; compressed is about as small.
for o in cluster_size=64k compat=0.10 extended_l2=on,cluster_size=32k compression_type=zstd refcount_bits=8; do
	for c in '' -c; do
		rm -rf qemu ours && mkdir qemu ours
		# shellcheck disable=SC2086
		qemu-img convert $c -f raw -O qcow2 -o $o a.raw qemu/i && "$QCOW" convert $c -f raw -O qcow2 -o $o a.raw ours/i
		why=$(diff <(cd qemu && info i) <(cd ours && info i) | head -n 3 | tr '\n' ' ') || true
		[ -n "$why" ] || [ $(($(stat -c %s ours/i) * 100)) -le $(($(stat -c %s qemu/i) * 103)) ] || why='it is larger'
		if [ -n "$why" ]; then fail "convert/like-qemu/$o$c" "$why"; else ok "convert/like-qemu/$o$c"; fi
	done
done

# ---- data files
for o in data_file=d data_file=d,data_file_raw=on data_file=d,preallocation=metadata; do
	rm -f o.q d
	"$QCOW" convert -f raw -O qcow2 -o "$o" a.raw o.q || true
	made "convert/$o" o.q a.raw
done
if cmp -s d a.raw; then ok convert/data-file-is-raw; else fail convert/data-file-is-raw 'it differs'; fi

# ---- from everything QEMU makes
io='qemu-io -f qcow2'
from() { # from NAME COMMANDS: make the image i; both read the same from it
	rm -rf src && mkdir src
	(cd src && eval "$2") >log 2>&1 || { fail "convert/from-$1" "$(tail -n 1 log)"; return; }
	qemu-img convert -f qcow2 -O raw src/i q.raw && rm -f o.raw o.q
	"$QCOW" convert src/i o.raw && "$QCOW" convert -O qcow2 src/i o.q || true
	if cmp -s q.raw o.raw; then made "convert/from-$1" o.q q.raw; else fail "convert/from-$1" 'raw differs'; fi
}
from v2 "qemu-img convert -f raw -O qcow2 -o compat=0.10 ../a.raw i"
from zlib "qemu-img convert -c -f raw -O qcow2 ../a.raw i"
from zstd "qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd,cluster_size=2M ../a.raw i"
from extl2 "qemu-img convert -f raw -O qcow2 -o extended_l2=on ../a.raw i && $io -c 'write -z 3k 100k' -c 'discard 1M 64k' i"
from data-file "qemu-img convert -f raw -O qcow2 -o data_file=d ../a.raw i"
from empty "qemu-img create -f qcow2 i 0"
from big "qemu-img create -f qcow2 i 20M && $io -c 'write -P 7 19M 64k' i"
from chain "cp ../a.raw base && qemu-img create -f qcow2 -b base -F raw m && $io -c 'write -P 7 1M 300k' m &&
	qemu-img create -f qcow2 -o cluster_size=4k -b m -F qcow2 i 12M && $io -c 'write -P 8 1100k 10k' -c 'write -z 0 64k' i"
from short-base "head -c 96256 ../small.raw >base &&
	qemu-img create -f qcow2 -b base -F raw i 4M && $io -c 'write -P 8 200k 10k' i"

# Holes are not looked into byte by byte.
qemu-img create -q -f qcow2 huge 1P && $io -c 'write -P 7 900T 64k' huge >log
rm -f o.q && timeout 20 "$QCOW" convert -O qcow2 huge o.q || true
if $io -r -c 'read -P 7 900T 64k' -c 'read -P 0 0 64k' o.q | grep -qi fail || [ "$(stat -c %s o.q)" -gt 30000000 ]; then
	fail convert/huge "$(ls -l o.q)"
else ok convert/huge; fi

rm -rf src && mkdir src && qemu-img convert -f raw -O qcow2 small.raw src/i && qemu-img snapshot -c s src/i &&
	$io -c 'write -P 9 0 1M' src/i >/dev/null
for l in s 1 snapshot.name=s; do
	rm -f o.q && "$QCOW" convert -O qcow2 -l $l src/i o.q
	made "convert/snapshot-$l" o.q small.raw
done

# ---- over a backing file
rm -rf over && mkdir over
(cd over && cp ../a.raw base && qemu-img create -f qcow2 -b base -F raw m && $io -c 'write -P 7 1M 300k' m &&
	qemu-img create -f qcow2 -o cluster_size=4k -b m -F qcow2 i 12M && $io -c 'write -P 8 1500k 10k' -c 'write -z 0 64k' i &&
	qemu-img convert -f qcow2 -O raw i ../i.raw && truncate -s 5M other && dd if=../a.raw of=other bs=1M count=3 conv=notrunc) >log 2>&1
over() { # over NAME BASE FORMAT OPTIONS LIMIT: fewer than LIMIT bytes are in it
	rm -f over/o.q
	converted "convert/over-$1" over/o.q i.raw -B "$2" -F "$3" -o "$4" over/i
	[ "$(stat -c %s over/o.q)" -lt "$5" ] || fail "convert/over-$1-size" "it has $(stat -c %s over/o.q) bytes"
}
over top-of-chain m qcow2 compat=1.1 700000
over base-of-chain base raw compat=1.1 1200000
over v2 m qcow2 compat=0.10 1200000
over unrelated other raw compat=1.1 9000000
over extl2 m qcow2 extended_l2=on 900000
# Zeros past a base's odd end, and data behind them in the same cluster of the target, which the source has finer.
odd_end() { # odd_end NAME BASE-SIZE SOURCE-OPTIONS ZEROS DATA OPTIONS
	rm -rf odd && mkdir odd
	(cd odd && truncate -s "$2" b && printf 'base' | dd of=b bs=1 seek=4096 conv=notrunc && qemu-img create -f qcow2 -o "$3" -b b -F raw i 8M &&
		$io -c "write -z 0 $4" -c "write -P 5 $4 $5" i && qemu-img convert -f qcow2 -O raw i ../odd.raw) >log 2>&1
	converted "convert/odd-end-$1" odd/o odd.raw -B b -F raw -o "$6" odd/i
}
odd_end 4k 530k cluster_size=4k 548k 28k cluster_size=64k
odd_end extl2 2500k extended_l2=on 3M 512k cluster_size=2M
odd_end to-extl2 530k cluster_size=4k 548k 28k extended_l2=on

# ---- streams, devices' way, holes
"$QCOW" convert -f raw -O qcow2 - o.q <a.raw
made convert/stdin o.q a.raw
head -c 100000 a.raw | "$QCOW" convert -f raw -O qcow2 -c - o.q
head -c 100000 a.raw >cut.raw && truncate -s 100352 cut.raw
made convert/stdin-odd o.q cut.raw
if "$QCOW" convert src/i - 2>err | cmp -s - <(qemu-img convert -f qcow2 -O raw src/i q.raw && cat q.raw); then
	ok convert/stdout
else
	fail convert/stdout "differs: $(cat err)"
fi
head -c 9000448 /dev/urandom >dev && "$QCOW" convert -n -f raw a.raw dev
if cmp -s a.raw dev; then ok convert/in-place; else fail convert/in-place differs; fi
# Into an image that is there: what lies behind the source stays, and so do its snapshots.
for o in cluster_size=64k cluster_size=4k,compat=0.10 extended_l2=on data_file=d data_file=d,data_file_raw=on \
	data_file=d,data_file_raw=on,extended_l2=on preallocation=full cluster_size=2M; do
	make_images "qemu-img create -f qcow2 -o $o i 12M && $io -c 'write -P 7 1M 11M' i" || { fail "convert/into-$o" 'cannot make it'; continue; }
	if [[ $o != data_file* ]]; then
		for d in qemu ours; do (cd $d && qemu-img snapshot -c s i); done
	fi
	run_both 'TOOL convert -n -f raw -O qcow2 ../a.raw i'
	agree "convert/into-$o" i
	[[ $o != *raw* ]] || cmp -s ours/d ours.raw || fail "convert/into-$o/raw" 'the data file is not the disk'
done
# A data file ends with the disk, within a cluster; QEMU makes a raw one longer.
head -c 1049088 a.raw | tr '\0' '\1' >odd.raw
for o in data_file=d data_file=d,data_file_raw=on; do
	both "convert/into-odd-$o" i "qemu-img create -f qcow2 -o $o i 1049088 && truncate -s 1049088 d" 'TOOL convert -n -f raw -O qcow2 ../odd.raw i'
	cmp -s ours/d odd.raw || fail "convert/into-odd-$o/data" "it differs, of $(stat -c %s ours/d) bytes"
done
both convert/into-preallocated i 'qemu-img create -f qcow2 -o preallocation=metadata i 12M' \
	'TOOL convert -n -f raw -O qcow2 ../a.raw i && qemu-img map --output=json i >map.json'
make_images "qemu-img create -f qcow2 -o preallocation=full i 12M"
before=$(stat -c %s ours/i)
run_both 'TOOL convert -n -f raw -O qcow2 ../a.raw i'
agree convert/into-in-place i
[ "$(stat -c %s ours/i)" = "$before" ] || fail convert/into-in-place/size "it grew from $before to $(stat -c %s ours/i) bytes"
both convert/into-over-base i "cp ../a.raw base && qemu-img create -f qcow2 -b base -F raw i 12M && $io -c 'write -P 7 9M 1M' i" \
	'TOOL convert -n -f raw -O qcow2 ../small.raw i'
both convert/into-smaller i 'qemu-img create -f qcow2 i 1M' 'TOOL convert -n -f raw -O qcow2 ../small.raw i'

# Several sources, one behind the other, none of them whole clusters.
make_images "cp ../small.raw s && qemu-img convert -f raw -O qcow2 ../small.raw q"
for o in '' '-c' '-o cluster_size=4k'; do
	run_both "rm -f i; TOOL convert -f raw -O qcow2 $o s s s i"
	agree "convert/several$o" i
	cmp -s <(cat small.raw small.raw small.raw) ours.raw || fail "convert/several$o" 'not one behind the other'
done
run_both 'rm -f i; TOOL convert -f qcow2 -O qcow2 q q i'
agree convert/several-images i
refused convert/several-with-base 'several sources' "$QCOW" convert -O qcow2 -B over/base -F raw over/i over/i out

# Bitmaps come along.
bitmaps="cp ../src/i q && qemu-img snapshot -d s q && qemu-img bitmap --add q b && qemu-img bitmap --add -g 4k q fine &&
	qemu-img bitmap --disable q b && $io -c 'write -P 3 100k 9k' -c 'write -P 3 1M 64k' q"
both convert/bitmaps i "$bitmaps" 'TOOL convert --bitmaps -f qcow2 -O qcow2 q i'
both convert/no-bitmaps i "$bitmaps" 'TOOL convert -f qcow2 -O qcow2 q i'
make_images "$bitmaps"
for d in qemu ours; do (cd $d && "$REPO/tests/tools/in-use.py" q); done
run_both 'TOOL convert --bitmaps -f qcow2 -O qcow2 q i'
if [ $mine = 1 ] && [ $theirs = 1 ] && [ ! -e ours/i ]; then ok convert/broken-bitmap; else fail convert/broken-bitmap "$mine, $theirs: $(cat ours.err)"; fi
run_both 'TOOL convert --bitmaps --skip-broken-bitmaps -f qcow2 -O qcow2 q i'
agree convert/skip-broken-bitmap i

for s in 0 4k 64k; do
	rm -f o.raw && "$QCOW" convert -S $s -f raw a.raw o.raw
	case $s in 0) want=17592 ;; 4k) want=$(($(du -k a.raw | cut -f 1) * 2)) ;; *) want=0 ;; esac
	got=$(($(du -k o.raw | cut -f 1) * 2))
	if ! cmp -s a.raw o.raw; then fail convert/sparse-$s differs
	elif [ $s = 0 ] && [ $got -lt 17500 ]; then fail convert/sparse-0 'it has holes'
	elif [ $s = 4k ] && [ $got -gt $((want + 64)) ]; then fail convert/sparse-4k "$got sectors, the source has $want"
	else ok convert/sparse-$s; fi
done

# ---- what is replaced, refused, interrupted
cp a.raw here && ln -s here link && chmod 600 here && "$QCOW" convert src/i link
if [ -L link ] && [ "$(stat -c %a here)" = 600 ] && ! cmp -s here a.raw; then ok convert/replaces; else
	fail convert/replaces "$(ls -l here link)"
fi
qemu-img create -q -f qcow2 busy 1M
refused convert/not-qcow2 'qcow2' "$QCOW" convert a.raw out
refused convert/no-target-format '-F' "$QCOW" convert -O qcow2 -B base over/i out
refused convert/compress-raw '-O qcow2' "$QCOW" convert -c over/i out
refused convert/compress-prealloc 'contradict' "$QCOW" convert -c -O qcow2 -o preallocation=full over/i out
refused convert/bad-option cluster_size "$QCOW" convert -O qcow2 -o cluster_size=3k over/i out
refused convert/onto-itself 'is read from' "$QCOW" convert -O qcow2 src/i src/i
refused convert/onto-its-base 'is read from' "$QCOW" convert -O qcow2 over/i over/base
cp a.raw x.raw && qemu-img convert -f raw -O qcow2 a.raw x.q
refused convert/onto-its-new-base 'is read from' "$QCOW" convert -U -O qcow2 -B x.q -F qcow2 over/i x.q
refused convert/onto-its-new-raw-base 'is read from' "$QCOW" convert -U -O qcow2 -B x.raw -F raw over/i ./x.raw
refused convert/data-file-is-base 'is read from' "$QCOW" convert -U -O qcow2 -o data_file=x.raw -B x.raw -F raw over/i out
refused convert/data-file-is-source 'is read from' "$QCOW" convert -U -f raw -O qcow2 -o data_file=x.raw x.raw out
refused convert/no-folder 'No such file' "$QCOW" convert src/i missing/out
refused convert/too-small 'has' "$QCOW" convert -n -f raw a.raw cut.raw
cp src/i bad
l1=$((0x$(xxd -s 40 -l 8 -p bad)))
printf '\xff' | dd of=bad bs=1 seek=$((l1 + 6)) conv=notrunc 2>/dev/null
refused convert/damaged 'qemu-img check' "$QCOW" convert bad out
# What cannot be read is zeros on demand, and named. Damage in an L1 entry, an L2 entry, in compressed bytes.
salvaged() { # salvaged NAME IMAGE FORMAT
	local why=
	qemu-img convert --salvage -f qcow2 -O raw "$2" q.raw >log 2>&1 || { fail "$1" "qemu-img: $(tail -n 1 log)"; return; }
	"$QCOW" convert --salvage -O "$3" "$2" out 2>err || why="exit status $?: $(tail -n 1 err)"
	if [ -n "$why" ]; then fail "$1" "$why"; return; fi
	grep -q 'bytes at .* are copied as zeros' err || why='it does not say what is lost'
	qemu-img compare -q -f raw -F "$3" q.raw out || why='other contents than qemu-img --salvage'
	! "$QCOW" convert -q --salvage -O "$3" "$2" out 2>&1 | grep -q . || why='not quiet'
	if [ -n "$why" ]; then fail "$1" "$why"; else ok "$1"; fi
	rm -f out
}
l2=$((0x$(xxd -s $l1 -l 8 -p src/i) & 0xfffffffffffe00))
cp src/i bad-l2
printf '\xff' | dd of=bad-l2 bs=1 seek=$((l2 + 22)) conv=notrunc 2>/dev/null
qemu-img convert -c -f raw -O qcow2 a.raw bad-zlib
at=$("$QCOW" map --json bad-zlib | python3 -c 'import json, sys; print(next(e["start"] for e in json.load(sys.stdin) if e["compressed"]) >> 16)')
l2=$((0x$(xxd -s $((0x$(xxd -s 40 -l 8 -p bad-zlib))) -l 8 -p bad-zlib) & 0xfffffffffffe00))
at=$((0x$(xxd -s $((l2 + 8 * at)) -l 8 -p bad-zlib) & 0x3fffffffffffff))
head -c 512 /dev/zero | tr '\0' '\377' | dd of=bad-zlib bs=1 seek=$at conv=notrunc 2>/dev/null
for f in raw qcow2; do
	salvaged convert/salvage/$f/l1 bad $f
	salvaged convert/salvage/$f/l2 bad-l2 $f
	salvaged convert/salvage/$f/zlib bad-zlib $f
done
refused convert/salvage-over-base 'whole disk' "$QCOW" convert --salvage -O qcow2 -B over/base -F raw over/i out
# 1.5 MB at 1 MiB a second: three chunks, of which the last may be read after a second.
began=$(date +%s%N)
"$QCOW" convert -p -r 1M -f raw -S 0 small.raw o.raw 2>err
took=$((($(date +%s%N) - began) / 1000000))
if cmp -s small.raw o.raw && [ $took -ge 1000 ]; then ok convert/rate; else fail convert/rate "$took ms"; fi
if grep -qE '[0-9.]+%  [0-9.]+ [KM]iB, [0-9.]+ [KM]iB/s, 0:0[0-9] left' err; then ok convert/time-left; else
	fail convert/time-left "$(cat err)"
fi
# A writer has it open: both ways are refused, and it is said who.
mkfifo hold
qemu-io -f qcow2 busy <hold >hold.out 2>&1 &
exec 3>hold
for _ in $(seq 100); do ! grep -q 'qemu-io>' hold.out || break; sleep 0.1; done
refused convert/source-in-use 'qemu-io' "$QCOW" convert busy out
refused convert/target-in-use 'qemu-io' "$QCOW" convert -O qcow2 src/i busy
exec 3>&-
wait
# Interrupted: no file under the name, and none beside it. The second time the signal comes as soon as there is a file.
mkdir stop && "$disk" stop.raw 200000000 3
interrupted() # NAME [TRACER...]
{
	local name=$1 pid status=0
	shift
	"$@" "$QCOW" convert -c -f raw -O qcow2 stop.raw stop/out 2>err &
	pid=$!
	for _ in $(seq 500); do [ -z "$(ls -A stop)" ] || break; sleep 0.02; done
	kill -TERM $pid # a shell's background job ignores SIGINT
	wait $pid || status=$?
	if [ $status = 1 ] && [ -z "$(ls -A stop)" ] && grep -q cancelled err; then ok "convert/$name"; else
		fail "convert/$name" "exit status $status, left: $(ls -A stop), said: $(cat err)"
	fi
	rm -f stop/.out.*
}
interrupted interrupted
interrupted interrupted-early strace -D -qq -o /dev/null -e trace=fchmod -e inject=fchmod:delay_enter=1000000
"$QCOW" convert -p src/i out 2>err
if grep -q '100.0%' err; then ok convert/progress; else fail convert/progress "$(cat err)"; fi
finish
