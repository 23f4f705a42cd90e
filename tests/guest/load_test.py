# SPDX-License-Identifier: MIT
"""Linux under load on the software CPU, with one, two and four CPUs.

Programs from tests/guest/programs run here and in the guest and must print the same; data goes through the guest's
tools and must come out as the host's tools say.
"""
import bz2
import gzip
import hashlib
import lzma
import os
import random
import subprocess

import context
import guests
import vm
from context import cost

PROGRAMS = context.ROOT / "tests" / "guest" / "programs"
FLAGS = ["-m32", "-O1", "-msse2", "-mfpmath=sse", "-static", "-no-pie", "-fno-pie", "-pthread"]


def program(name):
    """The bytes of a static i386 program, and what it prints here."""
    compiler = context.requires("gcc")
    source = PROGRAMS / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    path = context.cache() / f"{name}-{digest}"
    if not path.exists():
        part = f"{path}.{os.getpid()}.part"
        built = subprocess.run([compiler, *FLAGS, "-o", part, str(source), "-lm"], capture_output=True, text=True)
        if built.returncode:
            raise context.Skip(f"{compiler} -m32 -static does not work (package gcc-multilib): {built.stderr}")
        os.rename(part, path)
    try:
        p = subprocess.run([str(path)], capture_output=True, text=True, timeout=60)
    except OSError as e:
        raise context.Skip(f"this host does not run i386 programs: {e}")
    assert p.returncode == 0, p.stdout + p.stderr
    return path.read_bytes(), p.stdout


def random_data(size):
    return random.Random(1).randbytes(size)


def words(size):
    """Text that compresses as text does."""
    r = random.Random(2)
    vocabulary = ["".join(r.choices("abcdefghijklmnopqrstuvwxyz", k=r.randint(2, 9))) for _ in range(2000)]
    lines = []
    while sum(map(len, lines)) < size:
        lines.append(" ".join(r.choices(vocabulary, k=10)) + "\n")
    return "".join(lines).encode()


def boot(files, cpus, append=""):
    kernel, _ = guests.kernel()
    initramfs = guests.initramfs(guests.SHELL, (), files)
    machine = vm.Vm(context.minivm(), ["-accel", "soft", "-m", "256", "-smp", cpus, "-kernel", kernel, "-initrd",
                                       initramfs, "-append", f"console=ttyS0 panic=-1 cryptomgr.notests quiet {append}",
                                       "-no-reboot"])
    machine.wait_serial("GUEST-READY", timeout=300)
    return machine


def power_off(m):
    m.type_serial("poweroff -f\n")
    assert m.wait_exit(120) == 0


def run_programs(names, cpus):
    programs = {name: program(name) for name in names}
    with boot({f"bin/{name}": programs[name][0] for name in names}, cpus) as m:
        for name in names:
            status, output = m.run_serial(name, timeout=180)
            expected = programs[name][1]
            assert output.strip() == expected.strip() and status == 0, \
                f"{name} ended with {status} and said:\n{output}\nbut here it said:\n{expected}"
        power_off(m)


@cost(40)
def test_programs_print_what_they_print_on_the_host():
    run_programs(["floats", "faults", "selfmod", "step", "procs"], 1)


@cost(40)
def test_threads_and_processes_on_four_cpus():
    run_programs(["procs", "step", "selfmod"], 4)


def both(m, command, expected, timeout=120):
    status, output = m.run_serial(command, timeout)
    assert status == 0 and expected in output, f"{command}: {status} {output!r}, not {expected!r}"


@cost(50)
def test_tools_compute_what_the_host_computes():
    noise, text = random_data(1 << 18), words(1 << 19)
    sums = {"noise": hashlib.sha256(noise).hexdigest(), "text": hashlib.sha256(text).hexdigest()}
    files = {"data/noise": noise, "data/text.gz": gzip.compress(text, mtime=0), "data/text.bz2": bz2.compress(text),
             "data/text.xz": lzma.compress(text)}
    with boot(files, 2) as m:
        both(m, "sha256sum /data/noise", sums["noise"])
        both(m, "md5sum /data/noise", hashlib.md5(noise).hexdigest())
        for tool in ("gunzip", "bunzip2", "unxz"):
            suffix = {"gunzip": "gz", "bunzip2": "bz2", "unxz": "xz"}[tool]
            both(m, f"{tool} -c /data/text.{suffix} | sha256sum", sums["text"])
        m.run_serial("gunzip -c /data/text.gz >/tmp/text")
        # At the same time, each in processes of its own.
        both(m, "gzip -c /tmp/text | gunzip | sha256sum & bzip2 -c /data/noise | bunzip2 | cmp - /data/noise; a=$?; "
                "wait; echo bzip2 $a", "bzip2 0")
        assert sums["text"] in m.log
        both(m, "mkdir /tmp/t; cp -r /data /tmp/t; tar c -C /tmp/t data | tar x -C /tmp; "
                "for f in noise text.gz text.xz; do cmp /data/$f /tmp/data/$f || echo DIFFER; done; echo COM''PARED",
             "COMPARED")
        assert "DIFFER" not in m.log
        both(m, "dd if=/dev/zero bs=64k count=80 2>/dev/null | md5sum",
             hashlib.md5(bytes(80 << 16)).hexdigest())
        both(m, "n=0; while [ $n -lt 60 ]; do n=$((n + $(/bin/busybox expr 1 + 0))); done; echo count $n", "count 60")
        both(m, "awk 'BEGIN { for (n = 1; n <= 20000; n++) s += n / (n % 7 + 1.5) - 1 / n; printf \"%.9f\\n\", s }'",
             f"{sum(n / (n % 7 + 1.5) - 1 / n for n in range(1, 20001)):.9f}")
        both(m, "sort /tmp/text | uniq | md5sum", hashlib.md5(b"".join(sorted(set(text.splitlines(True))))).hexdigest())
        power_off(m)
