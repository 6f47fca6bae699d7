# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154 # the other files use or set the variables
# The workloads: run_NAME each. A subject's word in the results is what tests/bench/report knows it by.

# with WORKLOAD-FUNCTION SUBJECT KIND ARG...: sets the subject up, has it measured, removes it
with() {
	local work=$1 subject=$2 kind=$3
	shift 3
	have "$kind" || return 0
	note "$workload: setting up $subject"
	"up_$kind" "$@"
	note "$workload: $subject"
	"$work" "$subject"
	"down_$kind"
}

# Peers are measured also where our own tools are not there (yet).
have() {
	[[ $1 != *qcow* ]] || command -v qcow >/dev/null
}

FORM_BATCH=(--iodepth_batch_submit=8 --iodepth_batch_complete_min=8)

random4k() {
	local fio=(--rw=randread --bs=4k --iodepth=32)
	measure "$workload" "$1" plain iops "${fio[@]}"
	measure "$workload" "$1" batch iops "${fio[@]}" "${FORM_BATCH[@]}"
}

sequential1m() {
	measure "$workload" "$1" plain mib --rw=read --bs=1M --iodepth=8 "${HUGE[@]}"
}

sequential64k() {
	whole=yes measure "$workload" "$1" seq64k mib --rw=read --bs=64k --iodepth=8 "${HUGE[@]}"
}

# for_all_ways WORK: the devices that the limits compare, and peers
for_all_ways() {
	need_fs plain.qcow2 scattered.qcow2
	with "$1" ram ram
	with "$1" linear linear
	with "$1" qcow-bdev qcow "$image_disk" /host/raw
	with "$1" loop loop
	with "$1" qcow-file qcow "$FS/plain.qcow2" /host/raw
	with "$1" qcow-scattered qcow "$FS/scattered.qcow2" /host/raw
	with "$1" thin thin
	with "$1" nbd nbd "$FS/plain.qcow2" /host/raw
}

run_random() {
	for_all_ways random4k
}

run_seq() {
	for_all_ways sequential1m
}

run_chain() {
	need_fs plain.qcow2 chain
	with random4k qcow-1 qcow "$FS/plain.qcow2" /host/raw
	with random4k qcow-32 qcow "$FS/chain/0.qcow2" /host/raw
	with random4k nbd-1 nbd "$FS/plain.qcow2" /host/raw
	with random4k nbd-32 nbd "$FS/chain/0.qcow2" /host/raw
}

# ---- compressed -----------------------------------------------------------------------------------

random4k_only() {
	measure "$workload" "$1" random4k iops --rw=randread --bs=4k --iodepth=32
}

compressed() {
	random4k_only "$1"
	sequential64k "$1"
}

# Every cluster in 4k pieces, in order, one at a time: fetched once, if the cache of fetched blocks works.
pieces() {
	local fetches hits bytes=$((16 << 20))
	fetches=$(counter "$name" fetches) hits=$(counter "$name" cache_hits)
	fio --name=pieces --readonly --direct=1 --ioengine=psync --rw=read --bs=4k --filename="$dev" --size=$bytes \
		>/dev/null
	result "$workload" "$1" pieces.clusters $((bytes / 65536))
	result "$workload" "$1" pieces.fetches $(($(counter "$name" fetches) - fetches))
	result "$workload" "$1" pieces.cache_hits $(($(counter "$name" cache_hits) - hits))
}

run_zlib() {
	need_fs zlib.qcow2
	with pieces qcow qcow "$FS/zlib.qcow2" /host/real
	with compressed qcow qcow "$FS/zlib.qcow2" /host/real
	with compressed nbd nbd "$FS/zlib.qcow2" /host/real
}

# ---- two CPUs: ordinary TCG, wall-clock time --------------------------------------------------------

cpus() {
	echo $(($1 - 1)) >/sys/devices/system/cpu/cpu1/online
}

# Other programs on the host disturb: the best of several runs, one and two CPUs by turns.
scaling() {
	local form round nr
	for form in "random4k --rw=randread --bs=4k --iodepth=32" "seq64k --rw=read --bs=64k --iodepth=8"; do
		for ((round = 0; round < 3; round++)); do
			for nr in 1 2; do
				cpus $nr
				# shellcheck disable=SC2086 # words
				one_run $((runtime * 3)) --filename="$dev" --size="$size" ${form#* }
				result "$workload" "$1" "${form%% *}.cpus$nr.iops" $((ios * 1000 / ms))
			done
		done
	done
}

run_smp() {
	need_fs zlib.qcow2
	with scaling qcow qcow "$FS/zlib.qcow2" /host/real
	with scaling nbd nbd "$FS/zlib.qcow2" /host/real
}

# ---- memory, opening ----------------------------------------------------------------------------------

# Bytes in the kernel's slabs, without what only caches
slab() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	awk 'NR > 2 { sum += $2 * $4 } END { printf "%d\n", sum }' /proc/slabinfo
}

# One 4k read in each page of the map (512 blocks of 64 KiB)
touch_every_page() {
	fio --name=touch --readonly --direct=1 --ioengine=io_uring --iodepth=32 --rw=read:$(((32 << 20) - 4096)) \
		--bs=4k --filename="$dev" --number_ios=$((bytes >> 25)) >/dev/null
}

# whole_map SUBJECT: loads all of the map, says what it costs
whole_map() {
	local bytes before key
	bytes=$(blockdev --getsize64 "$dev")
	before=$(slab)
	touch_every_page
	result "$workload" "$1" blocks $((bytes / 65536))
	for key in map_bytes map_pages map_collapsed map_evicted loads; do
		result "$workload" "$1" $key "$(counter "$name" $key)"
	done
	result "$workload" "$1" slab_bytes $(($(slab) - before))
}

run_memory() {
	need_fs empty.qcow2 tib.qcow2 big.qcow2
	# These have no data to compare with.
	with whole_map tib-empty qcow "$FS/empty.qcow2" /dev/null
	with whole_map tib-contiguous qcow "$FS/tib.qcow2" /dev/null
	with whole_map scattered qcow "$FS/big.qcow2" /dev/null
}

opening() { # opening IMAGE SUBJECT
	local reads sectors start
	have qcow || return 0
	sync
	echo 3 >/proc/sys/vm/drop_caches
	reads=$(bottom 1) sectors=$(bottom 3) start=${EPOCHREALTIME/./}
	up_qcow "$1" /dev/null
	result "$workload" "$2" open_ms $(((${EPOCHREALTIME/./} - start) / 1000))
	result "$workload" "$2" open_reads $(($(bottom 1) - reads))
	result "$workload" "$2" open_kib $((($(bottom 3) - sectors) / 2))
	dd if="$dev" of=/dev/null bs=4k skip=12345 count=1 iflag=direct status=none
	result "$workload" "$2" first_read_kib $((($(bottom 3) - sectors) / 2))
	down_qcow
}

run_open() {
	need_fs tib.qcow2 empty.qcow2 plain.qcow2
	opening "$FS/plain.qcow2" plain
	opening "$FS/empty.qcow2" tib-empty
	opening "$FS/tib.qcow2" tib-contiguous
}
