#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What every verb has: --help, a man page with the same options, completion of verbs and options, one line about a
# wrong option, and its usage when words are missing.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

MAN=$REPO/userspace/man
mkdir bin && ln -s "$QCOW" bin/qcow
PATH=$PWD/bin:$PATH
# shellcheck source=userspace/completion/qcow.bash
. "$REPO/userspace/completion/qcow.bash"

# Long options of the lines that describe one.
options_of_help() { sed -nE 's/^  (-.*)/\1/p' <<<"$1" | sed -E 's/   .*//' | grep -oE -- '--[a-z][a-z-]+' | sort -u; }

# Those of a page's own paragraphs: .TP and the line after it, and what is said to be as for another verb.
options_of_page() {
	sed 's/\\-/-/g; s/\\f[BIRP]//g' "$1" | awk '/^\.TP/ { tag = 1; next } tag || /^\.BR? --/ { print; tag = 0 } /^\.BI? "?--/' |
		grep -oE -- '--[a-z][a-z-]+' | sort -u
}

# complete WORD...: what is offered for the last one
completed() {
	COMP_WORDS=(qcow "$@") COMP_CWORD=$# COMPREPLY=()
	_qcow
	printf '%s\n' "${COMPREPLY[@]}" | sort -u
}

verbs=$(qcow --help | sed -nE 's/^  ([a-z]+) .*/\1/p' | sort -u)
[ "$(wc -l <<<"$verbs")" -ge 17 ] || fail help/verbs "only $verbs"
if [ "$(completed '')" = "$verbs" ]; then ok completion/verbs; else fail completion/verbs "$(completed '')"; fi

# judge VERB: what is wrong with it
judge() {
	local help options page=$MAN/qcow-$1.8 status=0 said
	help=$(qcow "$1" --help) || echo '--help fails'
	grep -q "^Usage: qcow $1" <<<"$help" || echo '--help shows no usage'
	options=$(options_of_help "$help")
	[ -f "$page" ] || { echo 'no man page'; return; }
	diff <(echo "$options") <(options_of_page "$page" | grep -vx -- --help) | grep '^[<>]' | tr '\n' ' '
	diff <(echo "$options") <(completed "$1" -- | grep -- -- | grep -vx -- --help) | grep '^[<>]' | sed 's/^/completion: /' | tr '\n' ' '
	said=$(qcow "$1" --no-such-option 2>&1) || status=$?
	if [ $status = 0 ] || [ "$(wc -l <<<"$said")" != 1 ]; then echo "a wrong option: $status, $said"; fi
	[ "$1" != status ] || return 0
	status=0
	said=$(qcow "$1" 2>&1) || status=$?
	if [ $status = 0 ] || ! grep -q '^Usage' <<<"$said"; then echo "no words: $status, $said"; fi
}
for verb in $verbs; do
	why=$(judge "$verb")
	if [ -n "$why" ]; then fail "help/$verb" "$why"; else ok "help/$verb"; fi
done

# Programs get JSON from every verb that tells something.
qemu-img create -q -f qcow2 i 1M && qemu-img snapshot -c s i && qemu-img bitmap --add i b
for words in 'info i' 'map i' 'check i' 'snapshot -l i' 'bitmap i' 'measure -O qcow2 i'; do
	for json in --json --output=json; do
		# shellcheck disable=SC2086
		if qcow $words $json | python3 -m json.tool >log 2>&1; then ok "help/json/$words/$json"; else
			fail "help/json/$words/$json" "$(tail -n 1 log)"
		fi
	done
done
finish
