# SPDX-License-Identifier: MIT
"""virtio cards under Debian's i386 Linux and under SeaBIOS, on the software CPU."""
import contextlib
import hashlib
import os
import pathlib
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading

import context
import guests
import vm
from context import cost

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import loaders_test  # noqa: E402
import nbd_test  # noqa: E402

MODULES = guests.PC_MODULES + ["virtio_pci", "virtio_blk", "virtio_rng", "virtio_console"]
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
        base = f"{folder}/base.raw"
        with open(base, "wb") as f:
            f.write(old_contents())
            f.truncate(64 << 20)
        subprocess.run([*create, "-b", base, "-F", "raw", path], check=True)
    else:
        subprocess.run([*create, path, "64M"], check=True)
    return path


# What diskload does: so many blocks, requests in flight, requests of each thread.
BLOCK, BLOCKS, DEPTH, ROUNDS = 4096, 4096, 32, 100
ONES, COUNTED = (int.from_bytes(b"".join(word(n).to_bytes(4, "little") for n in range(BLOCK // 4)), "little")
                 for word in (lambda n: 1, lambda n: n))


def old_contents():
    """The part that diskload uses, before it does."""
    return random.Random(9).randbytes(BLOCK * BLOCKS)


def written_blocks(data, old):
    """How many blocks hold what diskload writes there; all others must be as they were."""
    count = 0
    for n in range(BLOCKS):
        block = data[n * BLOCK:(n + 1) * BLOCK]
        if block == old[n * BLOCK:(n + 1) * BLOCK]:
            continue
        first, = struct.unpack("<I", block[:4])
        assert (first ^ n * 2654435761) & 0xFFFFFF == 0, f"block {n} begins with {first:08x}"
        assert int.from_bytes(block, "little") == first * ONES ^ COUNTED, f"block {n} is broken"
        count += 1
    return count


# Disks: the properties of its card (each kind of card is there), what serves it.
LOADED = {"raw": ("disable-modern=on", None), "qcow2": ("disable-legacy=on,num-queues=2", None), "overlay": ("vectors=0", None),
          "qcow2 on minivm-nbd": ("num-queues=2", lambda d, path: nbd_test.Server(
              [context.minivm_nbd(), "-t", "-f", "qcow2", "-k", f"{d}/minivm.sock", path], f"{d}/minivm.sock")),
          "raw on nbdkit": ("disable-modern=on", lambda d, path: nbd_test.nbdkit(pathlib.Path(d), "file", path)),
          "qcow2 on qemu-nbd": ("disable-legacy=on", lambda d, path: nbd_test.qemu_nbd(pathlib.Path(d), "-f", "qcow2", path)),
          "raw on a server that dies": ("disable-legacy=on", lambda d, path: nbd_test.nbdkit(
              pathlib.Path(d), "--filter=delay", "file", path, "rdelay=10ms", "wdelay=10ms"))}


def kill_often(server, stack):
    """Kills it and starts it again, some times, but not as often as a request may be sent again. The list of its deaths."""
    over, deaths = threading.Event(), []

    def kill():
        while len(deaths) < 8 and not over.wait(0.2):
            server.kill()
            server.start()
            deaths.append(server)
        over.wait()  # nbdkit ends with the thread that started it

    def end():
        over.set()
        thread.join()

    thread = threading.Thread(target=kill)
    stack.callback(end)
    thread.start()
    return deaths


@cost(60)
@context.parts(*LOADED)
def test_every_block_written_at_queue_depth_32_is_right(part):
    """The guest verifies what it wrote; so does the host, in the image."""
    with tempfile.TemporaryDirectory() as d, contextlib.ExitStack() as servers:
        args, images, missing, counts, server = [], {}, {}, {}, {}
        for n, (what, (properties, serve)) in enumerate(LOADED.items()):
            os.mkdir(f"{d}/{n}")
            kind = what.split()[0]
            path = image(f"{d}/{n}", kind)
            drive = f"file={path},format={'raw' if kind == 'raw' else 'qcow2'}"
            try:
                if serve:
                    server[what] = servers.enter_context(serve(f"{d}/{n}", path))
                    drive = f"file={nbd_test.uri(server[what])},format=raw"
                if "dies" in what:
                    drive = f"driver=nbd,path={server[what].path},reconnect-delay=1000"
            except context.Skip as e:
                missing[what] = e
                continue
            images[what] = (kind, path)
            args += ["-drive", f"{drive},if=none,id=d{n}",
                     "-device", f"virtio-blk-pci,drive=d{n},serial=S-{n},{properties}"]
        with boot(["-smp", "2", *args], {"bin/diskload": guests.program("diskload", "-pthread").read_bytes()}) as m:
            for n, what in enumerate(LOADED):
                if what in missing:
                    continue
                deaths = kill_often(server[what], servers) if "dies" in what else [what]
                status, output = m.run_serial(f"d=$(dirname $(grep -lx S-{n} /sys/block/vd*/serial)); "
                                              f"diskload /dev/${{d##*/}} {DEPTH} {BLOCKS} {ROUNDS}", timeout=300)
                assert deaths
                counts[what] = int((re.search(r"ok (\d+)", output) or [0, 0])[1])
                if not counts[what]:
                    missing[what] = AssertionError(f"{what}: status {status}: {output}")
            power_off(m)
        servers.close()
        for n, (what, (properties, serve)) in enumerate(LOADED.items()):
            with part(what):
                if what in missing:
                    raise missing[what]
                kind, path = images[what]
                if kind != "raw":
                    check = subprocess.run([context.minivm_img(), "check", path], capture_output=True, text=True)
                    assert check.returncode == 0, check.stdout + check.stderr
                    subprocess.run([context.minivm_img(), "convert", "-O", "raw", path, f"{path}.raw"], check=True)
                    path = f"{path}.raw"
                with open(path, "rb") as f:
                    data = f.read(BLOCK * BLOCKS)
                old = old_contents() if kind == "overlay" else bytes(BLOCK * BLOCKS)
                assert written_blocks(data, old) == counts[what] > 1000


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
                   "-chardev", f"file,path={d}/console,id=k", "-device", "virtconsole,chardev=k",
                   "-device", "virtserialport,name=nobody.there"]) as m:
            status, output = m.run_serial("cat /sys/class/misc/hw_random/rng_current; head -c 4096 /dev/hwrng | sha256sum")
            zero = hashlib.sha256(bytes(4096)).hexdigest()
            assert "virtio_rng" in output and re.search("[0-9a-f]{64}", output) and zero not in output, output
            port = m.run_serial("for p in /sys/class/virtio-ports/*; do grep -qs guest_agent $p/name && "
                                "echo ${p##*/}; done")[1].strip()
            assert re.fullmatch(r"vport\d+p3", port), port
            # An agent: answers each line until the host leaves. While the host has not come yet, a read finds the end at once.
            m.type_serial(f"(h=; while :; do if read -r l; then h=1; echo \"got $l\" >&0; elif [ $h ]; then break; "
                          f"else sleep 1; fi; done) 0<>/dev/{port} & echo AGENT''-RUNS\n")
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
            status, output = m.run_serial("grep -h nobody /sys/class/virtio-ports/*/name")
            assert status == 0 and "nobody.there" in output, output
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
