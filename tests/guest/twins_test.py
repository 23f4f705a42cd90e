# SPDX-License-Identifier: MIT
"""Small guests of our own (twins/*.c) end in the same state on every engine: software CPU with and without its translator, KVM with the
kernel's interrupt chips, KVM with ours, and QEMU as a third opinion.

A guest is a 64 KiB firmware image in real mode ("r"), real mode with 4 GiB data segments ("u") or flat unpaged protected mode ("p"). It
writes a log of what it saw to the debug console; the logs, the registers of every CPU and the memory at the end must be equal.
"""
import collections
import concurrent.futures
import difflib
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
          "-Wno-missing-field-initializers", "-Wno-array-bounds", "-fno-toplevel-reorder", "-std=gnu11"]
MODES = {"r": ["-m16", "-DREAL_MODE"], "u": ["-m16", "-DUNREAL_MODE"], "p": ["-m32"]}
PARAMETER, LEFT_OUT = 0xFFE8, 0xFFEC  # boot.S, guest_parameter and guest_left_out

_lock = threading.RLock()
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


def kvm_access():
    """Raises Skip if KVM cannot be used at all."""
    if not os.path.exists("/dev/kvm"):
        raise context.Skip("there is no /dev/kvm: software CPU and QEMU were compared, KVM was not")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise context.Skip("no permission on /dev/kvm: software CPU and QEMU were compared, KVM was not")


def machines():
    yield Machine("soft", context.minivm(), ["-accel", "soft"])
    yield Machine("interpreter", context.minivm(), ["-accel", "soft,jit=off"])
    try:
        kvm_access()
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


def run(machine, image, args=(), timeout=None, cpus=1):
    """Runs a guest to its END and returns the Outcome."""
    with tempfile.TemporaryDirectory(prefix="minivm-twins-") as d:
        bios, log = os.path.join(d, "bios.bin"), os.path.join(d, "log")
        pathlib.Path(bios).write_bytes(image)
        command = [*machine.args, "-bios", bios, "-m", "16", "-vga", "none", "-nodefaults", "-smp", cpus, "-chardev",
                   f"file,id=log,path={log}", "-device", "isa-debugcon,iobase=0x402,chardev=log", "-no-reboot", *args]
        with vm.Vm(machine.program, command, serial=False) as m:
            end = time.monotonic() + (timeout or context.limit(15))
            while True:
                text = pathlib.Path(log).read_text(errors="replace") if os.path.exists(log) else ""
                if re.search(r"(?m)^END$", text):
                    break
                if m.process.poll() is not None or time.monotonic() > end or "cannot go on" in m.stderr():
                    errors = [n for n in m.stderr().splitlines() if "warning" not in n]
                    where = "" if m.process.poll() is not None else m.hmp("info registers")[:400]
                    raise AssertionError(f"{machine.name}: no END; the log ends:\n{text[-300:]}\n"
                                         + "\n".join(errors[:1] or [where]))
                time.sleep(0.005)
            while True:  # the last instructions up to HLT
                m.qmp.command("stop")
                texts = [m.qmp.command("human-monitor-command", command_line="info registers", cpu_index=n) for n in range(cpus)]
                if all("HLT=1" in t for t in texts) or time.monotonic() > end:
                    break
                m.qmp.command("cont")
                time.sleep(0.02)
            registers = [parse_registers(t) for t in texts]
            dump = os.path.join(d, "memory")
            m.qmp.command("pmemsave", val=0, size=0x60000, filename=dump)
            memory = pathlib.Path(dump).read_bytes()
            m.qmp.command("quit")
            m.wait_exit(20)
    assert "UNEXPECTED" not in text and "FAILED" not in text, f"{machine.name}:\n{text}"
    return Outcome(text.splitlines(), registers, memory)


# The facts of layout.h, by number: (mode to try it in, what it is).
FACTS = [
    ("p", "IRET in protected mode"), ("p", "x87 arithmetic"), ("p", "MMX and SSE"), ("p", "call gates"), ("p", "task switches"),
    ("p", "AAA, AAS, DAA"), ("p", "BOUND"), ("p", "LAR, VERR, ARPL"), ("p", "far return to an outer privilege"),
    ("p", "segment limits"), ("r", "single step"), ("r", "32-bit far return in real mode"), ("p", "flags of AAM and AAD"),
    ("p", "ENTER with nesting"), ("p", "INT n in protected mode"), ("p", "#UD for undefined opcodes"),
    ("r", "single step with MOV SS, REP and INT"),
    ("p", "interrupts between any two instructions"), ("r", "checks of control registers"),
    ("p", "interrupts in service in the local APIC"), ("r", "IRQ13 of the FPU"),
]
_facts = {}


def lacking(machine):
    """Mask of facts that this machine lacks. For KVM measured, each in a machine of its own that may end as it likes."""
    if machine.name in ("soft", "interpreter"):
        return 0
    if machine.name == "qemu":
        return sum(1 << n for n, (_, what) in enumerate(FACTS) if what in ("segment limits", "checks of control registers",
                                                                                "IRQ13 of the FPU"))
    with _lock:
        if machine.name not in _facts:
            cpu_facts = _facts.get("kvm")  # the same with either interrupt chips
            mask = 0
            for n, (mode, what) in enumerate(FACTS):
                if cpu_facts is not None and "APIC" not in what:
                    mask |= cpu_facts & 1 << n
                    continue
                image = bytearray(build("facts", mode))
                struct.pack_into("<II", image, PARAMETER, n, mask & 1)
                try:
                    has = "has it" in run(machine, bytes(image), timeout=3).log
                except (AssertionError, vm.Timeout, EOFError, RuntimeError):
                    has = False
                mask |= 0 if has else 1 << n
            _facts[machine.name] = mask
    return _facts[machine.name]


# Where another program is known to deviate: (machine, guest): [(pattern of log lines, why)].
PIT_WITHOUT_GATE = [
    (r"mode \d, gate off", "its 8254 counts on while the gate is low, and forces no output then (datasheet, Gate Pin Operations Summary)"),
    (r"mode [1245]:? out|mode [1245], gate", "its output in modes 1, 2, 4 and 5 is inverted while the gate is low or a one-shot runs"),
    (r"mode 1: out", "the same"),
    (r"count held|after a new count|read-back|low byte|high byte|whole count|bcd", "the gate again: the count moves"),
    (r"half a count", "it has no null count flag"),
    (r"mode 7", "its status byte shows mode 7 as 3; the datasheet says as written"),
]
DEVIATIONS = {
    ("qemu", "cpu"): [(r"\.byte 0xc6, 0xc8", "TCG takes C6 /1 for MOV; the SDM's opcode map has no such instruction")],
    ("qemu", "kbd"): [(r"command byte after it", "its self test leaves the system flag of the command byte alone"),
                      (r"resend", "its keyboard does not know resend")],
    ("qemu", "pit"): PIT_WITHOUT_GATE,
    ("kvm", "pit"): PIT_WITHOUT_GATE,
    ("kvm", "pic"): [(r"special mask", "the kernel's 8259 ignores special mask mode (OCW3)"),
                     (r"polled", "its poll does not set the in-service bit (8259A datasheet, Poll Command)")],
    ("qemu", "dma"): [(r"flip-flop", "its 8237 takes an address when both bytes are written; the chip writes each byte to both registers"),
                      (r"no such sector", "it says end of cylinder where the 82078 says no data")],
    ("qemu", "ide"): [(r"task file", "after success these registers are not defined (ATA/ATAPI-6, 8.27.5): ours hold the last sector's "
                       "address, QEMU's the next one's"), (r"identity", "we say that IORDY can be switched off, as PIO 3 requires"),
                      (r"behind the end", "it aborts; the standard has IDNF for an address outside"),
                      (r"initialize parameters", "it takes zero sectors a track")],
    ("qemu", "apic"): [(r"lint0 at reset", "masked, as in the SDM; ours and KVM's pass the 8259 on"),
                       (r"illegal vector", "it sends vectors below 16"),
                       (r"rtc by pin 8, not ack", "its IOAPIC takes a raise of a line that is up for another edge"),
                       (r"disabled|enabled again", "it does not mask the LVT (SDM vol. 3A, 10.4.7.2)")],
    ("qemu", "fpu"): [(r"x87 .* under 0[048c]7f", "TCG with 24-bit precision: the host's FPU has our results (and FRNDINT ignores precision)"),
                      (r"x87 status", "TCG has no C1 and no denormal flag of several operations"),
                      (r"x87 (underflow|overflow|environment)", "TCG has no stack faults and no pointers"),
                      (r"simd flags", "TCG has no denormal flag of several operations"),
                      (r"simd (addps|mulps|divps):", "TCG picks another NaN of two; the host's SSE has our results"),
                      (r"simd (#XM|mxcsr then|reserved bit)", "TCG raises no SSE exceptions and takes reserved bits of MXCSR")],
    ("qemu", "prot"): [(r"load: use of null|access:", "TCG checks neither type nor presence of a segment when it is used")],
    ("qemu", "real"): [(r"movl .*rdmsr", "TCG reads unknown MSRs as 0")],
    ("kvm", "apic"): [(r"illegal vector", "the kernel's local APIC notes no send errors")],
}
# LTR in TCG sets the busy bit in memory, not in the cached type.
REGISTERS_NOT_COMPARED = {"qemu": {"TR"}}


def differences(first, other, a, b, patterns):
    """Sentences about what differs between two outcomes."""
    left_out = [n.split(" ", 2)[2] for n in a.log + b.log if n.startswith("LEFT OUT ")]
    drop = [rf"LEFT OUT|(?:{name})\b" for name in left_out] + [p for p, _ in patterns]

    def kept(log):
        return [n for n in log if not any(re.match(p, n) for p in drop)]

    la, lb = kept(a.log), kept(b.log)
    for line in difflib.unified_diff(la, lb, first, other, lineterm="", n=0):
        if not line.startswith("@@"):
            yield line
    for cpu, (ra, rb) in enumerate(zip(a.registers, b.registers)):
        for name in sorted(set(ra) & set(rb) - REGISTERS_NOT_COMPARED.get(other, set())):
            if ra[name] != rb[name]:
                yield f"cpu {cpu} {name}: {first} {ra[name]}, {other} {rb[name]}"
    # A part that was left out has left its variables alone; the registers are the same all the same.
    if a.memory != b.memory and not left_out:
        at = [n for n in range(len(a.memory)) if a.memory[n] != b.memory[n]]
        yield (f"memory: {len(at)} bytes differ from {at[0]:#x}: {first} {a.memory[at[0]:at[0] + 16].hex()}, "
               f"{other} {b.memory[at[0]:at[0] + 16].hex()}")


def twins(guest, modes="rp", args=(), parameter=0, cpus=1, prepare=None):
    """Runs a guest everywhere and compares. prepare(dir) makes the files of one run and returns its options."""
    problems = []
    skip = None
    try:
        kvm_access()
    except context.Skip as e:
        skip = e
    def one(mode, machine):
        image = bytearray(build(guest, mode))
        struct.pack_into("<II", image, PARAMETER, parameter, lacking(machine))
        with tempfile.TemporaryDirectory(prefix="minivm-twins-") as d:
            more = prepare(pathlib.Path(d)) if prepare else []
            return run(machine, bytes(image), [*args, *more], cpus=cpus)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = {(mode, m.name): pool.submit(one, mode, m) for mode in modes for m in machines()}

    def compare(mode, machine, again):
        """What differs between the software CPU and that machine; `again`: in new runs, one after the other."""
        try:
            a, b = [one(mode, m) if again else jobs[mode, m.name].result() for m in (soft, machine)]
        except (AssertionError, vm.Timeout, EOFError) as e:
            return [str(e)]
        if os.environ.get("TWINS_SHOW") == machine.name:
            print("\n".join(b.log))
        return list(differences("soft", machine.name, a, b, DEVIATIONS.get((machine.name, guest), [])))[:14]

    soft = next(m for m in machines() if m.name == "soft")
    for mode in modes:
        for machine in machines():
            if machine.name == "soft":
                continue
            # The guests go by real time, and a busy host may stop any of these machines for a while: what differs
            # for another reason differs each time.
            for again in range(3):
                found = compare(mode, machine, again > 0)
                if not found:
                    break
            problems += [f"{guest} in mode {mode}: {f}" for f in found]
    assert not problems, "\n".join(problems)
    if skip:
        raise skip


def test_cpu():
    twins("cpu")


def test_pic():
    twins("pic", args=["-serial", "null", "-serial", "null"])


def test_pit():
    twins("pit")


def test_rtc():
    twins("rtc")


def test_kbd():
    twins("kbd")


def disk(d):
    """A 4 MiB disk whose sectors are numbered, and its options."""
    image = d / "disk.img"
    image.write_bytes(b"".join(struct.pack("<II", n, n ^ 0xFFFFFFFF) * 64 for n in range(8192)))
    return ["-drive", f"file={image},format=raw,if=ide,index=0"]


def virtio(d):
    """The same disk on a virtio card, and random numbers."""
    _, options = disk(d)
    return ["-drive", options.replace("if=ide,index=0", "if=none,id=d"),
            "-device", "virtio-blk-pci,drive=d,addr=4,serial=TWIN,num-queues=1", "-device", "virtio-rng-pci,addr=5"]


def floppy(d):
    """A 1.44 MB floppy whose sectors are numbered, and its options."""
    image = d / "floppy.img"
    image.write_bytes(b"".join(struct.pack("<II", n, n * 0x10001) * 64 for n in range(2880)))
    return ["-drive", f"file={image},format=raw,if=floppy,index=0"]


def test_ide():
    twins("ide", prepare=disk)


def test_virtio():
    twins("virtio", "up", prepare=virtio)


def test_virtio_notifications_stay_in_the_kernel():
    """On KVM queues are notified by ioeventfd and messages go by irqfd; ioeventfd=off takes the first away."""
    kvm_access()
    found = {}
    for switch in ("on", "off"):
        with tempfile.TemporaryDirectory(prefix="minivm-twins-") as d:
            bios, log = os.path.join(d, "bios.bin"), os.path.join(d, "log")
            image = bytearray(build("virtio", "u"))
            machine = Machine("kvm", context.minivm(), ["-accel", "kvm"])
            struct.pack_into("<II", image, PARAMETER, 0, lacking(machine))
            pathlib.Path(bios).write_bytes(image)
            with vm.Vm(machine.program, [*machine.args, "-bios", bios, "-m", "16", "-vga", "none", "-nodefaults", "-chardev",
                                         f"file,id=log,path={log}", "-device", "isa-debugcon,iobase=0x402,chardev=log",
                                         *(n.replace("num-queues=1", f"num-queues=1,ioeventfd={switch}").replace(
                                             "rng-pci", f"rng-pci,ioeventfd={switch}") for n in virtio(pathlib.Path(d)))],
                       serial=False) as m:
                end = time.monotonic() + 60 * context.patience()
                while "\nEND\n" not in pathlib.Path(log).read_text(errors="replace"):
                    assert m.process.poll() is None and time.monotonic() < end, pathlib.Path(log).read_text(errors="replace")[-300:]
                    time.sleep(0.005)
                found[switch] = m.hmp("info engine")
    counts = {n: [int(x) for x in re.search(r"doorbells in the kernel (\d+), interrupt messages routed (\d+)", t).groups()]
              for n, t in found.items()}
    assert counts["on"][0] >= 2 and counts["off"][0] == 0, found
    assert counts["on"][1] >= 1 and counts["off"][1] >= 1, found
    # The guest notifies more than 600 times through memory (and reads ports while it waits).
    exits = {n: int(re.search(r"exits:.* mmio (\d+)", t).group(1)) for n, t in found.items()}
    assert exits["on"] + 600 < exits["off"], found


def test_dma():
    twins("dma", prepare=floppy)


def test_apic():
    twins("apic", "up")


def test_smp():
    twins("smp", "up", cpus=2)


def test_halt():
    twins("halt")


def test_real():
    twins("real", "r")


def reset_outcomes(parameter, mode, *args):
    for machine in machines():
        image = bytearray(build("reset", mode))
        struct.pack_into("<II", image, PARAMETER, parameter, lacking(machine))
        with tempfile.TemporaryDirectory(prefix="minivm-twins-") as d:
            bios = os.path.join(d, "bios.bin")
            pathlib.Path(bios).write_bytes(image)
            with vm.Vm(machine.program, [*machine.args, "-bios", bios, "-m", "16", "-vga", "none", "-nodefaults", "-S",
                                      *args], serial=False) as m:
                # The guest may end the program before it has answered.
                try:
                    m.qmp.command("cont")
                    event = m.qmp.wait_event("SHUTDOWN", 20)
                except EOFError:
                    event = None
                yield machine.name, m.wait_exit(20), event and event["data"]


def test_reset():
    """Each way of resetting ends a machine that has -no-reboot with status 0 and says so."""
    for what in range(4):
        for mode in "rp":
            for name, status, data in reset_outcomes(what, mode, "-no-reboot"):
                assert status == 0, f"reset {what} in mode {mode} on {name}: status {status}"
                if data:
                    assert data == {"guest": True, "reason": "guest-reset"}, f"reset {what} in mode {mode} on {name}: {data}"
    for name, status, _ in reset_outcomes(4, "p", "-device", "isa-debug-exit,iobase=0x501,iosize=4"):
        assert status == 0x21, f"isa-debug-exit on {name}: {status}"
    for name, status, data in reset_outcomes(5, "p"):
        assert status == 0, f"power-off on {name}: {status}"
        if data:
            assert data == {"guest": True, "reason": "guest-shutdown"}, f"power-off on {name}: {data}"


def test_protected():
    twins("prot", "p")


def test_fpu():
    twins("fpu")


def test_what_kvm_lacks():
    """Says aloud what was not compared, because this host's KVM cannot run it (facts.c tried each)."""
    kvm_access()
    for machine in machines():
        if machine.name.startswith("kvm"):
            missing = [what for n, (_, what) in enumerate(FACTS) if lacking(machine) >> n & 1]
            if missing:
                raise context.Skip(f"-accel {machine.args[1]} here lacks, and the guests left out for it: {', '.join(missing)}")
