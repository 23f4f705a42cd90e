# SPDX-License-Identifier: MIT
"""The programs that are compared, and how their times are taken."""
import shutil
import statistics
import subprocess
import sys
import time
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "harness"))
import context  # noqa: E402

Skip = context.Skip
median = statistics.median

# mov dx, 0x501; mov al, 5; out dx, al; hlt: a guest's last instructions, and the exit status that they make.
EXIT = b"\xba\x01\x05\xb0\x05\xee\xf4"
EXIT_STATUS = 5 << 1 | 1
MARK = b"\xe6\xe9"  # out 0xe9, al


def find(build):
    """{name: command} of what can run here: minivm on each usable engine, QEMU's interpreter-compiler as the measure."""
    minivm = str(build / "minivm")
    offered = subprocess.run([minivm, "-accel", "help"], capture_output=True, text=True, check=True).stdout
    found = {"minivm soft": [minivm, "-accel", "soft"]}
    if any(line.startswith("kvm ") and line.endswith(": usable") for line in offered.splitlines()):
        found["minivm kvm"] = [minivm, "-accel", "kvm"]
    else:
        print("SKIP minivm kvm: this host's KVM cannot run a PC (minivm -accel help)", file=sys.stderr)
    qemu = shutil.which("qemu-system-i386")
    if qemu:
        found["QEMU TCG"] = [qemu, "-accel", "tcg", "-nic", "none"]
    else:
        print("SKIP QEMU: qemu-system-i386 is not installed", file=sys.stderr)
    return found


def timed_marks(command):
    """Runs a guest that writes marks to port E9h and ends by isa-debug-exit; seconds from exec to each mark."""
    command = command + ["-display", "none", "-debugcon", "stdio", "-device", "isa-debug-exit"]
    start = time.perf_counter()
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    marks = []
    while p.stdout.read(1):
        marks.append(time.perf_counter() - start)
    errors = p.stderr.read().decode(errors="replace")
    if p.wait() != EXIT_STATUS or not marks:
        raise RuntimeError(f"{' '.join(command)}: status {p.returncode}, {len(marks)} marks: {errors}")
    return marks
