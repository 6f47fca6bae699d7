#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Kills qcowd again and again, at random moments.

    killer.py DEVICE KILLS SEED [STOPS]

Each kill that counts met a worker, a supervisor or both, and DEVICE got a new
worker before the next. Others, not counted, hit helpers that are about to start.
STOPS times, between kills, helpers are not killed but stopped, for LONGEST_STOP at
most. Prints "kills N others N stops N attaches N": attaches seen in DEVICE's status
meanwhile.
No process is started for all this: on a slow machine that would take longer than
the killing.
"""
import fcntl
import os
import random
import signal
import struct
import sys
import time

DM_HEADER = struct.Struct("=3I3IiIIIQ128s129s7x")
DM_TABLE_STATUS = 3 << 30 | DM_HEADER.size << 16 | 0xfd << 8 | 12
DM_NOFLUSH_FLAG = 1 << 11
TARGET_SPEC = struct.Struct("=QQiI16s")
PATIENCE = 120
LONGEST_STOP = 2


def attaches(control, device):
    """From the status line: "... attaches N ..."."""
    size = DM_HEADER.size + 4096
    buf = bytearray(DM_HEADER.pack(4, 0, 0, size, DM_HEADER.size, 0, 0, DM_NOFLUSH_FLAG, 0, 0, 0,
                                   device.encode(), b"") + bytes(4096))
    fcntl.ioctl(control, DM_TABLE_STATUS, buf)
    start = DM_HEADER.unpack_from(buf)[4] + TARGET_SPEC.size
    words = bytes(buf[start:]).split(b"\0")[0].split()
    return int(words[words.index(b"attaches") + 1])


def helpers():
    """Process numbers of workers and of supervisors; zombies have no command line."""
    workers, supervisors = [], []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                argv = f.read().split(b"\0")
        except OSError:
            continue
        if os.path.basename(argv[0]) == b"qcowd":
            (workers if b"--worker" in argv else supervisors).append(int(pid))
    return workers, supervisors


def some():
    workers, supervisors = helpers()
    return random.choice((workers, supervisors, workers + supervisors))


def send(number, pids):
    """True if somebody was there to get it."""
    hit = False
    for pid in pids:
        try:
            os.kill(pid, number)
            hit = True
        except ProcessLookupError:
            pass
    return hit


def kill_some():
    return send(signal.SIGKILL, some())


def stop_some():
    """True if somebody was there, and still when it was to go on."""
    pids = some()
    hit = send(signal.SIGSTOP, pids)
    time.sleep(random.random() * LONGEST_STOP)
    return send(signal.SIGCONT, pids) and hit


def wait_for_attach(control, device, before):
    end = time.monotonic() + PATIENCE
    while attaches(control, device) <= before:
        if time.monotonic() > end:
            sys.exit(f"killer: no worker has attached for {PATIENCE} s")
        time.sleep(0.02)


def main():
    device, wanted, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    wanted_stops = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    random.seed(seed)
    control = os.open("/dev/mapper/control", os.O_RDWR)
    first = attaches(control, device)
    kills = others = stops = 0
    while kills < wanted or stops < wanted_stops:
        if kills * wanted_stops > stops * wanted:
            stops += stop_some()
            continue
        before = attaches(control, device)
        if not kill_some():
            continue
        kills += 1
        if random.random() < 0.25:
            time.sleep(random.random() * 0.3)
            others += kill_some()
        wait_for_attach(control, device, before)
        time.sleep(random.random() * 0.4)
    print(f"kills {kills} others {others} stops {stops} attaches {attaches(control, device) - first}")


main()
