#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes the seed corpora: seeds.py FOLDER makes FOLDER/TARGET/*."""
import os
import struct
import sys
import zlib

COPIED, COMPRESSED = 1 << 63, 1 << 62


def be(fmt, *values):
    return struct.pack(">" + fmt, *values)


def place(parts, size=0):
    """Bytes with each part at its offset."""
    out = bytearray(max([size] + [off + len(data) for off, data in parts.items()]))
    for off, data in parts.items():
        out[off:off + len(data)] = data
    return bytes(out)


def extension(kind, data):
    return be("II", kind, len(data)) + data + bytes(-len(data) % 8)


def header(bits=9, size=8192, version=3, l1=1, backing=b"", exts=(), incompat=0, autoclear=0, compression=0,
           snapshots=(0, 0)):
    cluster = 1 << bits
    area = b"".join(extension(k, d) for k, d in exts) + bytes(8)
    start = 112 if version == 3 else 72
    where = start + len(area) if backing else 0
    head = b"QFI\xfb" + be("IQIIQIIQQIIQ", version, where, len(backing), bits, size, 0, l1, cluster, 0, 1, *snapshots)
    if version == 3:
        head += be("QQQIIB7x", incompat, 0, autoclear, 4, 112, compression)
    return head + area + backing


def image(bits, entries, data=b"", **opts):
    """Header, L1, L2, then data, each in a cluster; the refcount table is the header's cluster: nobody looks."""
    cluster = 1 << bits
    return place({0: header(bits, **opts), cluster: be("Q", COPIED | 2 * cluster),
                  2 * cluster: b"".join(be("Q", e) for e in entries), 3 * cluster: data})


def sound(entries, l1_flags=COPIED, refs=1, **opts):
    """An image that can be written to: six data clusters, a refcount table and a block, all of 512 bytes."""
    table, block, cluster = 9, 10, 512
    counts = [1, 1, refs] + [refs] * 6 + [1, 1]
    head = bytearray(header(9, **opts))
    head[48:56] = be("Q", table * cluster)
    return place({0: bytes(head), cluster: be("Q", l1_flags | 2 * cluster), 2 * cluster: b"".join(be("Q", e) for e in entries),
                  3 * cluster: DATA * 6, table * cluster: be("Q", block * cluster),
                  block * cluster: b"".join(be("H", n) for n in counts) + bytes(cluster - 2 * len(counts))})


def deflate(data):
    z = zlib.compressobj(9, zlib.DEFLATED, -12, 9)
    return z.compress(data) + z.flush()


def snapshot(name, extra=24):
    return be("QIHHIIQII", 1024, 1, 1, len(name), 1, 2, 3, 0, extra) + be("QQQ", 0, 8192, 0)[:extra] + b"1" + name


def pad8(data):
    return data + bytes(-len(data) % 8)


def bitmap(name):
    return pad8(be("QIIBBHI", 512, 1, 2, 1, 16, len(name), 0) + name)


def chain(top, base, raw=0, align=0, fixed=0):
    """The split counts in sixteenths."""
    unit = 16
    for sixteenths in range(1, 17):
        if sixteenths * (-(-(len(top)) // sixteenths)) >= len(top):
            unit = -(-len(top) // sixteenths)
            if unit * (16 - sixteenths) >= len(base):
                body = top + bytes(unit * sixteenths - len(top)) + base
                return bytes((sixteenths, raw, align, fixed)) + body + bytes(16 * unit - len(body))
    return bytes((16, raw, align, fixed)) + top


DATA = bytes(range(256)) * 2
PACKED = deflate(DATA)
# A zstd frame of one raw block of 512 bytes; a table of numbers, because the standard library has no zstd.
ZSTD = bytes.fromhex("28b52ffd60000110 00".replace(" ", "")) + b"\x10\x00" + DATA
CLUSTER = (COPIED | 3 * 512, COPIED | 1, COMPRESSED | 3 * 512 + 3, 0, 0x1000000000000000 | COPIED)
BACKING = ((0xe2792aca, b"qcow2"),)
FEATURES = ((0x6803f857, bytes((0, 5)) + b"a feature".ljust(46, b"\0")),)

HEADERS = {
    "v3": header(), "v2": header(version=2), "backing": header(backing=b"base", exts=BACKING),
    "features": header(bits=16, exts=FEATURES, incompat=32), "zstd": header(incompat=8, compression=1),
    "data": header(incompat=4, exts=((0x44415441, b"data"),), autoclear=2),
    "bitmaps": header(autoclear=1, exts=((0x23852875, be("IIQQ", 1, 0, 32, 512)),)),
    "luks": header(exts=((0x0537be77, be("QQ", 512, 4096)),))[:32] + be("I", 2)
            + header(exts=((0x0537be77, be("QQ", 512, 4096)),))[36:],
    "unknown": header(exts=((0x12345678, b"what"),)), "extended": header(bits=14, incompat=16),
}
SNAPSHOTS = {"v3": bytes((1, 0, 0, 2, 0, 0, 0, 1)) + pad8(snapshot(b"one")) + snapshot(b"two"),
             "v2": bytes((0, 0, 0, 1, 0, 0, 0, 1)) + snapshot(b"old", 0)}
BITMAPS = {"two": bytes((0, 0, 0, 2)) + be("I", 64) + bitmap(b"one") + bitmap(b"two")}
CHAINS = {
    "raw-base": chain(image(9, CLUSTER, DATA, exts=((0xe2792aca, b"raw"),), backing=b"b"), DATA * 4, raw=1),
    "chain": chain(image(9, (0, 0, COPIED | 1), exts=BACKING, backing=b"b"), image(9, CLUSTER, DATA, size=4096)),
    "packed": chain(image(9, (COMPRESSED | 3 * 512 + 1,), b"x" + PACKED), b"", align=1),
    "extended": chain(image(14, (COPIED | 3 << 14, 1 << 32 | 2, 0, 3 << 32, COMPRESSED | 3 << 14, 0), DATA, size=1 << 16,
                            incompat=16), b""),
    "data-file": chain(image(9, (COPIED, COPIED | 512, 0, 1), incompat=4, exts=((0x44415441, b"d"),)), DATA * 8, fixed=1),
    "v2": chain(image(9, CLUSTER, DATA, version=2), b"", align=1, fixed=1),
}
OWN = tuple(COPIED | (3 + i) * 512 for i in range(6))
WRITERS = {
    "own": chain(sound(OWN), b""), "zeroing": chain(sound(OWN[:3] + (1, OWN[3] | 1)), b"", fixed=2),
    "v2": chain(sound(OWN, version=2), b""), "full": chain(sound(OWN, size=1 << 20), b"", fixed=1),
    "shared": chain(sound([e & ~COPIED for e in OWN], l1_flags=0, refs=2), b""),
    "packed": chain(sound((COMPRESSED | 3 * 512 + 1, COMPRESSED | 3 * 512 + 9)), b""),
    "hostile": chain(sound((COPIED | 512, COPIED | 1024, COPIED | 9 * 512, COPIED | 10 * 512, COPIED | 40 * 512)), b""),
    "backing": chain(sound(OWN[:2], exts=((0xe2792aca, b"raw"),), backing=b"b"), DATA * 4, raw=1),
    "bitmaps": chain(sound(OWN, autoclear=1, exts=((0x23852875, be("IIQQ", 1, 0, 32, 5 * 512)),)), b"", raw=2),
    "data-file": chain(sound((COPIED, COPIED | 512), incompat=4, exts=((0x44415441, b"d"),)), DATA * 8),
}
CODECS = {"deflate": bytes((0,)) + PACKED, "stored": bytes((0,)) + b"\x01\x00\x02\xff\xfd" + DATA, "zstd": bytes((1,)) + ZSTD,
          "two-frames": bytes((3,)) + ZSTD + ZSTD}
OPTIONS = {"all": b"backing_dir:/a\nbacking:/b\nbacking_format:raw\nsnapshot:1\nhelper_timeout:5\nsector_size:4096",
           "none": b"no_backing\nmap_budget:4\ncache_budget:0", "json": b"json:{}", "nbd": b"nbd://host/x"}


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def message(cmd, *attributes, family=30):
    body = struct.pack("=BBH", cmd, 1, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), family, 0, 1, 0) + body


U32, U64 = (lambda n: struct.pack("=I", n)), (lambda n: struct.pack("=Q", n))
NETLINK = {
    "start": message(3, attribute(3, U32(1)), attribute(8, b"/image\0"), attribute(9, b"no_backing\0"), attribute(10, U32(1)),
                     attribute(13, struct.pack("=II", 253, 0))),
    "load": message(8, attribute(3, U32(1)), attribute(5, U64(7)), attribute(18, U64(0)), attribute(19, U64(1)),
                    attribute(20, struct.pack("=QIHBBQ", 4096, 512, 0, 1, 0, 0))),
    "attach": message(1, attribute(4, U32(1)), attribute(17, struct.pack("=iIQ", 5, 0, 1) * 3), attribute(15, bytes(48)),
                      attribute(16, struct.pack("=II", 8, 0))),
    "grant": message(12, attribute(3, U32(1)), attribute(5, U64(8)), attribute(25, U32(3)),
                     attribute(26, struct.pack("=QII", 65536, 4, 1) * 2)),
    "commit": message(13, attribute(3, U32(1)), attribute(10, U32(1)), attribute(24, U64(65536)), attribute(27, U64(2)),
                      attribute(28, struct.pack("=QQII", 65536, 131072, 1, 0) * 2), attribute(29, U64(1))),
    "error": struct.pack("=IHHII", 36, 2, 0, 1, 0) + struct.pack("=i", -22) + struct.pack("=IHHII", 20, 30, 0, 1, 0),
    "done": struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0),
}
CORPORA = {"header": HEADERS, "snapshots": SNAPSHOTS, "bitmaps": BITMAPS, "chain": CHAINS, "writer": {**CHAINS, **WRITERS}, "codec": CODECS,
           "options": OPTIONS, "netlink": NETLINK}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for target, seeds in CORPORA.items():
        folder = os.path.join(sys.argv[1], target)
        os.makedirs(folder, exist_ok=True)
        for name, data in seeds.items():
            with open(os.path.join(folder, name), "wb") as f:
                f.write(data)


if __name__ == "__main__":
    main()
