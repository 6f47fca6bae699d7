# SPDX-License-Identifier: GPL-2.0-only
# For tests/tools/test-*.sh: the same command by qemu-img and by qcow on two copies of an image, and what must
# agree afterwards. A test prints a line for each case, "ok NAME" or "FAIL NAME: why", and ends with finish.
# shellcheck shell=bash
set -euo pipefail
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${BUILD:-$REPO/build}
QCOW=${QCOW:-$BUILD/qcow}
LEVEL=${LEVEL:-check}
[ -x "$QCOW" ] || { echo "FAIL tools: no $QCOW; make tools"; exit 1; }
WORK=$(mktemp -d "${TMPDIR:-/tmp}/qcow-tools.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
cd "$WORK"
mkdir qemu ours
nr_failed=0

ok() { echo "ok $1"; }

fail() { # fail NAME WHY
	echo "FAIL $1: $2"
	nr_failed=$((nr_failed + 1))
}

finish() {
	[ "$nr_failed" = 0 ]
	exit
}

full() { [ "$LEVEL" = full ]; }

# make COMMANDS: shell that makes images in an empty folder; then there are two copies of it, qemu/ and ours/.
make_images() {
	rm -rf qemu ours
	mkdir qemu
	(cd qemu && eval "$1") >log 2>&1 || { cat log; return 1; }
	cp -a qemu ours
}

# run_both TEMPLATE: TEMPLATE with "TOOL" replaced by qemu-img in qemu/ and by qcow in ours/. Exit statuses in $theirs
# and $mine, what they said in qemu.out, qemu.err, ours.out and ours.err.
run_both() {
	theirs=0 mine=0
	(cd qemu && eval "${1//TOOL/qemu-img}") >qemu.out 2>qemu.err || theirs=$?
	(cd ours && eval "${1//TOOL/\"$QCOW\"}") >ours.out 2>ours.err || mine=$?
}

# info IMAGE: what must agree, sorted; times and the file's own size may differ.
info() {
	qemu-img info --output=json "$1" | grep -vE '"(actual-size|date-n?sec|icount|dirty-flag)"' | sed 's/,$//' | sort
}

# sound IMAGE: both checks say so. Prints what is wrong.
sound() {
	local status=0 name=${1##*/} log=$WORK/check.log
	cd "$(dirname "$1")"
	qemu-img check -q -f qcow2 "$name" >"$log" 2>&1 || status=$?
	[ "$status" = 0 ] || echo "qemu-img check says $status: $(head -n 1 "$log")"
	"$QCOW" check -q "$name" >"$log" 2>&1 || echo "qcow check says $?: $(head -n 1 "$log")"
	cd "$WORK"
}

# same_disk IMAGE: qemu/IMAGE and ours/IMAGE have the same contents, snapshots included.
same_disk() {
	local id
	# As files they would be read from end to end.
	if [ "$(qemu-img info -f qcow2 --output=json "ours/$1" | sed -nE 's/.*"virtual-size": ([0-9]+).*/\1/p')" -gt $((8 << 30)) ]; then
		qemu-img compare -q -f qcow2 -F qcow2 "qemu/$1" "ours/$1" 2>&1 || echo 'contents differ'
		return
	fi
	for id in qemu ours; do
		(cd $id && qemu-img convert -f qcow2 -O raw "$1" ../$id.raw) 2>log || { echo "$id: $(cat log)"; return; }
	done
	cmp -s qemu.raw ours.raw || echo "contents differ"
	for id in $(cd ours && qemu-img snapshot -l "$1" | awk 'NR > 2 { print $1 }'); do
		qemu-img convert -f qcow2 -O raw -l "snapshot.id=$id" "qemu/$1" qemu.raw
		qemu-img convert -f qcow2 -O raw -l "snapshot.id=$id" "ours/$1" ours.raw
		cmp -s qemu.raw ours.raw || echo "contents of snapshot $id differ"
	done
}

# agree NAME IMAGE: after run_both, everything that must.
agree() {
	local why
	if [ "$mine" != "$theirs" ]; then
		fail "$1" "exit status $mine, qemu-img $theirs; $(head -n 1 ours.err) / $(head -n 1 qemu.err)"
		return
	fi
	if [ "$mine" != 0 ] && [ "$(wc -l <ours.err)" != 1 ]; then
		fail "$1" "the error is not one line: $(cat ours.err)"
		return
	fi
	why=$(sound "ours/$2")
	[ -n "$why" ] || why=$(same_disk "$2")
	[ -n "$why" ] || why=$(diff <(cd qemu && info "$2") <(cd ours && info "$2") | head -n 3 | tr '\n' ' ') || true
	if [ -n "$why" ]; then fail "$1" "$why"; else ok "$1"; fi
}

# both NAME IMAGE MAKE TEMPLATE: all of it.
both() {
	make_images "$3" || { fail "$1" 'cannot make the images'; return; }
	run_both "$4"
	agree "$1" "$2"
}
