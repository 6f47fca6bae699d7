# SPDX-License-Identifier: GPL-2.0-only
# bash completion for qcow, which says itself what may follow (qcow --complete).
# shellcheck shell=bash

_qcow() {
	local line=${COMP_LINE:0:COMP_POINT} word=${COMP_WORDS[COMP_CWORD]} words found typed one
	local -A kinds=([:files]=file [:dirs]=directory)
	# COMP_WORDS is cut at each = too. Without -r a blank behind a backslash is no end of a word.
	# shellcheck disable=SC2162
	read -a words <<<"$line"
	[[ $line != *[[:blank:]] ]] || words+=('')
	typed=${words[-1]}
	COMPREPLY=()
	mapfile -t found < <("${words[0]}" --complete "${words[@]:1}" 2>/dev/null)
	for one in "${found[@]}"; do
		one=${one%%$'\t'*}
		if [[ $one == :* ]]; then
			compopt -o filenames
			[ "$word" != = ] || word=
			mapfile -t COMPREPLY < <(compgen -A "${kinds[$one]}" -- "$word" )
			return
		fi
		[[ $one == "$typed"* ]] || continue
		[[ $one != *= ]] || compopt -o nospace
		# Only what follows the last = or : is replaced.
		COMPREPLY+=("${one#"${typed%"${typed##*[=:]}"}"}")
	done
}

complete -F _qcow qcow
