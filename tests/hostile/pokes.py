# SPDX-License-Identifier: GPL-2.0-only
"""The poke list: known ways to hurt a qcow2 reader, each a small edit of a valid image.

A poke is a name, the image it starts from (images.py), a function that edits the file, and what
must come of it:
    refused     info, map and read refuse it, whatever QEMU does
    same        refused if QEMU refuses it; else the same bytes, and EIO where QEMU has it
    info        as "same", but info must show it: only its data is bad
    refused-read  read and map refuse it, info shows it: it is about other files, or keys
The numbers are QEMU's iotests, whose values these are.
"""
import collections
import struct

import layout

Poke = collections.namedtuple("Poke", "name image edit want")
POKES = []
U32, U31 = 0xffffffff, 0x7fffffff


class Editor:
    """The file to be hurt; offsets are of the image as it was."""

    def __init__(self, f):
        self.f = f
        f.seek(0)
        self.image = layout.Image(f.read())

    def put(self, off, size, value):
        self.f.seek(off)
        self.f.write(value.to_bytes(size, "big"))

    def put_bytes(self, off, data):
        self.f.seek(off)
        self.f.write(data)

    def header(self, **fields):
        at = {name: (off, size) for name, off, size, _ in layout.HEADER + layout.HEADER_V3}
        for name, value in fields.items():
            self.put(*at[name], value)

    def set_bits(self, name, bits):
        off = {"incompatible": 72, "compatible": 80, "autoclear": 88}[name]
        self.put(off, 8, self.image.num(off, 8) | bits)

    def extension(self, kind, data, length=None):
        """Puts one extension behind the last, and an end marker behind that."""
        ends = [off + 8 + (n + 7) // 8 * 8 for off, _, n in self.image.extensions()]
        off = max(ends, default=72 if self.image.version < 3 else self.image.num(100, 4))
        self.put_bytes(off, struct.pack(">II", kind, len(data) if length is None else length) + data
                       + bytes(-len(data) % 8) + bytes(8))
        self.f.seek(0)
        self.image = layout.Image(self.f.read())

    def l2(self, index, value, bitmap=None):
        self.put(self.image.l2_entry(index), 8, value)
        if bitmap is not None:
            self.put(self.image.l2_entry(index) + 8, 8, bitmap)

    def snapshot(self, name, value):
        at = {n: (off, size) for n, off, size, _ in layout.SNAPSHOT}
        off, size = at[name]
        self.put(self.image.snapshots_off + off, size, value)


def poke(name, image, want="same"):
    def add(edit):
        POKES.append(Poke(name, image, edit, want))
        return edit
    return add


def header(name, image="v3", want="refused", **fields):
    POKES.append(Poke(name, image, lambda e: e.header(**fields), want))


def l2(name, value, image="v3", want="same", index=0, bitmap=None):
    POKES.append(Poke(name, image, lambda e: e.l2(index, value, bitmap), want))


def unknown_extension(name, backing_off, want="refused"):
    @poke(name, "v3", want)
    def edit(e):
        off = max((o + 8 + (n + 7) // 8 * 8 for o, _, n in e.image.extensions()), default=112)
        e.put_bytes(off, struct.pack(">II", 0x12345678, U31))
        e.header(backing_off={"ext": off, "far": (1 << 64) - 1}.get(backing_off, backing_off))


# 080: sizes and offsets in the header, and in the snapshot table
header("080-header-length-max", header_length=U32)
header("080-header-length-31", header_length=U31)
unknown_extension("080-extension-length-no-backing", 0)
unknown_extension("080-extension-length-backing-far", "far")
unknown_extension("080-extension-length-backing-there", "ext", "same")
header("080-reftable-clusters-max", reftable_clusters=U32)
header("080-reftable-clusters-20001", reftable_clusters=0x20001)
header("080-reftable-off-unaligned", reftable_off=0x1234567890abcdef)
header("080-reftable-off-far", reftable_off=0xffffffffffff0000, reftable_clusters=0x7f)
header("080-snapshots-max", nr_snapshots=U32)
header("080-snapshots-31", nr_snapshots=U31)
header("080-snapshots-off-far", snapshots_off=0xffffffffffff0000, nr_snapshots=0xffff)
header("080-snapshots-off-unaligned", snapshots_off=0x1234567890abcdef, nr_snapshots=0)
header("080-l1-size-max", l1_size=U32)
header("080-l1-size-31", l1_size=U31)
header("080-l1-off-far", l1_off=0x7fffffffffff0000, l1_size=0xffff)
header("080-l1-off-unaligned", l1_off=0x1234567890abcdef, l1_size=1)
header("080-l1-size-0-with-snapshot", "snapshots", l1_size=0)
header("080-backing-len-max", backing_off=0x1000, backing_len=U32)
l2("080-l2-entry-far", 0xbfffffffffff0000)
l2("080-l2-entry-past-eof", 0x800000ffffff0000)
l2("080-l2-entry-far-with-snapshot", 0xbfffffffffff0000, "snapshots")
l2("080-l2-entry-past-eof-with-snapshot", 0x800000ffffff0000, "snapshots")
POKES.append(Poke("080-snapshot-l1-off", "snapshots", lambda e: e.snapshot("l1_off", 0x400200), "same"))
POKES.append(Poke("080-snapshot-l1-size", "snapshots", lambda e: e.snapshot("l1_size", 0x10000000), "same"))


# 060: tables on tables
@poke("060-l1-names-l1", "v3", "info")
def _(e):
    e.put(e.image.l1_off, 8, 1 << 63 | e.image.l1_off)


@poke("060-l1-names-refblock", "v3", "info")
def _(e):
    e.put(e.image.l1_off, 8, 1 << 63 | e.image.refblock_off())


@poke("060-data-is-l1", "v3", "info")
def _(e):
    e.l2(0, 1 << 63 | e.image.l1_off)


@poke("060-data-is-inactive-l2", "snapshots", "info")
def _(e):
    l1 = e.image.num(e.image.snapshots_off, 8)
    e.l2(0, 1 << 63 | e.image.num(l1, 8) & layout.OFF_MASK)


@poke("060-header-refcount-0", "v3", "info")
def _(e):
    e.put(e.image.refblock_off(), 2, 0)


@poke("060-l1-entry-unaligned", "v3", "info")
def _(e):
    e.put(e.image.l1_off, 8, 1 << 63 | 0x42a00)


l2("060-l2-entry-unaligned", 1 << 63 | 0x52a00, want="info")
l2("060-zero-cluster-unaligned", 1 << 63 | 0x52a01, want="info")
for _name, _value in (("unaligned", 0x22a00), ("empty", 0)):
    POKES.append(Poke(f"060-reftable-entry-{_name}", "v3",
                      lambda e, v=_value: e.put(e.image.reftable_off, 8, v), "info"))
POKES.append(Poke("060-refblock-empty", "v3", lambda e: e.put_bytes(e.image.refblock_off(), bytes(4096)), "info"))
header("060-reftable-size-0", reftable_clusters=0)
header("060-reftable-off-0", want="same", reftable_off=0)
POKES.append(Poke("060-dirty-and-corrupt", "v3", lambda e: e.set_bits("incompatible", 3), "info"))

# 108, 138: the refcount structures themselves
for _name, _value in (("past-eof", 1 << 32), ("far", 0x7fffffffffff0000), ("very-far", 0xffffffffffff0000)):
    POKES.append(Poke(f"108-refblock-{_name}", "v3",
                      lambda e, v=_value: e.put(e.image.reftable_off, 8, v), "info"))
l2("138-l2-entry-needs-huge-reftable", 1 << 63 | 0x0000300000000000, want="info")


# 261: the snapshot table
@poke("261-v3-without-extra-data", "snapshots", "refused")
def _(e):
    e.snapshot("extra_len", 0)


def shorten_extra_data(e, keep):
    """Of all snapshots, in a table that is sound but for that."""
    off, table = e.image.snapshots_off, b""
    for _ in range(e.image.num(60, 4)):
        extra, names = e.image.num(off + 36, 4), e.image.num(off + 12, 2) + e.image.num(off + 14, 2)
        record = e.image.data[off:off + 40 + extra + names]
        off += (len(record) + 7) // 8 * 8
        record = record[:36] + keep.to_bytes(4, "big") + record[40:40 + keep] + record[40 + extra:]
        table += record + bytes(-len(record) % 8)
    e.put_bytes(e.image.snapshots_off, table)


for _value in (0, 8, 15):
    POKES.append(Poke(f"261-v3-short-extra-data-{_value}", "snapshots",
                      lambda e, v=_value: shorten_extra_data(e, v), "info"))


@poke("261-v2-with-extra-data", "snapshots-v2")
def _(e):
    e.snapshot("extra_len", 16)


POKES.append(Poke("261-extra-data-1024", "snapshots", lambda e: e.snapshot("extra_len", 1024), "same"))
POKES.append(Poke("261-extra-data-1025", "snapshots", lambda e: e.snapshot("extra_len", 1025), "refused"))
POKES.append(Poke("261-extra-data-max", "snapshots", lambda e: e.snapshot("extra_len", U32), "refused"))


@poke("261-table-too-big", "snapshots", "refused")
def _(e):
    """65536 entries of more than 1 KiB: past 64 MiB."""
    table = 1 << 20
    record = struct.pack(">QIHHIIQII", 0, 0, 0, 0, 0, 0, 0, 0, 1024) + bytes(1024)
    for i in range(65000):
        e.put_bytes(table + i * len(record), record[:40])
    e.header(snapshots_off=table, nr_snapshots=65536)


@poke("261-many-empty-snapshots", "snapshots-v2")
def _(e):
    e.header(snapshots_off=1 << 30, nr_snapshots=65536)


header("261-too-many-snapshots", "snapshots", nr_snapshots=65537)

# 287: the compression type and its bit
header("287-type-without-bit", compression=1)
POKES.append(Poke("287-bit-without-type", "v3", lambda e: e.set_bits("incompatible", 8), "refused"))
POKES.append(Poke("287-bit-and-type", "v3", lambda e: (e.set_bits("incompatible", 8), e.header(compression=1)), "same"))
for _value in (2, 3, 127, 255):
    POKES.append(Poke(f"287-type-{_value}", "v3", lambda e, v=_value: (e.set_bits("incompatible", 8),
                                                                       e.header(compression=v)), "refused"))

# 036, 031: feature bits
POKES.append(Poke("036-incompatible-bit-63", "v3", lambda e: e.set_bits("incompatible", 1 << 63), "refused"))
POKES.append(Poke("036-compatible-bit-63", "v3", lambda e: e.set_bits("compatible", 1 << 63), "same"))
POKES.append(Poke("036-autoclear-bit-63", "v3", lambda e: e.set_bits("autoclear", 1 << 63), "same"))
POKES.append(Poke("031-unknown-extension", "v3", lambda e: e.extension(0x12345678, b"something"), "same"))
POKES.append(Poke("031-unknown-extension-v2", "v2", lambda e: e.extension(0x12345678, b"something"), "same"))


# 114: a backing file whose format nobody recorded, or recorded wrongly
@poke("114-backing-format-unknown", "raw-base", "refused-read")
def _(e):
    for off, kind, _ in e.image.extensions():
        if kind == 0xe2792aca:
            e.put_bytes(off + 8, b"foo")


@poke("114-backing-format-not-recorded", "raw-base", "refused-read")
def _(e):
    for off, kind, _ in e.image.extensions():
        if kind == 0xe2792aca:
            e.put(off, 4, 0x12345678)


# 214: the size of a compressed cluster
def first_compressed(e):
    step = 16 if e.image.extended else 8
    for i in range(e.image.cluster // step):
        value = e.image.num(e.image.l2_entry(i), 8)
        if value & layout.COMPRESSED:
            return i, value
    raise ValueError("no compressed cluster")


def compressed_size(name, sectors, image="zlib"):
    @poke(name, image, "info")
    def edit(e):
        index, value = first_compressed(e)
        shift = 62 - (e.image.cluster.bit_length() - 1 - 8)
        field = ((1 << 62) - 1) >> shift << shift
        e.l2(index, value & ~field | min(sectors, field >> shift) << shift)


for _image in ("zlib", "zstd", "zlib-4k", "zstd-512"):
    compressed_size(f"214-csize-0-{_image}", 0, _image)
    compressed_size(f"214-csize-4-sectors-{_image}", 3, _image)
    compressed_size(f"214-csize-max-{_image}", 1 << 20, _image)


def zstd_window(name, window, first=b""):
    """Cluster 0 becomes a frame of 64 KiB of 0x5a that declares a window, behind @first: RFC 8878, descriptor and block."""
    @poke(name, "zstd", "info")
    def edit(e):
        index, value = first_compressed(e)
        shift = 62 - (e.image.cluster.bit_length() - 1 - 8)
        e.l2(index, 1 << 62 | 0 << shift | len(e.image.data))
        e.put_bytes(len(e.image.data), (first + bytes.fromhex("28b52ffd") + window + bytes.fromhex("0300085a")).ljust(512, b"\0"))


# Further ones, in no iotest
zstd_window("zstd-window-128m", b"\x00\x88")
zstd_window("zstd-window-144m", b"\x00\x89")
zstd_window("zstd-window-2g", b"\x00\xa8")
zstd_window("zstd-window-2g-with-size", b"\x40\xa8\x00\xff")
zstd_window("zstd-window-2g-second-frame", b"\x00\xa8", bytes.fromhex("28b52ffd2000010000"))


def rename_backing(name, text, want="refused-read", image="raw-base"):
    @poke(name, image, want)
    def edit(e):
        e.put_bytes(e.image.num(8, 8), text)
        e.header(backing_len=len(text))


rename_backing("backing-json", b'json:{"driver":"file","filename":"/etc/hostname"}')
rename_backing("backing-nbd", b"nbd:localhost:1")
rename_backing("backing-http", b"http://localhost/x")
rename_backing("backing-etc-passwd", b"/etc/passwd")
rename_backing("backing-dev-mem", b"/dev/mem")
rename_backing("backing-dot-dot", b"../../../../../../../etc/passwd")
rename_backing("backing-directory", b".")
rename_backing("backing-empty", b"\0\0\0", "info")
rename_backing("backing-nul-inside", b"base\0x", "same")
rename_backing("backing-newlines", b"a\nb\x1b[31m\xff")
rename_backing("backing-missing", b"nowhere")
rename_backing("backing-itself", b"top")
rename_backing("backing-loop-of-two", b"top", image="chain")
header("backing-off-inside-header", want="same", backing_off=16, backing_len=4)
header("backing-off-magic", want="same", backing_off=1, backing_len=3)
POKES.append(Poke("data-file-json", "data-file", lambda e: rename_data_file(e, b'json:{"driver":"null-co"}'), "refused-read"))
POKES.append(Poke("data-file-etc-passwd", "data-file", lambda e: rename_data_file(e, b"/etc/passwd"), "refused-read"))
POKES.append(Poke("data-file-itself", "data-file", lambda e: rename_data_file(e, b"top"), "refused-read"))
POKES.append(Poke("data-file-name-empty", "data-file", lambda e: rename_data_file(e, b""), "refused-read"))
POKES.append(Poke("data-file-bit-without-file", "v3", lambda e: e.set_bits("incompatible", 4), "refused-read"))
POKES.append(Poke("data-file-raw-bit-without-file", "v3", lambda e: e.set_bits("autoclear", 2), "refused"))


def rename_data_file(e, name):
    for off, kind, length in e.image.extensions():
        if kind == 0x44415441:
            e.put(off, 4, 0x12345678)
    e.extension(0x44415441, name)


for _name, _kind, _data in (("backing-format", 0xe2792aca, b"raw"), ("feature-table", 0x6803f857, bytes(48)),
                            ("data-file", 0x44415441, b"data")):
    POKES.append(Poke(f"duplicate-{_name}", "data-file" if _name == "data-file" else "v3",
                      lambda e, k=_kind, d=_data: (e.extension(k, d), e.extension(k, d)), "refused"))
@poke("duplicate-bitmaps", "bitmaps", "refused")
def _(e):
    off, length = next((o, n) for o, k, n in e.image.extensions() if k == layout.EXT_BITMAPS)
    e.extension(layout.EXT_BITMAPS, e.image.data[off + 8:off + 8 + length])


@poke("duplicate-crypto", "v3", "refused")
def _(e):
    e.header(crypt_method=2)
    for _ in range(2):
        e.extension(0x0537be77, struct.pack(">QQ", 0x100000, 4096))


POKES.append(Poke("crypto-once", "v3", lambda e: (e.header(crypt_method=2), e.extension(
    0x0537be77, struct.pack(">QQ", 0x100000, 4096))), "refused-read"))
POKES.append(Poke("bitmaps-extension-short", "v3", lambda e: (e.set_bits("autoclear", 1), e.extension(0x23852875, bytes(8))),
                  "refused"))
POKES.append(Poke("crypto-extension-unasked", "v3", lambda e: e.extension(0x0537be77, bytes(16)), "refused"))
POKES.append(Poke("backing-format-long", "v3", lambda e: e.extension(0xe2792aca, b"x" * 16), "refused"))
l2("compressed-off-bit-56", 1 << 62 | 1 << 56 | 0x50000, "cluster-512", "info")
l2("compressed-past-eof", 1 << 62 | 1 << 40, want="info")
l2("compressed-in-header", 1 << 62, want="info")
l2("extended-l2-alloc-and-zero", 1 << 63 | 0x50000, "extended-l2", "info", bitmap=0x0000000100000001)
l2("extended-l2-alloc-without-cluster", 0, "extended-l2", "info", bitmap=0xffffffff)
l2("extended-l2-zero-bit", 1, "extended-l2", "info", index=3, bitmap=0)
l2("extended-l2-compressed-with-bitmap", 1 << 62 | 0x50000, "extended-l2", "info", bitmap=0xffffffff)
l2("v2-zero-flag", 1 << 63 | 0x50001, "v2", "info")
l2("v2-zero-flag-without-cluster", 1, "v2", "info", index=4)
l2("compressed-with-data-file", 1 << 62 | 0x50000, "data-file", "info")
l2("data-file-elsewhere", 1 << 63 | 0x70000, "data-file", "info")
l2("data-is-header", 1 << 63, "cluster-512", "info")
l2("data-is-reserved-bits", 0xbf000000000501fe, want="info")


@poke("l2-past-eof", "v3", "info")
def _(e):
    e.put(e.image.l1_off, 8, 1 << 63 | 1 << 40)


header("l1-past-eof", want="same", l1_off=1 << 40)
header("l1-past-eof-snapshots", "snapshots", want="same", l1_off=1 << 40)


@poke("snapshot-l1-past-eof", "snapshots", "info")
def _(e):
    e.snapshot("l1_off", 1 << 40)


@poke("l2-at-the-far-end", "v3", "info")
def _(e):
    e.put(e.image.l1_off, 8, 0x00ffffffffff0000)


@poke("refcount-table-is-l1", "v3", "info")
def _(e):
    e.header(reftable_off=e.image.l1_off)


@poke("refblock-is-reftable", "v3", "info")
def _(e):
    e.put(e.image.reftable_off, 8, e.image.reftable_off)


@poke("refblock-is-itself", "v3", "info")
def _(e):
    """The second block is the first: what it counts, it counts twice."""
    e.put(e.image.reftable_off + 8, 8, e.image.refblock_off())


@poke("data-is-snapshot-table", "snapshots", "info")
def _(e):
    e.l2(0, 1 << 63 | e.image.snapshots_off)


header("size-max", size=(1 << 64) - 1)
header("size-2-63", size=1 << 63)
header("size-0", want="same", size=0)
header("size-odd", want="same", size=1000)
header("size-tiny", want="same", size=1)
for _bits in (0, 8, 22, 31, 32, 63, 64, U32):
    header(f"cluster-bits-{_bits}", cluster_bits=_bits)
header("cluster-bits-13-extended-l2", "extended-l2-16k", cluster_bits=13)
for _order in (7, 8, 31, 32, 63, 64, U32):
    header(f"refcount-order-{_order}", refcount_order=_order)
for _version in (0, 1, 4, U32):
    header(f"version-{_version}", version=_version)
header("crypt-method-3", crypt_method=3)
header("crypt-method-aes", want="refused-read", crypt_method=1)
header("crypt-method-luks-without-header", crypt_method=2)
header("header-length-103", header_length=103)
header("header-length-105", want="same", header_length=105)
header("header-length-past-cluster", "cluster-512", header_length=513)
header("magic", magic=0)
for _size in (0, 3, 71, 72, 103, 104, 111):
    POKES.append(Poke(f"cut-to-{_size}", "v3", lambda e, n=_size: e.f.truncate(n), "same"))


@poke("header-length-104", "v3", "info")
def _(e):
    """No compression type: the first extension is in its place."""
    e.header(header_length=104)
    e.put_bytes(104, bytes(8))
    e.image.data = e.image.data[:100] + (104).to_bytes(4, "big") + bytes(8) + e.image.data[112:]
    e.extension(0xe2792aca, b"raw")
