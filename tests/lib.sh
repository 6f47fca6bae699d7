# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # the tests that source this use the variables
# What integration tests share. A test starts with: . "$(dirname "$0")/../lib.sh"
# It runs as root, in the VM or on a real host, and must leave nothing behind there.

set -euo pipefail
shopt -s inherit_errexit

TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:$TESTS/../build/tests/integration
# Not /tmp: tmpfs has no direct I/O on older kernels.
SCRATCH=$(mktemp -d /var/tmp/dm-qcow.XXXXXX)
CLEANUPS=()
# For a module that can leave out a row of the order on disk (kernel/drop.h): the test must fail then.
[ -z "${DROP-}" ] || echo "$DROP" >/sys/module/dm_qcow/parameters/drop

# cleanup COMMAND ARG...: runs when the test ends, however it ends; the last one named runs first
cleanup() {
	CLEANUPS+=("${*@Q}")
}

run_cleanups() {
	local status=$? i
	set +e
	for ((i = ${#CLEANUPS[@]} - 1; i >= 0; i--)); do
		eval "${CLEANUPS[i]}"
	done
	rm -rf --one-file-system "$SCRATCH"
	exit "$status"
}
trap run_cleanups EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

note() {
	echo "${0##*/}: $*"
}

fail() {
	note "FAIL: $*"
	exit 1
}

skip() {
	echo "skip: $*"
	exit 77
}

# requires COMMAND...
requires() {
	local command
	for command in "$@"; do
		command -v "$command" >/dev/null || skip "no $command"
	done
}

# equal WHAT GOT WANT
equal() {
	[ "$2" = "$3" ] || fail "$1: got '$2', not '$3'"
}

# refused COMMAND ARG...: the command must fail; what it says on stderr is in $SCRATCH/said
refused() {
	! "$@" >/dev/null 2>"$SCRATCH/said" || fail "should have been refused: $*"
}

# eventually SECONDS COMMAND ARG...: until the command succeeds, or fail
eventually() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || fail "did not happen in time: $*"
		sleep 0.1
	done
}
