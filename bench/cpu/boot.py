# SPDX-License-Identifier: MIT
"""From exec of the emulator to a guest's first sign of life, in CPU time and by the clock."""
import re
import time

import cpurows
from cpurows import guests, vm

INIT = """#!/bin/busybox sh
echo USERSPACE
exec /bin/busybox poweroff -f
"""

# A boot sector that writes a mark to COM1, which SeaBIOS leaves alone, and halts: mov dx, 0x3f8; mov al, '!'; out dx, al; hlt
MARKING_SECTOR = b"\xba\xf8\x03\xb0\x21\xee\xf4"


def cases(folder):
    """(what, arguments, pattern on the serial line) of each boot."""
    kernel, _ = guests.kernel()
    initramfs = guests.initramfs(INIT)
    yield ("Debian's i386 kernel to userspace (-kernel)",
           ["-m", "256", "-kernel", str(kernel), "-initrd", str(initramfs), "-append", cpurows.APPEND, "-no-reboot"],
           r"USERSPACE")
    floppy = folder / "floppy.img"
    floppy.write_bytes((MARKING_SECTOR.ljust(510, b"\0") + b"\x55\xaa").ljust(1440 * 1024, b"\0"))
    yield "SeaBIOS to boot sector", ["-m", "256", "-boot", "a", "-drive", f"file={floppy},if=floppy,format=raw"], "!"


def time_to(command, pattern):
    """(CPU seconds, seconds) until the serial line says it."""
    start = time.perf_counter()
    with vm.Vm(command[0], command[1:], qmp=False) as machine:
        machine.wait_serial(pattern, 600)
        return cpurows.process_cpu(machine.process.pid), time.perf_counter() - start
