# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # who sources this uses the variables
# Every short sequence of operations, and how their disks are laid out; for the guest and the host.

# write to where nothing is, overwrite, discard, flush, snapshot, write to what a snapshot shares
SEQ_OPERATIONS='w o d f s c'
# F1 to F9 is a flush on a slow disk, with the worker killed sooner or later meanwhile: from F4 on when COMMIT is under
# way.
# M1 to M9 is one, too, and what comes next begins sooner or later meanwhile.
SEQ_SLOW_MS=100
# The image: clusters 0-3 are the guest's own, 4 is shared with the snapshot s0, the rest reads as zeros.
SEQ_CLUSTER=16384
SEQ_CLUSTERS=16
# Each sequence has a slice of each of three disks, in MiB: the image's, the log's, the notes'.
SEQ_DATA_MIB=1
SEQ_LOG_MIB=8
# The journal is at its beginning; the contents of the K-th snapshot, from 1 on, at K times 256 KiB.
SEQ_NOTES_MIB=1
SEQ_NOTES_KIB=256

# sequences: those of the level
sequences() {
	if [ -n "${SEQUENCES-}" ]; then
		tr ' ' '\n' <<<"$SEQUENCES"
	elif [ "${LEVEL-}" = full ]; then
		sequences_to 3
		printf '%s\n' {w,o,d,c,wc,cd,dw,oc}F{1..9} {w,d,c}M{1..9}{w,o,d,c}
	else
		sequences_to 2
		printf '%s\n' {c,d}F{1..6} wM{1,3,5}c dM{2,4}w cM{1,3}d
	fi
}

# sequences_to LENGTH: all of a length before those that are longer
sequences_to() {
	local length all=('') next before op
	for ((length = 1; length <= $1; length++)); do
		next=()
		for before in "${all[@]}"; do
			for op in $SEQ_OPERATIONS; do
				next+=("$before$op")
			done
		done
		printf '%s\n' "${next[@]}"
		all=("${next[@]}")
	done
}
