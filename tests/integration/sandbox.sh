#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What an image may do at worst to its worker: code that runs in it, on any of its threads, opens no file, makes no
# socket, starts no program; and a worker that crashes takes nothing else down.
# vm: --mem 1024
# kernels: 6.12
# timeout: 240
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires qemu-img qemu-io

CRASHES=5

image() { # image NAME PATTERN: compressed, so that each block asks the worker
	qemu-img create -q -f qcow2 "$SCRATCH/$1.raw.qcow2" 4M
	qemu-io -f qcow2 -c "write -q -P $2 0 4M" "$SCRATCH/$1.raw.qcow2"
	qemu-img convert -q -c -f qcow2 -O qcow2 "$SCRATCH/$1.raw.qcow2" "$SCRATCH/$1"
	qemu-img convert -q -f qcow2 -O raw "$SCRATCH/$1.raw.qcow2" "$SCRATCH/$1.want"
}

# worker_of NAME: found by the image it holds open
worker_of() {
	local pid
	for pid in $(workers); do
		! find "/proc/$pid/fd" -lname "$SCRATCH/$1" | grep -q . || echo "$pid"
	done
}

attached_again() {
	[ "$(counter crash attaches)" -gt "$1" ]
}

# limits_of PID WHAT NUMBER: soft and hard, and nobody in there may raise them: no capability is left
limits_of() {
	equal "$2" "$(sed -nE "s/^$2 +([^ ]+) +([^ ]+) .*/\\1 \\2/p" "/proc/$1/limits")" "$3 $3"
}

# EPERM is -1, on each thread; the number of the process is all it may ask for.
check_worker() {
	local pid=$1 threads
	inject all "$pid" "$SCRATCH/victim" >"$SCRATCH/injected" || fail "cannot look into the worker"
	threads=$(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)
	equal "calls tried" "$(wc -l <"$SCRATCH/injected")" $((threads * 29))
	! grep -vE ' (getpid [0-9-]+|[a-z].* -1)$' "$SCRATCH/injected" ||
		fail "these calls got through to the kernel"
	equal "the victim" "$(cat "$SCRATCH/victim")" secret
	[ "$threads" -ge 2 ] || fail "the worker has no threads but one"
	limits_of "$pid" 'Max address space' $((1 << 30))
	limits_of "$pid" 'Max open files' 1024
	limits_of "$pid" 'Max core file size' 0
	for thread in "/proc/$pid"/task/*; do
		equal "Seccomp of $thread" "$(sed -n 's/^Seccomp:\t//p' "$thread/status")" 2
		equal "CapEff of $thread" "$(sed -n 's/^CapEff:\t//p' "$thread/status")" 0000000000000000
		equal "NoNewPrivs of $thread" "$(sed -n 's/^NoNewPrivs:\t//p' "$thread/status")" 1
	done
}

# A judge that sees nothing get through anywhere is none.
check_judge() {
	local fds
	sleep 1000 &
	cleanup kill $!
	sleep 0.5
	inject harmless $! "$SCRATCH/victim" >"$SCRATCH/control" || fail "inject does not work here"
	fds=$(grep -cE ' (openat|open|socket-unix) [0-9]+$' "$SCRATCH/control" || true)
	equal "files and sockets a free process could open" "$fds" 3
	for abi in x32 int80; do
		inject "$abi" $! "$SCRATCH/victim" >>"$SCRATCH/foreign" || fail "inject does not know $abi"
	done
	! grep killed "$SCRATCH/foreign" || fail "a free process was killed for its system call"
	grep -qx "$! int80-getpid $!" "$SCRATCH/foreign" || note "this kernel has no 32-bit calls at all"
}

# No list of calls covers the numbers of another ABI: who uses them ends, with all threads.
foreign_abi() { # foreign_abi x32|int80
	local pid attaches
	pid=$(worker_of crash) attaches=$(counter crash attaches)
	inject "$1" "$pid" "$SCRATCH/victim" >"$SCRATCH/injected" || fail "cannot look into the worker"
	equal "a call of $1" "$(cat "$SCRATCH/injected")" "$pid $1-getpid killed"
	eventually 20 attached_again "$attaches"
	[ ! -d "/proc/$pid" ] || fail "a part of the worker lives on"
	crashes=$((crashes + 1))
}

crash() {
	local attaches
	attaches=$(counter crash attaches)
	kill -SEGV "$(worker_of crash)"
	crashes=$((crashes + 1))
	eventually 20 attached_again "$attaches"
	sleep 0.2
}

echo secret >"$SCRATCH/victim"
image crash 0x11
image calm 0x22
open_device crash "$SCRATCH/crash" --cache-budget 0
open_device calm "$SCRATCH/calm" --cache-budget 0
note "two devices are open"
check_judge
note "inject works"
check_worker "$(worker_of calm)"
note "nothing got through"

calm_worker=$(worker_of calm) supervisor=$(supervisors) crashes=0
foreign_abi x32
foreign_abi int80
note "foreign calls end the worker"
(for _ in 1 2 3 4 5 6 7 8 9 10; do
	echo 1 >/proc/sys/vm/drop_caches
	same_bytes /dev/mapper/crash "$SCRATCH/crash.want"
	same_bytes /dev/mapper/calm "$SCRATCH/calm.want"
done) &
reader=$!
for ((i = 0; i < CRASHES; i++)); do
	crash
done
note "$crashes crashes"
wait "$reader" || fail "a read failed"
equal "crashes" "$(counter crash helper_deaths)" $((CRASHES + 2))
equal "errors of the crashed one" "$(counter crash errors)" 0
equal "errors of the other" "$(counter calm errors)" 0
equal "deaths of the other" "$(counter calm helper_deaths)" 0
equal "the other's worker" "$(worker_of calm)" "$calm_worker"
equal "the supervisor" "$(supervisors)" "$supervisor"
