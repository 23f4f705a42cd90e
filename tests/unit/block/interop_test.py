# SPDX-License-Identifier: MIT
"""Images go back and forth between minivm-img and qemu-img/qemu-io, over a generated matrix of shapes.

Each combination is an option set (version, cluster size, refcount width, subclusters, compression, data file,
preallocation), an occupation (chain depth, snapshot, compressed or not) and the side that makes the image. Both sides
write to it, check it and read it; all must agree, and agree with a plain file.
"""
import os
import random
import shutil
import subprocess
import tempfile

import context

COMBINATIONS = 336
TESTS = 8
SIZE = 3 * 1024 * 1024 + 512 * 7


def scratch():
    """A folder of its own, in memory where there is such a place: these tests sync a lot."""
    shm = "/dev/shm"
    return tempfile.mkdtemp(prefix="minivm-interop-", dir=shm if os.access(shm, os.W_OK) else None)


def run(*argv, expect=0, cwd=None):
    if cwd is None:  # names of data files count from there
        cwd = next((os.path.dirname(str(a)) for a in argv if "/minivm-interop-" in str(a)), None)
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=context.limit(60), cwd=cwd)
    if expect is not None and p.returncode != expect:
        raise AssertionError(f"{' '.join(map(str, argv))}: exit {p.returncode}\n{p.stdout}{p.stderr}")
    return p


def options(rnd):
    """A valid option set, as a list of key=value."""
    o = []
    extended = rnd.random() < 0.25
    if not extended and rnd.random() < 0.2:
        o.append("compat=0.10")
        o.append(f"cluster_size={512 << rnd.randrange(13)}")
        if rnd.random() < 0.2:
            o.append("preallocation=" + rnd.choice(["metadata", "falloc", "full"]))
        return o, False, False
    o.append("compat=1.1")
    o.append(f"cluster_size={16384 << rnd.randrange(8) if extended else 512 << rnd.randrange(13)}")
    if extended:
        o.append("extended_l2=on")
    refcount_bits = 1 << rnd.randrange(7)
    o.append(f"refcount_bits={refcount_bits}")
    if rnd.random() < 0.3:
        o.append("compression_type=zstd")
    if rnd.random() < 0.2:
        o.append("lazy_refcounts=on")
    data_file = rnd.random() < 0.2
    prealloc = rnd.random() < 0.15
    if prealloc:
        o.append("preallocation=" + rnd.choice(["metadata", "falloc", "full"]))
    return o, data_file, refcount_bits > 2


def combinations():
    """The matrix, the same on every run."""
    rnd = random.Random(20)
    seen = set()
    while len(seen) < COMBINATIONS:
        o, data_file, shares = options(rnd)
        raw = data_file and rnd.random() < 0.5
        prealloc = any(x.startswith("preallocation") for x in o)
        extended = "extended_l2=on" in o
        what = rnd.choice(["plain", "plain", "compressed", "chain", "chain3", "snapshot", "snapshot"])
        if what == "compressed" and (data_file or prealloc):
            what = "plain"
        if what.startswith("chain") and (raw or prealloc):
            what = "plain"
        if what == "snapshot" and (data_file or not shares):
            what = "plain"
        combo = (tuple(o), data_file, raw, what, rnd.choice(["we make it", "they make it"]))
        if combo not in seen and not (prealloc and extended and what != "plain"):
            seen.add(combo)
            yield combo


def contents(rnd, size):
    """Zeroes, runs of one byte, and noise."""
    b = bytearray(size)
    for _ in range(12):
        at, n = rnd.randrange(size), rnd.randrange(1, 200000)
        n = min(n, size - at)
        b[at:at + n] = rnd.randbytes(n) if rnd.random() < 0.4 else bytes([rnd.randrange(1, 256)]) * n
    return b


class Disk:
    """An image file and what it should hold."""

    def __init__(self, path, model, rnd):
        self.path, self.model, self.rnd = path, bytearray(model), rnd

    def place(self):
        at = self.rnd.randrange(len(self.model) // 512) * 512
        n = min(self.rnd.choice([512, 4096, 65536, 150 * 512, 400000 // 512 * 512]), len(self.model) - at)
        return at, n

    def they_write(self):
        commands = []
        for _ in range(4):
            at, n = self.place()
            kind = self.rnd.randrange(3)
            if kind == 0:
                commands += ["-c", f"write -z {at} {n}"]
                self.model[at:at + n] = bytes(n)
            else:
                p = self.rnd.randrange(1, 256)
                commands += ["-c", f"write -P {p} {at} {n}"]
                self.model[at:at + n] = bytes([p]) * n
        out = run("qemu-io", "-f", "qcow2", *commands, self.path).stdout
        assert "rror" not in out and "ailed" not in out, out

    def we_write(self):
        for _ in range(3):
            at, n = self.place()
            p = self.rnd.randrange(256)
            run(context.minivm_img(), "bench", "-q", "-w", "-f", "qcow2", "-c", 1, "-d", 1, "-s", n, "-o", at,
                f"--pattern={p}", self.path)
            self.model[at:at + n] = bytes([p]) * n

    def agree(self):
        """Both find the image sound, and both read what was written."""
        run("qemu-img", "check", "-q", self.path)
        run(context.minivm_img(), "check", "-q", self.path)
        for tool in ("qemu-img", context.minivm_img()):
            run(tool, "convert", "-f", "qcow2", "-O", "raw", self.path, self.path + ".raw")
            with open(self.path + ".raw", "rb") as f:
                got = f.read()
            if got != self.model:
                bad = next((i for i, (a, b) in enumerate(zip(got, self.model)) if a != b), "the end")
                raise AssertionError(f"{tool} reads something else from {self.path} at {bad}")


def one(combo, number, folder):
    o, data_file, raw, what, maker = combo
    rnd = random.Random(number)
    name = os.path.join(folder, f"{number}.qcow2")
    ours, theirs = context.minivm_img(), "qemu-img"
    tool = ours if maker == "we make it" else theirs
    o = list(o)
    if data_file:
        o.append(f"data_file={number}.data")
    if raw:
        o.append("data_file_raw=on")
    try:
        model = contents(rnd, SIZE)
        source = name + ".source"
        with open(source, "wb") as f:
            f.write(model)
        if what.startswith("chain"):
            backing, form = source, "raw"
            for level in range(2 if what == "chain3" else 0):
                middle = f"{name}.{level}"
                run(theirs if level == 0 else ours, "create", "-q", "-f", "qcow2", "-b", backing, "-F", form, middle)
                below = Disk(middle, model, rnd)
                below.they_write() if level else below.we_write()
                model, backing, form = below.model, middle, "qcow2"
            run(tool, "create", "-q", "-f", "qcow2", "-o", ",".join(o), "-b", backing, "-F", form, name)
        else:
            run(tool, "convert", *(["-c"] if what == "compressed" else []), "-f", "raw", "-O", "qcow2", "-o",
                ",".join(o), source, name)
        disk = Disk(name, model, rnd)
        disk.agree()
        if what == "snapshot":
            run(tool, "snapshot", "-c", "before", name)
            before = bytes(disk.model)
        disk.they_write()
        disk.we_write()
        disk.they_write()
        disk.agree()
        if what == "snapshot":
            run(theirs if tool == ours else ours, "snapshot", "-c", "second", name)
            disk.we_write()
            run(ours, "snapshot", "-a", "before", name)
            disk.model = bytearray(before)
            disk.they_write()
            disk.agree()
            run(ours, "snapshot", "-d", "before", name)
            run(theirs, "snapshot", "-d", "second", name)
            disk.agree()
        if raw:
            with open(os.path.join(folder, f"{number}.data"), "rb") as f:
                got = f.read()
            # qemu-img makes it end with a whole cluster
            assert got[:SIZE] == disk.model and not any(got[SIZE:]), "the raw data file is not the disk"
    finally:
        for f in os.listdir(folder):
            if f.startswith(f"{number}."):
                os.unlink(os.path.join(folder, f))


def part(index):
    context.requires("qemu-img")
    context.requires("qemu-io")
    folder = scratch()
    failed = []
    try:
        for number, combo in enumerate(combinations()):
            if number % TESTS != index:
                continue
            try:
                one(combo, number, folder)
            except Exception as e:
                failed.append(f"combination {number} {combo}: {e}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if failed:
        raise AssertionError(f"{len(failed)} combinations failed:\n" + "\n".join(failed[:5]))


def test_matrix_part_1_goes_back_and_forth(): part(0)
def test_matrix_part_2_goes_back_and_forth(): part(1)
def test_matrix_part_3_goes_back_and_forth(): part(2)
def test_matrix_part_4_goes_back_and_forth(): part(3)
def test_matrix_part_5_goes_back_and_forth(): part(4)
def test_matrix_part_6_goes_back_and_forth(): part(5)
def test_matrix_part_7_goes_back_and_forth(): part(6)
def test_matrix_part_8_goes_back_and_forth(): part(7)
