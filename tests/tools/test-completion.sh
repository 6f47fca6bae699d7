#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Completion in bash and in zsh: a line is typed into each, which inserts all that it knows. The table has the line
# and what then stands in place of its last word.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

mkdir -p bin here/dir && ln -s "$QCOW" bin/qcow
touch here/disk.qcow2 here/other.raw 'here/with blank.qcow2'
PATH=$PWD/bin:$PATH

all_verbs='amend bitmap check close commit compare convert create info map measure open rebase resize snapshot status table'
all_settings='backing_file= backing_fmt= cluster_size= compat= compression_type= data_file= data_file_raw= extended_l2='
all_settings+=' lazy_refcounts= preallocation= refcount_bits= size='
close_options='--deferred --force --help'

table="
verbs|qcow |$all_verbs
verb|qcow conv|convert
own-options|qcow --|--complete --help --version
options|qcow close -|$close_options
options-behind-words|qcow close x --|$close_options
option|qcow check --out|--output
short-options|qcow status -|--help --json
formats|qcow convert -O |qcow2 raw
formats-of-long-option|qcow convert --target-format |qcow2 raw
formats-behind-sign|qcow convert --format=|qcow2 raw
format-begun|qcow create -b other.raw -F r|raw
value-of-two-letters|qcow convert -T |none unsafe writeback
values-of-check|qcow check -r |all leaks
values-of-output|qcow map --output |human json
values-of-resize|qcow resize --preallocation=f|falloc full
settings|qcow create -o |$all_settings
settings-of-convert|qcow convert -o |$all_settings
settings-of-amend|qcow amend -o |compat= data_file_raw= lazy_refcounts= refcount_bits=
setting-begun|qcow create -o data|data_file= data_file_raw=
setting-behind-comma|qcow create -o size=1M,exten|extended_l2=
values-of-setting|qcow create -o compat=|0.10 1.1
value-behind-comma|qcow create -o cluster_size=2M,compression_type=|zlib zstd
files|qcow check |dir disk.qcow2 other.raw with\\ blank.qcow2
file-begun|qcow info d|dir disk.qcow2
file-behind-option|qcow rebase -b oth|other.raw
file-behind-sign|qcow map --backing=oth|other.raw
file-behind-blank|qcow map with\\ bl|with\\ blank.qcow2
file-in-setting|qcow create -o size=1M,data_file=oth|other.raw
folders|qcow map --backing-dir |dir
folder-behind-sign|qcow map --backing-dir=d|dir
image-of-open|qcow open name disk|disk.qcow2
"

# What was inserted, in one line; zsh says again what was typed before a value.
inserted() { # inserted LINE ANSWER
	local typed=${1//'\ '/'\_'} answer=${2//'\ '/'\_'}
	tr ' ' '\n' <<<"${answer#"${typed% *}"}" | sed -E '/^$/d; s/^.*[=,]([^=,]+=?)$/\1/; s/\\_/\\ /g; s,/$,,' |
		LC_ALL=C sort -u | tr '\n' ' ' | sed 's/ $//'
}

for shell in bash zsh; do
	command -v $shell >/dev/null || { fail "completion/$shell" 'it is not installed; make deps installs it'; continue; }
	grep . <<<"$table" | cut -d '|' -f 2 |
		python3 "$REPO/tests/tools/complete.py" $shell "$REPO/userspace/completion" here >answers.$shell 2>log ||
		fail "completion/$shell" "$(tail -n 1 log)"
	paste -d '|' <(grep . <<<"$table") answers.$shell | while IFS='|' read -r name line wanted answer; do
		got=$(inserted "$line" "$answer")
		if [ "$got" = "$wanted" ]; then ok "completion/$shell/$name"; else echo "FAIL completion/$shell/$name: $got"; fi
	done | tee log
	if grep -q '^FAIL' log; then nr_failed=$((nr_failed + 1)); fi
done
finish
