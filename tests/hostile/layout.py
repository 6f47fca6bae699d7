# SPDX-License-Identifier: GPL-2.0-only
"""Where the fields of a valid qcow2 file are. Knows the format only as far as breaking it needs."""
import collections
import struct

OFF_MASK = 0x00fffffffffffe00
COMPRESSED = 1 << 62

# kind: what the value means, which decides how to break it
Field = collections.namedtuple("Field", "name off size kind")

HEADER = (("magic", 0, 4, "bits"), ("version", 4, 4, "count"), ("backing_off", 8, 8, "pointer"),
          ("backing_len", 16, 4, "count"), ("cluster_bits", 20, 4, "count"), ("size", 24, 8, "length"),
          ("crypt_method", 32, 4, "count"), ("l1_size", 36, 4, "count"), ("l1_off", 40, 8, "pointer"),
          ("reftable_off", 48, 8, "pointer"), ("reftable_clusters", 56, 4, "count"),
          ("nr_snapshots", 60, 4, "count"), ("snapshots_off", 64, 8, "pointer"))
HEADER_V3 = (("incompatible", 72, 8, "bits"), ("compatible", 80, 8, "bits"), ("autoclear", 88, 8, "bits"),
             ("refcount_order", 96, 4, "count"), ("header_length", 100, 4, "count"),
             ("compression", 104, 1, "count"))
SNAPSHOT = (("l1_off", 0, 8, "pointer"), ("l1_size", 8, 4, "count"), ("id_len", 12, 2, "count"),
            ("name_len", 14, 2, "count"), ("vm_state", 32, 4, "count"), ("extra_len", 36, 4, "count"),
            ("vm_state64", 40, 8, "length"), ("disk_size", 48, 8, "length"))
BITMAP = (("table_off", 0, 8, "pointer"), ("table_size", 8, 4, "count"), ("flags", 12, 4, "bits"),
          ("type", 16, 1, "count"), ("granularity", 17, 1, "count"), ("name_len", 18, 2, "count"),
          ("extra_len", 20, 4, "count"))
BITMAPS_EXT = (("nr", 0, 4, "count"), ("reserved", 4, 4, "count"), ("dir_size", 8, 8, "length"),
               ("dir_off", 16, 8, "pointer"))
EXT_BITMAPS = 0x23852875


class Image:
    """A valid qcow2 file, in memory."""

    def __init__(self, data):
        self.data = data
        self.version = self.num(4, 4)
        self.cluster = 1 << self.num(20, 4)
        self.extended = self.version >= 3 and bool(self.num(72, 8) & 16)
        self.l1_off = self.num(40, 8)
        self.reftable_off = self.num(48, 8)
        self.snapshots_off = self.num(64, 8) if self.num(60, 4) else 0

    def num(self, off, size):
        return int.from_bytes(self.data[off:off + size], "big")

    def l2_off(self, i=0):
        return self.num(self.l1_off + 8 * i, 8) & OFF_MASK

    def l2_entry(self, i):
        return self.l2_off() + (16 if self.extended else 8) * i

    def refblock_off(self):
        return self.num(self.reftable_off, 8) & OFF_MASK

    def extensions(self):
        """Offsets of the extensions' headers, with type and length."""
        off = 72 if self.version < 3 else self.num(100, 4)
        end = self.num(8, 8) or self.cluster
        while off + 8 <= end:
            kind, length = struct.unpack_from(">II", self.data, off)
            if not kind:
                break
            yield off, kind, length
            off += 8 + (length + 7) // 8 * 8

    def fields(self):
        yield from (Field(*f) for f in HEADER + (HEADER_V3 if self.version >= 3 else ()))
        yield from self.extension_fields()
        yield from self.table_fields()
        yield from self.l2_fields()
        yield from self.snapshot_fields()

    def extension_fields(self):
        for off, kind, length in self.extensions():
            yield Field("ext_type", off, 4, "bits")
            yield Field("ext_len", off + 4, 4, "count")
            if kind == EXT_BITMAPS:
                yield from self.bitmap_fields(off + 8)
            elif length:
                yield Field("ext_data", off + 8, length, "bytes")
        if self.num(8, 8):
            yield Field("backing_name", self.num(8, 8), self.num(16, 4), "bytes")

    def bitmap_fields(self, off):
        yield from (Field("bitmaps_" + n, off + o, s, k) for n, o, s, k in BITMAPS_EXT)
        nr, entry = self.num(off, 4), self.num(off + 16, 8)
        for _ in range(nr):
            yield from (Field("bitmap_" + n, entry + o, s, k) for n, o, s, k in BITMAP)
            entry += (24 + self.num(entry + 18, 2) + 7) // 8 * 8

    def table_fields(self):
        yield Field("l1_entry", self.l1_off, 8, "entry")
        yield Field("l1_next", self.l1_off + 8, 8, "entry")
        yield Field("reftable_entry", self.reftable_off, 8, "entry")
        if self.refblock_off():
            yield Field("refblock", self.refblock_off(), 16, "bytes")

    def l2_fields(self):
        """Of entries that are in use, and the one behind each."""
        step = 16 if self.extended else 8
        for i in range(self.cluster // step if self.l2_off() else 0):
            off = self.l2_entry(i)
            entry = self.num(off, 8)
            if not entry and not (i and self.num(off - step, 8)):
                continue
            yield Field("l2_entry", off, 8, "compressed" if entry & COMPRESSED else "entry")
            if self.extended:
                yield Field("l2_bitmap", off + 8, 8, "bits")
            if entry & COMPRESSED:
                where = entry & ((1 << (70 - self.cluster.bit_length() + 1)) - 1)
                yield Field("payload", where, 64, "bytes")

    def snapshot_fields(self):
        off = self.snapshots_off
        for _ in range(self.num(60, 4) if off else 0):
            yield from (Field("snapshot_" + n, off + o, s, k) for n, o, s, k in SNAPSHOT)
            off += 40 + self.num(off + 36, 4) + self.num(off + 12, 2) + self.num(off + 14, 2)
            off = (off + 7) // 8 * 8
