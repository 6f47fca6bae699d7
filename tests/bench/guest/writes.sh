# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154 # the other files use or set the variables
# The workloads that write: run_NAME each. In each all subjects do the same writes, with one pattern, so that one file
# says what every one of them must hold afterwards. A subject's word in the results is also what targets.sh calls it.

EXPECTED=/dev/shm/expected
IMAGES='qcow-bdev qcow-file'
RULERS='ram linear'
PEERS='loop snapshot thin nbd'

# ---- one subject ---------------------------------------------------------------------------------------

up=''	# what is set up now

set_up() { # set_up SUBJECT
	"up_to_${1/-/_}" "$ground"
	up=$1
	need_block "$dev"
}

# With $expected, what was an image is checked.
take_down() {
	[ -z "$up" ] || "down_to_${up/-/_}"
	up=''
}

# The device as it is, then the image as QEMU sees it
check_contents() {
	dd if="$dev" bs=1M count=$((size >> 20)) iflag=direct status=none | cmp -s - $EXPECTED ||
		die "$workload: $up is not what it should be"
	expected=$EXPECTED
	take_down
	expected=''
}

# write_once FIO-ARG...: all of them, to $dev
write_once() {
	# What was dropped from memory is read again now, and not while it is counted how long the CPU is idle.
	fio --version >/dev/null
	start_counting
	whole=yes one_run 0 --filename="$dev" --replay_redirect="$dev" --size="$size" "$@"
	stop_counting
}

# write_fresh SUBJECT FIO-ARG...: to a new one, which stays until the next
write_fresh() {
	local subject=$1
	shift
	take_down
	set_up "$subject"
	write_once "$@"
}

# ---- what was counted meanwhile ----------------------------------------------------------------------------

count_writes=counted_writes

counts() {
	local upcalls=0
	[ -z "$name" ] || upcalls=$(counter "$name" upcalls)
	echo "$($count_writes) $(bottom 16) $(idle) $upcalls"
}

start_counting() {
	counted=$(counts)
}

stop_counting() {
	read -ra counted < <(echo "$counted $(counts)" | awk '{ print $6 - $1, $7 - $2, $8 - $3, $9 - $4, $10 - $5 }')
}

# say_counts SUBJECT FORM: of the last run
say_counts() {
	local key="$workload"$'\t'"$1"$'\t'"$2"
	result "$key.bottom_per_1000" $((counted[0] * 1000 / ios))
	result "$key.bottom_bytes_per_io" $((counted[1] * 512 / ios))
	result "$key.bottom_flushes_per_1000" $((counted[2] * 1000 / ios))
	result "$key.idle_ms" "${counted[3]}"
	[ -z "$name" ] || result "$key.upcalls" "${counted[4]}"
}

# ---- what is written -----------------------------------------------------------------------------------------

# expect FIO-ARG...: makes the file that says what must be there
expect() {
	if [ "$ground" = fresh ]; then
		rm -f $EXPECTED
		truncate -s "${FRESH_MIB}M" $EXPECTED
	else
		cp /host/raw $EXPECTED
	fi
	fio --name=expect "${PATTERN[@]}" --filename=$EXPECTED --replay_redirect=$EXPECTED \
		--size="$(stat -c %s $EXPECTED)" "$@" --ioengine=psync --iodepth=1 >/dev/null || die "fio failed: $*"
}

# in_clusters FILE COUNT [sync]: a log for fio: a 4k write to each of COUNT clusters of 64k, no two the same, in no
# order; with a sync after each
in_clusters() {
	local nr=$((FRESH_MIB * 16))
	[ "$ground" = fresh ] || nr=$(($(stat -c %s /host/raw) / 65536))
	{
		printf 'fio version 2 iolog\n/x add\n/x open\n'
		shuf --random-source=/host/raw -n "$2" -i 0-$((nr - 1)) | awk -v sync="${3-}" '{
			printf "/x write %d 4096\n", $1 * 65536 + $1 % 16 * 4096
			if (sync) print "/x sync 0 0"
		}'
		echo '/x close'
	} >"$1"
}

# fresh UNIT "SUBJECT..." FIO-ARG...: every write of every run goes where none was before
fresh() {
	local unit=$1 subject subjects=$2
	shift 2
	expect "$@"
	for subject in $subjects; do
		have "$subject" || continue
		note "$workload: $subject"
		repeat_run write_fresh "$subject" "$@"
		say_figures "$workload" "$subject" plain "$unit"
		say_counts "$subject" plain
		check_contents
	done
}

# again SUBJECT FORM FIO-ARG...: the same writes to the same place, until two runs agree
again() {
	local subject=$1 form=$2
	shift 2
	# The first one warms up.
	write_once "$@"
	repeat_run write_once "$@"
	say_figures "$workload" "$subject" "$form" iops
	say_counts "$subject" "$form"
}

# ---- workloads -------------------------------------------------------------------------------------------------

# A part of the disk, each block once.
OVERWRITE=(--rw=randwrite --bs=4k --iodepth=32 --io_size=96M)

run_overwrite() {
	local ground=full subject
	expect "${OVERWRITE[@]}"
	for subject in $RULERS $IMAGES $PEERS; do
		have "$subject" || continue
		note "$workload: $subject"
		set_up "$subject"
		again "$subject" plain "${OVERWRITE[@]}"
		check_contents
	done
}

run_allocate() {
	local ground=fresh log=/tmp/allocate.log
	in_clusters $log 4096
	fresh iops "$RULERS $IMAGES $PEERS" --read_iolog=$log --iodepth=32
}

run_cow() {
	local ground=cow log=/tmp/cow.log
	in_clusters $log 4096
	fresh iops "$IMAGES snapshot snapshot-files thin nbd" --read_iolog=$log --iodepth=32
}

run_fsync() {
	local ground=fresh log=/tmp/fsync.log
	in_clusters $log 1024 sync
	fresh iops "$IMAGES $PEERS" --read_iolog=$log --iodepth=1
}

run_freshseq() {
	local ground=fresh
	fresh mib "$RULERS $IMAGES $PEERS" --rw=write --bs=1M --iodepth=8 "${HUGE[@]}"
}

# Flushes that have nothing to commit
run_flush() {
	local ground=full subject fio=(--rw=randwrite --bs=4k --iodepth=1 --fsync=1 --io_size=4M)
	expect "${fio[@]}"
	for subject in $IMAGES loop; do
		have "$subject" || continue
		note "$workload: $subject"
		set_up "$subject"
		again "$subject" plain "${fio[@]}"
		check_contents
	done
}

# An internal snapshot is made; then every cluster has to be copied once.
run_snapshotted() {
	local ground=full subject
	expect "${OVERWRITE[@]}"
	for subject in $IMAGES; do
		have "$subject" || continue
		note "$workload: $subject"
		set_up "$subject"
		again "$subject" before "${OVERWRITE[@]}"
		qcow close "$name"
		qemu-img snapshot -c before "$image"
		qcow open "$name" "$image"
		dd if=$EXPECTED of="$dev" bs=1M oflag=direct conv=notrunc,fsync status=none
		again "$subject" after "${OVERWRITE[@]}"
		check_contents
	done
}

# On disks with a write cache of their own.
run_bottom() {
	local ground=fresh log=/tmp/bottom.log subject count_writes=traced_writes
	drop_disks
	disk_cache=64
	in_clusters $log 1000 sync
	expect --read_iolog=$log
	trace_writes
	for subject in $IMAGES qcow-zeroing $PEERS; do
		have "$subject" || continue
		note "$workload: $subject"
		set_up "$subject"
		[ "$subject" != qcow-zeroing ] || bottom_devices=${image##*/}
		write_once --read_iolog=$log --iodepth=1
		say_counts "$subject" plain
		bottom_devices='nullb*'
		check_contents
	done
	untrace_writes
	drop_disks
	disk_cache=''
}

# What the helper writes where, for 1000 writes that allocate. Seen from outside, which is slow: nothing is timed.
metadata_writes() { # metadata_writes FORM FIO-ARG...
	local form=$1 pids=() pid tracer
	shift
	set_up qcow-file
	for pid in $(pgrep -x qcowd); do pids+=(-p "$pid"); done
	strace -f -qq -s 0 -e trace=pwrite64 -o /tmp/strace "${pids[@]}" &
	tracer=$!
	until grep -q '^TracerPid:[[:space:]]*[1-9]' "/proc/$pid/status"; do sleep 0.1; done
	write_once "$@"
	dd if=/dev/null of="$dev" conv=notrunc,fsync status=none
	kill "$tracer"
	wait "$tracer" || true
	result "$workload" qcow-file "$form.upcalls" "${counted[4]}"
	"$here/metawrites" "$image" /tmp/strace | while read -r key value; do
		result "$workload" qcow-file "$form.$key" "$value"
	done
	check_contents
}

run_deltas() {
	local ground=fresh log=/tmp/deltas.log before
	have qcow || return 0
	note "$workload: what the helper writes"
	in_clusters $log 1000
	expect --read_iolog=$log
	metadata_writes unsynced --read_iolog=$log --iodepth=32
	in_clusters $log 1000 sync
	metadata_writes synced --read_iolog=$log --iodepth=1
	note "$workload: memory"
	in_clusters $log 4096
	expect --read_iolog=$log
	set_up qcow-file
	before=$(slab)
	write_once --read_iolog=$log --iodepth=32
	result "$workload" qcow-file deltas "$(counter "$name" deltas)"
	result "$workload" qcow-file slab_bytes $(($(slab) - before))
	result "$workload" qcow-file map_bytes "$(counter "$name" map_bytes)"
	result "$workload" qcow-file map_pinned "$(counter "$name" map_pinned)"
	check_contents
}
