# SPDX-License-Identifier: MIT
"""What it costs to leave the guest: writes to a port that nobody owns, in real mode; KVM on both sides wherever /dev/kvm opens.

Real mode runs even on a KVM that cannot run a PC, so its usability is not asked.
"""
import os
import shutil
import struct

import programs

WRITES = 200_000


def image():
    """A 64 KiB firmware that writes a mark, WRITES times to port 2F0h (a serial port that is not there), and a mark."""
    loop = (programs.MARK
            + b"\x66\xb9" + struct.pack("<I", WRITES)  # mov ecx, WRITES
            + b"\xba\xf0\x02"                          # mov dx, 2F0h
            + b"\xee"                                  # again: out dx, al
            + b"\x66\x49"                              # dec ecx
            + b"\x75\xfb"                              # jnz again
            + programs.MARK + programs.EXIT)
    rom = bytearray(b"\xf4" * 65536)
    rom[0:len(loop)] = loop
    rom[0xFFF0:0xFFF5] = b"\xea\x00\x00\x00\xf0"  # jmp F000:0000
    return bytes(rom)


def rows(running, folder, rounds):
    bios = folder / "bios.bin"
    bios.write_bytes(image())
    cases = {"software CPU": running}
    qemu = shutil.which("qemu-system-i386")
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        kvm = {"minivm soft": [running["minivm soft"][0], "-accel", "kvm"]}
        if qemu:
            kvm["QEMU TCG"] = [qemu, "-accel", "kvm", "-nic", "none"]
        cases["KVM, in both columns"] = kvm
    for what, commands in cases.items():
        rates = {name: [] for name in commands}
        for _ in range(max(3, rounds // 2)):
            for name, command in commands.items():
                marks = programs.timed_marks(command + ["-bios", str(bios), "-m", "16", "-nodefaults", "-vga", "none"])
                rates[name].append(WRITES / (marks[1] - marks[0]) / 1000)
        values = {n: programs.median(r) for n, r in rates.items()}
        yield f"port writes, {what}", "1000/s", {n: values.get(n, values["minivm soft"]) for n in running}, True
