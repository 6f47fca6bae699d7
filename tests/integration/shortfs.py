# SPDX-License-Identifier: GPL-2.0-only
"""A file system that does half of what it is asked for: one file, "image", over another.

    shortfs.py FILE COUNTS </dev/fuse

Of a read or write of more than one sector it does the first half, in whole sectors, and says so, as write(2) may.
When it is unmounted it writes to COUNTS how many of those the kernel's own threads saw, and how many programs did:
"kernel-reads kernel-writes program-reads program-writes".
"""
import errno
import os
import struct
import sys
import time

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, OPENDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 20, 25, 26, 27, 29, 36, 38, 42
ROOT, IMAGE = 1, 2
FATTR_SIZE = 1 << 3
FOPEN_DIRECT_IO = 1
BIG_WRITES, MAX_PAGES = 1 << 5, 1 << 22

backing = os.open(sys.argv[1], os.O_RDWR)
counts = {(who, what): 0 for who in ("kernel", "program") for what in (READ, WRITE)}


def attr(node):
    size = os.fstat(backing).st_size if node == IMAGE else 0
    mode = 0o100600 if node == IMAGE else 0o40700
    return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def half(op, pid, size):
    if size <= 512:
        return size
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        counts["program" if f.read() else "kernel", op] += 1
    return max(512, size // 2 // 512 * 512)


def answer(op, node, pid, body):
    if op == INIT:
        return struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, BIG_WRITES | MAX_PAGES, 0, 0, 1 << 20, 1, 256, 0, 0, *[0] * 7)
    if op == LOOKUP:
        if body != b"image\0":
            return -errno.ENOENT
        return struct.pack("<QQQQII", IMAGE, 0, 0, 0, 0, 0) + attr(IMAGE)
    if op == SETATTR and struct.unpack_from("<I", body)[0] & FATTR_SIZE:
        os.ftruncate(backing, struct.unpack_from("<Q", body, 16)[0])
    if op in (GETATTR, SETATTR):
        return struct.pack("<QII", 0, 0, 0) + attr(node)
    if op in (OPEN, OPENDIR):
        return struct.pack("<QIi", 0, FOPEN_DIRECT_IO if op == OPEN else 0, 0)
    if op == READ:
        offset, size = struct.unpack_from("<QI", body, 8)
        return os.pread(backing, half(op, pid, size), offset)
    if op == WRITE:
        offset, size = struct.unpack_from("<QI", body, 8)
        return struct.pack("<II", os.pwrite(backing, body[40:40 + half(op, pid, size)], offset), 0)
    if op == STATFS:
        return struct.pack("<5Q10I", 1 << 20, 1 << 20, 1 << 20, 2, 0, 4096, 255, 4096, *[0] * 7)
    if op == FSYNC:
        os.fdatasync(backing)
    return b"" if op in (FSYNC, FLUSH, RELEASE, RELEASEDIR, DESTROY) else -errno.ENOSYS


def serve():
    while True:
        try:
            request = os.read(0, (1 << 20) + 8192)
        except PermissionError:  # not mounted yet
            time.sleep(0.05)
            continue
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                continue
            return  # unmounted
        op, unique, node, pid = struct.unpack_from("<4xIQQ8xI", request)
        if op in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        got = answer(op, node, pid, request[40:])
        data, error = (got, 0) if isinstance(got, bytes) else (b"", got)
        os.write(0, struct.pack("<IiQ", 16 + len(data), error, unique) + data)


serve()
with open(sys.argv[2], "w", encoding="ascii") as out:
    print(*counts.values(), file=out)
