# SPDX-License-Identifier: MIT
"""virtio under a Debian kernel as its properties ask for it, Debian's qemu-ga, and an entropy gathering daemon."""
import base64
import json
import pathlib
import re
import socket
import tempfile
import threading
import time

import context
import debs
import guests
import vm
from context import cost

MODULES = guests.PC_MODULES + ["virtio_pci", "virtio_blk", "virtio_rng", "virtio_console", "virtio_net"]
PACKAGES = ("qemu-guest-agent", "libc6", "libglib2.0-0", "libnuma1", "libudev1", "liburing2", "libpcre2-8-0")
LIBRARIES = ("ld-linux.so.2", "libc.so.6", "libm.so.6", "libglib-2.0.so.0", "libgmodule-2.0.so.0", "libnuma.so.1",
             "libudev.so.1", "liburing.so.2", "libpcre2-8.so.0")


def agent_files():
    root = debs.unpack(*PACKAGES)
    files = {"bin/qemu-ga": next(root.rglob("qemu-ga")).read_bytes()}
    for name in LIBRARIES:
        files[f"lib/{name}"] = next(p for p in root.rglob(name) if p.exists()).read_bytes()
    return files


class Agent:
    """The host's end of qemu-ga's channel: a JSON line each way."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120 * context.patience())
        self.sock.connect(path)
        self.buffer = b""

    def command(self, name, **arguments):
        message = {"execute": name, **({"arguments": arguments} if arguments else {})}
        self.sock.sendall(json.dumps(message).encode() + b"\n")
        while b"\n" not in self.buffer:
            data = self.sock.recv(65536)
            assert data, "the channel was closed"
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line.lstrip(b"\xff"))

    def run(self, path, *args):
        """Runs a program in the guest; (status, output)."""
        pid = self.command("guest-exec", **{"path": path, "arg": list(args), "capture-output": True})["return"]["pid"]
        end = time.monotonic() + 120 * context.patience()
        while not (state := self.command("guest-exec-status", pid=pid)["return"])["exited"]:
            assert time.monotonic() < end, state
            time.sleep(0.05)
        return state["exitcode"], base64.b64decode(state.get("out-data", "")).decode()


def entropy_daemon(server, given):
    """Serves EGD's command 2 (a number of bytes): bytes that nobody else would give."""
    connection, _ = server.accept()
    with connection:
        while request := connection.recv(2, socket.MSG_WAITALL):
            assert request[0] == 2 and request[1] > 0, request
            piece = bytes((len(given) + n) * 7 % 251 for n in range(request[1]))
            given.extend(piece)
            # In two parts, as a daemon that has to collect.
            connection.sendall(piece[:1])
            connection.sendall(piece[1:])


def value(m, path):
    status, output = m.run_serial(f"cat {path}")
    assert status == 0, (path, output)
    return output.strip()


def features(m, sysfs):
    """The bits that device and driver agreed on: the file has bit 0 first."""
    text = value(m, f"{sysfs}/features")
    return {n for n, bit in enumerate(text) if bit == "1"}


def arguments(d):
    for name, size in (("plain", 8), ("special", 8)):
        with open(f"{d}/{name}", "wb") as f:
            f.truncate(size << 20)
    return ["-chardev", f"socket,id=a,path={d}/agent,server=on,wait=off", "-device", "virtio-serial-pci,id=vs",
            "-device", "virtserialport,bus=vs.0,chardev=a,name=org.qemu.guest_agent.0",
            "-chardev", f"socket,id=e,path={d}/egd", "-object", "rng-egd,id=r,chardev=e",
            "-device", "virtio-rng-pci-non-transitional,rng=r",
            "-drive", f"file={d}/plain,format=raw,if=none,id=p", "-device", "virtio-blk-pci-transitional,drive=p",
            "-drive", f"file={d}/special,format=raw,if=none,id=s,discard=unmap",
            "-device", "virtio-blk-pci-non-transitional,drive=s,serial=S123,logical_block_size=1024,"
            "physical_block_size=4096,min_io_size=8192,opt_io_size=65536,discard_granularity=16384,"
            "max-discard-sectors=2048,max-write-zeroes-sectors=1024,num-queues=2,queue-size=64,config-wce=off,"
            "write-cache=off,queue_reset=off,event_idx=off,indirect_desc=off,request-merging=off,werror=report",
            "-netdev", "user,id=n0", "-object", f"filter-dump,id=f,netdev=n0,file={d}/frames,queue=rx", "-device",
            "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,speed=2500,duplex=full,host_mtu=1400",
            "-netdev", "user,id=n1", "-device",
            "virtio-net-pci,netdev=n1,mac=52:54:00:00:00:02,csum=off,guest_csum=off,mrg_rxbuf=off,status=off,ctrl_vq=off,"
            "event_idx=off,indirect_desc=off,any_layout=off,aer=off,iommu_platform=off,guest_ufo=off"]


def check_disks(m):
    queue = "/sys/block/vdb/queue"
    assert value(m, "/sys/block/vdb/serial") == "S123"
    for name, wanted in (("logical_block_size", 1024), ("physical_block_size", 4096), ("minimum_io_size", 8192),
                         ("optimal_io_size", 65536), ("discard_granularity", 16384),
                         ("discard_max_bytes", 2048 * 512), ("write_zeroes_max_bytes", 1024 * 512),
                         ("write_cache", "write through")):
        assert value(m, f"{queue}/{name}") == str(wanted), (name, value(m, f"{queue}/{name}"))
    plain, special = (features(m, f"/sys/block/vd{letter}/device") for letter in "ab")
    # Configurable cache 11, indirect descriptors 28, event index 29, version 1 32.
    assert {11, 28, 29} <= plain and not {11, 28, 29} & special, (plain, special)
    assert 32 in plain and 32 in special and 12 in special
    status, output = m.run_serial("dd if=/dev/urandom of=/tmp/x bs=64k count=16 2>/dev/null; "
                                  "dd if=/tmp/x of=/dev/vdb bs=64k oflag=direct 2>/dev/null; "
                                  "dd if=/dev/vdb bs=64k count=16 iflag=direct 2>/dev/null | cmp - /tmp/x && "
                                  "blkdiscard -o 0 -l 1048576 /dev/vdb")
    assert status == 0, output


def check_networks(m):
    status, output = m.run_serial("for n in /sys/class/net/*; do echo $(cat $n/address) ${n##*/}; done")
    names = dict(line.split() for line in output.strip().splitlines())
    first, second = names["52:54:00:00:00:01"], names["52:54:00:00:00:02"]
    m.run_serial(f"ifconfig {first} 10.0.2.15 up; ifconfig {second} 10.0.2.16 up")
    assert value(m, f"/sys/class/net/{first}/speed") == "2500" and value(m, f"/sys/class/net/{first}/duplex") == "full"
    assert value(m, f"/sys/class/net/{first}/mtu") == "1400"
    one, two = (features(m, f"/sys/class/net/{name}/device") for name in (first, second))
    # 0 checksums, 1 checksums to the guest, 3 MTU, 15 mergeable buffers, 16 status, 17 control queue, 63 speed.
    assert {0, 1, 3, 15, 16, 17, 28, 29, 63} <= one, one
    assert not {0, 1, 3, 11, 12, 15, 16, 17, 18, 22, 28, 29, 63} & two, two
    status, output = m.run_serial(f"ping -c 2 -W 60 -I {second} 10.0.2.2")
    assert status == 0, output


def check_announcement(m, d):
    """announce_self: the card speaks for the guest (RARP), and the guest for itself (a gratuitous ARP)."""
    assert m.hmp("announce_self") == ""
    me, ip = bytes.fromhex("525400000001"), socket.inet_aton("10.0.2.15")
    rarp = b"\xff" * 6 + me + bytes.fromhex("8035 0001 0800 06 04 0003")
    own = re.compile(re.escape(b"\xff" * 6 + me + bytes.fromhex("0806 0001 0800 06 04")) + b"\0[\1\2]" +
                     re.escape(me + ip) + b".{6}" + re.escape(ip), re.DOTALL)
    end = time.monotonic() + 60 * context.patience()
    while not (rarp in (seen := pathlib.Path(d, "frames").read_bytes()) and own.search(seen)):
        assert time.monotonic() < end, seen
        time.sleep(0.05)


@cost(40)
def test_agent_entropy_and_properties():
    files = agent_files()
    with tempfile.TemporaryDirectory() as d, socket.socket(socket.AF_UNIX) as egd:
        egd.bind(f"{d}/egd")
        egd.listen()
        given = bytearray()
        threading.Thread(target=entropy_daemon, args=(egd, given), daemon=True).start()
        kernel, _ = guests.kernel()
        with vm.Vm(context.minivm(), ["-accel", "soft", "-smp", "2", "-m", "256", "-kernel", kernel, "-initrd",
                                      guests.initramfs(guests.SHELL, MODULES, files), "-append",
                                      "console=ttyS0 panic=-1 cryptomgr.notests quiet", *arguments(d)]) as m:
            m.wait_serial("GUEST-READY", timeout=300)
            check_disks(m)
            check_networks(m)
            check_announcement(m, d)
            status, output = m.run_serial("chmod 755 /bin/qemu-ga /lib/ld-linux.so.2; head -c 600 /dev/hwrng | "
                                          "od -An -v -tx1 | tr -d ' \\n'")
            random = bytes.fromhex(re.search("[0-9a-f]{1200}", output).group(0))
            assert random in bytes(given), (random, given)
            port = m.run_serial("for p in /sys/class/virtio-ports/*; do grep -qs guest_agent $p/name && "
                                "echo ${p##*/}; done")[1].strip()
            m.run_serial(f"mkdir -p /var/run /run; qemu-ga -d -m virtio-serial -p /dev/{port}")
            agent = Agent(f"{d}/agent")
            assert agent.command("guest-sync-delimited", id=4711) == {"return": 4711}
            assert agent.command("guest-ping") == {"return": {}}
            info = agent.command("guest-info")["return"]
            assert re.match(r"\d+\.\d+", info["version"]) and len(info["supported_commands"]) > 20, info
            assert agent.run("/bin/echo", "from", "the guest") == (0, "from the guest\n")
            assert agent.run("/bin/sh", "-c", "exit 7") == (7, "")
            status, output = agent.run("/bin/sh", "-c", "seq 1 100000")
            assert status == 0 and output.splitlines()[-1] == "100000"
            interfaces = agent.command("guest-network-get-interfaces")["return"]
            assert "52:54:00:00:00:01" in {i.get("hardware-address") for i in interfaces}, interfaces
            # Who goes and comes again is heard.
            agent.sock.close()
            agent = Agent(f"{d}/agent")
            assert agent.command("guest-sync-delimited", id=4712)["return"] == 4712
            agent.sock.close()
            m.quit()
