#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Spreads a disk over a chain in which each layer has other features: layers.py RAW DIR

DIR/root.qcow2 is the top. Each layer has regions of the disk that no other has, so that none of them
can be wrong without the disk being wrong.
"""
import os
import subprocess
import sys

REGION = 2 << 20

# name, options of qemu-img create, options of qemu-io's write
LAYERS = (
    ("version-2", "compat=0.10,cluster_size=4096", ""),
    ("zlib", "compat=1.1", "-c"),
    ("zstd", "compression_type=zstd", "-c"),
    ("extended-l2", "extended_l2=on", ""),
    ("clusters-512", "cluster_size=512,refcount_bits=1", ""),
    ("clusters-2m", "cluster_size=2M,refcount_bits=64", ""),
    ("snapshots", "lazy_refcounts=on", ""),
    ("root", "data_file=data", ""),
)


def run(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def regions(raw, turn):
    """Offsets of those that are the turn's, and not all zero."""
    size = os.path.getsize(raw)
    with open(raw, "rb") as f:
        for off in range(turn * REGION, size, (len(LAYERS) + 1) * REGION):
            f.seek(off)
            data = f.read(REGION)
            if any(data):
                yield off, data


def base(raw, path):
    with open(path, "wb") as f:
        f.truncate(os.path.getsize(raw))
        for off, data in regions(raw, 0):
            f.seek(off)
            f.write(data)


def fill(raw, turn, image, how):
    commands = []
    for off, data in regions(raw, turn):
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


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    raw = os.path.abspath(sys.argv[1])
    os.chdir(sys.argv[2])
    base(raw, "base")
    below, form = "base", "raw"
    for turn, (name, options, how) in enumerate(LAYERS, 1):
        image = name + ".qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", below, "-F", form, image)
        fill(raw, turn, image, how)
        if name == "snapshots":
            run("qemu-img", "snapshot", "-c", "beside", image)
        below, form = image, "qcow2"
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, below)


main()
