# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What tests that write share; sourced after lib.sh and devices.sh. With SUBJECT=nbd it is QEMU that serves the image:
# to tell a fault of the test from one of the device.

SUBJECT=${SUBJECT:-qcow}

# node NAME: where the device is; under SUBJECT=nbd the name has its number
node() {
	if [ "$SUBJECT" = nbd ]; then
		echo "/dev/nbd${1//[^0-9]/}"
	else
		echo "/dev/mapper/$1"
	fi
}

# open_rw NAME IMAGE [OPTION-OF-qcow-open]...
open_rw() {
	local nbd
	if [ "$SUBJECT" = nbd ]; then
		nbd=$(node "$1")
		modprobe -q nbd nbds_max=16
		qemu-nbd --fork -c "$nbd" -f qcow2 --cache=none --discard=unmap "$2"
		eventually 10 test -s "/sys/block/${nbd#/dev/}/pid"
	else
		qcow open "$1" "$2" "${@:3}"
	fi
}

close_rw() {
	local nbd
	if [ "$SUBJECT" = nbd ]; then
		nbd=$(node "$1")
		qemu-nbd -d "$nbd" >/dev/null
		eventually 10 test ! -e "/sys/block/${nbd#/dev/}/pid"
	else
		qcow close "$1"
	fi
}

# However the test ended, and whether or not the device is there.
drop_rw() {
	local nbd
	if [ "$SUBJECT" = nbd ]; then
		nbd=$(node "$1")
		[ ! -e "/sys/block/${nbd#/dev/}/pid" ] || close_rw "$1"
	else
		drop_device "$1"
	fi
}

# checked IMAGE [LEAKS-ALLOWED]: qemu-img check says 0, or 3 if leaks are allowed
checked() {
	local status=0 said
	said=$(qemu-img check -f qcow2 "$1" 2>&1) || status=$?
	if [ "$status" = 0 ] || { [ "$status" = 3 ] && [ -n "${2-}" ]; }; then
		return
	fi
	head -n 20 <<<"$said"
	fail "qemu-img check of $1: status $status"
}

# no_more_leaks_than_counted NAME IMAGE: the device is suspended
no_more_leaks_than_counted() {
	local counted leaks
	counted=$(counter "$1" clusters_leaked)
	leaks=$({ qemu-img check -f qcow2 --output=json "$2" || true; } | sed -n 's/.*"leaks": *\([0-9]*\).*/\1/p')
	note "${leaks:-0} clusters have leaked, $counted were counted"
	[ "${leaks:-0}" -le "$counted" ] || fail "${leaks:-0} clusters have leaked, $counted were counted"
}

# kill_helpers worker|supervisor|both|stop|none: those of all devices; stop is for a moment only
kill_helpers() {
	local pids
	case $1 in
	worker | stop) pids=$(workers) ;;
	supervisor) pids=$(pgrep -r D,R,S,T -f '^@?[^ ]*qcowd$' || true) ;;
	both) pids=$(helpers) ;;
	none) return ;;
	*) fail "kill_helpers $1?" ;;
	esac
	[ -n "$pids" ] || return 0
	# Some may be gone by now.
	# shellcheck disable=SC2086 # several numbers
	if [ "$1" = stop ]; then
		kill -STOP $pids 2>/dev/null || true
		sleep 0.3
		kill -CONT $pids 2>/dev/null || true
	else
		kill -KILL $pids 2>/dev/null || true
	fi
}
