# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154 # level, LOGS and passed_on belong to tests/run; kept_name to jobs.sh
# What has passed already, so that a run of hours that was stopped can go on (tests/run --continue). Sourced by tests/run.
#
# A job's output and numbers are kept if it passed. They count again only while nothing has changed that the job could
# see, not even a comment: all that git would commit but what is named below.

DOCUMENTS=(':!docs/*.md' ':!README.md' ':!CHANGELOG.md')
ON_HOST=(':!kernel' ':!Kbuild' ':!dkms.conf' ':!tests/bench' ':!tests/crash' ':!tests/demo' ':!tests/install'
	':!tests/integration' ':!tests/vm')
IN_MACHINE=(':!tests/bench' ':!tests/fuzz' ':!tests/unit' ':!tests/tools/test-*')

# unseen COMMAND ARG...: sets $unseen to what a job cannot see; it is the name of a function of tests/run
unseen() {
	unseen=("${DOCUMENTS[@]}")
	case $1:${2-} in
	unit_test:*) unseen+=("${ON_HOST[@]}" ':!tests/hostile' ':!tests/tools') ;;
	runner:tools) unseen+=("${ON_HOST[@]}" ':!tests/hostile' ':!tests/fuzz' ':!tests/unit') ;;
	runner:hostile) unseen+=("${ON_HOST[@]}" ':!tests/unit' ':!tests/tools') ;;
	integration_test:*) unseen+=("${IN_MACHINE[@]}" ':!tests/integration/*.sh') ;;
	selftest:*) unseen+=("${IN_MACHINE[@]}" ':!tests/integration/*.sh') ;;
	esac
}

# tree_id PATTERN...: of all files that git would commit, apart from these
tree_id() {
	local index
	index=$(mktemp -d -p "$scratch")
	(
		# An empty one, so that what is named is not in the tree at all.
		export GIT_INDEX_FILE=$index/index
		cd "$REPO" || exit
		git add -A -- . "$@" && git write-tree
	)
}

# passed_open: makes $kept, the folder of this level
passed_open() {
	kept=$LOGS/passed/$level
	mkdir -p "$kept"
	tree_id >/dev/null || die "--continue needs the git repository"
}

declare -A trees=()

# kept_name COMMAND ARG...: sets $kept_name, of a job, in $kept
kept_name() {
	local unseen test=''
	unseen "$@"
	: "${trees[${unseen[*]}]:=$(tree_id "${unseen[@]}")}"
	[ "$1" != integration_test ] || test=$(sha256sum <"$2")
	kept_name=$kept/$(printf '%s\n' "$@" "${trees[${unseen[*]}]}" "$test" "${DM_QCOW_KO-}" "${DM_QCOW_TOOLS-}" \
		${passed_on[@]+"${passed_on[@]}"} | hash_of)
}

# keep NAME OUTPUT COUNTS
keep() {
	cp "$2" "$1.out"
	cp "$3" "$1.new"
	mv "$1.new" "$1.count"
}
