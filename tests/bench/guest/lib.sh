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
disk_cache=''	# MiB of write cache that a new one has

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
	[ -z "$disk_cache" ] || echo "$disk_cache" >"$dir/cache_size"
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

bottom_devices='nullb*'	# who counts what reaches the bottom

# bottom FIELD: of all RAM disks; 1: reads, 3: sectors read, 5: writes, 7: sectors written, 16: flushes
# (Documentation/block/stat.rst)
bottom() {
	# shellcheck disable=SC2086 # a pattern
	cat /sys/block/$bottom_devices/stat | awk -v f="$1" '{ sum += $f } END { print sum }'
}

# ---- data that is written: the statistics count flushes without any, and zeros that the device makes

WRITE_TRACE=/sys/kernel/tracing/events/block/block_rq_issue/trigger
WRITE_HISTOGRAM='hist:keys=dev:vals=bytes if nr_sector > 0 && rwbs ~ "*W*" && !(rwbs ~ "*Z*")'

trace_writes() {
	mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
	echo "$WRITE_HISTOGRAM" >$WRITE_TRACE
}

untrace_writes() {
	echo "!$WRITE_HISTOGRAM" >$WRITE_TRACE
}

# traced_writes: how many since trace_writes, and how many sectors
traced_writes() {
	local numbers
	# The kernel's own form of a device number
	# shellcheck disable=SC2086 # a pattern
	numbers=$(cat /sys/block/$bottom_devices/dev | awk -F : '{ printf "%d ", $1 * 1048576 + $2 }')
	awk -v numbers="$numbers" '
		BEGIN { n = split(numbers, list); for (i = 1; i <= n; i++) ours[list[i]] }
		/^[{] dev:/ { gsub(/[{},:]|dev|hitcount|bytes/, " "); if ($1 in ours) { nr += $2; bytes += $3 } }
		END { printf "%d %d\n", nr, bytes / 512 }' "${WRITE_TRACE%trigger}hist"
}

direction='read'	# or write: what is measured

# bottom_ios: how many I/Os of the kind that is measured
bottom_ios() {
	case $direction in
	read) bottom 1 ;;
	write) bottom 5 ;;
	esac
}

# counter NAME KEY: from our status line
counter() {
	dmsetup status "$1" | tr ' ' '\n' | grep -x -A 1 "$2" | tail -n 1
}

# Milliseconds that the CPU has been idle
idle() {
	awk -v hz="$(getconf CLK_TCK)" '/^cpu / { print int(($5 + $6) * 1000 / hz) }' /proc/stat
}

counted_writes() {
	echo "$(bottom 5) $(bottom 7)"
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

# What is written: the same in every run, so that it is known what a device must hold afterwards.
PATTERN=(--buffer_pattern=0x5eed1e55 --scramble_buffers=0)

# one_run MILLISECONDS FIO-ARG...: sets $ios, $ms, $bytes. With $whole, the range once and not for a
# time: where I/Os differ in cost, as clusters do in how they compress, all subjects must do the same ones.
one_run() {
	local bound=(--time_based --runtime="${1}ms") access=(--readonly)
	shift
	[ -z "${whole-}" ] || bound=()
	[ "$direction" = read ] || access=("${PATTERN[@]}")
	fio --name=bench "${access[@]}" --direct=1 --ioengine=io_uring ${bound[@]+"${bound[@]}"} \
		--output-format=json "$@" >/tmp/fio.json || die "fio failed: $*"
	read -r ios ms bytes < <(jq -r ".jobs[0] | select(.error == 0).$direction |
		\"\\(.total_ios) \\(.runtime) \\(.io_bytes)\"" /tmp/fio.json) || die "fio failed: $*"
	[ "$ms" != 0 ] || die "fio did nothing: $*"
}

agree() { # agree A B
	local diff=$(($1 - $2))
	[ $((${diff#-} * 1000)) -le $(($1 * limit)) ]
}

# repeat_run COMMAND...: has it run until two runs in a row agree; it ends with one_run. Sets $value (I/Os per
# 1000 s), $runs, and $settled; $ios, $ms, $bytes are those of the last.
repeat_run() {
	local last=0
	settled=no
	for ((runs = 1; runs <= repeats; runs++)); do
		"$@"
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
	local key="$1"$'\t'"$2"$'\t'"$3" reached upcalls='' before
	shift 3
	reached=$(bottom_ios) before=$(idle)
	[ -z "$name" ] || upcalls=$(counter "$name" upcalls)
	one_run "$runtime" "$@"
	[ -z "$name" ] || result "$key.upcalls" $(($(counter "$name" upcalls) - upcalls))
	result "$key.bottom_per_1000" $((($(bottom_ios) - reached) * 1000 / ios))
	result "$key.idle_ms" $(($(idle) - before))
}

# measure WORKLOAD SUBJECT FORM UNIT FIO-ARG...: measures $dev; UNIT is iops or mib
measure() {
	local workload=$1 subject=$2 form=$3 unit=$4
	shift 4
	need_block "$dev"
	set -- --filename="$dev" --offset="$offset" --size="$size" "$@"
	same_blocks "$dev" "$offset" "$raw"
	# The first one warms up.
	one_run $((runtime / 3)) "$@"
	repeat_run one_run "$runtime" "$@"
	say_figures "$workload" "$subject" "$form" "$unit"
	extras "$workload" "$subject" "$form" "$@"
	same_blocks "$dev" "$offset" "$raw"
}

say_figures() { # say_figures WORKLOAD SUBJECT FORM UNIT: of the last repeated run
	case $4 in
	iops) result "$1" "$2" "$3.iops" $((value / 1000)) ;;
	mib) result "$1" "$2" "$3.mib_s" $((bytes * 1000 / ms / 1048576)) ;;
	esac
	result "$1" "$2" "$3.ns_per_io" $((1000000000000 / value))
	result "$1" "$2" "$3.runs" "$runs"
	result "$1" "$2" "$3.settled" "$settled"
}
