#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Every short sequence of operations, each on a device of its own, with dm-log-writes below it. Afterwards, on the
# host, the power is cut after each of the writes, and of those that no flush covered some are lost. Also with the
# worker killed in the middle of COMMIT: what the next one does then, power cuts included; and with writes and discards
# in the middle of a flush.
# SEQUENCES='wf cf' are these only.
# vm: --mem 1024
# host: tests/crash/stage-sequences
# after: tests/crash/replay-sequences
# timeout: 500
# full-timeout: 3600
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
# shellcheck source=tests/crash/sequences.sh
. "$TESTS/crash/sequences.sh"
requires crashload qemu-img
in_vm || skip "needs the disks of a test machine"

# block CLUSTER: 4 KiB in the middle of it
block() {
	echo "$((($1 * SEQ_CLUSTER + 4096) / 512)):8"
}

# slice NAME DISK NR MIB [SLOW]
slice() {
	local place=$(($3 * $4 << 11))
	if [ -n "${5-}" ]; then
		dmsetup create "$1$3" --table \
			"0 $(($4 << 11)) delay $2 $place 0 $2 $place $SEQ_SLOW_MS $2 $place $SEQ_SLOW_MS"
	else
		dmsetup create "$1$3" --table "0 $(($4 << 11)) linear $2 $place"
	fi
}

# Carries the words of script out, if there are any.
do_script() { # do_script NR
	crashload --log "cut$1" --ops 0 "$SCRATCH/notes$1" "$(node "s$1")" ${script[@]+"${script[@]}"} >/dev/null
	script=()
}

# What a power cut makes of qemu-img's own work is not ours to judge.
snapshot() { # snapshot NR K
	local contents=$SCRATCH/contents$1 image=/dev/mapper/cut$1
	dmsetup suspend "s$1"
	checked "$image"
	dmsetup message "cut$1" 0 mark pause
	qemu-img snapshot -c "s$2" "$image"
	dmsetup message "cut$1" 0 mark go
	qemu-img convert -f qcow2 -O raw -l "snapshot.name=s$2" "$image" "$contents"
	dd if="$contents" of=/dev/vdc bs=64K seek=$((($1 * SEQ_NOTES_MIB * 1024 + $2 * SEQ_NOTES_KIB) / 64)) \
		conv=nocreat,notrunc status=none
	dmsetup resume "s$1"
}

died() { # died NR
	[ "$(counter "s$1" helper_deaths)" = 1 ]
}

upcalls() { # upcalls NR
	local status
	status=$(dmsetup status "s$1")
	status=${status#* upcalls }
	echo "${status%% *}"
}

# Until COMMIT has been sent: before that the flush asks for nothing.
wait_for_commit() { # wait_for_commit NR UPCALLS-BEFORE
	local i
	for ((i = 0; i < 100; i++)); do
		[ "$(upcalls "$1")" = "$2" ] || return 0
	done
}

# There is no other worker then.
killed_flush() { # killed_flush NR HOW-LATE
	local flush before pids
	do_script "$1"
	# Looked for now: that takes longer than a COMMIT.
	pids=$(workers)
	before=$(upcalls "$1")
	script=(flush)
	do_script "$1" &
	flush=$!
	if [ "$2" -le 3 ]; then
		sleep "$(printf '0.%02d' $(($2 * 6)))"
	else
		wait_for_commit "$1" "$before"
		sleep "$(printf '0.%02d' $((($2 - 4) * 3)))"
	fi
	# shellcheck disable=SC2086 # several numbers
	kill -KILL $pids
	wait "$flush"
	script=()
	eventually 60 died "$1"
	counter "s$1" commits_resent >>"$SCRATCH/resent"
}

run_sequence() { # run_sequence NR SEQUENCE
	local script=() i new=5 snapshots=0
	for ((i = 0; i < ${#2}; i++)); do
		case ${2:i:1} in
		w) script+=("write:$(block $((new++)))") ;;
		o) script+=("write:$(block 3)") ;;
		c) script+=("write:$(block 4)") ;;
		# All of the clusters that the others write to first.
		d) script+=("discard:$((3 * SEQ_CLUSTER / 512)):$((3 * SEQ_CLUSTER / 512))") ;;
		f) script+=(flush) ;;
		F)
			i=$((i + 1))
			killed_flush "$1" "${2:i:1}"
			;;
		M)
			i=$((i + 1))
			script+=("flush:$((${2:i:1} * 60))")
			;;
		s)
			do_script "$1"
			snapshot "$1" $((++snapshots))
			;;
		esac
	done
	do_script "$1"
}

one_sequence() { # one_sequence NR SEQUENCE
	local slow='' leaks=''
	[[ $2 != *[FM]* ]] || slow=yes
	[[ $2 != *F* ]] || leaks=yes
	slice data /dev/vda "$1" "$SEQ_DATA_MIB" "$slow"
	slice log /dev/vdb "$1" "$SEQ_LOG_MIB"
	dmsetup create "cut$1" --table \
		"0 $((SEQ_DATA_MIB << 11)) log-writes /dev/mapper/data$1 /dev/mapper/log$1"
	open_rw "s$1" "/dev/mapper/cut$1"
	: >"$SCRATCH/notes$1"
	run_sequence "$1" "$2"
	close_rw "s$1"
	checked "/dev/mapper/cut$1" "$leaks"
	dmsetup remove "cut$1"
	dmsetup remove "log$1"
	dmsetup remove "data$1"
	dd if="$SCRATCH/notes$1" of=/dev/vdc bs=1M seek=$(($1 * SEQ_NOTES_MIB)) conv=nocreat,notrunc status=none
	rm -f "$SCRATCH/notes$1" "$SCRATCH/contents$1"
	echo "$2" >>"$SCRATCH/done"
}

# every_other FIRST: of the sequences
every_other() {
	local i
	for ((i = $1; i < ${#all[@]}; i += 2)); do
		[[ ${all[i]} == *F* ]] || one_sequence "$i" "${all[i]}"
	done
}

with_kills() {
	local i
	for ((i = 0; i < ${#all[@]}; i++)); do
		[[ ${all[i]} != *F* ]] || one_sequence "$i" "${all[i]}"
	done
}

mapfile -t all < <(sequences)
modprobe -q -a dm-log-writes dm-delay || true
: >"$SCRATCH/done"
(every_other 0) &
one=$!
(every_other 1) &
two=$!
wait "$one" || fail "a sequence failed"
wait "$two" || fail "a sequence failed"
with_kills
if [ -e "$SCRATCH/resent" ]; then
	note "$(grep -cv '^0$' "$SCRATCH/resent" || true) of $(wc -l <"$SCRATCH/resent") kills were in the middle of COMMIT"
	grep -qv '^0$' "$SCRATCH/resent" || fail "no worker was killed in the middle of COMMIT"
fi
equal "sequences" "$(wc -l <"$SCRATCH/done")" "${#all[@]}"
note "${#all[@]} sequences in $SECONDS s"
