# SPDX-License-Identifier: MIT
"""The socket backends speak with QEMU's: a frame of ours crosses both programs and is answered behind them."""
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile

import context
import vm
from context import cost

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import user_network_test as wire  # noqa: E402


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def kinds(d):
    """(what the first takes, what the second takes); the first is started first."""
    a, b, c, e, f = free_ports(5)
    yield f"socket,listen=127.0.0.1:{a}", f"socket,connect=127.0.0.1:{a}"
    yield f"socket,mcast=239.9.9.8:{b},localaddr=127.0.0.1", f"socket,mcast=239.9.9.8:{b},localaddr=127.0.0.1"
    yield (f"socket,udp=127.0.0.1:{c},localaddr=127.0.0.1:{e}", f"socket,udp=127.0.0.1:{e},localaddr=127.0.0.1:{c}")
    yield (f"stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port={f}",
           f"stream,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port={f}")
    yield (f"stream,server=on,addr.type=unix,addr.path={d}/stream", f"stream,server=off,addr.type=unix,addr.path={d}/stream")
    yield (f"dgram,local.type=unix,local.path={d}/one,remote.type=unix,remote.path={d}/two",
           f"dgram,local.type=unix,local.path={d}/two,remote.type=unix,remote.path={d}/one")


def engine(program):
    return ["-accel", "tcg" if "qemu" in program else "soft", "-nodefaults", "-vga", "none", "-m", "16"]


def hub(n, *netdevs):
    args = []
    for k, netdev in enumerate(netdevs):
        args += ["-netdev", f"{netdev},id=b{n}{k}", "-netdev", f"hubport,id=p{n}{k},hubid=0,netdev=b{n}{k}"]
    return args


@cost(15)
def test_every_kind_of_socket_reaches_qemu():
    qemu = context.requires("qemu-system-i386")
    minivm = context.minivm()
    with tempfile.TemporaryDirectory() as d:
        for turned in (False, True):
            # minivm waits for QEMU, and the other way round.
            folder = pathlib.Path(d, f"turned{turned:d}")
            folder.mkdir()
            for first, second in kinds(folder):
                here, there = (second, first) if turned else (first, second)
                peer = wire.Peer(folder)
                near = [*engine(minivm), *hub(1, f"dgram,local.type=unix,local.path={folder}/vm,remote.type=unix,"
                                                 f"remote.path={folder}/peer", here)]
                far = [*engine(qemu), *hub(2, "user", there)]
                order = [(minivm, near), (qemu, far)]
                if turned:
                    order.reverse()
                with vm.Vm(*order[0], serial=False) as one, vm.Vm(*order[1], serial=False) as two:
                    # Frames are lost until both ends are there.
                    for _ in range(100):
                        peer.ask_arp(wire.GATEWAY)
                        if any(k == 0x0806 for k, _, _ in first_frames(peer)):
                            break
                    else:
                        raise vm.Timeout(f"{here}: no answer from behind QEMU: {one.stderr()} {two.stderr()}")
                    assert wire.dhcp_offer(peer)[:1] == b"\2", here
                peer.close()
                os.unlink(f"{folder}/peer")


def first_frames(peer):
    for frame in peer.frames(0.3):
        yield frame
        return


OPENER = """import os, socket, sys
kind, path, listens = sys.argv[1:4]
s = socket.socket(socket.AF_UNIX, getattr(socket, kind))
if listens == "1":
    s.bind(path)
    s.listen()
else:
    if kind == "SOCK_DGRAM":
        s.bind(path + ".vm")
    s.connect(path)
os.dup2(s.fileno(), 9, inheritable=True)
os.execvp(sys.argv[4], sys.argv[4:])
"""


def ask_over_stream(s):
    """An ARP request with its length in front; True once the gateway's answer came."""
    ask = b"\xff" * 6 + wire.MAC + struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + wire.MAC
    ask += wire.ip_bytes(wire.GUEST) + bytes(6) + wire.ip_bytes(wire.GATEWAY)
    s.settimeout(60 * context.patience())
    s.sendall(struct.pack(">I", len(ask)) + ask)
    while True:
        length = struct.unpack(">I", s.recv(4, socket.MSG_WAITALL))[0]
        frame = s.recv(length, socket.MSG_WAITALL)
        if frame[12:14] == b"\x08\x06" and frame[28:32] == wire.ip_bytes(wire.GATEWAY):
            return True


@cost(5)
def test_sockets_that_somebody_else_opened():
    program = context.minivm()
    with tempfile.TemporaryDirectory() as d:
        def machine(kind, path, listens, netdev):
            return vm.Vm(sys.executable, ["-c", OPENER, kind, path, listens, program, *engine(program),
                                          *hub(1, "user", netdev)], serial=False)

        for n, netdev in enumerate(("socket,fd=9", "stream,addr.type=fd,addr.str=9")):
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(f"{d}/s{n}")
                server.listen()
                with machine("SOCK_STREAM", f"{d}/s{n}", "0", netdev) as m, server.accept()[0] as s:
                    assert ask_over_stream(s)
                    m.quit()
        with machine("SOCK_STREAM", f"{d}/listener", "1", "stream,server=on,addr.type=fd,addr.str=9") as m:
            for _ in range(2):
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(f"{d}/listener")
                    assert ask_over_stream(s)
            m.quit()
        peer = wire.Peer(d)
        peer.other = f"{d}/peer.vm"
        with machine("SOCK_DGRAM", f"{d}/peer", "0", "dgram,local.type=fd,local.str=9") as m:
            assert peer.arp(wire.GATEWAY)
            m.quit()
        peer.close()


def test_wrong_sockets_are_refused():
    for netdev, says in (("stream,addr.type=fd", "addr.str="), ("stream,addr.type=fd,addr.str=99", "no socket"),
                         ("stream,addr.type=fd,addr.str=x", "number"), ("dgram,local.type=fd,local.str=99", "no socket"),
                         ("dgram,remote.type=unix,remote.path=/x", "local.type"),
                         ("stream,addr.type=unix,addr.path=/nonexistent/x", "cannot connect"),
                         ("socket,udp=127.0.0.1:1", "localaddr"), ("socket,mcast=10.0.0.1:1", "224.0.0.0/4"),
                         ("l2tpv3,src=a", "L2TPv3"), ("vhost-user,chardev=a", "vhost")):
        p = subprocess.run([context.minivm(), "-S", "-display", "none", "-accel", "soft", "-netdev", f"{netdev},id=n"],
                           capture_output=True, text=True, timeout=60 * context.patience(), stdin=subprocess.DEVNULL)
        assert p.returncode == 1 and len(p.stderr.strip().splitlines()) == 1 and says in p.stderr, (netdev, p.stderr)


def test_filters_are_listed_and_keep_one_direction():
    """What filter-dump keeps of a backend that sends and receives."""
    with tempfile.TemporaryDirectory() as d:
        filters = []
        for queue in ("all", "rx", "tx"):
            filters += ["-object", f"filter-dump,id=f-{queue},netdev=b11,file={d}/{queue},queue={queue},maxlen=40"]
        peer = wire.Peer(d)
        net = hub(1, "user", f"dgram,local.type=unix,local.path={d}/vm,remote.type=unix,remote.path={d}/peer")
        with vm.Vm(context.minivm(), [*engine(context.minivm()), *net, *filters], serial=False) as m:
            assert peer.arp(wire.GATEWAY)
            text = m.hmp("info network")
            assert len(re.findall(r"  - f-(all|rx|tx): type=filter-dump,file=\S+,maxlen=40,", text)) == 3, text
            m.quit()
        peer.close()
        asked, answered = b"\xff" * 6 + wire.MAC, wire.MAC
        for queue in ("all", "rx", "tx"):
            data = pathlib.Path(d, queue).read_bytes()
            assert struct.unpack("<IHHiIII", data[:24]) == (0xA1B2C3D4, 2, 4, 0, 0, 40, 1)
            frames, at = [], 24
            while at < len(data):
                _, _, kept, length = struct.unpack("<IIII", data[at:at + 16])
                assert kept == min(40, length) and length >= 42
                frames.append(data[at + 16:at + 16 + kept])
                at += 16 + kept
            # The backend sends what the peer asks (tx), and receives the answer (rx).
            assert any(f.startswith(asked) for f in frames) == (queue != "rx"), (queue, frames)
            assert any(f.startswith(answered) for f in frames) == (queue != "tx"), (queue, frames)
