#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What a header has that nobody knows, and what must become of it when it is rewritten.

    header.py mark IMAGE         gives a fresh image: a field behind the known ones, an extension, a
                                 compatible and an autoclear feature bit of the future; one of version 2
                                 the extension only
    header.py mark-first IMAGE   the same, with the extension before all others, where no QEMU puts it
    header.py mark-long IMAGE    similar, with an extension larger than a sector
    header.py show IMAGE         prints what is left of them, and the order of all extensions but for
                                 the feature names, which qcow does not rewrite
"""
import struct
import sys

FIELD, EXTENSION = b"a future", (0x12345678, b"nobody knows this one.")
FEATURE_NAMES = 0x6803f857
BIT = 1 << 63


def header_length(header):
    return 72 if header[7] < 3 else struct.unpack_from(">I", header, 100)[0]


def extensions(header, off):
    """The known ones are what they are."""
    while True:
        kind, length = struct.unpack_from(">II", header, off)
        if not kind:
            return
        yield kind, header[off + 8:off + 8 + length]
        off += 8 + (length + 7) // 8 * 8


def put_extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def mark_long(f):
    """Without autoclear bits: they go with the first attempt to write, whatever comes of it."""
    mark(f, (EXTENSION[0], EXTENSION[1] * 30), (80,))


def mark_first(f):
    mark(f, first=True)


def mark(f, extension=EXTENSION, bits=(80, 88), first=False):
    header = bytearray(f.read(4096))
    length = header_length(header)
    known = list(extensions(header, length))
    all_of_them = [extension, *known] if first else [*known, extension]
    name_off, name_len = struct.unpack_from(">QI", header, 8)
    name = header[name_off:name_off + name_len] if name_off else b""
    field = b""
    if header[7] >= 3:
        field = FIELD
        for off in bits:
            struct.pack_into(">Q", header, off, struct.unpack_from(">Q", header, off)[0] | BIT)
        struct.pack_into(">I", header, 100, length + len(field))
    new = bytes(header[:length]) + field + b"".join(put_extension(*e) for e in all_of_them) + bytes(8)
    if name:
        new = new[:8] + struct.pack(">Q", len(new)) + new[16:] + name
    f.seek(0)
    f.write(new.ljust(4096, b"\0"))


def show(f):
    header = f.read(65536)
    length = header_length(header)
    print("field:", header[112:length])
    print("extension:", [data for kind, data in extensions(header, length) if kind == EXTENSION[0]])
    print("order:", *[hex(kind) for kind, _ in extensions(header, length) if kind != FEATURE_NAMES])
    if header[7] >= 3:
        print("compatible:", bool(struct.unpack_from(">Q", header, 80)[0] & BIT))
        print("autoclear:", bool(struct.unpack_from(">Q", header, 88)[0] & BIT))
    name_off, name_len = struct.unpack_from(">QI", header, 8)
    print("backing file:", header[name_off:name_off + name_len] if name_off else None)


def main():
    verbs = {"mark": mark, "mark-first": mark_first, "mark-long": mark_long, "show": show}
    if len(sys.argv) != 3 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    with open(sys.argv[2], "r+b") as f:
        verbs[sys.argv[1]](f)


if __name__ == "__main__":
    main()
