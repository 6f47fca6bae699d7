# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2030,SC2031,SC2154 # counters and the folder belong to tests/run; jobs count in subshells
# Several tests at once, one for each processor. Sourced by tests/run.
#
# A job adds its results to the counters passed, failed and skipped and prints lines, which appear when it has ended.

JOBS=${JOBS:-$(nproc)}
declare -A running=()

# start COMMAND ARG...: in a subshell, when there is room
start() {
	local out
	while [ ${#running[@]} -ge "$JOBS" ]; do
		finish_one
	done
	out=$(mktemp -p "$scratch")
	# A process group of its own, so that stop_all reaches what the job has started.
	set -m
	(
		passed=0 failed=0 skipped=0
		"$@"
		echo "$passed $failed $skipped" >"$out.count"
	) >"$out" </dev/null &
	set +m
	running[$!]=$out
}

finish_one() {
	local pid out good bad skips
	wait -n -p pid "${!running[@]}" || true
	out=${running[$pid]}
	unset "running[$pid]"
	cat "$out"
	# Only a job that came to its end has said its numbers.
	if [ -e "$out.count" ]; then
		read -r good bad skips <"$out.count"
	else
		echo "FAIL tests/run: a job died after: $(tail -n 1 "$out")"
		good=0 bad=1 skips=0
	fi
	passed=$((passed + good))
	failed=$((failed + bad))
	skipped=$((skipped + skips))
}

finish_all() {
	while [ ${#running[@]} -gt 0 ]; do
		finish_one
	done
}

stop_all() {
	local pid
	for pid in "${!running[@]}"; do
		kill -TERM -- "-$pid" 2>/dev/null || true
	done
	wait
}
