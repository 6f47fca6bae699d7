#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Random operations on a writable device beside a model of it, over all variants of the format, on files and on
# block devices; meanwhile suspends, snapshots made by qemu-img, reloads, kills, evictions. In the end qemu-img finds
# the image clean and reads what the model says, and the snapshots are what they were.
# The environment changes the run: SEED=7 (that one only), or FROM= and SEEDS=; OPS= of a seed; HOOKS=, actions of a
# seed at most; VARIANT=; ACTIONS=;
# BREAK=20 (write 20 goes elsewhere: the test must fail); KEEP_GOING=1 (past a failed seed); VERBOSE=1.
# vm: --disk 512M --disk 512M --mem 2048
# host: tests/images/variants
# timeout: 1500
# full-timeout: 7200
# shellcheck disable=SC2154 # use_disk sets its first
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
# shellcheck source=tests/write.sh
. "$TESTS/write.sh"
# shellcheck source=tests/variants.sh
. "$TESTS/variants.sh"
# shellcheck source=tests/model-seed.sh
. "$TESTS/model-seed.sh"
requires qemu-img model

# Then each action must have happened often enough.
whole=''
[ "$SUBJECT" != qcow ] || [ -n "${SEED-}${SEEDS-}${VARIANT-}${ACTIONS-}" ] || whole=yes
if [ "${LEVEL-}" = full ]; then
	SEEDS=${SEEDS:-$((2 * ${#VARIANTS[@]}))} OPS=${OPS:-20000} HOOKS=${HOOKS:-6}
fi
FROM=${FROM:-1} SEEDS=${SEEDS:-200} OPS=${OPS:-80} HOOKS=${HOOKS:-2} BREAK=${BREAK:-0}
ACTIONS=${ACTIONS:-suspend snapshot unsnapshot reload worker supervisor both stop evict}
[ "$SUBJECT" = qcow ] || ACTIONS=none

# every_other FIRST DEVICE DISK: a stream of seeds
every_other() {
	local seed status
	for ((seed = $1; seed < FROM + SEEDS; seed += 2)); do
		: >"$SCRATCH/$2.log"
		[ -z "${VERBOSE-}" ] || note "seed $seed"
		(one_seed "$seed" "$2" "$3") >"$SCRATCH/$2.log" 2>&1 &
		status=0
		wait $! || status=$?
		[ "$status" != 0 ] || continue
		note "FAIL: seed $seed"
		tail -n 30 "$SCRATCH/$2.log"
		echo "$seed" >>"$SCRATCH/failed"
		[ -n "${KEEP_GOING-}" ] || exit 1
		drop_rw "$2"
	done
}

# A data file on a block device is one that somebody else's image could name, too.
trust_disks() {
	local conf=/etc/qcow.conf saved=$SCRATCH/qcow.conf
	if [ -e "$conf" ]; then
		cp "$conf" "$saved"
		cleanup cp "$saved" "$conf"
	else
		cleanup rm -f "$conf"
	fi
	printf 'block-device %s\n' "$disk1" "$disk2" >>"$conf"
}

use_disk disk1 1 512M
use_disk disk2 2 512M
use_variants
trust_disks
: >"$SCRATCH/kills"
SECONDS=0
cleanup drop_rw m1
cleanup drop_rw m0
if [ -n "${SEED-}" ]; then
	FROM=$SEED SEEDS=1
	every_other "$SEED" m0 "$disk1"
else
	every_other "$FROM" m0 "$disk1" &
	one=$!
	every_other $((FROM + 1)) m1 "$disk2" &
	two=$!
	wait "$one" || fail "a seed failed"
	wait "$two" || fail "a seed failed"
fi
[ ! -e "$SCRATCH/failed" ] || fail "$(wc -l <"$SCRATCH/failed") seeds failed: $(xargs <"$SCRATCH/failed")"
equal "seeds that ended" "$(wc -l <"$SCRATCH/results")" "$SEEDS"
note "$SEEDS seeds of $OPS operations in $SECONDS s: $(sort "$SCRATCH/acts" | uniq -c | xargs)"
[ -z "$whole" ] || happenings_suffice $((SEEDS / 30))
