# SPDX-License-Identifier: MIT
"""Small guests of our own (twins/*.c) end in the same state on every engine: software CPU, KVM with the kernel's interrupt chips, KVM
with ours, and QEMU as a third opinion.

A guest is a 64 KiB firmware image in real mode ("r"), real mode with 4 GiB data segments ("u") or flat unpaged protected mode ("p"). It
writes a log of what it saw to the debug console; the logs, the registers of every CPU and the memory at the end must be equal.
"""
import collections
import os
import pathlib
import re
import struct
import subprocess
import tempfile
import threading
import time

import context
import vm

HERE = pathlib.Path(__file__).resolve().parent / "twins"
CFLAGS = ["-ffreestanding", "-fno-pic", "-fno-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-Os", "-march=i686",
          "-mgeneral-regs-only", "-fcf-protection=none", "-fno-strict-aliasing", "-fno-builtin", "-Wall", "-Wextra", "-Werror",
          "-Wno-missing-field-initializers", "-fno-toplevel-reorder", "-std=gnu11"]
MODES = {"r": ["-m16", "-DREAL_MODE"], "u": ["-m16", "-DUNREAL_MODE"], "p": ["-m32"]}
PARAMETER, LEFT_OUT = 0xFFE8, 0xFFEC  # boot.S, guest_parameter and guest_left_out

_lock = threading.Lock()
_built = {}
_dir = tempfile.TemporaryDirectory(prefix="minivm-twins-")


def run_tool(*args):
    p = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(f"{' '.join(map(str, args))}: {p.stderr}")


def build(guest, mode):
    """The bytes of a guest's image."""
    compiler = context.requires("gcc")
    context.requires("ld")
    context.requires("objcopy")
    with _lock:
        if (guest, mode) not in _built:
            out = pathlib.Path(_dir.name)
            objects = []
            for source in ("boot.S", "rt.c", f"{guest}.c"):
                objects.append(out / f"{guest}-{mode}-{source}.o")
                run_tool(compiler, *CFLAGS, *MODES[mode], "-c", HERE / source, "-o", objects[-1])
            elf = out / f"{guest}-{mode}.elf"
            run_tool("ld", "-m", "elf_i386", "-T", HERE / "link.ld", "--no-warn-rwx-segments", "-o", elf, *objects)
            # By load address: the guest at 0, the reset stub at 0xFF80.
            run_tool("objcopy", "-O", "binary", "--gap-fill", "0xf4", elf, out / f"{guest}-{mode}.bin")
            _built[guest, mode] = (out / f"{guest}-{mode}.bin").read_bytes()
            assert len(_built[guest, mode]) == 0x10000, len(_built[guest, mode])
    return _built[guest, mode]


Machine = collections.namedtuple("Machine", "name program args")


def kvm_state():
    """("full" or "limited", why) or raises Skip."""
    if not os.path.exists("/dev/kvm"):
        raise context.Skip("there is no /dev/kvm: software CPU and QEMU were compared, KVM was not")
    p = subprocess.run([context.minivm(), "-accel", "help"], capture_output=True, text=True)
    line = next((n for n in p.stdout.splitlines() if n.startswith("kvm")), "")
    if "permission" in line or not line:
        raise context.Skip(f"KVM was not compared: {line}")
    return "full" if "usable" in line and "cannot" not in line else "limited"


def machines():
    yield Machine("soft", context.minivm(), ["-accel", "soft"])
    try:
        kvm_state()
        yield Machine("kvm", context.minivm(), ["-accel", "kvm"])
        yield Machine("kvm-our-chips", context.minivm(), ["-accel", "kvm,kernel-irqchip=off"])
    except context.Skip:
        pass
    try:
        yield Machine("qemu", context.requires("qemu-system-i386"), ["-accel", "tcg", "-net", "none"])
    except context.Skip:
        pass


class Outcome:
    """What a machine had to say: log lines, registers by CPU, memory."""

    def __init__(self, log, registers, memory):
        self.log, self.registers, self.memory = log, registers, memory


def parse_registers(text):
    """{name: value} of `info registers`, in the form that minivm and QEMU share."""
    found = {}
    for name, value in re.findall(r"\b([A-Z][A-Z0-9]+) ?= ?([0-9a-f]+)", text):
        if name not in ("II", "SMM", "A20", "HLT", "CPL", "DPL"):
            found[name] = value
    for name, selector, base, limit, attr in re.findall(
            r"(?m)^([ECSDFGLT][SDR]T?) ?= ?([0-9a-f]{4}) ([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]+)", text):
        bits = int(attr, 16)
        if len(attr) == 8:  # QEMU: as in the second dword of a descriptor
            bits = bits >> 8 & 0xF0FF
        found[name] = f"{selector} {base} {limit} {bits:04x}"
    for name, base, limit in re.findall(r"([GI]DT)= +([0-9a-f]{8}) ([0-9a-f]{8})", text):
        found[name] = f"{base} {limit}"
    for name, mantissa, exponent in re.findall(r"(FPR\d)=([0-9a-f]{16}) ([0-9a-f]{4})", text):
        found[name] = f"{mantissa} {exponent}"
    for name, value in re.findall(r"(XMM\d\d)=([0-9a-f ]{32,33})", text):
        found[name] = value.replace(" ", "").strip()
    return found


def run(machine, image, args=(), timeout=40, cpus=1):
    """Runs a guest to its END and returns the Outcome."""
    with tempfile.TemporaryDirectory(prefix="minivm-twins-") as d:
        bios, log = os.path.join(d, "bios.bin"), os.path.join(d, "log")
        pathlib.Path(bios).write_bytes(image)
        command = [*machine.args, "-bios", bios, "-m", "16", "-vga", "none", "-nodefaults", "-smp", cpus, "-chardev",
                   f"file,id=log,path={log}", "-device", "isa-debugcon,iobase=0x402,chardev=log", *args]
        with vm.Vm(machine.program, command, serial=False) as m:
            end = time.monotonic() + timeout
            while True:
                text = pathlib.Path(log).read_text(errors="replace") if os.path.exists(log) else ""
                if re.search(r"(?m)^END$", text):
                    break
                if m.process.poll() is not None or time.monotonic() > end:
                    state = "" if m.process.poll() is not None else m.hmp("info registers")
                    raise AssertionError(f"{machine.name}: no END; log:\n{text[-2000:]}\nstderr: {m.stderr()}\n{state}")
                time.sleep(0.005)
            time.sleep(0.02)  # the last instructions up to HLT
            m.qmp.command("stop")
            registers = []
            for n in range(cpus):
                m.hmp(f"cpu {n}")
                registers.append(parse_registers(m.hmp("info registers")))
            dump = os.path.join(d, "memory")
            m.qmp.command("pmemsave", val=0, size=0x60000, filename=dump)
            memory = pathlib.Path(dump).read_bytes()
            m.qmp.command("quit")
            m.wait_exit(20)
    assert "UNEXPECTED" not in text and "FAILED" not in text, f"{machine.name}:\n{text}"
    return Outcome(text.splitlines(), registers, memory)


# Parts that a KVM without hardware virtualisation cannot run: {guest: (bit mask, why)}.
LIMITED_KVM = {}

# Where another program is known to deviate: (machine, guest): [(pattern of log lines, why)].
DEVIATIONS = {}
QEMU_REGISTERS = {}


def differences(first, other, a, b, patterns):
    """Sentences about what differs between two outcomes."""
    left_out = [n.split(" ", 2)[2] for n in a.log + b.log if n.startswith("LEFT OUT ")]
    drop = [rf"LEFT OUT|(?:{re.escape(name)})\b" for name in left_out] + [p for p, _ in patterns]

    def kept(log):
        return [n for n in log if not any(re.match(p, n) for p in drop)]

    la, lb = kept(a.log), kept(b.log)
    for n in range(max(len(la), len(lb))):
        va, vb = (x[n] if n < len(x) else "(nothing)" for x in (la, lb))
        if va != vb:
            yield f"log: {first} {va!r}, {other} {vb!r}"
    if left_out:
        return
    for cpu, (ra, rb) in enumerate(zip(a.registers, b.registers)):
        for name in sorted(set(ra) & set(rb)):
            if ra[name] != rb[name]:
                yield f"cpu {cpu} {name}: {first} {ra[name]}, {other} {rb[name]}"
    if a.memory != b.memory:
        at = [n for n in range(len(a.memory)) if a.memory[n] != b.memory[n]]
        yield (f"memory: {len(at)} bytes differ from {at[0]:#x}: {first} {a.memory[at[0]:at[0] + 16].hex()}, "
               f"{other} {b.memory[at[0]:at[0] + 16].hex()}")


def twins(guest, modes="rp", args=(), parameter=0, cpus=1, prepare=None):
    """Runs a guest everywhere and compares. prepare(dir) makes the files of one run and returns its options."""
    problems = []
    limited = 0
    try:
        if kvm_state() == "limited":
            limited = LIMITED_KVM.get(guest, (0, ""))[0]
        skip = None
    except context.Skip as e:
        skip = e
    for mode in modes:
        plain = build(guest, mode)
        outcomes = {}
        for machine in machines():
            image = bytearray(plain)
            struct.pack_into("<II", image, PARAMETER, parameter, limited if machine.name.startswith("kvm") else 0)
            with tempfile.TemporaryDirectory(prefix="minivm-twins-") as d:
                more = prepare(pathlib.Path(d)) if prepare else []
                try:
                    outcomes[machine.name] = run(machine, bytes(image), [*args, *more], cpus=cpus)
                except (AssertionError, vm.Timeout, EOFError, RuntimeError) as e:
                    problems.append(f"{guest} in mode {mode}: {e}")
        if "soft" not in outcomes:
            continue
        for name, outcome in outcomes.items():
            if os.environ.get("TWINS_SHOW") == name:
                print("\n".join(outcome.log))
            if name != "soft":
                found = differences("soft", name, outcomes["soft"], outcome, DEVIATIONS.get((name, guest), []))
                problems += [f"{guest} in mode {mode}: {f}" for f in list(found)[:60]]
    assert not problems, "\n".join(problems)
    if skip:
        raise skip


def test_cpu():
    twins("cpu")
