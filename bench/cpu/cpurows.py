# SPDX-License-Identifier: MIT
"""The programs of the CPU benchmark (*.c here): how they are built, and how one talks to them on the host or in a guest."""
import collections
import hashlib
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests" / "harness"))
import context  # noqa: E402
import debs  # noqa: E402
import guests  # noqa: E402
import vm  # noqa: E402

COMMON = ["-m32", "-O2", "-std=gnu11", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-fno-pie", "-fcf-protection=none",
          "-fno-strict-aliasing", "-fwrapv"]
I686, SSE2 = ["-march=i686", "-mfpmath=387"], ["-march=pentium4", "-mfpmath=sse"]
# What each object is made of; all else is plain i686 code.
SPECIAL = {"x87": ("float.c", I686 + ["-DUNIT=387"]), "sse": ("float.c", SSE2 + ["-DUNIT=2"]), "simd": ("simd.c", SSE2)}

Row = collections.namedtuple("Row", "group name what")


def build():
    """Path of the static i386 program `rows`, made once and kept in the cache."""
    compiler = context.requires("gcc")
    sources = sorted(HERE.glob("*.[ch]"))
    objects = dict(SPECIAL)
    for source in sources:
        if source.suffix == ".c" and source.name not in [name for name, _ in SPECIAL.values()]:
            objects[source.stem] = (source.name, I686)
    digest = hashlib.sha256(repr((COMMON, sorted(objects.items()))).encode())
    for source in sources:
        digest.update(source.read_bytes())
    path = context.cache() / f"rows-{digest.hexdigest()[:16]}"
    if path.exists():
        return path
    work = pathlib.Path(f"{path}.{os.getpid()}.d")
    work.mkdir()
    commands = [[compiler, *COMMON, *flags, "-c", str(HERE / source), "-o", f"{work}/{name}.o"]
                for name, (source, flags) in sorted(objects.items())]
    commands.append([compiler, "-m32", "-static", "-no-pie", "-o", f"{work}/rows",
                     *[f"{work}/{name}.o" for name in sorted(objects)], "-lm"])
    try:
        for command in commands:
            p = subprocess.run(command, capture_output=True, text=True)
            if p.returncode:
                raise context.Skip(f"{compiler} -m32 -static does not work (package gcc-multilib): {p.stderr}")
        os.rename(work / "rows", path)
    finally:
        for left in work.iterdir():
            left.unlink()
        work.rmdir()
    return path


def busybox():
    """Path of Debian's static i386 busybox, which the everyday tools are."""
    return debs.unpack("busybox-static") / "bin" / "busybox"


def rows():
    """All rows, in their order."""
    listed = subprocess.run([str(build()), "list"], capture_output=True, text=True, check=True).stdout
    return [Row(*line.split("\t")) for line in listed.splitlines()]


INIT = guests.PRELUDE + """
mount -t tmpfs none /tmp
dmesg -n 1
exec </dev/ttyS0 >/dev/ttyS0 2>&1
/bin/rows serve /tmp
poweroff -f
"""

# What a guest needs besides an engine and its serial line.
APPEND = "console=ttyS0 quiet panic=-1 cryptomgr.notests"


def guest_args():
    """Arguments of minivm or QEMU for a guest that serves rows on COM1 (main.c describes the protocol)."""
    kernel, _ = guests.kernel()
    initramfs = guests.initramfs(INIT, (), {"bin/rows": build().read_bytes()})
    return ["-m", "256", "-kernel", str(kernel), "-initrd", str(initramfs), "-append", APPEND, "-no-reboot"]


# Seconds: CPU time and wall clock as the row saw them, and as the host saw them from outside.
Result = collections.namedtuple("Result", "checksum cpu wall outside outside_wall")


class Failed(Exception):
    """A row found a wrong result; the message is its own."""


def process_cpu(pid):
    """Seconds of CPU time of all threads of a process (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


class Server:
    """Something that serves rows: one process of the host, in which a guest may run."""

    def run(self, row, count, timeout=600):
        self.send(f"{row} {count}\n")
        answer = self.expect(timeout)
        if answer != "begin":
            raise Failed(f"{self.name}: {answer}")
        cpu, wall = process_cpu(self.pid), time.perf_counter()
        self.send("go\n")
        answer = self.expect(timeout)
        outside, outside_wall = process_cpu(self.pid) - cpu, time.perf_counter() - wall
        if not answer.startswith("end "):
            raise Failed(f"{self.name}: {answer}")
        _, checksum, guest_cpu, guest_wall = answer.split()
        return Result(checksum, int(guest_cpu) / 1e6, int(guest_wall) / 1e6, outside, outside_wall)


class Host(Server):
    """The rows run natively. The CPU time from outside is that which the row reports."""
    name = "native"

    def __init__(self, folder):
        self.process = subprocess.Popen([str(build()), "serve", str(folder)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1,
                                        env=dict(os.environ, BUSYBOX=str(busybox())))
        self.pid = self.process.pid
        self.expect(60)

    def send(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def expect(self, timeout):
        line = self.process.stdout.readline().strip()
        if not line:
            raise Failed("native: the program ended")
        return line

    def run(self, row, count, timeout=600):
        result = super().run(row, count, timeout)
        return result._replace(outside=result.cpu)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Guest(Server):
    """The rows run in a guest of minivm or QEMU."""

    def __init__(self, name, command):
        self.name = name
        self.machine = vm.Vm(command[0], [*command[1:], *guest_args()], qmp=False)
        self.pid = self.machine.process.pid
        try:
            self.machine.wait_serial(r"(?m)^ready\r?\n", 600)
        except Exception:
            self.machine.close()
            raise

    def send(self, text):
        self.machine.type_serial(text)

    def expect(self, timeout):
        return self.machine.wait_serial(r"(?m)^(begin|end \S+ \d+ \d+|fail .*?)\r?\n", timeout).group(1)

    def power_off(self):
        """Ends the guest from inside; returns the exit status."""
        self.send("quit\n")
        return self.machine.wait_exit(120)

    def close(self):
        self.machine.close()
