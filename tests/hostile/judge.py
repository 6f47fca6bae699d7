# SPDX-License-Identifier: GPL-2.0-only
"""The two judges of a hostile image: the library, by way of build/tests/hostile/reader*, and QEMU."""
import collections
import os
import re
import select
import subprocess
import tempfile
import time

REPO = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("BUILD", os.path.join(REPO, "build"))
READER = os.path.join(BUILD, "tests/hostile/reader")
READER_SAN = READER + "-san"
LIMIT = 8 << 20
SECTOR = 512
SILENCE = 30  # seconds

# state: "read", "refused", or for the library "wrong", "died"; bad: set of sectors that gave EIO;
# broken_off: QEMU gave up on the whole image at the first damage, so its other EIOs mean nothing
Verdict = collections.namedtuple("Verdict", "state size text data bad broken_off", defaults=(0, "", b"", frozenset(), False))


def sectors(ranges):
    out = set()
    for start, length in ranges:
        out.update(range(start // SECTOR, (start + length) // SECTOR))
    return frozenset(out)


class Library:
    """One reader process, started again when it dies."""

    def __init__(self, program=READER_SAN):
        self.program = program
        self.process = None

    def start(self):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([self.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log)

    def answer(self):
        """Its line; less than that if it dies. Silence ends it."""
        line, end = b"", time.monotonic() + SILENCE
        while not line.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                self.process.kill()
                return f"no answer in {SILENCE} s, "
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                return ""
            line += part
        return line.decode(errors="replace")

    def died(self, why=""):
        self.process.wait()
        self.log.seek(0)
        text = self.log.read().decode(errors="replace")
        status, self.process = self.process.returncode, None
        return Verdict("died", text=f"{why}status {status}: {text[:4000]}")

    def judge(self, image, out, words=()):
        if not self.process:
            self.start()
        try:
            self.process.stdin.write("\t".join([image, out, str(LIMIT), *words]).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self.died()
        line = self.answer()
        if not line.endswith("\n"):
            return self.died(line)
        return self.parse(line.rstrip("\n"), out)

    @staticmethod
    def parse(line, out):
        word, _, rest = line.partition(" ")
        if word == "refused":
            return Verdict("refused", text=rest.partition(" ")[2])
        if word != "read":
            return Verdict("wrong", text=rest)
        size, *ranges = rest.split("\t")
        bad = sectors(tuple(map(int, r.split("+"))) for r in ranges)
        data = open(out, "rb").read() if out != "-" else b""
        return Verdict("read", int(size), data=data, bad=bad)

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()


def qemu_source(image, size):
    """Only the beginning of a disk that is larger than LIMIT."""
    if size <= LIMIT:
        return ["-f", "qcow2", image]
    return ["--image-opts", f"driver=raw,offset=0,size={LIMIT},file.driver=qcow2,file.file.driver=file,"
            f"file.file.filename={image}"]


def qemu(image, out, size, options=()):
    """@size: of the disk, as the image's header has it. A time-out is the caller's to catch."""
    if os.path.exists(out):
        os.unlink(out)
    # QEMU looks for a data file in its working directory.
    done = subprocess.run(["qemu-img", "convert", "-U", "--salvage", "-t", "unsafe", "-O", "raw", *options,
                           *qemu_source(image, size), out], stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
                          cwd=os.path.dirname(image))
    text = done.stderr.decode(errors="replace")
    if not os.path.exists(out) or "Could not open" in text:
        return Verdict("refused", text=text.strip())
    bad = sectors((int(n), SECTOR) for n in re.findall(r"error while reading offset (\d+)", text))
    if done.returncode:
        return Verdict("failed", text=text.strip())
    return Verdict("read", os.path.getsize(out), data=open(out, "rb").read(LIMIT), bad=bad,
                   broken_off="No medium found" in text or "Marking image as corrupt" in text, text=text)
