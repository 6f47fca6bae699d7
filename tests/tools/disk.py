#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""disk.py FILE BYTES [SEED]: a raw disk of holes, written zeros, noise and text, in pieces of odd lengths."""
import random
import sys

path, size = sys.argv[1], int(sys.argv[2])
rnd = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
with open(path, "wb") as f:
    f.truncate(size)
    off = 0
    while off < size:
        kind = rnd.random()
        n = min(rnd.choice([512, 1536, 4096, 8192, 65536, 200000, 1 << 20]), size - off)
        f.seek(off)
        off += n
        if kind < 0.3:
            continue
        if kind < 0.4:
            f.write(bytes(n))
        elif kind < 0.6:
            f.write(rnd.randbytes(n))
        else:
            text = b"%d green bottles " % rnd.randrange(10**6)
            f.write((text * (n // len(text) + 1))[:n])
