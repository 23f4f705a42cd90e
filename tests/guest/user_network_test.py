# SPDX-License-Identifier: MIT
"""The user network, spoken to frame by frame: a peer of the test's own plays the guest on a hub."""
import contextlib
import os
import pathlib
import re
import socket
import struct
import tempfile
import threading
import time

import context
import vm
from context import cost

MAC = bytes.fromhex("525400aabb01")
GUEST, GATEWAY = "10.0.2.15", "10.0.2.2"
TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def ip_bytes(text):
    return socket.inet_aton(text)


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Peer:
    """A host on the wire: the other end of a datagram socket that carries Ethernet frames."""

    def __init__(self, folder):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(f"{folder}/peer")
        self.other = f"{folder}/vm"
        self.gateway_mac = None

    def close(self):
        self.sock.close()

    def send(self, dst, kind, payload):
        self.sock.sendto(dst + MAC + struct.pack(">H", kind) + payload, self.other)

    def frames(self, timeout):
        """The frames for us, until the time is up."""
        end = time.monotonic() + timeout * context.patience()
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                frame = self.sock.recv(65536)
            except TimeoutError:
                return
            kind, payload = struct.unpack(">H", frame[12:14])[0], frame[14:]
            if kind == 0x0806 and payload[6:8] == b"\0\1" and payload[24:28] == ip_bytes(GUEST):
                self.send(payload[8:14], 0x0806, payload[:6] + b"\0\2" + MAC + payload[24:28] + payload[8:18])
                continue
            yield kind, frame, payload

    def ask_arp(self, address):
        ask = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + MAC + ip_bytes(GUEST) + bytes(6) + ip_bytes(address)
        self.send(b"\xff" * 6, 0x0806, ask)

    def arp(self, address):
        """The MAC address that answers for an IP address."""
        self.ask_arp(address)
        for kind, _, payload in self.frames(60):
            if kind == 0x0806 and payload[6:8] == b"\0\2" and payload[14:18] == ip_bytes(address):
                return payload[8:14]
        raise vm.Timeout(f"nobody has {address}")

    def send_ip(self, protocol, to, payload, mac=None):
        if not self.gateway_mac:
            self.gateway_mac = self.arp(GATEWAY)
        header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, ip_bytes(GUEST),
                             ip_bytes(to))
        header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
        self.send(mac or self.gateway_mac, 0x0800, header + payload)

    def packets(self, protocol, timeout=60):
        """(sender, payload) of the IP packets of this protocol."""
        for kind, _, p in self.frames(timeout):
            if kind == 0x0800 and p[9] == protocol:
                yield socket.inet_ntoa(p[12:16]), p[(p[0] & 15) * 4:struct.unpack(">H", p[2:4])[0]]

    def udp(self, to, port, data, source=4444):
        self.send_ip(UDP, to, struct.pack(">HHHH", source, port, 8 + len(data), 0) + data)


class Stream:
    """One TCP connection of the peer: small pieces, one at a time."""

    def __init__(self, peer, remote, port, local):
        self.peer, self.remote, self.port, self.local = peer, remote, port, local
        self.seq, self.ack = 1000, 0

    def segment(self, flags, data=b""):
        head = struct.pack(">HHIIBBHHH", self.local, self.port, self.seq, self.ack, 5 << 4, flags, 65535, 0, 0)
        pseudo = ip_bytes(GUEST) + ip_bytes(self.remote) + struct.pack(">BBH", 0, TCP, len(head) + len(data))
        total = checksum(pseudo + head + data)
        self.peer.send_ip(TCP, self.remote, head[:16] + struct.pack(">H", total) + head[18:] + data)

    def receive(self):
        """(flags, data) of the next segment of this connection."""
        for sender, s in self.peer.packets(TCP):
            source, local, seq, _, offset, flags = struct.unpack(">HHIIBB", s[:14])
            if (sender, source, local) == (self.remote, self.port, self.local):
                return flags, seq, s[(offset >> 4) * 4:]
        raise vm.Timeout(f"nothing from {self.remote}:{self.port}")

    def connect(self):
        self.segment(SYN)
        flags, seq, _ = self.receive()
        assert flags & SYN and flags & ACK, flags
        self.seq, self.ack = self.seq + 1, seq + 1
        self.segment(ACK)
        return self

    @staticmethod
    def accept(peer, port):
        """A connection that comes to a port of ours."""
        for sender, s in peer.packets(TCP):
            source, local, seq, _, _, flags = struct.unpack(">HHIIBB", s[:14])
            if local == port and flags & (SYN | ACK) == SYN:
                stream = Stream(peer, sender, source, local)
                stream.ack = seq + 1
                stream.segment(SYN | ACK)
                stream.seq += 1
                return stream
        raise vm.Timeout(f"nobody comes to port {port}")

    def write(self, data):
        self.segment(PSH | ACK, data)
        self.seq += len(data)

    def read(self, count):
        data = b""
        while len(data) < count:
            flags, seq, piece = self.receive()
            assert not flags & RST, data
            if piece and seq == self.ack:
                data += piece
                self.ack += len(piece)
            if piece:
                self.segment(ACK)
        return data


def arguments(folder, options):
    return ["-nodefaults", "-vga", "none", "-m", "16", "-netdev", f"user,id=u{options}",
            "-netdev", "hubport,id=h0,hubid=0,netdev=u",
            "-netdev", f"dgram,id=d,local.type=unix,local.path={folder}/vm,remote.type=unix,remote.path={folder}/peer",
            "-netdev", "hubport,id=h1,hubid=0,netdev=d"]


@contextlib.contextmanager
def network(options, program=None, more=()):
    """A machine whose user network is on a hub with our peer: yields (peer, machine)."""
    with tempfile.TemporaryDirectory() as d:
        peer = Peer(d)
        program = program or context.minivm()
        engine = ["-accel", "tcg" if "qemu" in program else "soft"]
        try:
            with vm.Vm(program, [*engine, *more, *arguments(d, options)], serial=False) as m:
                yield peer, m
        finally:
            peer.close()


def dhcp_offer(peer, client=b""):
    request = struct.pack(">BBBBIHH", 1, 1, 6, 0, 0x12345678, 0, 0) + bytes(16) + MAC + bytes(10 + 64 + 128)
    request += bytes.fromhex("63825363") + b"\x35\x01\x01" + client + b"\xff"
    packet = struct.pack(">HHHH", 68, 67, 8 + len(request), 0) + request
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(packet), 0, 0, 64, UDP, 0, bytes(4), b"\xff" * 4)
    header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
    peer.send(b"\xff" * 6, 0x0800, header + packet)
    for _, payload in peer.packets(UDP):
        if payload[:4] == struct.pack(">HH", 67, 68):
            return payload[8:]
    raise vm.Timeout("no offer")


def dhcp_options(reply):
    found, at = {}, 240
    while at < len(reply) and reply[at] != 255:
        if reply[at]:
            found[reply[at]] = reply[at + 2:at + 2 + reply[at + 1]]
            at += 1 + reply[at + 1]
        at += 1
    return found


NAMES = (",hostname=box,domainname=example.net,dnssearch=one.org,dnssearch=two.org,tftp-server-name=boothost,"
         "bootfile=/pxe/start,dhcpstart=10.0.2.77,dns=10.0.2.9,host=10.0.2.5")


@cost(5)
def test_dhcp_says_what_the_options_say():
    """The offer's fields; byte for byte what QEMU answers."""
    offers = []
    for program in (context.minivm(), *qemu()):
        with network(NAMES, program) as (peer, m):
            offers.append(dhcp_offer(peer))
            m.quit()
    reply = offers[0]
    options = dhcp_options(reply)
    assert socket.inet_ntoa(reply[16:20]) == "10.0.2.77", reply
    assert reply[108:236].rstrip(b"\0") == b"/pxe/start"
    assert [socket.inet_ntoa(options[n]) for n in (1, 3, 6, 54)] == ["255.255.255.0", "10.0.2.5", "10.0.2.9", "10.0.2.5"]
    assert (options[12], options[15], options[66]) == (b"box", b"example.net", b"boothost"), options
    assert options[119] == b"\3one\3org\0\3two\xc0\4", options[119]
    assert len(set(offers)) == 1, offers


def solicit_router(peer):
    """RFC 4861, 4.1."""
    nobody, routers = bytes(16), socket.inet_pton(socket.AF_INET6, "ff02::2")
    body = bytes([133, 0, 0, 0]) + bytes(4)
    total = checksum(nobody + routers + struct.pack(">II", len(body), 58) + body)
    body = body[:2] + struct.pack(">H", total) + body[4:]
    peer.send(bytes.fromhex("333300000002"), 0x86DD, struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + nobody + routers +
              body)


def router_advertisement(peer):
    """The answer to a router solicitation (RFC 4861, 4.2), without Ethernet's header."""
    solicit_router(peer)
    for kind, _, p in peer.frames(60):
        if kind == 0x86DD and p[6] == 58 and p[40] == 134:
            return p
    raise vm.Timeout("no router advertisement")


@cost(5)
def test_router_advertisements_carry_the_ipv6_options():
    answers = []
    for program in (context.minivm(), *qemu()):
        with network(",ipv6-net=fd77:1::/64,ipv6-host=fd77:1::5,ipv6-dns=fd77:1::9", program) as (peer, m):
            answers.append(router_advertisement(peer))
            m.quit()
    found, at = {}, 56
    while at < len(answers[0]):
        found[answers[0][at]] = answers[0][at:at + 8 * answers[0][at + 1]]
        at += 8 * answers[0][at + 1]
    prefix = found[3]
    assert prefix[2] == 64 and socket.inet_ntop(socket.AF_INET6, prefix[16:32]) == "fd77:1::", prefix
    # The name server is announced where the host has one with IPv6 (libslirp looks).
    assert 25 not in found or socket.inet_ntop(socket.AF_INET6, found[25][8:24]) == "fd77:1::9", found[25]
    assert len(set(answers)) == 1, answers


def test_what_of_ipv4_and_ipv6_is_off_does_not_answer():
    for options, wanted in (("", {0x0806, 0x86DD}), (",ipv6=off", {0x0806}), (",ipv4=off", {0x86DD})):
        with network(options) as (peer, m):
            solicit_router(peer)
            peer.ask_arp(GATEWAY)
            seen = set()
            for kind, _, payload in peer.frames(60):
                seen.add(kind)
                if seen >= wanted:
                    break
            assert seen == wanted, (options, seen)
            m.quit()


def qemu():
    try:
        return [context.requires("qemu-system-i386")]
    except context.Skip:
        return []


@cost(5)
def test_restrict_leaves_only_the_forwards():
    """The host is out of reach over TCP and UDP; guestfwd= and hostfwd= still lead through."""
    with tempfile.TemporaryDirectory() as d:
        for restrict in ("off", "on"):
            with socket.create_server(("127.0.0.1", 0)) as server, \
                    socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.bind(("127.0.0.1", 0))
                with network(f",restrict={restrict},guestfwd=tcp:10.0.2.100:7-cmd:cat,hostfwd=unix:{d}/s-:80") as (peer, m):
                    Stream(peer, GATEWAY, server.getsockname()[1], 5001).segment(SYN)
                    peer.udp(GATEWAY, datagrams.getsockname()[1], b"hello")
                    stream = Stream(peer, "10.0.2.100", 7, 5002).connect()
                    stream.write(b"through")
                    assert stream.read(7) == b"through"
                    with socket.socket(socket.AF_UNIX) as s:
                        s.connect(f"{d}/s")
                        inside = Stream.accept(peer, 80)
                        s.sendall(b"in")
                        assert inside.read(2) == b"in"
                    reached = []
                    for what, sock in (("tcp", server), ("udp", datagrams)):
                        sock.settimeout(60 * context.patience() if restrict == "off" else 0)
                        with contextlib.suppress(BlockingIOError):
                            if what == "tcp":
                                sock.accept()[0].close()
                            else:
                                assert sock.recv(100) == b"hello"
                            reached.append(what)
                    assert reached == (["tcp", "udp"] if restrict == "off" else []), (restrict, reached)
                    m.quit()


@cost(5)
def test_a_unix_socket_leads_to_a_port_of_the_guest():
    with tempfile.TemporaryDirectory() as d:
        # What a program that was killed left behind is in the way of nobody.
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{d}/a-b")
        with network(f",hostfwd=unix:{d}/a-b-:22") as (peer, m):
            before = set(tcp_ports(m.process.pid))
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(f"{d}/a-b")
                inside = Stream.accept(peer, 22)
                s.sendall(b"question")
                assert inside.read(8) == b"question"
                inside.write(b"answer")
                assert s.recv(100) == b"answer"
                info = m.hmp("info usernet")
                assert re.search(rf"TCP\[HOST_FORWARD\] +\d+ +unix:{d}/a-b +10\.0\.2\.15 +22 ", info), info
            assert m.hmp(f"hostfwd_add u unix:{d}/later-10.0.2.15:23") == ""
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(f"{d}/later")
                Stream.accept(peer, 23)
            assert "File exists" in m.hmp(f"hostfwd_add u unix:{d}/later-:24") or "in use" in m.hmp(
                f"hostfwd_add u unix:{d}/later-:24")
            # Addresses of IPv6 are shown as such.
            assert m.hmp(f"hostfwd_add u unix:{d}/six-[fec0::15]:26") == ""
            if host_has_ipv6():
                assert m.hmp("hostfwd_add u tcp:[::1]:0-[fec0::15]:25") == ""
                info = m.hmp("info usernet")
                port = re.search(r"\] +\d+ +\[::1\] +([1-9]\d*) +\[fec0::15\] +25 ", info).group(1)
                assert m.hmp(f"hostfwd_remove u tcp:[::1]:{port}") == ""
            info = m.hmp("info usernet")
            assert re.search(rf"\] +\d+ +unix:{d}/six +\[fec0::15\] +26 ", info) and "[::1]" not in info, info
            # No TCP port is opened for a unix socket.
            assert set(tcp_ports(m.process.pid)) == before == set()
            assert m.hmp(f"hostfwd_remove u unix:{d}/later") == "" and not os.path.exists(f"{d}/later")
            assert "no forward" in m.hmp(f"hostfwd_remove u unix:{d}/later")
            m.quit()
        assert not os.path.exists(f"{d}/a-b")


def host_has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as s:
        s.bind(("::1", 0))
        return True
    return False


def tcp_ports(pid):
    """The TCP sockets that the process listens at."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}")))
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                yield fields[1]


@cost(5)
def test_guest_forwards_end_in_character_devices_and_programs():
    with tempfile.TemporaryDirectory() as d:
        chardev = ["-chardev", f"socket,id=c,path={d}/c,server=on,wait=off"]
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            options = (f",guestfwd=tcp:10.0.2.100:80-chardev:c,guestfwd=tcp:10.0.2.101:81-tcp:127.0.0.1:{port},"
                       "guestfwd=tcp:10.0.2.102:82-cmd:tr a-z A-Z")
            accepted = []
            thread = threading.Thread(target=lambda: accepted.append(server.accept()[0]), daemon=True)
            thread.start()
            with network(options, more=chardev) as (peer, m), socket.socket(socket.AF_UNIX) as s:
                thread.join(60 * context.patience())
                s.settimeout(60 * context.patience())
                s.connect(f"{d}/c")
                for n, (address, port, end) in enumerate((("10.0.2.100", 80, s), ("10.0.2.101", 81, accepted[0]))):
                    stream = Stream(peer, address, port, 6000 + n).connect()
                    stream.write(b"to the host")
                    assert end.recv(100) == b"to the host"
                    end.sendall(b"to the guest")
                    assert stream.read(12) == b"to the guest"
                stream = Stream(peer, "10.0.2.102", 82, 6002).connect()
                stream.write(b"shout\n")
                stream.segment(FIN | ACK)
                assert stream.read(6) == b"SHOUT\n"
                accepted[0].close()
                m.quit()


def card_on_a_wire(d):
    return ["-accel", "soft", "-nodefaults", "-vga", "none", "-m", "16", "-netdev",
            f"dgram,id=w,local.type=unix,local.path={d}/vm,remote.type=unix,remote.path={d}/peer"]


@cost(5)
def test_announce_self_tells_switches_where_the_card_is():
    rarp = bytes.fromhex("8035 0001 0800 06 04 0003")
    for card in ("ne2k_pci,romfile=", "ne2k_isa", "virtio-net-pci,romfile="):
        with tempfile.TemporaryDirectory() as d:
            peer = Peer(d)
            args = [*card_on_a_wire(d), "-device", f"{card},netdev=w,id=c,mac=52:54:00:77:00:01"]
            with vm.Vm(context.minivm(), args, serial=False) as m:
                assert "no network card" in m.hmp("announce_self nothing")
                assert m.hmp("announce_self c") == ""
                # Five rounds of the monitor's, then two of QMP's.
                frames = (f for f in peer.frames(60) if f[0] == 0x8035)
                for _ in range(5):
                    assert next(frames)[1][:22] == b"\xff" * 6 + bytes.fromhex("525400770001") + rarp
                m.qmp.command("announce-self", initial=1, max=1, step=1, rounds=2)
                assert [next(frames)[0] for _ in range(2)] == [0x8035] * 2
                m.quit()
            peer.close()


def test_backends_come_and_go_while_the_machine_runs():
    """With a card that has lost its backend, over QMP as well as in the monitor."""
    with vm.Vm(context.minivm(), ["-accel", "soft", "-nodefaults", "-m", "16", "-netdev", "user,id=a", "-device",
                                  "virtio-net-pci,netdev=a,id=a"], serial=False) as m:
        forwards = [{"str": "tcp:127.0.0.1:0-:22"}, {"str": "udp:127.0.0.1:0-:53"}]
        arguments = {"type": "user", "id": "b", "restrict": True, "hostfwd": forwards}
        assert m.qmp.raw({"execute": "netdev_add", "arguments": arguments}) == {"return": {}}
        assert "already" in m.qmp.raw({"execute": "netdev_add", "arguments": arguments})["error"]["desc"]
        info = m.hmp("info usernet")
        assert re.search(r"TCP\[HOST_FORWARD\] +\d+ +127.0.0.1 +[1-9]\d* ", info) and "UDP[HOST_FORWARD]" in info, info
        assert "b: index=0,type=user,net=10.0.2.0,restrict=on" in m.hmp("info network")
        assert m.hmp("set_link a off") == ""
        assert m.hmp("info network").count("link down") == 2
        with tempfile.TemporaryDirectory() as d:
            nested = {"type": "stream", "id": "s", "server": True, "addr": {"type": "unix", "path": f"{d}/s"}}
            assert m.qmp.raw({"execute": "netdev_add", "arguments": nested}) == {"return": {}}
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(f"{d}/s")
            m.qmp.command("netdev_del", id="s")
            assert not os.path.exists(f"{d}/s")
        m.qmp.command("netdev_del", id="a")
        assert m.hmp("netdev_del b") == ""
        assert re.fullmatch(r"a: index=0,type=nic,\S+ \(link down\)", m.hmp("info network").strip()), m.hmp("info network")
        assert "not found" in m.hmp("netdev_del a")
        for command in ("device_add virtio-rng-pci", "device_del a"):
            assert "cannot come or go" in m.hmp(command)
        m.quit()


def test_tftp_serves_its_folder_and_nothing_outside():
    with tempfile.TemporaryDirectory() as d:
        os.mkdir(f"{d}/pub")
        pathlib.Path(d, "pub", "file").write_bytes(b"contents")
        pathlib.Path(d, "secret").write_bytes(b"secret")
        with network(f",tftp={d}/pub") as (peer, m):
            for n, (name, answer) in enumerate(((b"/file", struct.pack(">HH", 3, 1) + b"contents"),
                                                (b"../secret", struct.pack(">HH", 5, 2)))):
                peer.udp(GATEWAY, 69, b"\0\1" + name + b"\0octet\0", 7000 + n)
                for _, payload in peer.packets(UDP):
                    if struct.unpack(">H", payload[2:4])[0] == 7000 + n:
                        assert payload[8:].startswith(answer), payload
                        break
                else:
                    raise vm.Timeout("no answer")
            m.quit()
