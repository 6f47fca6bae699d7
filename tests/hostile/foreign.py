# SPDX-License-Identifier: GPL-2.0-only
"""Images in formats that are not read, as an image and as a backing file, made by qemu-img.

Each is a function that makes "top" in the present folder, and what leads on: the options of
qemu-img convert that the refusal has to name.
"""
import os
import struct
import subprocess

import images

CASES = {}
SIZE = 256 << 10
KEY = "correct horse"


def create(name, fmt, *options):
    """With data in it, wherever qemu-img can write the format."""
    images.raw("src", SIZE)
    images.run("qemu-img", "convert", "-f", "raw", "-O", fmt, *options, "src", name)
    os.unlink("src")


def foreign(name, fmt, *options):
    def image():
        create("top", fmt, *options)

    def backing():
        create("base", fmt, *options)
        images.create("top", SIZE, "base", fmt)

    def backing_misnamed():
        """Recorded as qcow2, which it is not."""
        create("base", fmt, *options)
        images.create("other", SIZE)
        images.create("top", SIZE, "other", "qcow2")
        images.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
        os.unlink("other")

    for make in (image, backing, backing_misnamed):
        CASES[f"{name}-{make.__name__.replace('_', '-')}"] = (make, f"-f {fmt} -O qcow2")


foreign("qcow1", "qcow")
foreign("vmdk", "vmdk")
foreign("vmdk-stream", "vmdk", "-o", "subformat=streamOptimized")
foreign("vmdk-flat", "vmdk", "-o", "subformat=monolithicFlat")
foreign("vdi", "vdi")
foreign("vhd", "vpc")
foreign("vhd-fixed", "vpc", "-o", "subformat=fixed")
foreign("vhdx", "vhdx")
foreign("parallels", "parallels")
foreign("qed", "qed")
WITH_KEY = "--object secret,id=s,file=PASSFILE --image-opts driver={},file.filename=OLD -O qcow2"


def key_file():
    with open("key", "w", encoding="ascii") as f:
        f.write(KEY)


def create_with_key(path, fmt, options):
    key_file()
    # LUKS measures how fast the processor is, which may fail on a busy one.
    for attempt in range(5):
        if not subprocess.run(("qemu-img", "create", "-q", "-f", fmt, "--object", "secret,id=s,file=key",
                               "-o", options, path, str(SIZE)),
                              check=attempt == 4, stderr=subprocess.DEVNULL).returncode:
            break


def overlay(fmt):
    images.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "base", "-F", fmt, "top", str(SIZE))


def encrypted(name, fmt, size_field):
    """An image of qcow2's own encryption; qemu-img still makes the old kind, with a warning."""
    options = f"encrypt.format={fmt},encrypt.key-secret=s" + (",encrypt.iter-time=100" if fmt == "luks" else "")

    def make(path):
        create_with_key(path, "qcow2", options)
        with open(path, "rb") as f:
            if struct.unpack(">I", f.read(36)[32:])[0] != size_field:
                raise ValueError(f"{path} is not encrypted by {fmt}")

    def image():
        make("top")

    def backing():
        make("base")
        overlay("qcow2")

    for how in (image, backing):
        CASES[f"{name}-{how.__name__}"] = (how, WITH_KEY.format("qcow2,encrypt.key-secret=s"))


encrypted("luks", "luks", 2)
encrypted("aes", "aes", 1)


def luks_container():
    """Bare, as cryptsetup makes it; what was never written is noise."""
    options = "key-secret=s,iter-time=100"

    def image():
        create_with_key("top", "luks", options)

    def backing():
        create_with_key("base", "luks", options)
        overlay("luks")

    def backing_misnamed():
        create_with_key("base", "luks", options)
        overlay("qcow2")

    for how in (image, backing, backing_misnamed):
        CASES[f"luks-container-{how.__name__.replace('_', '-')}"] = (how, WITH_KEY.format("luks,key-secret=s"))


luks_container()


def make(name, folder):
    os.makedirs(folder)
    here = os.getcwd()
    os.chdir(folder)
    try:
        CASES[name][0]()
    finally:
        os.chdir(here)
