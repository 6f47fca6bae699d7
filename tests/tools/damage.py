#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""damage.py IMAGE WHAT: hurts the tables of an image whose first clusters are all written; its data stays.

    damage.py IMAGE far     makes an image of 16 TiB whose clusters lie all over a file as long, a few of them real
"""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "hostile"))
import layout  # noqa: E402

COPIED = 1 << 63
CLUSTER = 1 << 16
# Just short of it: some file systems end there.
FAR_CLUSTERS = (16 << 40) // CLUSTER - 1


class Hurt:
    def __init__(self, path):
        self.f = open(path, "r+b")
        self.image = layout.Image(self.f.read())

    def put(self, off, size, value):
        self.f.seek(off)
        self.f.write(value.to_bytes(size, "big"))

    def refcount(self, host_off, change):
        """Of 16 bits; the first refcount block."""
        off = self.image.refblock_off() + host_off // self.image.cluster * 2
        self.put(off, 2, self.image.num(off, 2) + change)

    def entry(self, i):
        return self.image.num(self.image.l2_entry(i), 8)

    def put_entry(self, i, value):
        self.put(self.image.l2_entry(i), 8, value)

    def leak(self):
        """Clusters behind the last, in use by nobody."""
        first = len(self.image.data) // self.image.cluster
        self.f.truncate((first + 3) * self.image.cluster)
        for i in range(3):
            self.refcount((first + i) * self.image.cluster, 1)

    def too_high(self):
        for i in range(3):
            self.refcount(self.entry(i) & layout.OFF_MASK, 1)

    def too_low(self):
        self.refcount(self.entry(1) & layout.OFF_MASK, -1)

    def l2_too_low(self):
        self.refcount(self.image.l2_off(), -1)

    def copied(self):
        self.put_entry(2, self.entry(2) ^ COPIED)

    def l1_copied(self):
        self.put(self.image.l1_off, 8, self.image.num(self.image.l1_off, 8) ^ COPIED)

    def no_refblock(self):
        self.put(self.image.reftable_off, 8, 0)

    def refblock_past_end(self):
        self.put(self.image.reftable_off, 8, 1 << 40)

    def data_on_refblock(self):
        """A cluster of the guest's lies where a block of refcounts is, and was written last."""
        block, data = self.image.refblock_off(), self.entry(0) & layout.OFF_MASK
        self.f.seek(block)
        self.f.write(self.image.data[data:data + self.image.cluster])
        self.put_entry(0, block | COPIED)

    def new_area(self):
        """A cluster of the guest's lies where no block of refcounts reaches."""
        data, far = self.entry(0) & layout.OFF_MASK, self.image.cluster // 2 * self.image.cluster
        self.f.seek(far)
        self.f.write(self.image.data[data:data + self.image.cluster])
        self.put_entry(0, far | COPIED)

    def hole(self):
        """All refcounts are lost, and in the middle there are clusters that nobody uses: cluster 0 lies at the end now."""
        data, far = self.entry(0) & layout.OFF_MASK, (len(self.image.data) // self.image.cluster + 20) * self.image.cluster
        self.f.seek(far)
        self.f.write(self.image.data[data:data + self.image.cluster])
        self.put_entry(0, far | COPIED)
        self.no_refblock()

    def no_reftable(self):
        self.put(48, 8, 0)
        self.put(56, 4, 0)

    def no_reftable_clusters(self):
        self.put(56, 4, 0)

    def reftable_is_header(self):
        self.put(48, 8, 0)
        self.put(56, 4, 1)

    def dirty(self):
        self.put(72, 8, self.image.num(72, 8) | 1)

    def corrupt(self):
        self.put(72, 8, self.image.num(72, 8) | 2)

    def data_past_end(self):
        self.put_entry(3, 1 << 40 | COPIED)

    def unaligned_data(self):
        self.put_entry(3, self.entry(3) + 512)

    def two_point_to_one(self):
        self.put_entry(4, self.entry(5))

    def compressed_copied(self):
        self.put_entry(0, self.entry(0) | COPIED)

    def zero_flag(self):
        self.put_entry(3, self.entry(3) | 1)

    def compressed_bytes(self):
        bits = 70 - self.image.num(20, 4)
        self.put(self.entry(0) & ((1 << bits) - 1), 8, 0xffffffffffffffff)


def far(path):
    """A cluster in every 4 GiB of the file: whoever counts references needs memory for all of it."""
    nr_blocks = FAR_CLUSTERS // (CLUSTER // 2) + 1
    table, blocks = 1, 1 + (nr_blocks * 8 + CLUSTER - 1) // CLUSTER
    l1 = blocks + nr_blocks
    l2 = l1 + (16 << 40) // (CLUSTER // 8 * CLUSTER) * 8 // CLUSTER
    data = list(range(l2 + 1, FAR_CLUSTERS, (4 << 30) // CLUSTER))
    with open(path, "wb") as f:
        f.write(struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, 16 << 40, 0,
                            (16 << 40) // (CLUSTER // 8 * CLUSTER), l1 * CLUSTER, table * CLUSTER,
                            blocks - table, 0, 0, 0, 0, 0, 4, 104))
        f.seek(table * CLUSTER)
        f.write(b"".join(struct.pack(">Q", (blocks + i) * CLUSTER) for i in range(nr_blocks)))
        f.seek(blocks * CLUSTER)
        f.write(b"\0\1" * (l2 + 1))
        for cluster in data:
            f.seek(blocks * CLUSTER + cluster * 2)
            f.write(b"\0\1")
        f.seek(l1 * CLUSTER)
        f.write(struct.pack(">Q", COPIED | l2 * CLUSTER))
        f.seek(l2 * CLUSTER)
        f.write(b"".join(struct.pack(">Q", COPIED | c * CLUSTER) for c in data))
        f.truncate(FAR_CLUSTERS * CLUSTER)


def main():
    path, what = sys.argv[1:]
    if what == "far":
        far(path)
    else:
        getattr(Hurt(path), what.replace("-", "_"))()


main()
