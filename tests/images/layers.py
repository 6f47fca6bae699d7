#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Spreads a disk over a chain in which each layer has other features: layers.py plain|odd RAW DIR

DIR/root.qcow2 is the top, DIR/options what `qcow open` needs besides to read RAW from it. Each layer has regions of the
disk that no other has, so that none of them can be wrong without the disk being wrong.

plain   over a raw base, with what qemu-img makes
odd     with what else is met: data and names elsewhere, leftovers of machines and of crashes, a future; what
        was the disk is a snapshot of the top
"""
import os
import subprocess
import sys

REGION = 2 << 20
HEADER = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "tools", "header.py")

# name, options of qemu-img create, options of qemu-io's write
PLAIN = (
    ("version-2", "compat=0.10,cluster_size=4096", ""),
    ("zlib", "compat=1.1", "-c"),
    ("zstd", "compression_type=zstd", "-c"),
    ("extended-l2", "extended_l2=on", ""),
    ("clusters-512", "cluster_size=512,refcount_bits=1", ""),
    ("clusters-2m", "cluster_size=2M,refcount_bits=64", ""),
    ("snapshots", "lazy_refcounts=on", ""),
    ("root", "data_file=data", ""),
)
ODD = (
    ("data-file-raw", "data_file=away/data,data_file_raw=on", ""),
    ("vm-state", "compat=1.1", ""),
    ("bitmaps", "compat=1.1", ""),
    ("preallocated", "extended_l2=on,preallocation=metadata", ""),
    ("dirty", "lazy_refcounts=on", ""),
    ("corrupt", "compat=1.1", ""),
    ("future", "compat=1.1", ""),
    ("past-eof", "cluster_size=4096", ""),
    ("odd-size", "compat=1.1", ""),
    ("root", "compat=1.1", ""),
)


def run(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def regions(raw, turn, turns):
    """Offsets of those that are the turn's, and not all zero."""
    size = os.path.getsize(raw)
    with open(raw, "rb") as f:
        for off in range(turn * REGION, size, turns * REGION):
            f.seek(off)
            data = f.read(REGION)
            if any(data):
                yield off, data


def base(raw, path, turns):
    with open(path, "wb") as f:
        f.truncate(os.path.getsize(raw))
        for off, data in regions(raw, 0, turns):
            f.seek(off)
            f.write(data)


def fill(raw, turn, turns, image, how):
    commands = []
    for off, data in regions(raw, turn, turns):
        piece = f"piece{off}"
        with open(piece, "wb") as f:
            f.write(data)
        commands.append(f"write -q {how} -s {piece} {off} {len(data)}\n")
    if not commands:
        sys.exit(f"nothing for {image}: the disk is too small")
    subprocess.run(("qemu-io", "-t", "unsafe", "-f", "qcow2", image), input="".join(commands), text=True,
                   check=True, stdout=subprocess.DEVNULL)
    for name in os.listdir("."):
        if name.startswith("piece"):
            os.unlink(name)


def poke(image, off, data):
    with open(image, "r+b") as f:
        f.seek(off)
        f.write(data)


def io(image, *commands):
    run("qemu-io", "-t", "unsafe", "-f", "qcow2", *(word for c in commands for word in ("-c", c)), image)


def snapshot(image, name):
    run("qemu-img", "snapshot", "-c", name, image)


def point_past_eof(raw, image):
    """An L2 table beyond the end of the file, for a part of the disk that is zeros."""
    with open(raw, "rb") as f:
        index = 0
        while any(f.read(REGION)):  # what an L2 table of 512 entries is for
            index += 1
    with open(image, "rb") as f:
        l1 = int.from_bytes(f.read(48)[40:], "big")
    poke(image, l1 + 8 * index, (1 << 63 | 1 << 40).to_bytes(8, "big"))


def finish(raw, name, image):
    """What makes a layer what its name says, once it has its data."""
    if name in ("snapshots", "vm-state"):
        if name == "vm-state":
            io(image, "write -b -P 0xaa 0 300k")
        snapshot(image, "beside")
        if name == "vm-state":
            io(image, "write -b -P 0xbb 100k 300k")
    elif name == "bitmaps":
        run("qemu-img", "bitmap", "--add", "-f", "qcow2", image, "b0")
    elif name in ("dirty", "corrupt"):
        poke(image, 79, b"\1" if name == "dirty" else b"\2")
    elif name == "future":
        run(HEADER, "mark", image)
    elif name == "past-eof":
        point_past_eof(raw, image)
    elif name == "odd-size":
        poke(image, 24, (os.path.getsize(raw) + 300).to_bytes(8, "big"))


def build(raw, layers, below):
    turns = len(layers) + bool(below)
    for turn, (name, options, how) in enumerate(layers, bool(below)):
        image = name + ".qcow2"
        backing = ("-b", below, "-F", "raw" if below == "base" else "qcow2") if below else ()
        # One of them gets a little larger later; its tables must be large enough.
        size = os.path.getsize(raw) + (REGION if name == "odd-size" else 0)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, *backing, image, str(size))
        fill(raw, turn, turns, image, how)
        finish(raw, name, image)
        below = image
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, below)


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in ("plain", "odd"):
        sys.exit(__doc__)
    raw = os.path.abspath(sys.argv[2])
    os.chdir(sys.argv[3])
    if sys.argv[1] == "plain":
        base(raw, "base", len(PLAIN) + 1)
        build(raw, PLAIN, "base")
        return
    os.mkdir("farm")
    os.symlink("farm", "away")
    build(raw, ODD, None)
    snapshot("root.qcow2", "boot")
    io("root.qcow2", "write -q -P 0xff 0 8M")
    with open("options", "w", encoding="ascii") as f:
        f.write("--snapshot boot --backing-dir /host/demo\n")


main()
