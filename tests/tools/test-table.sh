#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# qcow table: names that the device mapper would split are refused, in one line.
# shellcheck source=tests/tools/lib.sh
. "$(dirname "$0")/lib.sh"

# The last one is what UTF-8 has for an a with a grave accent.
for name in 'a b' 'a\b' $'a\tb' $'l\xc3\xa0'; do
	what=table/$(printf %s "$name" | od -An -tx1 | tr -d ' \n')
	qemu-img create -q -f qcow2 "$name" 1M
	status=0
	"$QCOW" table "$name" >out 2>err || status=$?
	if [ $status = 1 ] && [ ! -s out ] && [ "$(wc -l <err)" = 1 ] && grep -q 'cannot be passed' err; then
		ok "$what"
	else
		fail "$what" "$status: $(cat out err)"
	fi
done
qemu-img create -q -f qcow2 $'l\xc3\xa9' 1M
if "$QCOW" table $'l\xc3\xa9' | grep -q "^0 2048 qcow $WORK/"; then ok table/other-letters; else fail table/other-letters "refused"; fi
finish
