# SPDX-License-Identifier: GPL-2.0-only
"""Running `qcow`, held to limits, and seeing what it opens. As a program: what TRACE shows was opened."""
import os
import re
import resource
import subprocess
import sys
import time

import judge

TIME = 2  # seconds
MEMORY = 256 << 20
QCOW = os.path.join(judge.BUILD, "qcow")
QCOW_SAN = os.path.join(judge.BUILD, "tests/hostile/qcow-san")
# What the C library and its friends open to start a program, and what our policy reads.
SYSTEM = re.compile(r"^(/etc/ld\.so\.|/lib|/usr/lib|/etc/qcow\.conf$|/proc/|/sys/|/dev/(null|pts|tty|urandom)"
                    r"|/etc/localtime$|/usr/share/zoneinfo/)")


def limited(seconds):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def run(argv, cwd, text, limits, seconds):
    try:
        return subprocess.run(argv, input=text, capture_output=True, text=True, errors="replace", cwd=cwd,
                              timeout=30, preexec_fn=(lambda: limited(seconds)) if limits else None)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, None, "", "time-out")


def work_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def call(argv, cwd, text=None, limits=True, seconds=TIME):
    """The finished process; a time-out ends it with status None.

    On a busy machine the CPU time counts; but who takes long twice without working waits for something.
    """
    first = None
    for _ in range(2):
        begun, worked = time.monotonic(), work_of_children()
        done = run(argv, cwd, text, limits, seconds)
        took, worked = time.monotonic() - begun, work_of_children() - worked
        first = first or done
        if not limits or took <= seconds or worked >= seconds / 4:
            return first
    return subprocess.CompletedProcess(argv, None, "", f"takes {took:.1f} s, and works {worked:.1f} s of them")


def opened(trace):
    """What a strace -f -y log shows was opened, symbolic links resolved. O_PATH looks at a name, not into a file."""
    begun = {}
    for line in open(trace, errors="replace"):
        pid, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            begun[pid] = text
            continue
        if text.startswith("<... "):
            text = begun.pop(pid, "open(") + text
        match = re.search(r"\bopen(?:at2?)?\(.* = \d+<(.*?)>", text)
        if match and "O_PATH" not in text:
            yield match[1]


def strace(argv, work):
    trace = os.path.join(work, "trace")
    call(["strace", "-f", "-y", "-e", "trace=open,openat,openat2", "-o", trace, *argv], work, limits=False)
    return set(opened(trace))


if __name__ == "__main__":
    print(*sorted(set(opened(sys.argv[1]))), sep="\n")
