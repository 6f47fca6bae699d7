# SPDX-License-Identifier: GPL-2.0-only
"""Each public vulnerability of qcow2 readers, as a test that carries its name.

A test gets a folder and a Shell (check-cves), and returns None or what is wrong. Where a poke
is the same input, the CVE names the poke, which goes through every verb of cases.py.
"""
import os
import struct

import images

TESTS = []

# The same inputs as pokes; check-cves runs them under the CVE's name, too.
POKES = {
    "CVE-2014-0143": ("080-l1-size-max", "080-snapshot-l1-size", "080-l1-size-31", "060-header-refcount-0"),
    "CVE-2014-0144": ("080-header-length-max", "080-backing-len-max", "080-reftable-clusters-max", "080-snapshots-max",
                      "080-l1-off-unaligned", "261-table-too-big"),
    "CVE-2014-0145": ("080-snapshot-l1-off", "080-l1-size-0-with-snapshot"),
    "CVE-2014-0146": ("080-snapshots-off-far", "080-snapshots-off-unaligned"),
    "CVE-2014-0147": ("108-refblock-very-far", "080-l2-entry-far-with-snapshot", "080-l2-entry-past-eof-with-snapshot",
                      "261-extra-data-max"),
    "CVE-2014-0222": ("version-1",),
    "CVE-2024-4467": ("data-file-json", "backing-json"),
    "CVE-2024-32498": ("data-file-etc-passwd",),
    "CVE-2011-3147": ("backing-etc-passwd", "backing-dot-dot"),
}


def cve(*names):
    def add(fn):
        TESTS.extend((name, fn) for name in names)
        return fn
    return add


def write(folder, name, data, size=0):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(data)
        f.truncate(max(size, len(data)))
    return path


def in_folder(folder, *argv):
    here = os.getcwd()
    os.chdir(folder)
    try:
        images.create(*argv)
    finally:
        os.chdir(here)


def overlay(folder, text):
    """An image over the raw disk "disk", which holds @text at its beginning."""
    write(folder, "disk", text, 1 << 20)
    in_folder(folder, "top", 1 << 20, "disk", "raw")
    return os.path.join(folder, "top")


@cve("CVE-2008-2004", "CVE-2013-1922", "CVE-2024-40767", "CVE-2024-44082")
def raw_is_never_probed(folder, shell):
    """A guest writes a qcow2 header to its raw disk; that it names a host file must mean nothing."""
    in_folder(folder, "evil", 1 << 20, "/etc/hostname", "raw")
    with open(os.path.join(folder, "evil"), "rb") as f:
        evil = f.read()
    top = overlay(folder, evil)
    what = shell.map(top)
    if what.status or "hostname" in "".join(what.opened):
        return f"map of the overlay: {what.text} {what.opened}"
    bytes_read = shell.read(top)
    if bytes_read.data[:len(evil)] != evil:
        return "the raw disk's bytes were interpreted"
    return None


@cve("CVE-2010-2237", "CVE-2010-2238")
def backing_format_is_not_guessed(folder, shell):
    """The backing file's format is not recorded: nobody may look into it to find out."""
    top = overlay(folder, b"QFI\xfb")
    shell.forget_backing_format(top)
    what = shell.map(top)
    if not what.status or "not recorded" not in what.text:
        return f"not refused: {what.text}"
    if any(p.endswith("/disk") for p in what.opened):
        return "the backing file was opened all the same"
    return shell.expect_read(shell.read(top, "backing_format:raw"), b"QFI\xfb")


@cve("CVE-2011-3147", "CVE-2014-0134", "CVE-2015-5163")
def backing_file_of_the_host(folder, shell):
    """An uploaded image names a file of the host; and, with --no-backing, any file at all."""
    in_folder(folder, "top", 1 << 20, "/etc/hostname", "raw")
    top = os.path.join(folder, "top")
    what = shell.map(top)
    if not what.status or "--backing-dir" not in what.text or "/etc/hostname" in what.opened:
        return f"not refused: {what.text} {what.opened}"
    what = shell.map(overlay(folder, b""), "--no-backing")
    return None if what.status and "disk" in what.text else f"--no-backing does not refuse: {what.text}"


@cve("CVE-2013-2096", "CVE-2013-4463", "CVE-2013-4469")
def huge_disk_costs_nothing(folder, shell):
    """A disk of 2 PiB in an image of 200 KiB: shown, mapped and held without its size in memory or time."""
    top = os.path.join(folder, "top")
    in_folder(folder, "top", 1 << 51)
    info = shell.info(top)
    if info.status or "2 PiB" not in info.text and str(1 << 51) not in info.text:
        return f"info does not show the size: {info.text}"
    what = shell.map(top)
    return what.text if what.status else None


@cve("CVE-2013-2096", "CVE-2013-4463", "CVE-2013-4469")
def bomb_is_inflated_piece_by_piece(folder, shell):
    """512 MiB in an image of 11 MiB, twice the memory that a verb may take: a device, a copy and a repair need a cluster
    of it at a time."""
    bomb, out = os.path.join(folder, "bomb"), os.path.join(folder, "out")
    zeros = write(folder, "zeros", b"", 512 << 20)
    with open(zeros, "r+b") as f:
        for off in range(0, 512 << 20, 1 << 21):
            f.seek(off)
            f.write(b"x")
    images.run("qemu-img", "convert", "-t", "unsafe", "-c", "-O", "qcow2", "-o",
               "cluster_size=2M,compression_type=zstd", zeros, bomb)
    if os.path.getsize(bomb) > 16 << 20:
        return f"no bomb: {os.path.getsize(bomb)} bytes"
    for argv in (("map", "--json", bomb), ("check", "--data", bomb), ("compare", "-F", "raw", bomb, zeros),
                 ("convert", "-O", "qcow2", bomb, out), ("convert", "-c", "-O", "qcow2", bomb, out)):
        what = shell.within_limits(*argv)
        if what:
            return what
    return None


def foreign(name, word, data, size=65536):
    """Formats whose importers had the bug: we have none, and the refusal says what to do."""
    def test(folder, shell):
        path = write(folder, "top", data, size)
        for what in (shell.info(path), shell.map(path)):
            if not what.status or f"qemu-img convert -f {word} -O qcow2" not in what.text:
                return f"no clear refusal: {what.text}"
        return None
    test.__name__ = "refused_with_advice"
    cve(*name)(test)


foreign(("CVE-2014-0222", "CVE-2014-0223"), "qcow",
        b"QFI\xfb" + struct.pack(">IQIIQBBHIQ", 1, 0, 0, 0, 1 << 62, 9, 62, 0, 0, 48))
foreign(("CVE-2014-0142",), "parallels", b"WithoutFreeSpace" + struct.pack("<IIIIIQ", 2, 0, 0, 0, 0, 1 << 40))
foreign(("CVE-2014-0148",), "vhdx", b"vhdxfile" + b"x\0" * 16)
foreign(("CVE-2022-47951",), "vmdk",
        b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "/etc/passwd" 0\n')
foreign(("CVE-2026-2243",), "vmdk", b"KDMV" + struct.pack("<IIQQ", 3, 0x30001, 1 << 40, 128))


@cve("CVE-2024-32498", "CVE-2024-4467")
def data_file_of_the_host(folder, shell):
    """A data file's name is an attacker's, like a backing file's; info opens no second file at all."""
    for name in (b"/etc/hostname", b'json:{"driver":"file","filename":"/etc/hostname"}', b"file:/etc/hostname"):
        top = shell.with_data_file(folder, name)
        info, what = shell.info(top), shell.map(top)
        if info.status or any(p != top and p.startswith(("/etc/hostname", folder)) for p in info.opened):
            return f"info: {info.text} {info.opened}"
        if not what.status or "/etc/hostname" in what.opened:
            return f"map: {what.text} {what.opened}"
    return None


@cve("CVE-2026-24708")
def no_verb_guesses_a_format(folder, shell):
    """A guest's flat disk, resized without its format: taken for qcow2 or not at all, and what a guest wrote to its
    beginning opens no file of the host."""
    flat = write(folder, "top", b"\xeb\x3c\x90", 1 << 20)
    info = shell.info(flat)
    if not info.status or "qcow2" not in info.text:
        return f"info takes a raw disk: {info.text}"
    in_folder(folder, "evil", 1 << 20, "/etc/hostname", "raw")
    evil = os.path.join(folder, "evil")
    for path in (flat, evil):
        with open(path, "rb") as f:
            before = f.read()
        for argv in (("resize", path, "2M"), ("resize", "-f", "raw", path, "2M")):
            what = shell.run(*argv)
            if not what.status or "/etc/hostname" in what.opened:
                return f"{argv}: {what.text} {what.opened}"
        with open(path, "rb") as f:
            if f.read() != before:
                return f"resize changed {path}"
    return None
