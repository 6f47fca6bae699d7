# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # level, LOGS and passed_on belong to tests/run
# What has passed already, so that a run of hours that was stopped can go on (tests/run --continue). Sourced by tests/run.
#
# A job's output and numbers are kept if it passed. They count again only for the same tree: nothing in it that a test
# could see has changed since, not even a comment.

# tree_id: of all files that git would commit, documents apart
tree_id() {
	local index
	index=$(mktemp -p "$scratch")
	(
		export GIT_INDEX_FILE=$index
		cd "$REPO" || exit
		git read-tree HEAD
		git add -A -- . ':!docs/*.md' ':!README.md' ':!CHANGELOG.md'
		git write-tree
	)
}

# passed_open: makes $kept, the folder of this tree and level
passed_open() {
	local tree
	tree=$(tree_id) || die "--continue needs the git repository"
	kept=$LOGS/passed/$tree-$level
	mkdir -p "$kept"
}

# kept_name COMMAND ARG...: of a job, in $kept
kept_name() {
	echo "$kept/$(printf '%s\n' "$@" "${DM_QCOW_KO-}" "${DM_QCOW_TOOLS-}" ${passed_on[@]+"${passed_on[@]}"} | hash_of)"
}

# keep NAME OUTPUT COUNTS
keep() {
	cp "$2" "$1.out"
	cp "$3" "$1.new"
	mv "$1.new" "$1.count"
}
