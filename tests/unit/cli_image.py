#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""qcow info, map and table against qemu-img, on every image of tests/images/make.py.

    cli_image.py [QCOW]        the binary to test; build/qcow if not given

Run from the top folder.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

QCOW = sys.argv[1] if len(sys.argv) > 1 else "build/qcow"
MAKE = "tests/images/make.py"

failures = 0


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True)


def check(ok, what, detail=""):
    global failures
    if not ok:
        failures += 1
        print(f"FAILED: {what}\n{detail[:2000]}")


def same_json(what, ours, theirs):
    if ours.returncode:
        check(False, what, ours.stderr)
        return
    a, b = json.loads(ours.stdout), json.loads(theirs.stdout)
    check(a == b, what, f"ours   {a}\ntheirs {b}")


def without_holes(pieces):
    """qemu-img also looks for holes inside clusters of images it takes for preallocated."""
    out = []
    for p in pieces:
        last = out[-1] if out else None
        if p["data"]:
            p["zero"] = False
        if (last and p["data"] and "offset" in p and last["depth"] == p["depth"]
                and last["data"] and last.get("offset", 0) + last["length"] == p["offset"]):
            last["length"] += p["length"]
        else:
            out.append(p)
    return out


def check_map(case, top, plain_top=None, *words):
    """@plain_top: what QEMU shows instead, if its map has no such @words."""
    plain_top = plain_top or top
    ours = run(QCOW, "map", "--json", top, *words)
    theirs = run("qemu-img", "map", "-f", "qcow2", "--output=json", plain_top)
    if ours.returncode:
        check(False, f"map --json {case}", ours.stderr)
        return
    a, b = json.loads(ours.stdout), json.loads(theirs.stdout)
    b = [p for p in b if p["length"]]  # of an empty disk it lists a piece of no bytes
    for piece in a:
        del piece["compressed"]
    plain = without_holes([dict(p) for p in b])
    check(a == plain, f"map --json {case}", f"ours   {a}\ntheirs {plain}")
    ours, theirs = run(QCOW, "map", top, *words), run("qemu-img", "map", "-f", "qcow2", plain_top)
    check(ours.returncode == theirs.returncode, f"map {case}: exit status", ours.stderr)
    if not theirs.returncode and plain == b:
        check(ours.stdout == theirs.stdout.replace(plain_top, top), f"map {case}", ours.stdout)


def check_snapshot_map(case, top):
    """QEMU shows the map of a snapshot once the disk is the snapshot."""
    back = top + ".back"
    shutil.copy(top, back)
    done = run("qemu-img", "snapshot", "-a", "1", back)
    check(done.returncode == 0, f"snapshot -a {case}", done.stderr)
    now, then = (run("qemu-img", "map", "-f", "qcow2", "--output=json", i).stdout for i in (top, back))
    check(now != then, f"the snapshot of {case} is like the disk")
    check_map(f"{case} --snapshot 1", top, back, "--snapshot", "1")
    os.unlink(back)


def check_image(case, top):
    same_json(f"info --json {case}", run(QCOW, "info", "--json", top),
              run("qemu-img", "info", "-f", "qcow2", "--output=json", top))
    same_json(f"info --backing-chain {case}", run(QCOW, "info", "--json", "--backing-chain", top),
              run("qemu-img", "info", "-f", "qcow2", "--backing-chain", "--output=json", top))
    ours, theirs = run(QCOW, "info", top), run("qemu-img", "info", "-f", "qcow2", top)
    check(ours.stdout == theirs.stdout, f"info {case}", ours.stdout + theirs.stdout)
    check_map(case, top)
    if case == "no-disk":
        return
    if case == "snapshots":
        check_snapshot_map(case, top)
    size = json.loads(run("qemu-img", "info", "-f", "qcow2", "--output=json", top).stdout)
    table = run(QCOW, "table", top)
    check(table.stdout == f"0 {size['virtual-size'] // 512} qcow {top}\n", f"table {case}",
          table.stdout + table.stderr)


def expect_error(pattern, *argv):
    """One line on stderr, status 1, nothing said on stdout but what was found before."""
    p = run(QCOW, *argv)
    ok = (p.returncode == 1 and re.search(pattern, p.stderr) and p.stderr.count("\n") == 1
          and p.stderr.startswith("qcow: "))
    check(ok, f"error of qcow {' '.join(argv)}: {pattern}", f"{p.returncode}: {p.stderr}")


def check_errors(folder):
    top = os.path.join(folder, "top.qcow2")
    base = os.path.join(folder, "far", "base.raw")
    os.mkdir(os.path.dirname(base))
    run("qemu-img", "create", "-f", "raw", base, "1M")
    run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "raw", top)
    expect_error("No such file", "info", folder + "/nothing")
    expect_error("no qcow2 magic", "info", base)
    expect_error("--backing-dir .*/far", "map", top)
    expect_error("--backing-dir .*/far", "table", top)
    expect_error("unrecognized option", "map", top, "--bakcing-dir", folder)
    expect_error("raw and qcow2", "map", top, "--backing-format", "vmdk")
    expect_error("unknown command", "frob")
    expect_error("no snapshot", "map", top, "--backing-dir", folder, "--snapshot", "x")
    # It has the image when this returns. Whoever asks while it takes its locks makes it fail.
    pidfile = folder + "/pid"
    run("qemu-nbd", "--fork", "--pid-file", pidfile, "-k", folder + "/socket", "-f", "qcow2", top)
    with open(pidfile, encoding="ascii") as f:
        pid = int(f.read())
    try:
        expect_error(r"in use by a writer: qemu-nbd \(pid", "info", top)
        check(run(QCOW, "info", "-U", top).returncode == 0, "info -U beside a writer")
    finally:
        os.kill(pid, signal.SIGKILL)


def check_words(folder):
    """What the table line names is absolute; what it cannot carry is refused."""
    run("qemu-img", "create", "-f", "qcow2", os.path.join(folder, "plain.qcow2"), "1M")
    p = subprocess.run([os.path.abspath(QCOW), "table", "plain.qcow2", "--backing-dir", ".",
                        "--sector-size", "4096"], cwd=folder, capture_output=True, text=True)
    check(p.stdout == f"0 2048 qcow {folder}/plain.qcow2 2 backing_dir:{folder}/. "
          "sector_size:4096\n", "table line", p.stdout + p.stderr)
    os.rename(os.path.join(folder, "plain.qcow2"), os.path.join(folder, "a b.qcow2"))
    expect_error("use a symlink", "table", os.path.join(folder, "a b.qcow2"))


def main():
    root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=root) as folder:
        for case in run(MAKE, "--list").stdout.split():
            top = run(MAKE, case, folder).stdout.strip()
            check_image(case, top)
        check_errors(folder)
        check_words(folder)
    print("cli_image: " + (f"{failures} failed" if failures else "all passed"))
    sys.exit(failures != 0)


main()
