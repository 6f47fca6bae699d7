# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # the scripts that source this use the variables
# What the scripts share: where the repository and the cache are, messages, locks.

# Without it a failure inside $( ) goes unseen.
shopt -s inherit_errexit

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${DM_QCOW_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dm-qcow}

say() {
	echo "${0##*/}: $*" >&2
}

die() {
	say "$*"
	exit 1
}

hash_of() {
	sha256sum | cut -c1-12
}

# once DIR COMMAND...: makes the cache folder DIR by running COMMAND DIR.partial under a lock. Two runs never
# work on the same folder, and DIR appears only when it is complete.
once() {
	local dir=$1 lock
	shift
	[ -d "$dir" ] && return
	mkdir -p "${dir%/*}"
	exec {lock}>"$dir.lock"
	flock "$lock"
	if [ ! -d "$dir" ]; then
		rm -rf "$dir.partial"
		mkdir -p "$dir.partial"
		# Children must not inherit the lock: a stray one would keep it for ever. No "|| die" here, because
		# that would switch off -e in all that COMMAND does.
		(exec {lock}>&-; "$@" "$dir.partial")
		mv "$dir.partial" "$dir"
	fi
	exec {lock}>&-
}

# Where apt gets packages of the running Debian from, taken from the machine: main archive, not security.
debian_uri() {
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' |
		awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}
