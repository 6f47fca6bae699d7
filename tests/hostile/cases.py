# SPDX-License-Identifier: GPL-2.0-only
"""One poke, made, and everything that must hold of it: for check-pokes, and for check-cves under the CVE's name."""
import json
import os
import subprocess

import images
import judge
import pokes
import rules
import tools


# What loads more than reading the disk does: refcounts, and the snapshots' own tables. Each gets a copy of its own.
EDITS = (("check", "-r", "all"), ("snapshot", "-c", "new"))
SNAPSHOT_EDITS = (("snapshot", "-a", "1"), ("snapshot", "-d", "1"))


# Here the disk shows what the verb must change or may give back.
SHOWS_TABLES = {("060-l1-names-l1", "-r"), ("060-data-is-inactive-l2", "-d"), ("data-is-snapshot-table", "-d")}


def complain_process(what, done, good=(0,), bad=(1,)):
    """Nothing but a clean answer: success, or status 1 and one printable line."""
    if done.returncode not in good + bad:
        return f"{what}: status {done.returncode}: {done.stderr[:2000]}"
    lines = done.stderr.splitlines()
    if done.returncode in good:
        return f"{what}: succeeds, but says: {done.stderr}" if lines else None
    if len(lines) != 1 or not lines[0].startswith("qcow: ") or not lines[0].isprintable():
        return f"{what}: not one clear line: {done.stderr!r}"
    return None


def complain_changed(before, after):
    """What could be read reads the same as before."""
    if after.state != "read":
        return f"cannot be read any more: {after.text}"
    if before.size != after.size:
        return f"has another size: {before.size}, {after.size}"
    lost = sorted(after.bad - before.bad)
    if lost:
        return f"cannot be read any more from {lost[0] * judge.SECTOR:#x} on"
    for i in range(len(before.data) // judge.SECTOR):
        at = slice(i * judge.SECTOR, (i + 1) * judge.SECTOR)
        if i not in before.bad and before.data[at] != after.data[at]:
            return f"shows other bytes at {i * judge.SECTOR:#x}"
    return None


def complain_extent(extent, top, verdict):
    """Zeros, or what lies there in the image; of compressed data the map does not say where it is."""
    at, end = extent["start"], extent["start"] + extent["length"]
    shown = b""
    if not extent["zero"]:
        if "offset" not in extent:
            return None
        with open(top, "rb") as f:
            f.seek(extent["offset"])
            shown = f.read(min(end - at, judge.LIMIT))
    for i in range(at // judge.SECTOR, min(end, len(verdict.data)) // judge.SECTOR):
        want = verdict.data[i * judge.SECTOR:(i + 1) * judge.SECTOR]
        if i not in verdict.bad and shown[i * judge.SECTOR - at:][:judge.SECTOR].ljust(judge.SECTOR, b"\0") != want:
            return f"other bytes at {i * judge.SECTOR:#x}"
    return None


def complain_map(extents, top, verdict):
    end = 0
    for extent in extents:
        if extent["start"] != end or extent["length"] <= 0:
            return f"not {extent['start']:#x} follows {end:#x}"
        end += extent["length"]
    if end != verdict.size:
        return f"ends at {end:#x}"
    return next(filter(None, (complain_extent(e, top, verdict) for e in extents)), None)


class Case:
    def __init__(self, poke, source, work):
        self.poke, self.work = poke, work
        self.folder = os.path.join(work, "case")
        self.top = os.path.join(self.folder, "top")
        images.copy(os.path.join(source, poke.image), self.folder)
        with open(self.top, "r+b") as f:
            poke.edit(pokes.Editor(f))
        self.said = {}
        self.snapshot = None
        self.has_snapshot = poke.image in images.WITH_SNAPSHOT

    def complain_tool(self, verb, *args):
        argv = [verb, *args, self.top]
        plain = tools.call([tools.QCOW, *argv], self.work)
        self.said[verb] = plain
        what = complain_process(f"qcow {verb}", plain)
        if what:
            return what
        san = tools.call([tools.QCOW_SAN, *argv], self.work, limits=False)
        if san.returncode != plain.returncode or "Sanitizer" in san.stderr or "runtime error" in san.stderr:
            return f"qcow {verb} with sanitizers: status {san.returncode}: {san.stderr[:3000]}"
        return self.complain_opened(verb, argv)

    def complain_opened(self, verb, argv):
        """Only the image's own folder; for info only the image."""
        allowed = {self.top} if verb == "info" else {os.path.join(self.folder, n) for n in os.listdir(self.folder)}
        allowed |= {self.folder}
        seen = tools.strace([tools.QCOW, *argv], self.work)
        odd = {p for p in seen if p not in allowed and not tools.SYSTEM.match(p)}
        if odd:
            return f"qcow {verb} opens {', '.join(sorted(odd))}"
        return None if self.top in seen else f"qcow {verb}: tools.strace saw nothing"

    def complain_read(self, library):
        request = f"{self.top}\t-\t{judge.LIMIT}\n"
        plain = tools.call([judge.READER], self.work, request)
        if plain.returncode or plain.stdout.count("\n") != 1:
            return f"reader: status {plain.returncode}, {plain.stdout!r} {plain.stderr[:2000]}"
        self.ours = library.judge(self.top, os.path.join(self.work, "ours"))
        if self.ours.state in ("died", "wrong"):
            return f"reader with sanitizers {self.ours.state}: {self.ours.text}"
        return None

    def complain_want(self):
        want, info, ours = self.poke.want, self.said["info"].returncode, self.ours
        if want == "refused" and (info == 0 or ours.state != "refused"):
            return f"should be refused, but info gives {info}, read gives {ours.state}"
        if want == "refused-read" and (info != 0 or ours.state != "refused"):
            return f"info should show it, a read refuse it; but info gives {info}, read gives {ours.state}"
        if want == "info" and (info != 0 or ours.state != "read"):
            return f"should be shown and read, but info says {self.said['info'].stderr!r}, read {ours.text!r}"
        if ours.state != "read":
            return "map shows what read refuses" if self.said["map"].returncode == 0 else None
        if info != 0 or (self.said["map"].returncode != 0 and not ours.bad):
            return f"can be read, but info says {self.said['info'].stderr!r}, map {self.said['map'].stderr!r}"
        return None

    def complain_qemu(self):
        size = int.from_bytes(open(self.top, "rb").read(32)[24:], "big")
        try:
            theirs = judge.qemu(self.top, os.path.join(self.work, "theirs"), size)
        except subprocess.TimeoutExpired:
            return None  # QEMU's own trouble: a loop of backing files
        if self.poke.want == "refused-read" and theirs.state == "read":
            return None  # it follows names that we do not
        return rules.differ(self.ours, theirs)

    def complain_snapshot(self, library):
        """The first one, read as a disk, beside QEMU."""
        words = "snapshot:1"
        plain = tools.call([judge.READER], self.work, f"{self.top}\t-\t{judge.LIMIT}\t{words}\n")
        if plain.returncode or plain.stdout.count("\n") != 1:
            return f"reader of a snapshot: status {plain.returncode}, {plain.stdout!r} {plain.stderr[:2000]}"
        self.snapshot = library.judge(self.top, os.path.join(self.work, "ours"), [words])
        what = rules.differ_in_snapshot(self.snapshot, self.top, os.path.join(self.work, "theirs"))
        return what and f"snapshot 1: {what}" or self.complain_snapshot_map()

    def complain_snapshot_map(self):
        what = self.complain_tool("map", "--json", "--snapshot", "1")
        done = self.said["map"]
        if what or done.returncode:
            return what
        if self.snapshot.state != "read":
            return "map shows a snapshot that read refuses"
        what = complain_map(json.loads(done.stdout), self.top, self.snapshot)
        return what and f"map of snapshot 1: {what}"

    def complain_edit(self, argv, library):
        folder = os.path.join(self.work, "edited")
        top = os.path.join(folder, "top")
        statuses = ((0, 2, 3), (1, 63)) if argv[0] == "check" else ((0,), (1,))
        for program, limits in ((tools.QCOW, True), (tools.QCOW_SAN, False)):
            images.copy(self.folder, folder)
            done = tools.call([program, *argv, top], self.work, limits=limits)
            what = complain_process(" ".join(["qcow", *argv]), done, *statuses)
            if what:
                return what
        if done.returncode or self.ours.state != "read" or (self.poke.name, argv[1]) in SHOWS_TABLES:
            return None
        want = self.snapshot if "-a" in argv else self.ours
        what = complain_changed(want, library.judge(top, os.path.join(self.work, "ours")))
        return what and f"after qcow {' '.join(argv)} the disk {what}"

    def complain_edits(self, library):
        """All verbs that load more than a read does: snapshots, refcounts."""
        what = self.complain_snapshot(library) if self.has_snapshot else None
        edits = EDITS + (SNAPSHOT_EDITS if self.has_snapshot else ())
        return what or next(filter(None, (self.complain_edit(e, library) for e in edits)), None)

    def complain(self, library):
        return self.complain_tool("info") or self.complain_tool("map", "--json") or self.complain_read(library) or \
            self.complain_want() or self.complain_qemu() or self.complain_edits(library)
