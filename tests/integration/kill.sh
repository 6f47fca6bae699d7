#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Worker and supervisor are killed fifty times while four jobs read at random, 32 blocks at once each: every byte is
# right, no read fails, and each time a new worker attaches. Map and cache are small, so that reads do need the helper,
# and the layers are of both kinds, compressed and plain, on a block device and in files.
# kernels: debug
# vm: --disk 64M --mem 1536
# host: tests/images/matrix mixed-4k
# timeout: 200
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires python3

KILLS=50
READ_AT_LEAST=60
IMAGE=$IMAGES_AT/mixed-4k
# To repeat the random choices of a failed run.
SEED=${SEED:-$(date +%s)}

use_images mixed-4k
use_disk disk1 1 64M
dd if="$IMAGE/top.qcow2" of="$disk1" bs=1M conv=nocreat,fsync status=none
open_device k "$disk1" --backing "$IMAGE/middle.qcow2" --backing-format qcow2 --backing-dir "$IMAGE" \
	--map-budget 16 --cache-budget 128 --helper-timeout 300
# Nice, so that on two processors the helper gets its turn.
nice -n 10 readcheck --seconds 10000 --seed "$SEED" /dev/mapper/k "$IMAGE/raw" >"$SCRATCH/result" &
reader=$!
SECONDS=0
"$TESTS/integration/killer.py" k "$KILLS" "$SEED" >"$SCRATCH/killer"
note "SEED=$SEED: $(cat "$SCRATCH/killer") in $SECONDS s"
[ "$SECONDS" -ge "$READ_AT_LEAST" ] || sleep $((READ_AT_LEAST - SECONDS))
kill -TERM "$reader"
wait "$reader" || fail "reading failed: $(cat "$SCRATCH/result")"
note "$(cat "$SCRATCH/result")"
dmsetup status k

read -r _ kills _ _ _ _ _ attaches <"$SCRATCH/killer"
equal "kills" "$kills" "$KILLS"
[ "$attaches" -ge "$KILLS" ] || fail "$attaches attaches after $KILLS kills"
[ "$(counter k attaches)" -gt "$attaches" ] || fail "the status counts fewer attaches"
[ "$(counter k helper_deaths)" -ge "$KILLS" ] || fail "fewer deaths than kills"
equal "errors" "$(counter k errors)" 0
equal "timeouts" "$(counter k timeouts)" 0
[ "$(counter k loads)" -ge 500 ] || fail "hardly any LOAD was asked: killing disturbed nobody"
[ "$(counter k fetches)" -ge 500 ] || fail "hardly any FETCH was asked: killing disturbed nobody"
[[ $(cat "$SCRATCH/result") =~ ^reads\ ([0-9]+)\ errors\ 0\ mismatches\ 0 ]] || fail "no result"
[ "${BASH_REMATCH[1]}" -ge 2000 ] || fail "hardly anything was read"
qcow close k
