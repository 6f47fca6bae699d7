# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2030,SC2031,SC2154 # counters and the folder belong to tests/run; jobs count in subshells
# Several tests at once, one for each processor. Sourced by tests/run.
#
# A job adds its results to the counters passed, failed and skipped and prints lines, which appear when it has ended.

JOBS=${JOBS:-$(nproc)}
declare -A running=() names=()
started='' beside=''

# start COMMAND ARG...: in a subshell, when there is room
start() {
	local out name=''
	if [ -n "$kept" ]; then
		kept_name "$@"
		name=$kept_name
		if [ -e "$name.count" ]; then
			count_one "$name.out" "$name.count"
			return
		fi
	fi
	while [ ${#running[@]} -ge "$JOBS" ]; do
		finish_one
	done
	out=$(mktemp -p "$scratch")
	# A process group of its own, so that stop_all reaches what the job has started.
	set -m
	(
		# Not for what it starts in turn.
		set +m
		passed=0 failed=0 skipped=0
		"$@"
		echo "$passed $failed $skipped" >"$out.count"
	) >"$out" </dev/null &
	set +m
	started=$!
	running[$started]=$out
	names[$started]=$name
}

# start_beside COMMAND ARG...: one more at once than JOBS says, because this job mostly waits
start_beside() {
	if [ "$JOBS" = 1 ] || [ -n "$beside" ]; then
		start "$@"
		return
	fi
	JOBS=$((JOBS + 1)) started=''
	start "$@"
	beside=$started
	[ -n "$beside" ] || JOBS=$((JOBS - 1))
}

# count_one OUTPUT COUNTS: of a job
count_one() {
	local good bad skips
	cat "$1"
	read -r good bad skips <"$2"
	passed=$((passed + good))
	failed=$((failed + bad))
	skipped=$((skipped + skips))
}

finish_one() {
	local pid out
	wait -n -p pid "${!running[@]}" || true
	out=${running[$pid]}
	unset "running[$pid]"
	if [ "$pid" = "$beside" ]; then
		JOBS=$((JOBS - 1)) beside=''
	fi
	# Only a job that came to its end has said its numbers.
	if [ ! -e "$out.count" ]; then
		echo "FAIL tests/run: a job died after: $(tail -n 1 "$out")" >>"$out"
		echo 0 1 0 >"$out.count"
	fi
	count_one "$out" "$out.count"
	[ -z "${names[$pid]}" ] || ! grep -q ' 0 0$' "$out.count" || keep "${names[$pid]}" "$out" "$out.count"
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
