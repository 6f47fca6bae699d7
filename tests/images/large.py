#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes images of several map pages (512 blocks); used as make.py is.

    large.py --list             names of all cases
    large.py CASE DIR           makes DIR/CASE/, prints the path of its top image
"""
import os

import make
from make import KIB, MIB, case

make.CASES.clear()


def across_pages(m, cluster, size):
    """Data across each page's boundary: scattered clusters first, then, every
    other time, one contiguous run."""
    top = m.create("top.qcow2", size, cluster_size=cluster)
    page = 512 * cluster
    for nr in range(1, (size - 1) // page + 1):
        if nr % 2:
            for i in (1, 0, -1, -2):
                m.write(top, nr * page + i * cluster, 20 * KIB)
        else:
            m.write(top, nr * page - 2 * cluster, 4 * cluster)
    m.write(top, size - 512, 512)
    return top


@case("pages-64k")
def pages_64k(m):
    return across_pages(m, 64 * KIB, 100 * MIB + 512)


@case("pages-2M")
def pages_2m(m):
    return across_pages(m, 2 * MIB, 1029 * MIB + 512)


@case("mixed-4k")
def mixed_4k(m):
    """Twelve pages with blocks of every kind: plain ones in two layers,
    compressed ones, zeros."""
    size = 24 * MIB
    src = m.raw("src.raw", size)
    m.convert(src, "base.qcow2", "-c")
    os.unlink(src)
    m.create("middle.qcow2", size, "base.qcow2")
    m.scatter(m.path("middle.qcow2"), size, 30)
    top = m.create("top.qcow2", size, "middle.qcow2", cluster_size=4096)
    m.scatter(top, size, 60)
    return top


@case("plain-64k-large")
def plain_64k_large(m):
    """Two pages, no hole, nothing to fetch."""
    src = m.raw("src.raw", 48 * MIB, holes=False)
    top = m.convert(src, "top.qcow2")
    os.unlink(src)
    return top


if __name__ == "__main__":
    make.main()
