# SPDX-License-Identifier: GPL-2.0-only
"""Running `qcow`, held to limits, and seeing what it opens."""
import os
import re
import resource
import subprocess

import judge

TIME = 2  # seconds
MEMORY = 256 << 20
QCOW = os.path.join(judge.BUILD, "qcow")
QCOW_SAN = os.path.join(judge.BUILD, "tests/hostile/qcow-san")
# What the C library and its friends open to start a program, and what our policy reads.
SYSTEM = re.compile(r"^(/etc/ld\.so\.|/lib|/usr/lib|/etc/qcow\.conf$|/proc/|/sys/|/dev/(null|pts|tty|urandom)"
                    r"|/etc/localtime$|/usr/share/zoneinfo/)")


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (TIME, TIME))


def call(argv, cwd, text=None, limits=True):
    """The finished process; a time-out ends it with status None. On a busy machine the CPU time counts."""
    try:
        return subprocess.run(argv, input=text, capture_output=True, text=True, errors="replace", cwd=cwd,
                              timeout=30, preexec_fn=limited if limits else None)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, None, "", "time-out")


def opened(trace):
    """What a strace -y log shows was opened, symbolic links resolved. O_PATH looks at a name, not into a file."""
    for line in open(trace, errors="replace"):
        match = re.search(r"\bopen(?:at2?)?\(.* = \d+<(.*?)>", line)
        if match and "O_PATH" not in line:
            yield match[1]


def strace(argv, work):
    trace = os.path.join(work, "trace")
    call(["strace", "-f", "-y", "-e", "trace=open,openat,openat2", "-o", trace, *argv], work, limits=False)
    return set(opened(trace))
