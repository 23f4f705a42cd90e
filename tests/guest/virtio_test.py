# SPDX-License-Identifier: MIT
"""virtio cards under Debian's i386 Linux and under SeaBIOS, on the software CPU."""
import hashlib
import os
import re
import socket
import subprocess
import sys
import tempfile

import context
import guests
import vm
from context import cost

MODULES = guests.PC_MODULES + ["virtio_pci", "virtio_blk", "virtio_rng", "virtio_console"]
FLAGS = ["-m32", "-O1", "-static", "-no-pie", "-fno-pie", "-pthread"]


def diskload():
    """The program that verifies every block that it wrote, for the guest."""
    compiler = context.requires("gcc")
    source = context.ROOT / "tests" / "guest" / "programs" / "diskload.c"
    digest = hashlib.sha256(source.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    path = context.cache() / f"diskload-{digest}"
    if not path.exists():
        part = f"{path}.{os.getpid()}.part"
        built = subprocess.run([compiler, *FLAGS, "-o", part, str(source)], capture_output=True, text=True)
        if built.returncode:
            raise context.Skip(f"{compiler} -m32 -static does not work (package gcc-multilib): {built.stderr}")
        os.rename(part, path)
    return path.read_bytes()


def boot(args, files=None):
    kernel, _ = guests.kernel()
    m = vm.Vm(context.minivm(), ["-accel", "soft", "-m", "256", "-kernel", kernel, "-initrd",
                                 guests.initramfs(guests.SHELL, MODULES, files), "-append",
                                 "console=ttyS0 panic=-1 cryptomgr.notests quiet", "-no-reboot", *args])
    m.wait_serial("GUEST-READY", timeout=300)
    return m


def power_off(m):
    m.type_serial("poweroff -f\n")
    assert m.wait_exit(120) == 0


def image(folder, kind):
    """The path of a disk image of 64 MiB."""
    path = f"{folder}/{kind}"
    create = [context.minivm_img(), "create", "-q", "-f", "raw" if kind == "raw" else "qcow2"]
    if kind == "overlay":
        base = f"{folder}/base.qcow2"
        subprocess.run([context.minivm_img(), "create", "-q", "-f", "qcow2", base, "64M"], check=True)
        subprocess.run([*create, "-b", base, "-F", "qcow2", path], check=True)
    else:
        subprocess.run([*create, path, "64M"], check=True)
    return path


@cost(90)
def test_disk_blocks_written_at_queue_depth_32_are_right():
    """Raw, qcow2 and an overlay at once, each through another kind of card."""
    with tempfile.TemporaryDirectory() as d:
        kinds = {"raw": "disable-modern=on", "qcow2": "disable-legacy=on,num-queues=2", "overlay": "vectors=0"}
        args = []
        for kind, properties in kinds.items():
            args += ["-drive", f"file={image(d, kind)},if=none,id={kind},format={'raw' if kind == 'raw' else 'qcow2'}",
                     "-device", f"virtio-blk-pci,drive={kind},serial=S-{kind},{properties}"]
        with boot(["-smp", "2", *args], {"bin/diskload": diskload()}) as m:
            for n, kind in enumerate(kinds):
                device = "vd" + "abc"[n]
                status, output = m.run_serial(f"cat /sys/block/{device}/serial; echo; "
                                              f"diskload /dev/{device} 32 4096 100", timeout=300)
                assert f"S-{kind}" in output and status == 0, (kind, output)
                assert int(re.search(r"ok (\d+)", output).group(1)) > 1000, output
            power_off(m)
        for kind in ("qcow2", "overlay"):
            check = subprocess.run([context.minivm_img(), "check", f"{d}/{kind}"], capture_output=True, text=True)
            assert check.returncode == 0, check.stdout + check.stderr


@cost(30)
def test_discard_and_read_only_disks():
    with tempfile.TemporaryDirectory() as d:
        raw = f"{d}/raw"
        with open(raw, "wb") as f:
            f.write(os.urandom(8 << 20))
        before = open(raw, "rb").read()
        overlay = image(d, "qcow2")
        with boot(["-drive", f"file={raw},if=virtio,format=raw,readonly=on",
                   "-drive", f"file={overlay},if=virtio,format=qcow2,discard=unmap"]) as m:
            status, output = m.run_serial("cat /sys/block/vda/ro; dd if=/dev/zero of=/dev/vda bs=4k count=1; "
                                          "sha256sum /dev/vda")
            assert output.strip().startswith("1") and hashlib.sha256(before).hexdigest() in output, output
            status, output = m.run_serial(
                "cat /sys/block/vdb/queue/discard_max_bytes /sys/block/vdb/queue/write_zeroes_max_bytes; "
                "dd if=/dev/urandom of=/dev/vdb bs=1M count=8 conv=fsync; blkdiscard -o 0 -l 8388608 /dev/vdb && "
                "echo 3 >/proc/sys/vm/drop_caches; head -c 8388608 /dev/vdb | tr -d '\\000' | wc -c")
            numbers = re.findall(r"(?m)^\d+$", output)
            assert int(numbers[0]) > 0 and int(numbers[1]) > 0 and numbers[-1] == "0", output
            power_off(m)
        assert open(raw, "rb").read() == before


@cost(60)
def test_disk_prepared_on_ide_boots_on_virtio():
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import loaders_test
    with tempfile.TemporaryDirectory() as d:
        disk = loaders_test.grub_disk(d)
        drive = f"file={disk},format=qcow2"
        for args in (["-drive", f"{drive},if=ide", "-boot", "order=c"],
                     ["-drive", f"{drive},if=virtio", "-boot", "order=c"],
                     ["-drive", f"{drive},if=none,id=a", "-device", "virtio-blk-pci,drive=a,bootindex=0,disable-legacy=on"]):
            with vm.Vm(context.minivm(), ["-accel", "soft", "-m", "128", *args]) as m:
                m.wait_serial("GUEST-READY", timeout=300)


@cost(30)
def test_random_numbers_and_serial_ports():
    with tempfile.TemporaryDirectory() as d:
        path = f"{d}/port"
        with boot(["-object", "rng-random,filename=/dev/urandom,id=r", "-device", "virtio-rng-pci,rng=r",
                   "-device", "virtio-serial-pci,id=vs", "-chardev", f"socket,path={path},server=on,wait=off,id=c",
                   "-device", "virtserialport,bus=vs.0,nr=3,chardev=c,name=org.qemu.guest_agent.0",
                   "-chardev", f"file,path={d}/console,id=k", "-device", "virtconsole,chardev=k"]) as m:
            status, output = m.run_serial("cat /sys/class/misc/hw_random/rng_current; head -c 4096 /dev/hwrng | sha256sum")
            zero = hashlib.sha256(bytes(4096)).hexdigest()
            assert "virtio_rng" in output and re.search("[0-9a-f]{64}", output) and zero not in output, output
            port = m.run_serial("for p in /sys/class/virtio-ports/*; do grep -qs guest_agent $p/name && "
                                "echo ${p##*/}; done")[1].strip()
            assert re.fullmatch(r"vport\d+p3", port), port
            # An agent: answers each line; it opens the port, and notices that the host comes.
            m.type_serial(f"(while read -r l; do echo \"got $l\" >&0; done) 0<>/dev/{port} & echo AGENT''-RUNS\n")
            m.wait_serial("AGENT-RUNS")
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(60 * context.patience())
                s.connect(path)
                for text in (b"first", b"x" * 3000):
                    s.sendall(text + b"\n")
                    answer = b""
                    while not answer.endswith(b"\n"):
                        data = s.recv(65536)
                        assert data, answer
                        answer += data
                    assert answer == b"got " + text + b"\n", answer
            # The agent has read the end of the connection, and ended.
            m.run_serial("wait")
            # More than the queues hold, both ways, unchanged.
            data = os.urandom(1 << 20).replace(b"\n", b"-").hex().encode()
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(120 * context.patience())
                s.connect(path)
                m.type_serial(f"head -c {len(data)} /dev/{port} | sha256sum\n")
                s.sendall(data)
                m.wait_serial(hashlib.sha256(data).hexdigest(), timeout=120)
                m.type_serial(f"dd if=/dev/urandom of=/tmp/r bs=1k count=300 2>/dev/null; sha256sum /tmp/r; "
                              f"cat /tmp/r > /dev/{port}\n")
                want = m.wait_serial(r"([0-9a-f]{64})  /tmp/r", timeout=120).group(1)
                got = b""
                while len(got) < 300 << 10:
                    got += s.recv(65536)
                assert hashlib.sha256(got).hexdigest() == want
            status, output = m.run_serial("echo on the console > /dev/hvc0")
            power_off(m)
        assert b"on the console" in open(f"{d}/console", "rb").read()


def test_wrong_virtio_options_are_one_sentence():
    wrong = {
        "virtio-blk-pci": "a disk needs drive=ID",
        "virtio-rng-pci,addr=40": "no PCI address",
        "virtio-rng-pci,addr=3.1": "one function",
        "virtio-rng-pci,multifunction=on": "one function",
        "virtio-rng-pci,bus=pci.1": "no bus 'pci.1'",
        "virtio-rng-pci,vectors=999": "at most",
        "virtio-rng-pci,packed=on": "packed",
        "virtio-rng-pci,disable-legacy=on,disable-modern=on": "nothing is left",
        "virtio-rng-pci,rng=none": "none",
        "virtio-rng-pci,max-byte=3": "max-byte",
        "virtserialport,chardev=x": "virtio-serial-pci",
        "virtio-gpu-pci": "no such virtio device",
    }
    for device, words in wrong.items():
        r = subprocess.run([context.minivm(), "-display", "none", "-device", device], capture_output=True, text=True,
                           timeout=60 * context.patience())
        assert r.returncode == 1 and r.stderr.count("\n") == 1 and words in r.stderr, (device, r.stderr)


def disk_on_card(program, path, kind, share):
    device = "virtio-blk-pci,drive=d" + (",share-rw=on" if share else "")
    engine = ["-accel", "tcg", "-vga", "none"] if "qemu" in program else ["-accel", "soft"]
    return [*engine, "-S", "-nodefaults", "-m", "16", "-drive", f"file={path},format={kind},if=none,id=d", "-device", device]


def gets_the_image(program, path, kind, share):
    """Starts a machine, and ends it at once."""
    r = subprocess.run([program, *disk_on_card(program, path, kind, share), "-display", "none", "-monitor", "stdio"],
                       input="quit\n", capture_output=True, text=True, timeout=60 * context.patience())
    assert r.returncode == 0 or "lock" in r.stderr, r.stderr
    return r.returncode == 0


@cost(20)
def test_share_rw_relaxes_the_locks_as_qemu_does():
    """Two writers get a raw image if both share; what they hold and refuse is QEMU's, whichever comes first."""
    programs = [str(context.minivm())]
    try:
        programs.append(context.requires("qemu-system-i386"))
    except context.Skip:
        pass
    with tempfile.TemporaryDirectory() as d:
        paths = {}
        for kind in ("raw", "qcow2"):
            paths[kind] = f"{d}/image.{kind}"
            subprocess.run([context.minivm_img(), "create", "-q", "-f", kind, paths[kind], "1M"], check=True)
        for first in programs:
            for second in programs:
                if first == second == programs[-1] and len(programs) > 1:
                    continue
                for kind, share, shares, works in (("raw", True, True, True), ("raw", True, False, False),
                                                   ("raw", False, True, False), ("qcow2", True, True, False)):
                    with vm.Vm(first, disk_on_card(first, paths[kind], kind, share), serial=False):
                        got = gets_the_image(second, paths[kind], kind, shares)
                    assert got == works, (first, second, kind, share, shares)
