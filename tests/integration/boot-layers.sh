#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A machine that booted from a chain in which each layer has other features (tests/images/layers.py): a raw base,
# version 2, deflate, zstd, extended L2, clusters of 512 bytes and of 2 MiB, refcounts of 1 and 64 bits, a snapshot, an
# external data file. Each has a part of the root, and every byte of the disk is right.
# kernels: 6.12
# host: tests/demo/stage layers
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"

booted_from "the layers"
# The data file is one more.
equal "layers" "$(counter root layers)" 10
root_is_right
