#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""in-use.py IMAGE: its first bitmap was not saved, as when QEMU dies while it is open."""
import struct
import sys

with open(sys.argv[1], "r+b") as f:
    cluster = f.read(1 << 16)
    at = cluster.index(struct.pack(">II", 0x23852875, 24)) + 24
    (directory,) = struct.unpack_from(">Q", cluster, at)
    f.seek(directory + 12)
    (flags,) = struct.unpack(">I", f.read(4))
    f.seek(directory + 12)
    f.write(struct.pack(">I", flags | 1))
