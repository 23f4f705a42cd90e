# SPDX-License-Identifier: MIT
"""Debian's i386 kernel: 4 KiB transfers on IDE and virtio disks, raw and qcow2, one and many in flight.

All programs' machines run at once, and take turns: one measures, the others wait idle for their consoles.
"""
import contextlib
import os
import re
import subprocess

import context
import guests
import programs
import vm

MIB = 256
MODULES = guests.PC_MODULES + ["virtio_pci", "virtio_blk"]
CARDS = {"virtio": "vd", "IDE": "sd"}
FORMATS = {"raw": "a", "qcow2": "b"}
LOADS = [("seq", 32), ("rand", 1), ("rand", 32)]
MEASURE_MS = 700


def program(folder):
    compiler = context.requires("gcc")
    out = folder / "disk"
    built = subprocess.run([compiler, "-m32", "-O1", "-static", "-D_FILE_OFFSET_BITS=64", "-o", str(out),
                            str(programs.ROOT / "bench" / "disk.c")], capture_output=True, text=True)
    if built.returncode:
        raise programs.Skip(f"{compiler} -m32 -static does not work (package gcc-multilib): {built.stderr}")
    return out.read_bytes()


def drives(folder):
    """Two disks of each card with the same random contents."""
    folder.mkdir()
    args = []
    for card in CARDS:
        raw = folder / f"{card}.raw"
        with open(raw, "wb") as f:
            for _ in range(MIB):
                f.write(os.urandom(1 << 20))
        qcow2 = folder / f"{card}.qcow2"
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, qcow2], check=True)
        for n, (path, kind) in enumerate(((raw, "raw"), (qcow2, "qcow2"))):
            where = "if=virtio" if card == "virtio" else f"if=ide,index={n}"
            args += ["-drive", f"file={path},format={kind},{where}"]
    return args


def measure(machine, device, op, order, depth):
    status, output = machine.run_serial(f"disk /dev/{device} {op} {order} {depth} {MEASURE_MS}", timeout=600)
    found = re.search(r"blocks (\d+) ns (\d+)", output)
    if status or not found:
        raise RuntimeError(f"disk in the guest: {output}")
    return int(found.group(1)) * 1e9 / int(found.group(2))


def rows(running, folder, rounds):
    context.requires("qemu-img")
    kernel, _ = guests.kernel()
    initrd = guests.initramfs(guests.SHELL, MODULES, {"bin/disk": program(folder)})
    with contextlib.ExitStack() as stack:
        machines = {}
        for name, command in running.items():
            args = command[1:] + ["-m", "256", "-kernel", str(kernel), "-initrd", str(initrd), "-append",
                                  "console=ttyS0 quiet panic=-1 cryptomgr.notests mitigations=off",
                                  *drives(folder / name.replace(" ", "-"))]
            machines[name] = stack.enter_context(vm.Vm(command[0], args))
        for machine in machines.values():
            machine.wait_serial("GUEST-READY", 900)
        for card, prefix in CARDS.items():
            for kind, letter in FORMATS.items():
                for order, depth in LOADS:
                    for op in ("read", "write"):
                        speeds = {name: [] for name in machines}
                        for _ in range(max(3, rounds // 4)):
                            for name, machine in machines.items():
                                speeds[name].append(measure(machine, prefix + letter, op, order, depth))
                        what = f"{card}, {kind}: {'sequential' if order == 'seq' else 'random'} {op}s of 4 KiB, {depth} in flight"
                        yield what, "1000/s", {n: programs.median(s) / 1000 for n, s in speeds.items()}, True
