# SPDX-License-Identifier: GPL-2.0-only
# bash completion for qcow. Verbs and options come from --help, so that nothing here knows them twice.
# shellcheck shell=bash

_qcow() {
	local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]-} words
	if [ "$COMP_CWORD" = 1 ]; then
		words=$(qcow --help 2>/dev/null | sed -nE 's/^  ([a-z]+) .*/\1/p')
	elif [[ $cur == -* ]]; then
		words=$(qcow "$verb" --help 2>/dev/null | sed -nE 's/^  (-.*)/\1/p' | sed -E 's/   .*//' |
			grep -oE -- '--?[a-zA-Z][a-z-]*')
	else
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _qcow qcow
