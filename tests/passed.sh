# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154 # level, LOGS and passed_on belong to tests/run; kept_name to jobs.sh
# What has passed already, so that a run of hours that was stopped can go on (tests/run --continue). Sourced by tests/run.
#
# A job's output and numbers are kept if it passed. They count again only while nothing has changed that the job could
# see, not even a comment: all that git would commit but what is named below.

DOCUMENTS=(':!docs/*.md' ':!README.md' ':!CHANGELOG.md')
MODEL=(':!docs/model')
ON_HOST=(':!kernel' ':!Kbuild' ':!dkms.conf' ':!tests/bench' ':!tests/crash' ':!tests/demo' ':!tests/install'
	':!tests/integration' ':!tests/vm')
IN_MACHINE=(':!tests/fuzz' ':!tests/unit' ':!tests/tools/test-*')

# unseen COMMAND ARG...: sets $unseen to what a job cannot see; it is the name of a function of tests/run
unseen() {
	unseen=("${DOCUMENTS[@]}" "${MODEL[@]}")
	case $1:${2-} in
	unit_test:*) unseen+=("${ON_HOST[@]}" ':!tests/hostile' ':!tests/tools') ;;
	runner:tools) unseen+=("${ON_HOST[@]}" ':!tests/fuzz' ':!tests/unit') ;;
	runner:hostile) unseen+=("${ON_HOST[@]}" ':!tests/unit' ':!tests/tools') ;;
	runner:promela) unseen=("${DOCUMENTS[@]}" "${ON_HOST[@]}" ':!include' ':!userspace' ':!tests' ':!Makefile') ;;
	runner:dropped)
		unseen_in_machine "$REPO/tests/crash/dropped"
		unseen_tests "$REPO/tests/crash/dropped"
		;;
	integration_test:*)
		unseen_in_machine "$2"
		unseen+=(':!tests/integration/*.sh')
		;;
	selftest:*) unseen+=("${IN_MACHINE[@]}" ':!tests/bench' ':!tests/hostile' ':!tests/integration/*.sh') ;;
	esac
}

# unseen_in_machine TEST: folders whose name neither it says nor what tests share, not even in a comment: a name too
# many only runs it again
unseen_in_machine() {
	local name shared=("$REPO"/tests/{crash,demo,images,install,vm,lib.sh,devices.sh,write.sh,variants.sh,model-seed.sh})
	unseen+=("${IN_MACHINE[@]}")
	for name in bench hostile; do
		says "$name" "$1" "${shared[@]}" || unseen+=(":!tests/$name")
	done
}

# unseen_tests FILE: the tests whose name it does not say
unseen_tests() {
	local test
	for test in "$REPO"/tests/integration/*.sh; do
		says "$(basename "$test" .sh)" "$1" || unseen+=(":!tests/integration/${test##*/}")
	done
}

# says WORD FILE...: or one of them cannot be read
says() {
	local status=0
	grep -rqw -- "$@" || status=$?
	[ "$status" != 1 ]
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
