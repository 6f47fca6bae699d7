#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What an image may do at worst to its worker: code that runs in it, on any of its threads, opens no file, makes no
# socket, starts no program; and a worker that crashes takes nothing else down. All that is so before a worker, also one
# that takes a dead one's place, reads the first byte.
# vm: --mem 1024
# kernels: 6.12
# timeout: 240
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires qemu-img qemu-io strace

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

attached_again() { # attached_again NAME ATTACHES
	[ "$(counter "$1" attaches)" -gt "$2" ]
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

# Netlink to the kernel, one socket to the supervisor, the image; and no other file but where its messages go.
check_descriptors() {
	local pid=$1 fd link nr_netlink=0 nr_unix=0 nr_images=0
	for fd in "/proc/$pid"/fd/*; do
		link=$(readlink "$fd")
		case $link in
		socket:*)
			link=${link//[!0-9]/}
			if awk '{ print $10 }' "/proc/$pid/net/netlink" | grep -qx "$link"; then
				nr_netlink=$((nr_netlink + 1))
			elif awk '{ print $7 }' "/proc/$pid/net/unix" | grep -qx "$link"; then
				nr_unix=$((nr_unix + 1))
			else
				fail "$fd is a socket of another kind"
			fi
			;;
		"$SCRATCH/$2") nr_images=$((nr_images + 1)) ;;
		*) [ "${fd##*/}" -le 2 ] || fail "$fd is $link" ;;
		esac
	done
	[ "$nr_netlink" -ge 1 ] || fail "no netlink socket, how does it work?"
	equal "sockets to the supervisor" $nr_unix 1
	equal "descriptors of the image" $nr_images 1
}

# watched COMMAND...: what new workers do meanwhile is in $SCRATCH/calls
watched() {
	local tracer
	strace -f -y -qq -e trace=prlimit64,prctl,capset,seccomp,read,readv,pread64,preadv,preadv2,mmap \
		-o "$SCRATCH/calls" -p "$supervisor" 2>"$SCRATCH/strace" &
	tracer=$!
	eventually 60 grep -q "^TracerPid:[^0-9]*$tracer\$" "/proc/$supervisor/status"
	"$@"
	kill "$tracer"
	wait "$tracer" || true
}

# locked_before_reading NAME: what shuts a worker in comes first, and then it reads. There is one new worker in it.
locked_before_reading() {
	local missing
	missing=$(awk -v image="<$SCRATCH/$1>" '
		/seccomp\(SECCOMP_SET_MODE_FILTER.*len=/ { loading[$1] = 1 }
		/RLIMIT_AS, *[{]/ { done["memory"] = 1 }
		/RLIMIT_NOFILE, *[{]rlim_cur=1024,/ { done["files"] = 1 }
		/PR_SET_NO_NEW_PRIVS, 1/ { done["privileges"] = 1 }
		/capset\(.*effective=0, permitted=0, inheritable=0/ { done["capabilities"] = 1 }
		/seccomp.* = 0$/ && loading[$1] { done["calls"] = 1 }
		index($0, image) {
			split("memory files privileges capabilities calls", parts)
			for (i in parts)
				if (!(parts[i] in done))
					print parts[i] " free: " $0
			nr++
			exit
		}
		END { if (!nr) print "it reads nothing" }
	' "$SCRATCH/calls")
	[ -z "$missing" ] || fail "a worker reads before it is shut in: $missing"
}

open_first() {
	open_device first "$SCRATCH/first" --cache-budget 0
	same_bytes /dev/mapper/first "$SCRATCH/first.want"
}

kill_first() {
	kill -KILL "$(worker_of first)"
	eventually 60 attached_again first 1
	dmsetup message first 0 drop_caches
	echo 1 >/proc/sys/vm/drop_caches
	same_bytes /dev/mapper/first "$SCRATCH/first.want"
}

# A new one is told which image; one that takes a dead one's place reads it before it serves anything.
check_beginning() {
	image first 0x33
	watched open_first
	locked_before_reading first
	check_descriptors "$(worker_of first)" first
	watched kill_first
	locked_before_reading first
	check_descriptors "$(worker_of first)" first
	qcow close first
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
	eventually 20 attached_again crash "$attaches"
	[ ! -d "/proc/$pid" ] || fail "a part of the worker lives on"
	crashes=$((crashes + 1))
}

crash() {
	local attaches
	attaches=$(counter crash attaches)
	kill -SEGV "$(worker_of crash)"
	crashes=$((crashes + 1))
	eventually 20 attached_again crash "$attaches"
	sleep 0.2
}

echo secret >"$SCRATCH/victim"
image crash 0x11
image calm 0x22
supervisor=$(supervisors)
check_beginning
note "workers are shut in before they read"
open_device crash "$SCRATCH/crash" --cache-budget 0
open_device calm "$SCRATCH/calm" --cache-budget 0
note "two devices are open"
check_judge
note "inject works"
check_worker "$(worker_of calm)"
note "nothing got through"

calm_worker=$(worker_of calm) crashes=0
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
