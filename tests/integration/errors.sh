#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Disks that fail, at times or in places, under image and base: what fails is what the user sees, the mode is the
# documented one, and what was acknowledged before is there afterwards.
# vm: --disk 512M
# shellcheck disable=SC2154 # use_disk sets its first
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
requires qemu-img python3 blkdiscard

# frail ok|write|all, or frail at|write-at OFFSET LENGTH: what the device "frail" over disk1 fails at from now on
frail() {
	frail_next "$@"
	[ ! -b /dev/mapper/frail ] || frail_now
}

# frail_next ...: or when frail_now is called
frail_next() {
	local sectors first last
	sectors=$(blockdev --getsz "$disk1")
	case $1 in
	ok) echo "0 $sectors linear $disk1 0" ;;
	write) echo "0 $sectors flakey $disk1 0 0 3600 1 error_writes" ;;
	all) echo "0 $sectors flakey $disk1 0 0 3600" ;;
	at | write-at)
		first=$(($2 / 512)) last=$((($2 + $3) / 512))
		[ "$first" = 0 ] || echo "0 $first linear $disk1 0"
		case $1 in
		at) echo "$first $((last - first)) error" ;;
		write-at) echo "$first $((last - first)) flakey $disk1 $first 0 3600 1 error_writes" ;;
		esac
		echo "$last $((sectors - last)) linear $disk1 $last"
		;;
	esac >"$SCRATCH/table"
	if [ -b /dev/mapper/frail ]; then
		dmsetup load frail "$SCRATCH/table"
	else
		dmsetup create frail "$SCRATCH/table"
	fi
}

frail_now() {
	dmsetup suspend --nolockfs frail
	dmsetup resume frail
}

write_block() { # write_block NUMBER BYTE: of 64 KiB, durably
	put_block "$@" && sync -d /dev/mapper/e
}

put_block() { # put_block NUMBER BYTE: and no flush
	head -c 65536 /dev/zero | tr '\0' "\\$(printf %o "$2")" |
		dd of=/dev/mapper/e bs=64k count=1 seek="$1" iflag=fullblock oflag=direct conv=nocreat status=none
}

read_block() { # read_block NUMBER: from the disk below
	dd if=/dev/mapper/e of=/dev/null bs=64k count=1 skip="$1" iflag=direct status=none
}

# io_error COMMAND...: fails with EIO and nothing else
io_error() {
	refused "$@"
	grep -q 'Input/output error' "$SCRATCH/said" || fail "$*: $(cat "$SCRATCH/said")"
}

# block_is NUMBER BYTE: as QEMU reads it
block_is() {
	qemu_reads /dev/mapper/frail "read -q -P $2 $(($1 * 64))k 64k"
}

# qemu_reads IMAGE COMMAND...: it says nothing if the bytes are right
qemu_reads() {
	local said words=() command
	for command in "${@:2}"; do
		words+=(-c "$command")
	done
	said=$(qemu-io -r -f qcow2 "${words[@]}" "$1" 2>&1) || fail "$1: $said"
	equal "what QEMU says of $1" "$said" ''
}

mode_is() {
	equal "mode" "$(state e mode)" "$1"
}

# says last-error|mode-reason ERRNO OPERATION WHERE [OFFSET]: what the status says; WHERE and OFFSET are patterns
says() {
	local got title=failed
	got=$(qcow status e --json | python3 -c 'import json, sys
f = json.load(sys.stdin)["targets"][0].get(sys.argv[1], {})
print(*(f.get(key) for key in ("errno", "operation", "offset", "where")))' "$1")
	# shellcheck disable=SC2053 # a pattern
	[[ $got == $2\ $3\ ${5-None}\ $4 ]] || fail "$1: '$got', not '$2 $3 ${5-None} $4'"
	[ "$1" = last-error ] || title=since
	qcow status e | grep -q "^  $title: *$3: " || fail "not in words: $(qcow status e)"
}

# No reason for a mode that has not changed.
mode_is_rw() {
	mode_is RW
	! qcow status e --json | grep -q mode-reason || fail "a reason for mode RW: $(dmsetup status e)"
}

# frail as the kernel calls it
frail_name() {
	echo "dm-$(dmsetup info -c --noheadings -o minor frail)"
}

# place_of NUMBER [IMAGE]: where that block of the image (on frail) is, in bytes; what is written is committed
place_of() {
	blockdev --flushbufs /dev/mapper/frail
	qemu-img map -U -f qcow2 --output=json "${2-/dev/mapper/frail}" | python3 -c 'import json, sys
at = int(sys.argv[1]) * 65536
print([e["offset"] + at - e["start"] for e in json.load(sys.stdin) if e["start"] <= at < e["start"] + e["length"]][0])' "$1"
}

told_read_only() { # told_read_only EVENTS-BEFORE
	is_read_only && [ "$(events)" -gt "$1" ]
}

is_read_only() {
	[ "$(state e mode)" = RO ]
}

events() {
	dmsetup info -c --noheadings -o events e
}

# The pool is as full as it gets: no GRANT is under way.
pool_is_full() {
	[ "$(counter e clusters_leased)" -gt 512 ]
}

# Data that cannot be written fails alone: nobody else suffers, and later it can.
failing_data() {
	local errors place
	frail ok
	qemu-img create -q -f qcow2 /dev/mapper/frail 128M
	open_rw e /dev/mapper/frail
	write_block 1 0x21
	write_block 2 0x22
	eventually 60 pool_is_full
	place=$(place_of 1)
	frail write
	# In place, and to a new cluster.
	io_error write_block 1 0x31
	says last-error 5 write "$(frail_name)" "$place"
	io_error write_block 3 0x33
	says last-error 5 write "$(frail_name)" '[1-9]*'
	[ "$(qcow status e --json | grep -c "\"offset\": $place\$")" = 0 ] || fail "the same place"
	read_block 2
	frail ok
	mode_is_rw
	errors=$(counter e errors)
	equal "errors" "$((errors >= 2))" 1
	write_block 4 0x44
	write_block 3 0x43
	close_rw e
	checked /dev/mapper/frail
	block_is 2 0x22
	block_is 3 0x43
	block_is 4 0x44
}

# A request that is carried out in parts fails if one of them does, whoever ends last. The map is empty: a worker cuts
# it in two. The first half goes in place, and fails; the other one goes to a new cluster.
failing_part() {
	local bad
	qemu-img create -q -f qcow2 /dev/mapper/frail 128M
	qemu-io -f qcow2 -c 'write -q -P 0x71 64k 64k' /dev/mapper/frail
	bad=$(place_of 1)
	frail at "$bad" 65536
	open_rw e /dev/mapper/frail
	io_error dd if=/dev/zero of=/dev/mapper/e bs=128k count=1 seek=65536 oflag=direct,seek_bytes conv=nocreat
	says last-error 5 write "$(frail_name)" "$bad"
	mode_is_rw
	frail ok
	close_rw e
	checked /dev/mapper/frail
	block_is 1 0x71
	block_is 2 0
}

# Data reaches the disk, tables do not: the flush fails, and nothing may be believed written from then on.
failing_commit() { # failing_commit WHAT-FAILS WHERE
	local before
	qemu-img create -q -f qcow2 /dev/mapper/frail 128M
	open_rw e /dev/mapper/frail
	write_block 1 0x41
	write_block 6 0x46
	eventually 60 pool_is_full
	dd if=/dev/urandom of=/dev/mapper/e bs=64k count=1 seek=5 oflag=direct status=none
	before=$(events)
	"$1"
	# On a slow machine what was written is committed by now: here is something that is not, and needs no data.
	blkdiscard -f -o $((6 * 65536)) -l 65536 /dev/mapper/e
	io_error sync -d /dev/mapper/e
	eventually 60 told_read_only "$before"
	says mode-reason 5 COMMIT "/dev/mapper/frail: cannot write * bytes at offset $2: Input/output error"
	io_error write_block 2 0x42
	read_block 1
	frail all
	# What fails later does not hide the reason.
	io_error read_block 1
	says last-error 5 read "$(frail_name)" '[1-9]*'
	frail ok
	# Not even now: what the disk has is unknown until the image is opened afresh.
	io_error write_block 2 0x42
	mode_is RO
	says mode-reason 5 COMMIT "/dev/mapper/frail: cannot write * bytes at offset $2: Input/output error"
	qcow close e --force
	checked /dev/mapper/frail leaks
	block_is 1 0x41
	block_is 2 0
}

# The flush fails that is to make data durable before a table points to it. Another one would know nothing of that data:
# no flush is believed any more, nothing points to it, and the image is not called clean.
failing_flush() {
	local before
	head -c 1M /dev/zero | tr '\0' '\101' >"$SCRATCH/base.raw"
	qemu-img create -q -f qcow2 -b "$SCRATCH/base.raw" -F raw /dev/mapper/frail 128M
	qcow open e /dev/mapper/frail --backing "$SCRATCH/base.raw" --backing-format raw
	write_block 1 0x42
	eventually 60 pool_is_full
	before=$(events)
	frail_next write
	dd if=/dev/urandom of=/dev/mapper/e bs=64k count=1 seek=2 oflag=direct status=none
	frail_now
	io_error sync -d /dev/mapper/e
	eventually 60 told_read_only "$before"
	says mode-reason 5 flush "$(frail_name)"
	frail ok
	io_error sync -d /dev/mapper/e
	says last-error 5 flush "$(frail_name)"
	dmsetup suspend e
	dmsetup status e | grep -q ' unclean ' || fail "suspended: $(dmsetup status e)"
	qcow close e --force
	checked /dev/mapper/frail leaks
	block_is 1 0x42
	block_is 2 0x41
}

# What was written in place before the mode became RO can still be made durable, and is.
flush_in_mode_ro() {
	local flushes
	qemu-img create -q -f qcow2 /dev/mapper/frail 128M
	open_rw e /dev/mapper/frail
	write_block 1 0x41
	dd if=/dev/zero of=/dev/mapper/e bs=64k count=1 seek=1 oflag=direct conv=nocreat status=none
	dmsetup message e 0 mode ro
	says mode-reason 0 message '*'
	flushes=$(flushes_below)
	sync -d /dev/mapper/e
	[ "$(flushes_below)" -gt "$flushes" ] || fail "in mode RO a flush ended that nobody had sent"
	qcow close e --force
	checked /dev/mapper/frail leaks
	block_is 1 0
}

flushes_below() {
	awk '{ print $16 }' "/sys/block/${disk1#/dev/}/stat"
}

all_writes() {
	frail write
}

# What is in it is known: only writing it fails.
first_table() {
	frail at "$(table_of 0)" 65536
}

# table_of NUMBER|header|l1|reftable|refblock [IMAGE]: where the image (on frail) has its NUMBER-th L2 table, or that
table_of() {
	blockdev --flushbufs /dev/mapper/frail
	python3 -c 'import struct, sys
what, image = sys.argv[1:]
f = open(image, "rb")
def word(at):
    f.seek(at)
    return struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00
places = {"header": lambda: 0, "l1": lambda: word(40), "reftable": lambda: word(48), "refblock": lambda: word(word(48))}
print(places.get(what, lambda: word(word(40) + 8 * int(what)))())' "$1" "${2-/dev/mapper/frail}"
}

# on_disk FILE OFFSET: where frail has what the file on it has there
on_disk() {
	filefrag -sv -b512 "$1" | python3 -c 'import re, sys
at = int(sys.argv[1]) // 512
for line in sys.stdin:
    words = [int(w) for w in re.findall(r"[0-9]+", line)]
    if re.match(r" *[0-9]+:", line) and words[1] <= at <= words[2]:
        print((words[3] + at - words[1]) * 512)' "$2" | grep .
}

# A table that cannot be read: what it maps fails, the rest goes on; and when it can be read again, all does.
failing_table() {
	local bad
	qemu-img create -q -f qcow2 /dev/mapper/frail 2G
	qemu-io -f qcow2 -c 'write -q -P 0x61 0 1M' -c 'write -q -P 0x62 1G 1M' /dev/mapper/frail
	bad=$(table_of 2)
	[ "$bad" -gt 0 ] || fail "no L2 table"
	frail at "$bad" 65536
	open_rw e /dev/mapper/frail
	io_error read_block 16384
	says last-error 5 LOAD '/dev/mapper/frail: cannot read * bytes at offset 0x*: Input/output error'
	io_error write_block 16385 0x63
	read_block 1
	write_block 2 0x64
	mode_is_rw
	frail ok
	read_block 16384
	write_block 16385 0x65
	mode_is RW
	close_rw e
	checked /dev/mapper/frail
	block_is 2 0x64
	block_is 16384 0x62
	block_is 16385 0x65
}

# Copying from the base fails; what needs no copy goes on, and so does copying when the base is back.
failing_base() {
	local place
	qemu-img create -q -f qcow2 /dev/mapper/frail 128M
	qemu-io -f qcow2 -c 'write -q -P 0x51 0 8M' /dev/mapper/frail
	qemu-img create -q -f qcow2 -b /dev/mapper/frail -F qcow2 "$SCRATCH/top"
	qcow open e "$SCRATCH/top" --backing /dev/mapper/frail --backing-format qcow2
	read_block 1
	place=$(place_of 1)
	frail all
	io_error dd if=/dev/zero of=/dev/mapper/e bs=4k count=1 seek=16 oflag=direct conv=fsync,nocreat
	says last-error 5 read "$(frail_name)" "$place"
	io_error read_block 1
	write_block 3 0x53
	mode_is_rw
	frail ok
	dd if=/dev/zero of=/dev/mapper/e bs=4k count=1 seek=16 oflag=direct conv=fsync,nocreat status=none
	mode_is RW
	close_rw e
	checked "$SCRATCH/top"
	qemu_reads "$SCRATCH/top" 'read -q -P 0x53 192k 64k' 'read -q -P 0 64k 4k' 'read -q -P 0x51 68k 60k'
}

# A table cannot be read or written, from before the image is opened or after: no lease comes, or no commit.
failing_metadata() { # failing_metadata before|after TABLE OPERATION WORD [OPTION-OF-create]...
	local bad
	qemu-img create -q -f qcow2 "${@:5}" /dev/mapper/frail 2G
	qemu-io -f qcow2 -c 'write -q -P 0x81 64k 64k' /dev/mapper/frail
	bad=$(table_of "$2")
	[ "$1" = after ] || frail at "$bad" 4096
	open_rw e /dev/mapper/frail
	if [ "$1" = after ]; then
		write_block 2 0x82
		eventually 60 pool_is_full
		frail at "$bad" 4096
	fi
	# More than half a lease, so that there has to be another, and far away, so that there has to be a new table.
	io_error dd if=/dev/zero of=/dev/mapper/e bs=1M count=80 seek=1024 oflag=direct conv=fsync,nocreat
	eventually 60 is_read_only
	says mode-reason 5 "$3" "/dev/mapper/frail: cannot $4 * bytes at offset $(printf '0x%x' $((bad / 4096)))???: Input/output error"
	# Without refcounts nobody knows what the guest may touch.
	[ "$1" = after ] || io_error read_block 1
	[ "$1" = before ] || read_block 1
	frail ok
	read_block 1
	io_error write_block 3 0x83
	qcow close e --force
	checked /dev/mapper/frail leaks
	block_is 1 0x81
	[ "$1" = before ] || block_is 2 0x82
	block_is 3 0
}

# What is needed to open the image: it is not opened, command or log say why, and nothing has happened to it.
failing_open() { # failing_open at|write-at TABLE
	local bad
	qemu-img create -q -f qcow2 /dev/mapper/frail 128M
	qemu-io -f qcow2 -c 'write -q -P 0x81 64k 64k' /dev/mapper/frail
	# A bit of the autoclear features that nobody knows: it has to be cleared first.
	printf '\1' | dd of=/dev/mapper/frail bs=1 seek=88 conv=notrunc,fsync status=none
	bad=$(table_of "$2")
	frail "$1" "$bad" 4096
	dmesg -C
	io_error qcow open e /dev/mapper/frail
	dmesg >>"$SCRATCH/said"
	grep "/dev/mapper/frail: cannot [a-z]* [0-9]* bytes at offset $(printf '%#x' "$bad"): Input/output error" "$SCRATCH/said" ||
		fail "nobody says why: $(cat "$SCRATCH/said")"
	[ ! -b /dev/mapper/e ] || fail "there is a device"
	frail ok
	open_rw e /dev/mapper/frail
	write_block 2 0x82
	close_rw e
	checked /dev/mapper/frail
	block_is 1 0x81
	block_is 2 0x82
}

# The image is a file on a file system: data in it that cannot be written or read, and a table.
failing_file() {
	local place image=$SCRATCH/mnt/top bad
	mkdir -p "$SCRATCH/mnt"
	mkfs.ext4 -q -F /dev/mapper/frail
	mount /dev/mapper/frail "$SCRATCH/mnt"
	cleanup umount "$SCRATCH/mnt"
	qemu-img create -q -f qcow2 "$image" 128M
	open_rw e "$image"
	write_block 1 0x91
	write_block 2 0x92
	eventually 60 pool_is_full
	place=$(place_of 1 "$image")
	bad=$(on_disk "$image" "$place")
	frail write-at "$bad" 65536
	io_error put_block 1 0xa1
	says last-error 5 write '*/top' "$place"
	frail at "$bad" 65536
	io_error read_block 1
	says last-error 5 read '*/top' "$place"
	read_block 2
	mode_is_rw
	bad=$(table_of 0 "$image")
	frail write-at "$(on_disk "$image" "$bad")" 65536
	put_block 3 0x93
	io_error sync -d /dev/mapper/e
	eventually 60 is_read_only
	says mode-reason 5 COMMIT "$image: cannot write * bytes at offset $(printf '0x%x' "$bad"): Input/output error"
	frail ok
	io_error write_block 3 0x93
	qcow close e --force
	checked "$image" leaks
	qemu_reads "$image" 'read -q -P 0x92 128k 64k' 'read -q -P 0 192k 64k'
	umount "$SCRATCH/mnt"
}

# Whatever is asked of the file system is done by halves: the kernel goes on, and so does the helper.
short_transfers() {
	local fuse server
	modprobe -q fuse || true
	[ -c /dev/fuse ] || fail "no FUSE"
	mkdir -p "$SCRATCH/short"
	qemu-img create -q -f qcow2 "$SCRATCH/below" 64M
	head -c 6M /dev/urandom >"$SCRATCH/data"
	exec {fuse}<>/dev/fuse
	python3 "$TESTS/integration/shortfs.py" "$SCRATCH/below" "$SCRATCH/counts" <&"$fuse" {fuse}>&- &
	server=$!
	mount -i -t fuse -o "fd=$fuse,rootmode=40000,user_id=0,group_id=0,allow_other" short "$SCRATCH/short"
	cleanup umount -q -l "$SCRATCH/short"
	exec {fuse}>&-
	open_rw e "$SCRATCH/short/image"
	# To new clusters, and in place; the rest of a cluster is copied.
	dd if="$SCRATCH/data" of=/dev/mapper/e bs=1M skip=3 count=3 oflag=direct conv=fsync,nocreat status=none
	dd if="$SCRATCH/data" of=/dev/mapper/e bs=1M oflag=direct conv=fsync,nocreat status=none
	dmsetup message e 0 drop_caches
	cmp -n 6M /dev/mapper/e "$SCRATCH/data"
	equal errors "$(counter e errors)" 0
	close_rw e
	umount "$SCRATCH/short"
	wait "$server"
	checked "$SCRATCH/below"
	qemu-img convert -f qcow2 -O raw "$SCRATCH/below" "$SCRATCH/raw"
	cmp -n 6M "$SCRATCH/raw" "$SCRATCH/data"
	note "done by halves, reads and writes, of the kernel and of programs: $(cat "$SCRATCH/counts")"
	grep -qx '[1-9][0-9]* [1-9][0-9]* [1-9][0-9]* [1-9][0-9]*' "$SCRATCH/counts" || fail "nothing done by halves"
}

use_disk disk1 1 512M
modprobe -q dm-flakey || true
cleanup dmsetup remove --force frail
cleanup drop_rw e
failing_data
failing_part
failing_flush
flush_in_mode_ro
failing_commit all_writes '0x*'
failing_commit first_table "$(printf '0x%x' "$(table_of 0)")"
failing_table
failing_base
failing_metadata before refblock PROPOSE read
failing_metadata after refblock GRANT write
failing_metadata after reftable PROPOSE write -o cluster_size=4k
failing_metadata after l1 COMMIT write
failing_open at header
failing_open at l1
failing_open at reftable
failing_open write-at header
failing_file
short_transfers
