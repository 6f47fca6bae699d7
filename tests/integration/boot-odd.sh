#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A machine that booted from a chain of odd layers (tests/images/layers.py): an external data file that is valid raw, by
# way of a symlink to another folder; VM state; bitmaps; preallocated metadata; the dirty and the corrupt bit; unknown
# feature bits, fields and extensions; an L2 table past the end of the file; a size that is not in sectors; and on top of
# them a snapshot, not what came after it. Each has a part of the root, and every byte of the disk is right.
# kernels: 6.12
# host: tests/demo/stage odd
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"

booted_from "the odd layers"
# The data file is one more.
equal "layers" "$(counter root layers)" 11
[[ $(dmsetup table root) == *" snapshot:boot"* ]] || fail "this is not the snapshot"
root_is_right
