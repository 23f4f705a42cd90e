#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""minivm-nbd beside qemu-nbd: copies by nbdcopy and 4 KiB accesses all over the disk, over a unix socket.

usage: bench/nbd.py [--build DIR] [--rounds N] [--size MIB] [--only WORD]

Both servers take turns on the same image with the same client. Shown are the best times (what it takes when nothing else runs), the
ratio (above 1: minivm-nbd is faster), and what the server itself used: CPU seconds and peak resident memory.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20
REQUESTS = 40000
STEP = 4096 * 257  # bytes from one request of the "4 KiB" rows to the next


class Server:
    def __init__(self, program, image, image_format, folder):
        self.socket = folder / "socket"
        self.process = subprocess.Popen([program, "-t", "-e", "8", "--discard=unmap", "-k", self.socket, "-f", image_format, image])
        end = time.monotonic() + 30
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{program} does not start")
            time.sleep(0.01)
        self.uri = f"nbd+unix:///?socket={self.socket}"

    def used(self):
        """CPU seconds, and MiB resident at most."""
        pid = self.process.pid
        times = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        peak = next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM"))
        return (int(times[11]) + int(times[12])) / 100, int(peak.split()[1]) / 1024

    def end(self):
        self.process.terminate()
        if self.process.wait(60):
            raise RuntimeError("the server failed")


def seconds(command):
    start = time.perf_counter()
    done = subprocess.run([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.returncode}: {done.stderr}")
    return time.perf_counter() - start


def cases(source):
    """Name: the client's command, given the address."""
    found = {}
    if shutil.which("nbdcopy"):
        for connections in (1, 4):
            word = f"nbdcopy, connections: {connections}, "
            found[word + "out"] = lambda uri, n=connections: ["nbdcopy", f"--connections={n}", uri, "null:"]
            found[word + "in"] = lambda uri, n=connections: ["nbdcopy", f"--connections={n}", source, uri]
    else:
        print("SKIP nbdcopy: it is not installed", file=sys.stderr)
    for depth in (1, 32):
        for what, option in (("reads", []), ("writes", ["-w"])):
            found[f"4 KiB {what}, depth {depth}"] = lambda uri, d=depth, o=option: [
                "qemu-img", "bench", *o, "-f", "raw", "-c", REQUESTS if d > 1 else REQUESTS // 4, "-d", d, "-s", 4096, "-S", STEP, uri]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="MiB of the disk")
    parser.add_argument("--only", default="", help="rows that contain this word")
    args = parser.parse_args()
    ours = pathlib.Path(args.build).resolve() / "minivm-nbd"
    for tool in ("qemu-nbd", "qemu-img"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not installed: nothing to compare with")
    programs = {"minivm-nbd": ours, "qemu-nbd": "qemu-nbd"}
    print("| what | minivm-nbd | qemu-nbd | ratio | CPU | memory |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="minivm-bench-") as name:
        folder = pathlib.Path(name)
        source = folder / "source.raw"
        with open("/dev/urandom", "rb") as noise, open(source, "wb") as f:
            for _ in range(args.size):
                f.write(noise.read(MIB))
        for image_format in ("raw", "qcow2"):
            for what, command in cases(source).items():
                row = f"{image_format}, {what}"
                if args.only not in row:
                    continue
                best = {n: (float("inf"), 0, 0) for n in programs}
                for turn in range(args.rounds):
                    for n, program in sorted(programs.items(), reverse=turn % 2):
                        image = folder / "image"
                        seconds(["qemu-img", "convert", "-f", "raw", "-O", image_format, source, image])
                        server = Server(program, image, image_format, folder)
                        try:
                            took = seconds(command(server.uri))
                            best[n] = min(best[n], (took, *server.used()))
                        finally:
                            server.end()
                a, b = best["minivm-nbd"], best["qemu-nbd"]
                print(f"| {row} | {a[0]:.3f} s | {b[0]:.3f} s | {b[0] / a[0]:.2f} | {a[1]:.2f} s / {b[1]:.2f} s | "
                      f"{a[2]:.0f} / {b[2]:.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
