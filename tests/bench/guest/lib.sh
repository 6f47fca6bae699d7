# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154 # the other files use or set the variables
# What every workload uses: RAM disks, one measured fio run, repeats, contents checks, results. Runs in the guest.

# Where results go: fields separated by tabs, read by tests/bench/report.
result() { # result WORKLOAD SUBJECT KEY VALUE
	local IFS=$'\t'
	echo "result$IFS$*"
}

note() {
	echo "# ${EPOCHREALTIME%???} $*" >&2
}

die() {
	echo "bench: $*" >&2
	exit 1
}

# With icount an idle guest jumps to its next timer: while the host reads a disk, minutes may pass in here.
# Nothing may take that for a hang, and what fio and its friends need should be in memory beforehand.
settle() {
	local attr
	for attr in /sys/block/nvme*/queue/io_timeout; do
		echo 4000000 >"$attr"
	done
	[ ! -w /proc/sys/kernel/hung_task_timeout_secs ] || echo 0 >/proc/sys/kernel/hung_task_timeout_secs
	fio --version >/dev/null
	echo '{}' | jq . >/dev/null
	# Large buffers in huge pages: what lies in scattered ones costs more, and differs from run to run.
	echo 16 >/proc/sys/vm/nr_hugepages
}

HUGE=(--mem=shmhuge --hugepage-size=2m)

# ---- RAM disks ---------------------------------------------------------------------------

nr_ram_disks=0

# ram_disk MIB: makes one and sets $disk. Completions come by softirq and nothing waits, so the guest never
# idles, and its time counts instructions.
ram_disk() {
	local dir=/sys/kernel/config/nullb/nullb$nr_ram_disks
	modprobe null_blk nr_devices=0
	mkdir "$dir"
	echo "$1" >"$dir/size"
	echo 1 >"$dir/memory_backed"
	echo 2 >"$dir/queue_mode"
	echo 1 >"$dir/irqmode"
	# Else it splits at 127.5 KiB, which no real disk does.
	echo 2560 >"$dir/max_sectors"
	echo 1 >"$dir/power"
	disk=/dev/nullb$nr_ram_disks
	nr_ram_disks=$((nr_ram_disks + 1))
	need_block "$disk"
}

drop_ram_disk() { # drop_ram_disk /dev/nullbN
	local dir=/sys/kernel/config/nullb/${1#/dev/}
	echo 0 >"$dir/power"
	rmdir "$dir"
}

# fio would make a regular file of that name, and measure it.
need_block() {
	[ -b "$1" ] || die "$1 is not a block device"
}

# ---- counters ------------------------------------------------------------------------------

# bottom FIELD: of all RAM disks; 1: reads, 3: sectors read (Documentation/block/stat.rst)
bottom() {
	cat /sys/block/nullb*/stat | awk -v f="$1" '{ sum += $f } END { print sum }'
}

# counter NAME KEY: from our status line
counter() {
	dmsetup status "$1" | tr ' ' '\n' | grep -x -A 1 "$2" | tail -n 1
}

# Milliseconds that the CPU has been idle
idle() {
	awk -v hz="$(getconf CLK_TCK)" '/^cpu / { print int(($5 + $6) * 1000 / hz) }' /proc/stat
}

# ---- contents ------------------------------------------------------------------------------

# same_blocks DEV OFFSET RAW: a few 4k blocks of DEV, whose byte OFFSET is RAW's byte 0
same_blocks() {
	local dev=$1 start=$(($2 / 4096)) raw=$3 blocks block
	blocks=$(($(stat -c %s "$raw") / 4096))
	for block in 0 1 $((blocks / 7)) $((blocks / 2 + 3)) $((blocks - 1)); do
		dd if="$dev" bs=4096 skip=$((start + block)) count=1 iflag=direct status=none |
			cmp -s -n 4096 -i "0:$((block * 4096))" - "$raw" ||
			die "$dev: block $block is not what it should be"
	done
}

# ---- measuring -------------------------------------------------------------------------------

runtime=1000	# ms of guest time per run
repeats=6	# at most
limit=5		# permille between two runs that agree

# one_run MILLISECONDS FIO-ARG...: prints I/Os, milliseconds, bytes. With $whole, the range once and not for a
# time: where I/Os differ in cost, as clusters do in how they compress, all subjects must do the same ones.
one_run() {
	local bound=(--time_based --runtime="${1}ms")
	shift
	[ -z "${whole-}" ] || bound=()
	fio --name=bench --readonly --direct=1 --ioengine=io_uring ${bound[@]+"${bound[@]}"} \
		--output-format=json "$@" >/tmp/fio.json || die "fio failed: $*"
	jq -r '.jobs[0] | select(.error == 0).read | "\(.total_ios) \(.runtime) \(.io_bytes)"' /tmp/fio.json
}

agree() { # agree A B
	local diff=$(($1 - $2))
	[ $((${diff#-} * 1000)) -le $(($1 * limit)) ]
}

# repeat_run FIO-ARG...: a warm-up, then runs until two in a row agree; sets $value (I/Os per 1000 s), $ios, $ms,
# $bytes and $runs of the last, and $settled.
repeat_run() {
	local last=0
	one_run $((runtime / 3)) "$@" >/dev/null
	settled=no
	for ((runs = 1; runs <= repeats; runs++)); do
		read -r ios ms bytes <<<"$(one_run "$runtime" "$@")"
		[ -n "$bytes" ] || die "fio says nothing: $*"
		value=$((ios * 1000000 / ms))
		if agree "$value" "$last"; then
			settled=yes
			return
		fi
		last=$value
	done
	runs=$repeats
}

# The data path itself, per I/O: what reaches the RAM disks, our upcalls; and how much of the time was idle.
# Counted over a run of its own, so that reading the counters disturbs no measured one.
extras() { # extras WORKLOAD SUBJECT FORM FIO-ARG...
	local key="$1"$'\t'"$2"$'\t'"$3" reads upcalls='' before
	shift 3
	reads=$(bottom 1) before=$(idle)
	[ -z "$name" ] || upcalls=$(counter "$name" upcalls)
	read -r ios _ _ <<<"$(one_run "$runtime" "$@")"
	[ -z "$name" ] || result "$key.upcalls" $(($(counter "$name" upcalls) - upcalls))
	result "$key.bottom_reads_per_1000" $((($(bottom 1) - reads) * 1000 / ios))
	result "$key.idle_ms" $(($(idle) - before))
}

# measure WORKLOAD SUBJECT FORM UNIT FIO-ARG...: measures $dev; UNIT is iops or mib
measure() {
	local workload=$1 subject=$2 form=$3 unit=$4
	shift 4
	need_block "$dev"
	set -- --filename="$dev" --offset="$offset" --size="$size" "$@"
	same_blocks "$dev" "$offset" "$raw"
	repeat_run "$@"
	extras "$workload" "$subject" "$form" "$@"
	same_blocks "$dev" "$offset" "$raw"
	case $unit in
	iops) result "$workload" "$subject" "$form.iops" $((value / 1000)) ;;
	mib) result "$workload" "$subject" "$form.mib_s" $((bytes * 1000 / ms / 1048576)) ;;
	esac
	result "$workload" "$subject" "$form.ns_per_io" $((1000000000000 / value))
	result "$workload" "$subject" "$form.runs" "$runs"
	result "$workload" "$subject" "$form.settled" "$settled"
}
