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

[ -d /media/root-ro ] || skip "this machine did not boot from the layers"
equal "the lower file system" "$(findmnt -n -o SOURCE /media/root-ro)" /dev/mapper/root
equal "the target" "$(dmsetup table root | cut -d' ' -f3)" qcow
# The data file is one more.
equal "layers" "$(counter root layers)" 10
equal "the disk's hash" "$(sha256sum /dev/mapper/root | cut -d' ' -f1)" "$(cat /host/demo/sha256)"
equal "errors" "$(counter root errors)" 0
