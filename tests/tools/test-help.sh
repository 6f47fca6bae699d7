#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# What every verb has: --help and a man page, which name exactly the options that the verb takes; one line about a
# wrong option, and its usage when words are missing; JSON, if it tells something.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

mkdir bin && ln -s "$QCOW" bin/qcow
PATH=$PWD/bin:$PATH

# The part of the lines of a help text that names options.
tags() { sed -nE 's/^  +(-.*)/\1/p' | sed -E 's/  .*//'; }
long_options() { grep -oE -- '--[a-z][a-z-]+' | sort -u; }

# Those that getopt knows: it lists them all, because all begin with nothing.
options_of() { qcow "$1" --= 2>&1 | tail -n 1 | long_options; }

verbs=$(qcow --help | sed -nE 's/^  ([a-z]+) .*/\1/p' | sort -u)
[ "$(wc -l <<<"$verbs")" -ge 17 ] || fail help/verbs "only $verbs"

# judge VERB: what is wrong with it
judge() {
	local help page=$BUILD/man/qcow-$1.8 status=0 said letter
	help=$(qcow "$1" --help) || echo '--help fails'
	grep -q "^Usage: qcow $1" <<<"$help" || echo '--help shows no usage'
	diff <(options_of "$1" | grep -vx -- --help) <(tags <<<"$help" | long_options) | grep '^[<>]' | tr '\n' ' '
	for letter in $(tags <<<"$help" | grep -oE -- '(^|[ ,])-[a-zA-Z]\>'); do
		! qcow "$1" "$letter" 2>&1 | grep -q 'invalid option' || echo "$letter is unknown"
	done
	# The page as people see it.
	diff <(tags <<<"$help" | long_options) <(page_options "$page") | grep '^[<>]' | sed 's/^/page: /' | tr '\n' ' '
	said=$(qcow "$1" --no-such-option 2>&1) || status=$?
	if [ $status = 0 ] || [ "$(wc -l <<<"$said")" != 1 ]; then echo "a wrong option: $status, $said"; fi
	[ "$1" != status ] || return 0
	status=0
	said=$(qcow "$1" 2>&1) || status=$?
	if [ $status = 0 ] || ! grep -q '^Usage' <<<"$said"; then echo "no words: $status, $said"; fi
}

# Long options of a page's own paragraphs: .TP and the line after it.
page_options() {
	sed 's/\\-/-/g; s/\\f[BIRP]//g' "$1" | awk '/^\.TP/ { tag = 1; next } tag { print; tag = 0 }' | long_options
}

for verb in $verbs; do
	why=$(judge "$verb")
	if [ -n "$why" ]; then fail "help/$verb" "$why"; else ok "help/$verb"; fi
done

# Programs get JSON from every verb that tells something.
qemu-img create -q -f qcow2 i 1M && qemu-img snapshot -c s i && qemu-img bitmap --add i b
for words in 'info i' 'map i' 'check i' 'snapshot -l i' 'bitmap i' 'measure -O qcow2 i' 'compare i i'; do
	for json in --json --output=json; do
		# shellcheck disable=SC2086
		if qcow $words $json | python3 -m json.tool >log 2>&1; then ok "help/json/$words/$json"; else
			fail "help/json/$words/$json" "$(tail -n 1 log)"
		fi
	done
done
finish
