#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Start-up, side by side with QEMU in one run: time from exec to the guest's first instructions, from exec to a boot sector,
and memory before the guest runs.

usage: bench/startup.py [--build DIR] [--rounds N]

The machines this runs on are noisy: programs take turns, medians are shown, and ratios are what counts.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXIT = b"\xba\x01\x05\xb0\x05\xee\xf4"  # mov dx, 0x501; mov al, 5; out dx, al; hlt
STATUS = 5 << 1 | 1


def reset_vector_image():
    """A 64 KiB firmware whose first instructions end the program."""
    image = bytearray(b"\xf4" * 65536)
    image[0xFFF0:0xFFF0 + len(EXIT)] = EXIT
    return bytes(image)


def boot_sector_image():
    """A floppy image whose boot sector ends the program."""
    return (EXIT + bytes(510 - len(EXIT)) + b"\x55\xaa").ljust(1440 * 1024, b"\0")


def run(command):
    start = time.perf_counter()
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = p.stderr.read()
    _, status, usage = os.wait4(p.pid, 0)
    seconds = time.perf_counter() - start
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode != STATUS:
        sys.exit(f"{' '.join(command)}: status {p.returncode}: {errors.decode()}")
    return seconds, usage.ru_maxrss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    minivm = f"{args.build}/minivm"
    common = ["-display", "none", "-m", "256", "-device", "isa-debug-exit"]
    programs = {"minivm soft": [minivm, "-accel", "soft", *common]}
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        programs["minivm kvm"] = [minivm, "-accel", "kvm", *common]
    else:
        print("SKIP minivm kvm: /dev/kvm cannot be opened")
    qemu = shutil.which("qemu-system-i386")
    if qemu:
        programs["qemu tcg"] = [qemu, *common, "-nic", "none"]
    else:
        print("SKIP qemu: qemu-system-i386 is not installed")
    with tempfile.TemporaryDirectory() as d:
        bios, floppy = f"{d}/bios.bin", f"{d}/floppy.img"
        pathlib.Path(bios).write_bytes(reset_vector_image())
        pathlib.Path(floppy).write_bytes(boot_sector_image())
        rows = {
            "exec to first instruction": ["-bios", bios],
            "exec to boot sector (SeaBIOS)": ["-boot", "a", "-drive", f"file={floppy},if=floppy,format=raw"],
        }
        for row, extra in rows.items():
            times = {name: [] for name in programs}
            memory = {}
            for _ in range(args.rounds):
                for name, command in programs.items():
                    seconds, kib = run(command + extra)
                    times[name].append(seconds)
                    memory[name] = kib
            for name in programs:
                median = statistics.median(times[name])
                ratio = f", {statistics.median(times['qemu tcg']) / median:.1f} times faster than QEMU" \
                    if qemu and name != "qemu tcg" else ""
                print(f"{row:32} {name:12} {median * 1000:8.1f} ms, peak {memory[name] / 1024:6.1f} MiB resident{ratio}")


if __name__ == "__main__":
    main()
