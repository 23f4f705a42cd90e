#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The block layer's tools beside qemu-img: copies, checks, random accesses, and the memory that they take.

usage: bench/block.py [--build DIR] [--rounds N] [--size MIB] [--only WORD]

Both programs take turns on the same files. Shown are the best times (what the program takes when nothing else runs), the processor
time that went into them, the ratios (above 1: minivm is faster) and the peak resident memory of both.
"""
import argparse
import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20
REQUESTS = 100000
# Bytes from one request of the "random" rows to the next: far, and through all of the disk.
STEP = 4096 * 10007


TIME = shutil.which("time")


def run(command):
    """Seconds, those of processors, and MiB resident at most (0 without the program `time`: this process' own count would hide a
    small program's). Output is dropped; a failure is an error."""
    with tempfile.NamedTemporaryFile("r") as memory, tempfile.TemporaryFile("w+") as words:
        wrapper = [TIME, "-f", "%M", "-o", memory.name] if TIME else []
        start = time.perf_counter()
        process = subprocess.Popen(wrapper + [str(c) for c in command], stdout=subprocess.DEVNULL, stderr=words)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            words.seek(0)
            raise RuntimeError(f"{command}: {process.returncode}: {words.read()}")
        return seconds, used.ru_utime + used.ru_stime, int(memory.read() or 0) / 1024


def make_source(path, size):
    """A disk as disks are: a third holes, a third text-like data that compresses, a third noise, mixed by pieces of 1 MiB."""
    rng = random.Random(1)
    words = [bytes(rng.choice(b"abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 9))) for _ in range(2000)]
    with open(path, "wb") as f:
        f.truncate(size)
        for at in range(0, size, MIB):
            kind = rng.randrange(3)
            f.seek(at)
            if kind == 1:
                text = b" ".join(rng.choice(words) for _ in range(40000))
                f.write((text * (MIB // len(text) + 1))[:MIB])
            elif kind == 2:
                f.write(rng.randbytes(MIB))


def make_chain(img, folder, size):
    """Five overlays on a full base, each holding some of the clusters."""
    base = folder / "chain0.qcow2"
    run([img, "create", "-q", "-f", "qcow2", base, size])
    run(["qemu-io", "-f", "qcow2", "-c", f"write -q 0 {size}", base])
    for n in range(1, 6):
        top = folder / f"chain{n}.qcow2"
        run([img, "create", "-q", "-f", "qcow2", "-b", base.name, "-F", "qcow2", top])
        rng, writes = random.Random(n), []
        for _ in range(100):
            writes += ["-c", f"write -q {rng.randrange(size // 65536) * 65536} 64k"]
        run(["qemu-io", "-f", "qcow2"] + writes + [top])
        base = top
    return base


def jobs(ours, theirs, folder, size):
    """(what, function that gives the command for a program and its own output file)."""
    raw, qcow2, full = folder / "src.raw", folder / "src.qcow2", folder / "full.qcow2"
    yield "convert raw to qcow2", lambda img, out: [img, "convert", "-f", "raw", "-O", "qcow2", raw, out]
    yield "convert qcow2 to raw", lambda img, out: [img, "convert", "-f", "qcow2", "-O", "raw", qcow2, out]
    yield "convert -c raw to qcow2", lambda img, out: [img, "convert", "-c", "-f", "raw", "-O", "qcow2", raw, out]
    for mode in ("metadata", "falloc", "full"):
        mib = 65536 if mode == "metadata" else 1024
        yield f"create, preallocation={mode}, {mib} MiB", lambda img, out, mode=mode, mib=mib: [
            img, "create", "-q", "-f", "qcow2", "-o", f"preallocation={mode}", out, f"{mib}M"]
    yield "compare raw with qcow2", lambda img, out: [img, "compare", "-f", "raw", "-F", "qcow2", raw, qcow2]
    yield "check, 1 million clusters", lambda img, out: [img, "check", "-f", "qcow2", folder / "million.qcow2"]
    yield "1 TiB empty: create", lambda img, out: [img, "create", "-q", "-f", "qcow2", out, "1T"]
    yield "1 TiB empty: convert", lambda img, out: [
        img, "convert", "-f", "qcow2", "-O", "qcow2", folder / "empty.qcow2", out]
    for name, fmt, path in (("raw", "raw", folder / "bench.raw"), ("qcow2", "qcow2", full),
                            ("chain of 5", "qcow2", folder / "chain5.qcow2"),
                            ("NBD (qemu-nbd, raw)", "raw", f"nbd+unix:///?socket={folder}/qemu-nbd"),
                            ("NBD (nbdkit, memory)", "raw", f"nbd+unix:///?socket={folder}/nbdkit")):
        for write in (False, True):
            for depth in (1, 32):
                yield (f"4 KiB random {'writes' if write else 'reads'}, depth {depth}, {name}",
                       lambda img, out, fmt=fmt, path=path, write=write, depth=depth: [
                           img, "bench", "-q", "-c", REQUESTS, "-d", depth, "-f", fmt, "-s", 4096, "-S", STEP]
                       + (["-w"] if write else []) + [path])


@contextlib.contextmanager
def server(folder, program, size):
    """A server, whose clients both programs are."""
    socket = folder / program
    process = subprocess.Popen(["qemu-nbd", "-t", "-e", "8", "-k", socket, "-f", "raw", folder / "bench.raw"]
                               if program == "qemu-nbd" else ["nbdkit", "-f", "-U", socket, "memory", str(size)])
    try:
        end = time.monotonic() + 30
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{program} does not start")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()


def prepare(theirs, folder, size):
    make_source(folder / "src.raw", size)
    run([theirs, "convert", "-f", "raw", "-O", "qcow2", folder / "src.raw", folder / "src.qcow2"])
    with open(folder / "bench.raw", "wb") as f:
        rng = random.Random(2)
        for _ in range(size // 2 // MIB):
            f.write(rng.randbytes(MIB))
    run([theirs, "convert", "-f", "raw", "-O", "qcow2", folder / "bench.raw", folder / "full.qcow2"])
    run([theirs, "create", "-q", "-f", "qcow2", folder / "empty.qcow2", "1T"])
    run([theirs, "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", folder / "million.qcow2", "64G"])
    make_chain(theirs, folder, size // 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="MiB of the disk that is copied")
    parser.add_argument("--only", default="", help="rows with this word alone")
    args = parser.parse_args()
    ours, theirs = str(pathlib.Path(args.build).resolve() / "minivm-img"), shutil.which("qemu-img")
    if not theirs or not shutil.which("qemu-io") or not shutil.which("qemu-nbd"):
        print("SKIP block: qemu-img, qemu-io and qemu-nbd are not installed (package qemu-utils)", file=sys.stderr)
        return
    print("| what | minivm-img ms | qemu-img ms | ratio | CPU ms | CPU ms | ratio | MiB | MiB |\n|---|---|---|---|---|---|---|---|---|")
    serving = set()
    with tempfile.TemporaryDirectory(prefix="minivm-bench-") as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        prepare(theirs, folder, args.size * MIB)
        for what, command in jobs(ours, theirs, folder, args.size * MIB):
            if args.only not in what:
                continue
            program = "nbdkit" if "nbdkit" in what else "qemu-nbd"
            if "NBD" in what and not shutil.which(program):
                print(f"SKIP {what}: {program} is not installed", file=sys.stderr)
                continue
            if "NBD" in what and program not in serving:
                stack.enter_context(server(folder, program, args.size * MIB // 2))
                serving.add(program)
            best, cpu, memory = {}, {}, {}
            for turn in range(args.rounds):
                # Who comes second finds what the first left in memory: they take turns in that as well.
                for program in (ours, theirs) if turn % 2 else (theirs, ours):
                    out = folder / "out"
                    out.unlink(missing_ok=True)
                    seconds, work, mib = run(command(program, out))
                    best[program] = min(best.get(program, seconds), seconds)
                    cpu[program] = min(cpu.get(program, work), work)
                    memory[program] = max(memory.get(program, mib), mib)
            print(f"| {what} | {best[ours] * 1000:.1f} | {best[theirs] * 1000:.1f} | {best[theirs] / best[ours]:.2f} | "
                  f"{cpu[ours] * 1000:.1f} | {cpu[theirs] * 1000:.1f} | {cpu[theirs] / cpu[ours]:.2f} | "
                  f"{memory[ours]:.1f} | {memory[theirs]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
