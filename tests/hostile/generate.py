#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Breaks valid images field by field, and compares what QEMU and the library make of them.

    generate.py [--cases N] [--seed S] [--jobs J]     N cases from S on
    generate.py --show S [FOLDER]                     one case; leaves it in FOLDER

What QEMU refuses to open must be refused; what both accept must read the same, errors included.
A case depends on its seed alone.
"""
import argparse
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile

import images
import judge
import layout
import rules

# How often each is broken: the small structures would drown in L2 entries.
WEIGHT = {"l2_entry": 0.5, "l2_bitmap": 0.5, "payload": 0.3, "magic": 0.2, "version": 0.3}


def near(rnd, value, size):
    top = (1 << 8 * size) - 1
    return rnd.choice((0, 1, value + 1, value - 1, value * 2, value // 2, top, top >> 1, 1 << rnd.randrange(8 * size),
                       value ^ 1 << rnd.randrange(8 * size), rnd.randrange(top + 1), rnd.randrange(256)))


def pointer(rnd, value, image):
    """Another place: in the file, behind it, at the format's ends, or not aligned."""
    clusters = len(image.data) // image.cluster + 2
    return rnd.choice((0, rnd.randrange(clusters) * image.cluster, rnd.randrange(clusters) * image.cluster,
                       value + rnd.choice((1, 8, 512, image.cluster, -image.cluster)), 1 << 30, (1 << 56) - image.cluster,
                       (1 << 63) - image.cluster, (1 << 64) - image.cluster, 1 << rnd.randrange(64),
                       value ^ 1 << rnd.randrange(64)))


def entry(rnd, value, image):
    flags = rnd.choice((value & ~layout.OFF_MASK, 0, 1, 1 << 63, 1 << 63 | 1, 1 << 62, rnd.getrandbits(64) & ~layout.OFF_MASK))
    return rnd.choice((pointer(rnd, value, image) & layout.OFF_MASK | flags, value ^ 1 << rnd.randrange(64),
                       pointer(rnd, value, image), 0, rnd.getrandbits(64)))


def compressed(rnd, value, image):
    """Mostly its size and place, in small steps."""
    shift = 62 - (image.cluster.bit_length() - 1 - 8)
    return rnd.choice((value + (rnd.randrange(-3, 4) << shift), value + rnd.randrange(-64, 65),
                       value | ((1 << 62) - (1 << shift)), value & ~((1 << 62) - (1 << shift)),
                       value ^ 1 << rnd.randrange(64), entry(rnd, value, image)))


def broken(rnd, field, image):
    value = image.num(field.off, field.size)
    if field.kind == "bytes":
        return value ^ rnd.randrange(1, 256) << 8 * rnd.randrange(field.size)
    if field.kind == "bits":
        return value ^ 1 << rnd.randrange(8 * field.size)
    if field.kind in ("count", "length"):
        return near(rnd, value, field.size)
    return {"pointer": pointer, "entry": entry, "compressed": compressed}[field.kind](rnd, value, image)


def victim(rnd, folder):
    """A qcow2 file of the case: mostly the top one."""
    names = [n for n in sorted(os.listdir(folder)) if open(os.path.join(folder, n), "rb").read(4) == b"QFI\xfb"]
    return os.path.join(folder, "top" if rnd.random() < 0.7 else rnd.choice(names))


def mutate(seed, source, folder):
    """Makes the case in @folder; returns what was done."""
    rnd = random.Random(seed)
    name = rnd.choice(sorted(os.listdir(source)))
    images.copy(os.path.join(source, name), folder)
    done = [name]
    for _ in range(rnd.choice((1, 1, 1, 2, 3))):
        path = victim(rnd, folder)
        with open(path, "r+b") as f:
            if rnd.random() < 0.03:
                size = rnd.randrange(os.path.getsize(path) + 1)
                f.truncate(size)
                done.append(f"{os.path.basename(path)}: cut to {size}")
                break
            image = layout.Image(f.read())
            fields = [x for x in image.fields() if x.off + x.size <= len(image.data)]
            field = rnd.choices(fields, [WEIGHT.get(x.name, 1) for x in fields])[0]
            value = broken(rnd, field, image) & ((1 << 8 * field.size) - 1)
            f.seek(field.off)
            f.write(value.to_bytes(field.size, "big"))
        done.append(f"{os.path.basename(path)}: {field.name} at {field.off:#x} = {value:#x}"[:200])
        if field.kind not in ("entry", "compressed", "bytes"):
            break  # the other fields could not be found any more
    return done


def one_case(seed, source, work, library):
    folder = os.path.join(work, "case")
    done = mutate(seed, source, folder)
    top = os.path.join(folder, "top")
    ours = library.judge(top, os.path.join(work, "ours"))
    with open(top, "rb") as f:
        size = int.from_bytes(f.read(32)[24:], "big")
    try:
        theirs = judge.qemu(top, os.path.join(work, "theirs"), size)
    except subprocess.TimeoutExpired:
        return done, ours, None, None if ours.state in ("read", "refused") else rules.differ(ours, judge.Verdict("read"))
    what = rules.differ(ours, theirs)
    if not what and done[0] in images.WITH_SNAPSHOT:
        what = snapshot_differs(top, work, library)
    return done, ours, theirs, what


def snapshot_differs(top, work, library):
    ours = library.judge(top, os.path.join(work, "ours"), ["snapshot:1"])
    what = rules.differ_in_snapshot(ours, top, os.path.join(work, "theirs"))
    return what and f"snapshot 1: {what}"


class Worker:
    """One process of the pool."""
    work = library = source = None

    @classmethod
    def start(cls, source, program):
        cls.source = source
        cls.work = tempfile.mkdtemp(dir=os.path.dirname(source))
        cls.library = judge.Library(program)

    @classmethod
    def case(cls, seed):
        done, ours, theirs, what = one_case(seed, cls.source, cls.work, cls.library)
        return seed, done, ours.state, theirs.state if theirs else "time-out", what


def make_all(folder):
    for name in images.IMAGES:
        images.make(name, os.path.join(folder, name))


def run(args, base):
    source = os.path.join(base, "images")
    make_all(source)
    seeds = range(args.seed, args.seed + args.cases)
    counts, failures = {}, []
    with multiprocessing.Pool(args.jobs, Worker.start, (source, args.reader)) as pool:
        for seed, done, ours, theirs, what in pool.imap_unordered(Worker.case, seeds, chunksize=8):
            counts[ours, theirs] = counts.get((ours, theirs), 0) + 1
            if not sum(counts.values()) % 1000:
                print(f"# {sum(counts.values())} cases done", flush=True)
            if what:
                failures.append(seed)
                print(f"FAIL generate seed {seed} ({'; '.join(done)}): {what}", flush=True)
    for (ours, theirs), nr in sorted(counts.items()):
        print(f"# {nr} cases: library {ours}, QEMU {theirs}")
    return check_counts(args, counts, failures)


def check_counts(args, counts, failures):
    """A generator that breaks nothing, or everything, tests nothing."""
    both = counts.get(("read", "read"), 0)
    refused = counts.get(("refused", "refused"), 0)
    if args.cases >= 200 and (both < args.cases // 5 or refused < args.cases // 10):
        print(f"FAIL generate: only {both} cases read and {refused} refused by both")
        failures.append("counts")
    if not failures:
        print(f"ok generate ({args.cases} cases from seed {args.seed})")
    return len(failures)


def show(args, base):
    source = os.path.join(base, "images")
    make_all(source)
    done, ours, theirs, what = one_case(args.show, source, base, judge.Library(args.reader))
    print("\n".join(done))
    print(f"library: {ours.state} {ours.size} {ours.text}, {len(ours.bad)} sectors bad")
    print(f"QEMU: {theirs.state} {theirs.size} {theirs.text}, {len(theirs.bad)} sectors bad" if theirs else "QEMU: time-out")
    print(what or "the same")
    if args.folder:
        images.copy(os.path.join(base, "case"), args.folder)
    return 1 if what else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--reader", default=judge.READER_SAN)
    parser.add_argument("--show", type=int)
    parser.add_argument("folder", nargs="?")
    args = parser.parse_args()
    base = tempfile.mkdtemp(prefix="hostile.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    try:
        sys.exit(1 if (show if args.show is not None else run)(args, base) else 0)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
