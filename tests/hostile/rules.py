# SPDX-License-Identifier: GPL-2.0-only
"""Comparing two verdicts, and where they differ on purpose. docs/compatibility.md gives the reasons."""
import re
import subprocess

import judge

# What the library says when it refuses what QEMU reads.
STRICTER = (
    r"appears twice",  # the specification: at most once; which one is meant is a guess
    r"the format of backing file .* is not recorded",  # QEMU probes
    r"backing file .* has format .* which is not supported",
    r"lies in .* which is not allowed|is not allowed",  # the trust policy
    r"plain path",  # json: and protocol names
    r"L1 table of snapshot .* entries, a disk of",  # shorter than the disk it had: we ask what a header must have
)

# What QEMU says when it refuses what the library reads.
QEMU_STRICTER = (
    r"Could not read bitmap",  # we show bitmaps, and do not read their bits
    r"Bitmap '.*' doesn't satisfy the constraints",  # its table's size or flags
)


def we_are_stricter(text):
    return any(re.search(rule, text) for rule in STRICTER)


def qemu_is_stricter(text):
    return any(re.search(rule, text) for rule in QEMU_STRICTER)


def differ(ours, theirs):
    """None, or what is wrong."""
    if ours.state in ("died", "wrong"):
        return f"the library {ours.state}: {ours.text}"
    if theirs.state == "failed":
        return f"QEMU failed in an unforeseen way: {theirs.text}"
    if theirs.state == "refused":
        return None if ours.state == "refused" or qemu_is_stricter(theirs.text) else \
            f"QEMU refuses ({theirs.text}), the library reads"
    if ours.state == "refused":
        return None if we_are_stricter(ours.text) else f"the library refuses ({ours.text}), QEMU reads"
    if min(ours.size, judge.LIMIT) != min(theirs.size, judge.LIMIT):
        return f"sizes differ: {ours.size}, QEMU {theirs.size}"
    return differ_in_data(ours, theirs)


def differ_in_data(ours, theirs):
    bad = ours.bad | theirs.bad
    if theirs.broken_off:
        # The first damage that QEMU meets takes the whole image away from it.
        if theirs.bad and not ours.bad:
            return "QEMU finds damage, the library none"
    elif ours.bad != theirs.bad:
        only = sorted(ours.bad ^ theirs.bad)
        return f"EIO differs in {len(only)} sectors, first {only[0] * judge.SECTOR:#x}" \
            f" ({'ours' if only[0] in ours.bad else 'theirs'})"
    if ours.data == theirs.data:
        return None
    for i in range(len(ours.data) // judge.SECTOR):
        at = slice(i * judge.SECTOR, (i + 1) * judge.SECTOR)
        if i not in bad and ours.data[at] != theirs.data[at]:
            return f"bytes differ in the sector at {i * judge.SECTOR:#x}"
    return None


def cut(verdict, size):
    return verdict._replace(size=size, data=verdict.data[:size],
                            bad=frozenset(i for i in verdict.bad if (i + 1) * judge.SECTOR <= size))


def differ_in_snapshot(ours, image, out):
    """@ours is the snapshot "1" of @image. QEMU shows it in the size that the disk has now."""
    if ours.state == "read" and ours.size > judge.LIMIT:
        return None
    try:
        theirs = judge.qemu(image, out, 0, ("-l", "1"))
    except subprocess.TimeoutExpired:
        theirs = judge.Verdict("read")
    if ours.state == theirs.state == "read":
        size = min(ours.size, theirs.size, judge.LIMIT)
        ours, theirs = cut(ours, size), cut(theirs, size)
    return differ(ours, theirs)
