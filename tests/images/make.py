#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes test images with qemu-img and qemu-io.

    make.py --list             names of all cases
    make.py CASE DIR           makes DIR/CASE/, prints the path of its top image

What is in an image depends on the case's name only, so a failure repeats.
"""
import os
import random
import subprocess
import sys

KIB, MIB = 1 << 10, 1 << 20


def run(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


class Maker:
    """One case: a folder, a random source seeded by the name, and helpers."""

    def __init__(self, case, folder):
        self.dir = os.path.join(folder, case)
        os.makedirs(self.dir)
        self.rnd = random.Random(case)
        self.nr = 0

    def path(self, name):
        return os.path.join(self.dir, name)

    def data(self, length):
        """Bytes that compress about by half and whose place is recognisable."""
        out = bytearray()
        while len(out) < length:
            out += self.rnd.randbytes(256) + (b"at %12d " % len(out)) * 16
        return bytes(out[:length])

    def raw(self, name, size, holes=True):
        path = self.path(name)
        with open(path, "wb") as f:
            f.truncate(size)
            off = 0
            while off < size:
                n = min(self.rnd.choice((4, 12, 64, 200, 700)) * KIB, size - off)
                if not holes or self.rnd.random() < 0.6:
                    f.seek(off)
                    f.write(self.data(n))
                off += n
        return path

    def create(self, name, size, backing=None, fmt="qcow2", **opts):
        argv = ["qemu-img", "create", "-q", "-f", "qcow2"]
        if opts:
            argv += ["-o", ",".join(f"{k}={v}" for k, v in opts.items())]
        if backing:
            argv += ["-b", backing, "-F", fmt]
        argv.append(self.path(name))
        if size is not None:
            argv.append(str(size))
        run(*argv)
        return self.path(name)

    def convert(self, src, name, *argv, fmt="raw"):
        run("qemu-img", "convert", "-t", "unsafe", "-f", fmt, "-O", "qcow2", *argv, src, self.path(name))
        return self.path(name)

    def io(self, path, *commands):
        argv = ["qemu-io", "-t", "unsafe", "-f", "qcow2"]
        for c in commands:
            argv += ["-c", c]
        run(*argv, path)

    def write(self, path, off, length):
        self.nr += 1
        pattern = self.path(f"pattern{self.nr}")
        with open(pattern, "wb") as f:
            f.write(self.data(length))
        self.io(path, f"write -s {pattern} {off} {length}")
        os.unlink(pattern)

    def scatter(self, path, size, nr, unit=512, zeros=True):
        """Writes, zeroes and discards at random places of @unit bytes."""
        commands = []
        pattern = self.path("pattern")
        with open(pattern, "wb") as f:
            f.write(self.data(256 * KIB))
        for _ in range(nr):
            n = self.rnd.randint(1, max(1, min(256 * KIB, size // 4) // unit)) * unit
            off = self.rnd.randrange(0, (size - n) // unit + 1) * unit
            kind = self.rnd.random() if zeros else 0
            if kind < 0.7:
                commands.append(f"write -s {pattern} {off} {n}")
            elif kind < 0.8:
                commands.append(f"write -z {off} {n}")
            elif kind < 0.9:
                commands.append(f"write -z -u {off} {n}")
            else:
                commands.append(f"discard {off} {n}")
        self.io(path, *commands)
        os.unlink(pattern)

    def compressed_scatter(self, path, size, nr, cluster):
        commands = []
        for _ in range(nr):
            off = self.rnd.randrange(0, size // cluster) * cluster
            # Compression never overwrites a plain cluster.
            commands.append(f"discard {off} {cluster}")
            commands.append(f"write -c -P {self.rnd.randint(1, 255)} {off} {cluster}")
        self.io(path, *commands)

    def poke(self, path, off, data):
        with open(path, "r+b") as f:
            f.seek(off)
            f.write(data)


CASES = {}


def case(name):
    def add(fn):
        CASES[name] = fn
        return fn
    return add


def add_cluster_sizes():
    for text, cluster, size in (("512", 512, 2 * MIB), ("4k", 4 * KIB, 8 * MIB),
                                ("64k", 64 * KIB, 24 * MIB), ("2M", 2 * MIB, 40 * MIB)):
        def plain(m, cluster=cluster, size=size):
            top = m.create("top.qcow2", size, cluster_size=cluster)
            m.scatter(top, size, 40)
            return top

        def packed(m, cluster=cluster, size=size):
            src = m.raw("src.raw", size)
            top = m.convert(src, "top.qcow2", "-c", "-o", f"cluster_size={cluster}")
            os.unlink(src)
            return top

        def zstd(m, cluster=cluster, size=size):
            src = m.raw("src.raw", size)
            top = m.convert(src, "top.qcow2", "-c", "-o",
                            f"cluster_size={cluster},compression_type=zstd")
            os.unlink(src)
            return top

        CASES[f"plain-{text}"] = plain
        CASES[f"zlib-{text}"] = packed
        CASES[f"zstd-{text}"] = zstd


def add_chains():
    sizes = (64 * KIB, 4 * KIB, 512, 128 * KIB)
    for depth in (1, 2, 8, 32):
        def chain(m, depth=depth):
            size = 4 * MIB
            top = m.convert(m.raw("base.raw", size), "layer0.qcow2", "-c")
            for i in range(1, depth):
                top = m.create(f"layer{i}.qcow2", size, f"layer{i - 1}.qcow2",
                               cluster_size=sizes[i % 4])
                m.scatter(top, size, 4)
            return top
        CASES[f"chain-{depth}"] = chain


add_cluster_sizes()
add_chains()


@case("empty")
def empty(m):
    return m.create("top.qcow2", 8 * MIB)


@case("no-disk")
def no_disk(m):
    return m.create("top.qcow2", 0)


@case("version-2")
def version_2(m):
    base = m.create("base.qcow2", 6 * MIB, compat="0.10")
    m.scatter(base, 6 * MIB, 20, zeros=False)
    top = m.create("top.qcow2", 6 * MIB, "base.qcow2", compat="0.10", cluster_size=4096)
    m.scatter(top, 6 * MIB, 20, zeros=False)
    return top


@case("raw-base")
def raw_base(m):
    m.raw("base.raw", 6 * MIB)
    top = m.create("top.qcow2", 6 * MIB, "base.raw", "raw")
    m.scatter(top, 6 * MIB, 20)
    return top


@case("short-raw-base")
def short_raw_base(m):
    """Ends within a cluster, and within a sector."""
    m.raw("base.raw", MIB + 96 * KIB + 300, holes=False)
    top = m.create("top.qcow2", 4 * MIB, "base.raw", "raw")
    m.write(top, 3 * MIB, 64 * KIB)
    return top


@case("short-base")
def short_base(m):
    """Grown over a base that is shorter, with stale data behind the base's end."""
    base = m.create("base.qcow2", 2 * MIB)
    m.write(base, 0, 2 * MIB)
    run("qemu-img", "resize", "-q", "--shrink", base, str(MIB + 32 * KIB + 512))
    top = m.create("top.qcow2", 4 * MIB, "base.qcow2", cluster_size=4096)
    m.scatter(top, 4 * MIB, 5)
    return top


@case("short-middle")
def short_middle(m):
    """The middle layer is the shortest: what the base has beyond stays hidden."""
    m.raw("base.raw", 4 * MIB, holes=False)
    middle = m.create("middle.qcow2", MIB + 512, "base.raw", "raw")
    m.write(middle, 128 * KIB, 64 * KIB)
    return m.create("top.qcow2", 4 * MIB, "middle.qcow2")


@case("long-base")
def long_base(m):
    m.raw("base.raw", 8 * MIB, holes=False)
    top = m.create("top.qcow2", 3 * MIB + 512, "base.raw", "raw")
    m.scatter(top, 3 * MIB, 5)
    return top


@case("odd-size")
def odd_size(m):
    src = m.raw("src.raw", 3 * MIB + 512, holes=False)
    top = m.convert(src, "top.qcow2", "-c")
    os.unlink(src)
    return top


@case("odd-header-size")
def odd_header_size(m):
    """qemu rounds the recorded size down to sectors."""
    top = m.create("top.qcow2", 2 * MIB)
    m.write(top, 0, 2 * MIB)
    m.poke(top, 24, (MIB + 1000).to_bytes(8, "big"))
    return top


@case("small-over-large-compressed")
def small_over_large(m):
    size = 8 * MIB
    m.convert(m.raw("base.raw", size), "base.qcow2", "-c", "-o", "cluster_size=2M")
    top = m.create("top.qcow2", size, "base.qcow2", cluster_size=4096)
    m.scatter(top, size, 30)
    return top


@case("large-over-small")
def large_over_small(m):
    size = 8 * MIB
    base = m.create("base.qcow2", size, cluster_size=512)
    m.scatter(base, size, 60)
    m.create("middle.qcow2", size, "base.qcow2", cluster_size=4096)
    m.scatter(m.path("middle.qcow2"), size, 10)
    return m.create("top.qcow2", size, "middle.qcow2", cluster_size=MIB)


@case("mixed-compressed")
def mixed_compressed(m):
    """Compressed clusters beside plain ones, overwritten ones, zeroes."""
    size = 8 * MIB
    top = m.create("top.qcow2", size)
    m.compressed_scatter(top, size, 60, 64 * KIB)
    m.scatter(top, size, 10)
    m.compressed_scatter(top, size, 60, 64 * KIB)
    return top


@case("extended-l2")
def extended_l2(m):
    size = 8 * MIB
    m.raw("base.raw", size, holes=False)
    top = m.create("top.qcow2", size, "base.raw", "raw", extended_l2="on", cluster_size="128k")
    m.scatter(top, size, 60)
    return top


@case("extended-l2-16k")
def extended_l2_16k(m):
    size = 4 * MIB
    m.raw("base.raw", size, holes=False)
    top = m.create("top.qcow2", size, "base.raw", "raw", extended_l2="on", cluster_size="16k")
    m.scatter(top, size, 40)
    m.compressed_scatter(top, size, 20, 16 * KIB)
    return top


@case("extended-l2-prealloc")
def extended_l2_prealloc(m):
    size = 4 * MIB
    m.raw("base.raw", size, holes=False)
    top = m.create("top.qcow2", size, "base.raw", "raw", extended_l2="on",
                   preallocation="metadata")
    m.scatter(top, size, 20)
    return top


@case("prealloc-metadata")
def prealloc_metadata(m):
    top = m.create("top.qcow2", 4 * MIB, preallocation="metadata")
    m.scatter(top, 4 * MIB, 10)
    return top


@case("prealloc-full")
def prealloc_full(m):
    top = m.create("top.qcow2", 4 * MIB, preallocation="full")
    m.scatter(top, 4 * MIB, 10)
    return top


@case("data-file")
def data_file(m):
    top = m.create("top.qcow2", 4 * MIB, data_file=m.path("top.data"))
    m.scatter(top, 4 * MIB, 20)
    return top


@case("data-file-raw")
def data_file_raw(m):
    top = m.create("top.qcow2", 4 * MIB, data_file=m.path("top.data"), data_file_raw="on")
    m.scatter(top, 4 * MIB, 20)
    return top


@case("data-file-backing")
def data_file_backing(m):
    """A layer with a data file in the middle of a chain."""
    m.raw("base.raw", 4 * MIB, holes=False)
    middle = m.create("middle.qcow2", 4 * MIB, "base.raw", "raw", data_file=m.path("mid.data"))
    m.scatter(middle, 4 * MIB, 10)
    top = m.create("top.qcow2", 4 * MIB, "middle.qcow2", cluster_size=4096)
    m.scatter(top, 4 * MIB, 10)
    return top


@case("snapshots")
def snapshots(m):
    top = m.create("top.qcow2", 4 * MIB)
    for name in ("first", "second"):
        m.scatter(top, 4 * MIB, 10)
        run("qemu-img", "snapshot", "-c", name, top)
    m.scatter(top, 4 * MIB, 10)
    return top


@case("vm-state")
def vm_state(m):
    """A machine's state lies behind the disk, in the same tables; in the snapshot too."""
    top = m.create("top.qcow2", 4 * MIB)
    m.scatter(top, 4 * MIB, 10)
    m.io(top, "write -b -P 0xaa 0 300k")
    run("qemu-img", "snapshot", "-c", "first", top)
    m.scatter(top, 4 * MIB, 10)
    m.io(top, "write -b -P 0xbb 100k 300k")
    return top


@case("bitmaps")
def bitmaps(m):
    top = m.create("top.qcow2", 4 * MIB)
    run("qemu-img", "bitmap", "--add", "-f", "qcow2", top, "b0")
    m.scatter(top, 4 * MIB, 10)
    run("qemu-img", "bitmap", "--add", "--disable", "-g", "4k", "-f", "qcow2", top, "b1")
    return top


def add_refcount_orders():
    for bits in (1, 2, 4, 8, 16, 32, 64):
        def width(m, bits=bits):
            top = m.create("top.qcow2", 2 * MIB, refcount_bits=bits)
            m.scatter(top, 2 * MIB, 5)
            return top
        CASES[f"refcount-{bits}"] = width


add_refcount_orders()


@case("lazy-refcounts")
def lazy_refcounts(m):
    """Left dirty, as by a killed writer."""
    top = m.create("top.qcow2", 2 * MIB, lazy_refcounts="on")
    m.scatter(top, 2 * MIB, 5)
    m.poke(top, 79, b"\x01")
    return top


@case("corrupt-bit")
def corrupt_bit(m):
    top = m.create("top.qcow2", 2 * MIB)
    m.scatter(top, 2 * MIB, 5)
    m.poke(top, 79, b"\x02")
    return top


@case("tables-past-eof")
def tables_past_eof(m):
    """An L2 table and a data cluster beyond the file's end: both read as zeros."""
    top = m.create("top.qcow2", 64 * MIB, cluster_size=4096)
    m.write(top, 0, 64 * KIB)
    l1 = int.from_bytes(open(top, "rb").read(48)[40:48], "big")
    m.poke(top, l1 + 8, (0x8000000000000000 | 1 << 40).to_bytes(8, "big"))
    with open(top, "rb") as f:
        f.seek(l1)
        l2 = int.from_bytes(f.read(8), "big") & 0xfffffffffffe00
    m.poke(top, l2 + 8 * 20, (0x8000000000000000 | 1 << 41).to_bytes(8, "big"))
    return top


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(CASES))
        return
    if len(sys.argv) != 3 or sys.argv[1] not in CASES:
        sys.exit(__doc__)
    print(CASES[sys.argv[1]](Maker(sys.argv[1], sys.argv[2])))


if __name__ == "__main__":
    main()
