#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Valid images for the hostile tests to break.

Each is a folder with a file named "top" and whatever it names; names in images are relative,
so that a folder can be copied. Small on purpose: thousands of copies are read byte by byte.
"""
import os
import random
import shutil
import subprocess
import sys

KIB, MIB = 1 << 10, 1 << 20


def run(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def create(name, size, backing=None, fmt="qcow2", **opts):
    argv = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if opts:
        argv += ["-o", ",".join(f"{k}={v}" for k, v in opts.items())]
    if backing:
        argv += ["-b", backing, "-F", fmt]
    run(*argv, name, str(size))


def io(name, *commands):
    run("qemu-io", "-t", "unsafe", "-f", "qcow2", *[a for c in commands for a in ("-c", c)], name)


def pattern(seed, size):
    """Bytes that compress well, but tell their place."""
    rnd = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        out += rnd.randbytes(64) + b"%12d." % len(out) * 8
    return bytes(out[:size])


def raw(name, size):
    with open(name, "wb") as f:
        f.write(pattern(name, size))


def packed(name, size, *opts):
    raw("src", size)
    run("qemu-img", "convert", "-t", "unsafe", "-c", "-f", "raw", "-O", "qcow2", *opts, "src", name)
    os.unlink("src")


# What a disk of 512 KiB gets: data, zeroes, holes, a second write into the same cluster.
MIX = ("write -P 1 0 128k", "write -z 160k 64k", "write -P 2 300k 20k", "write -P 3 480k 32k", "discard 64k 64k")

IMAGES = {}
# Those with a snapshot whose id is 1.
WITH_SNAPSHOT = ("snapshots", "snapshots-v2", "vm-state")


def image(fn):
    IMAGES[fn.__name__.replace("_", "-")] = fn
    return fn


@image
def v3():
    create("top", 512 * KIB)
    io("top", *MIX)


@image
def v2():
    create("top", 512 * KIB, compat="0.10")
    io("top", "write -P 1 0 128k", "write -P 2 300k 20k", "write -P 3 480k 32k")


@image
def cluster_512():
    create("top", 256 * KIB, cluster_size=512)
    io("top", "write -P 1 0 20k", "write -z 40k 10k", "write -P 2 100k 512", "discard 4k 4k", "write -P 3 255k 1k")


@image
def cluster_4k():
    create("top", 2 * MIB, cluster_size=4096, refcount_bits=1)
    io("top", *MIX, "write -P 4 1M 60k", "write -P 5 2040k 8k")


@image
def cluster_2m():
    create("top", 3 * MIB, cluster_size="2M", refcount_bits=64)
    io("top", "write -P 1 100k 64k", "write -P 2 2M 4k")


@image
def extended_l2():
    raw("base", 512 * KIB)
    create("top", 512 * KIB, "base", "raw", extended_l2="on", cluster_size="64k")
    io("top", "write -P 1 0 6k", "write -z 10k 8k", "write -P 2 128k 64k", "write -z 192k 64k", "write -c -P 7 256k 64k",
       "write -P 3 500k 2k")


@image
def extended_l2_16k():
    create("top", 512 * KIB, extended_l2="on", cluster_size="16k")
    io("top", "write -P 1 0 512", "write -z 1k 1k", "write -P 2 128k 33k", "write -c -P 7 256k 16k")


@image
def zlib():
    packed("top", 512 * KIB)


@image
def zlib_4k():
    packed("top", 256 * KIB, "-o", "cluster_size=4k,compat=0.10")


@image
def zstd():
    packed("top", 512 * KIB, "-o", "compression_type=zstd")


@image
def zstd_512():
    packed("top", 64 * KIB, "-o", "compression_type=zstd,cluster_size=512")


@image
def snapshots():
    create("top", 512 * KIB)
    io("top", "write -P 1 0 128k")
    run("qemu-img", "snapshot", "-c", "first", "top")
    io("top", *MIX)
    run("qemu-img", "snapshot", "-c", "second one", "top")
    io("top", "write -P 9 100k 100k")


@image
def snapshots_v2():
    create("top", 256 * KIB, compat="0.10", cluster_size=4096)
    io("top", "write -P 1 0 64k")
    run("qemu-img", "snapshot", "-c", "s", "top")
    io("top", "write -P 9 20k 30k")


@image
def vm_state():
    """A machine's state behind the disk, in the same tables; in the snapshot too."""
    create("top", 512 * KIB)
    io("top", *MIX, "write -b -P 0xaa 0 100k")
    run("qemu-img", "snapshot", "-c", "first", "top")
    io("top", "write -P 9 100k 100k", "write -b -P 0xbb 50k 100k")


@image
def bitmaps():
    create("top", 512 * KIB)
    run("qemu-img", "bitmap", "--add", "-f", "qcow2", "top", "b0")
    run("qemu-img", "bitmap", "--add", "--disable", "-g", "4k", "-f", "qcow2", "top", "another one")
    io("top", *MIX)


@image
def data_file():
    create("top", 512 * KIB, data_file="data")
    io("top", *MIX)


@image
def data_file_raw():
    create("top", 512 * KIB, data_file="data", data_file_raw="on")
    io("top", *MIX)


@image
def raw_base():
    raw("base", 400 * KIB + 300)
    create("top", 512 * KIB, "base", "raw")
    io("top", *MIX)


@image
def chain():
    packed("base", 512 * KIB, "-o", "cluster_size=32k")
    create("middle", 384 * KIB, "base", "qcow2", cluster_size="4k")
    io("middle", "write -P 1 0 12k", "write -z 32k 32k", "discard 64k 8k")
    create("top", 512 * KIB, "middle", "qcow2")
    io("top", "write -P 2 65k 3k", "write -P 3 500k 1k")


@image
def preallocated():
    create("top", 512 * KIB, preallocation="metadata", lazy_refcounts="on")
    io("top", *MIX)


@image
def empty():
    create("top", 512 * KIB)


def make(name, folder):
    """Makes the image @name in the new folder @folder."""
    os.makedirs(folder)
    here = os.getcwd()
    os.chdir(folder)
    try:
        IMAGES[name]()
    finally:
        os.chdir(here)


def copy(src, dst):
    shutil.rmtree(dst, ignore_errors=True)
    shutil.copytree(src, dst)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in IMAGES:
        sys.exit(f"usage: images.py {'|'.join(IMAGES)} FOLDER")
    make(sys.argv[1], sys.argv[2])


if __name__ == "__main__":
    main()
