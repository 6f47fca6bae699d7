#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Worker, supervisor or both are killed again and again under random writes, many of them synchronous, and stopped for
# a moment: no error reaches the user, every byte is right, no more leaks than were counted, each kill meets a helper and
# each time one attaches anew. The image has a snapshot and a base: a write that goes into a cluster shared with them
# would show there.
# vm: --disk 512M --mem 1536
# host: tests/images/variants
# timeout: 400
# full-timeout: 3600
# shellcheck disable=SC2154 # use_disk sets its first
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
# shellcheck source=tests/variants.sh
. "$TESTS/variants.sh"
requires python3 qemu-img model

[ "${LEVEL-}" != full ] || KILLS=${KILLS:-500}
KILLS=${KILLS:-50}
STOPS=$((KILLS / 5))
SEED=${SEED:-$(date +%s)}

# Sets image: the variant, on a block device or in a file.
place() {
	image=$SCRATCH/top
	cp --sparse=always "$VARIANTS_AT/snapshots/top" "$image"
	cp --sparse=always "$VARIANTS_AT/base.qcow2" "$SCRATCH/base"
	qemu-img rebase -u -f qcow2 -F qcow2 -b "$SCRATCH/base" "$image"
	if [ "$1" = device ]; then
		dd if="$image" of="$disk1" bs=1M conv=nocreat,fsync status=none
		image=$disk1
	fi
	rm -f "$SCRATCH/state"
}

contents() { # contents SNAPSHOT FILE
	qemu-img convert -f qcow2 -O raw -l "snapshot.name=$1" "$image" "$2"
}

killed() { # killed: asserts what the killer and the device counted
	local kills stops attaches
	read -r _ kills _ _ _ stops _ attaches <"$SCRATCH/killer"
	equal "kills" "$kills" "$KILLS"
	equal "stops" "$stops" "$STOPS"
	[ "$attaches" -ge "$KILLS" ] || fail "$attaches attaches after $KILLS kills"
	[ "$(counter k helper_deaths)" -ge "$KILLS" ] || fail "fewer deaths than kills"
	equal "errors" "$(counter k errors)" 0
	equal "timeouts" "$(counter k timeouts)" 0
	equal "mode" "$(state k mode)" RW
	[ "$(counter k committed)" -ge 100 ] || fail "hardly anything was committed: killing disturbed nobody"
}

under_kills() { # under_kills device|file
	local model image
	place "$1"
	contents first "$SCRATCH/first"
	contents second "$SCRATCH/second"
	open_rw k "$image" --backing-dir "$SCRATCH" --map-budget 16 --helper-timeout 300
	nice -n 10 model run --seed "$SEED" --ops 100000000 --threads 4 --initial "$VARIANTS_AT/snapshots/raw" \
		--state "$SCRATCH/state" /dev/mapper/k >"$SCRATCH/result" 2>&1 &
	model=$!
	"$TESTS/integration/killer.py" k "$KILLS" "$SEED" "$STOPS" >"$SCRATCH/killer"
	kill -TERM "$model"
	wait "$model" || fail "SEED=$SEED: $(cat "$SCRATCH/result")"
	note "$1, SEED=$SEED: $(cat "$SCRATCH/killer"); $(cat "$SCRATCH/result")"
	dmsetup status k
	killed
	dmsetup suspend k
	no_more_leaks_than_counted k "$image"
	checked "$image" leaks
	qemu-img convert -f qcow2 -O raw "$image" "$SCRATCH/raw"
	model verify --state "$SCRATCH/state" "$SCRATCH/raw"
	contents first "$SCRATCH/raw"
	cmp "$SCRATCH/raw" "$SCRATCH/first"
	contents second "$SCRATCH/raw"
	cmp "$SCRATCH/raw" "$SCRATCH/second"
	cmp "$SCRATCH/base" "$VARIANTS_AT/base.qcow2"
	dmsetup resume k
	model verify --state "$SCRATCH/state" /dev/mapper/k
	close_rw k
}

use_variants
use_disk disk1 1 512M
cleanup drop_rw k
under_kills device
under_kills file
