#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""vmstate.py IMAGE: of an image of 1 GiB with one snapshot, the second half of the disk becomes VM state.

That is how QEMU stores the state of a machine: in the guest clusters right behind the disk, from the next L2 table on.
"""
import struct
import sys

HALF = 512 << 20

with open(sys.argv[1], "r+b") as f:
    header = f.read(112)
    (size,) = struct.unpack_from(">Q", header, 24)
    nr, table = struct.unpack_from(">IQ", header, 60)
    assert size == 2 * HALF and nr == 1
    f.seek(24)
    f.write(struct.pack(">Q", HALF))
    f.seek(table + 32)
    f.write(struct.pack(">I", 64 << 10))  # the old, narrow field
    f.seek(table + 40)
    f.write(struct.pack(">QQ", 64 << 10, HALF))
