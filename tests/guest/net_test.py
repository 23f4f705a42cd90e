# SPDX-License-Identifier: MIT
"""Networks: a Debian kernel's own drivers on each card and each backend; booting from the network."""
import contextlib
import hashlib
import http.server
import os
import pathlib
import random
import re
import selectors
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

import context
import debs
import guests
import vm
from context import cost

MODULES = ["ne2k-pci", "ne", "8390", "virtio_pci", "virtio_net", "button"]

# udhcpc's script: takes the address, says what was offered.
DHCP = """#!/bin/sh
case $1 in
bound|renew)
    ifconfig $interface $ip netmask $subnet up
    for r in $router; do route add default gw $r dev $interface; done
    echo "OFFER $interface ip=$ip dns=$dns domain=$domain hostname=$hostname tftp=$tftp boot=$boot_file";;
esac
"""

DATA = random.Random(5).randbytes(600_001)
SUM = hashlib.md5(DATA).hexdigest()


def initramfs(files=None):
    # The ISA card's driver has to be told where its card is, so it is loaded by hand.
    init = guests.SHELL.replace("echo GUEST-READY", "rmmod ne 2>/dev/null; chmod 755 /bin/dhcp; "
                                "mkdir -p /dev/pts; mount -t devpts none /dev/pts; echo GUEST-READY")
    return guests.initramfs(init, MODULES, {"bin/dhcp": DHCP.encode(), **(files or {})})


def boot(args, prefix=(), files=None):
    kernel, _ = guests.kernel()
    program = [*prefix, context.minivm()]
    return vm.Vm(program[0], [*program[1:], "-accel", "soft", "-m", "128", "-kernel", kernel, "-initrd",
                              initramfs(files), "-append", "console=ttyS0 quiet panic=-1 cryptomgr.notests", *args])


def netload():
    """The program that opens many connections, for the guest."""
    compiler = context.requires("gcc")
    source = context.ROOT / "tests" / "guest" / "programs" / "netload.c"
    flags = ["-m32", "-O1", "-static", "-no-pie", "-fno-pie"]
    digest = hashlib.sha256(source.read_bytes() + " ".join(flags).encode()).hexdigest()[:16]
    path = context.cache() / f"netload-{digest}"
    if not path.exists():
        part = f"{path}.{os.getpid()}.part"
        built = subprocess.run([compiler, *flags, "-o", part, str(source)], capture_output=True, text=True)
        if built.returncode:
            raise context.Skip(f"{compiler} -m32 -static does not work (package gcc-multilib): {built.stderr}")
        os.rename(part, path)
    return path.read_bytes()


def run(m, command, timeout=180):
    status, output = m.run_serial(command, timeout)
    assert status == 0, f"{command}: status {status}: {output}"
    return output.strip()


def interface(m, mac):
    """The name of the interface with this address."""
    return run(m, f"grep -il {mac} /sys/class/net/*/address").split("/")[4]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def log_message(self, *args):
        pass


def sink(server, received):
    """Takes one connection and everything that comes over it."""
    connection, _ = server.accept()
    with connection:
        data = bytearray()
        while piece := connection.recv(65536):
            data += piece
        received.append(bytes(data))


def tftp(server, small, received):
    """A TFTP server (RFC 1350) for one reading and one writing transfer: UDP both ways."""
    with contextlib.suppress(OSError):
        while True:
            packet, peer = server.recvfrom(2048)
            code, number = struct.unpack(">HH", packet[:4].ljust(4, b"\0"))
            if code == 1:
                number = 0
            if code in (1, 4) and number * 512 <= len(small):
                server.sendto(struct.pack(">HH", 3, number + 1) + small[number * 512:number * 512 + 512], peer)
            if code == 2:
                received.clear()
                server.sendto(struct.pack(">HH", 4, 0), peer)
            if code == 3:
                received[number] = packet[4:]
                server.sendto(struct.pack(">HH", 4, number), peer)


def transfers_with_the_host(m, name, gateway):
    """HTTP down, TCP up, UDP and ICMP between the guest and services on this host's loopback."""
    run(m, f"ping -c 3 -W 20 -I {name} {gateway}")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        run(m, f"wget -q -O /tmp/down http://{gateway}:{web.server_address[1]}/", 300)
        web.shutdown()
    assert run(m, "md5sum /tmp/down").split()[0] == SUM
    with socket.create_server(("127.0.0.1", 0)) as server:
        received = []
        thread = threading.Thread(target=sink, args=(server, received), daemon=True)
        thread.start()
        run(m, f"nc {gateway} {server.getsockname()[1]} < /tmp/down", 300)
        thread.join(300)
    assert received and hashlib.md5(received[0]).hexdigest() == SUM
    small, blocks = DATA[:30_001], {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        threading.Thread(target=tftp, args=(server, small, blocks), daemon=True).start()
        port = server.getsockname()[1]
        run(m, f"tftp -g -r x -l /tmp/small {gateway} {port}", 300)
        assert run(m, "md5sum /tmp/small").split()[0] == hashlib.md5(small).hexdigest()
        run(m, f"tftp -p -r x -l /tmp/small {gateway} {port}", 300)
        assert b"".join(blocks[n] for n in sorted(blocks)) == small


def frames(path):
    data = pathlib.Path(path).read_bytes()
    magic, major, minor, _, _, _, link = struct.unpack("<IHHiIII", data[:24])
    assert (magic, major, minor, link) == (0xA1B2C3D4, 2, 4, 1)
    at, found = 24, []
    while at + 16 <= len(data):
        _, usec, kept, length = struct.unpack("<IIII", data[at:at + 16])
        assert usec < 1_000_000 and kept <= length
        found.append(data[at + 16:at + 16 + kept])
        at += 16 + kept
    return found


@cost(60)
def test_user_network_on_the_ne2000_cards():
    with tempfile.TemporaryDirectory() as d:
        pathlib.Path(d, "file").write_bytes(DATA)
        dump = f"{d}/dump.pcap"
        isa, pci = "52:54:00:00:00:01", "52:54:00:00:00:02"
        with boot(["-netdev", f"user,id=a,tftp={d},bootfile=/boot/me,hostname=guest-a,domainname=example.net,"
                   f"hostfwd=tcp:127.0.0.1:{free_port()}-:7000",
                   "-device", f"ne2k_isa,netdev=a,mac={isa},irq=10",
                   "-netdev", "user,id=b,net=192.168.77.0/24,dhcpstart=192.168.77.40,ipv6=off",
                   "-device", f"ne2k_pci,netdev=b,mac={pci},id=card",
                   "-nic", "none",
                   "-object", f"filter-dump,id=f,netdev=b,file={dump}"]) as m:
            m.wait_serial("GUEST-READY")
            run(m, "insmod /modules/ne.ko io=0x300 irq=10")
            for mac, gateway, wanted in ((isa, "10.0.2.2", "ip=10.0.2.15 dns=10.0.2.3 domain=example.net"),
                                         (pci, "192.168.77.2", "ip=192.168.77.40 dns=192.168.77.3")):
                name = interface(m, mac)
                run(m, f"ifconfig {name} up")
                assert wanted in run(m, f"udhcpc -q -n -t 10 -i {name} -s /bin/dhcp")
                transfers_with_the_host(m, name, gateway)
                if mac == isa:
                    run(m, "tftp -g -r /file -l /tmp/tftp 10.0.2.2", 300)
                    assert run(m, "md5sum /tmp/tftp").split()[0] == SUM
                    # A port of the host leads into the guest, also one that is forwarded later.
                    first = int(re.search(r":(\d+)-:7000", " ".join(m.command_line)).group(1))
                    late = free_port()
                    assert m.hmp(f"hostfwd_add a tcp:127.0.0.1:{late}-:7000") == ""
                    for port in (first, late):
                        run(m, "nc -l -p 7000 < /tmp/down > /tmp/in 2>/dev/null & true")
                        talk_to_guest(m, port)
                    assert m.hmp(f"hostfwd_remove a tcp:127.0.0.1:{late}") == ""
                    assert "no forward" in m.hmp(f"hostfwd_remove a tcp:127.0.0.1:{late}")
                    assert "TCP" in m.hmp("info usernet")
                    run(m, f"ifconfig {name} down")
            # A cable that is pulled out carries nothing until it is back.
            name = interface(m, pci)
            m.hmp("set_link card off")
            status, _ = m.run_serial(f"ping -c 1 -W 2 -I {name} 192.168.77.2")
            assert status != 0
            assert "link down" in m.hmp("info network")
            m.hmp("set_link card on")
            run(m, f"ping -c 3 -W 20 -I {name} 192.168.77.2")
            assert re.search(r"card: index=0,type=nic,model=ne2k_pci,macaddr=52:54:00:00:00:02\s+\\ b: index=0,type=user",
                             m.hmp("info network"))
            m.quit()
        seen = frames(dump)
        assert len(seen) > 100 and any(f[6:12] == bytes.fromhex(pci.replace(":", "")) for f in seen)


def echo_server(server):
    """Sends back what comes, over as many connections at once as there are."""
    with contextlib.suppress(OSError), selectors.DefaultSelector() as ready:
        ready.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is server:
                    connection, _ = server.accept()
                    ready.register(connection, selectors.EVENT_READ)
                    continue
                data = b""
                with contextlib.suppress(OSError):
                    data = key.fileobj.recv(65536)
                    key.fileobj.sendall(data)
                if not data:
                    ready.unregister(key.fileobj)
                    key.fileobj.close()


def ssh_server(folder):
    """Files of a dropbear that lets the owner of `folder`'s key in."""
    for program in ("ssh", "ssh-keygen"):
        context.requires(program)
    root = debs.unpack("dropbear-bin", "libc6", "libcrypt1", "libtomcrypt1", "libtommath1", "zlib1g", "libgmp10")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/key"], check=True)
    files = {"bin/dropbear": (root / "usr/sbin/dropbear").read_bytes(),
             "bin/dropbearkey": (root / "usr/bin/dropbearkey").read_bytes(),
             "etc/passwd": b"root::0:0:root:/root:/bin/sh\n", "etc/shells": b"/bin/sh\n",
             "etc/group": b"root:x:0:\n",
             "root/.ssh/authorized_keys": pathlib.Path(f"{folder}/key.pub").read_bytes()}
    for name in ("libc.so.6", "ld-linux.so.2", "libcrypt.so.1", "libtomcrypt.so.1", "libtommath.so.1", "libz.so.1",
                 "libgmp.so.10"):
        found = [path for path in root.rglob(name) if path.exists()]
        files[f"lib/{name}"] = found[0].read_bytes()
    return files


def ssh(folder, port, command):
    return subprocess.run(["ssh", "-F", "none", "-i", f"{folder}/key", "-p", str(port), "-o", "StrictHostKeyChecking=no",
                           "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                           "-o", "LogLevel=ERROR", "root@127.0.0.1", command], capture_output=True, input=DATA,
                          timeout=300 * context.patience())


@cost(60)
def test_user_network_on_virtio_net():
    """The legacy and the modern card: files, a thousand connections, an SSH server in the guest, guestfwd, IPv6."""
    legacy, modern = "52:54:00:00:00:01", "52:54:00:00:00:02"
    with tempfile.TemporaryDirectory() as d, socket.create_server(("127.0.0.1", 0), backlog=4096) as echoes:
        pathlib.Path(d, "file").write_bytes(DATA)
        threading.Thread(target=echo_server, args=(echoes,), daemon=True).start()
        port = free_port()
        with boot(["-netdev", f"user,id=a,tftp={d},hostfwd=tcp:127.0.0.1:{port}-:22,"
                   "guestfwd=tcp:10.0.2.100:7-cmd:cat",
                   "-device", f"virtio-net-pci,netdev=a,mac={legacy},id=old,disable-modern=on",
                   "-netdev", "user,id=b,net=192.168.77.0/24",
                   "-device", f"virtio-net-pci,netdev=b,mac={modern},id=new,disable-legacy=on"],
                  files={"bin/netload": netload(), **ssh_server(d)}) as m:
            m.wait_serial("GUEST-READY")
            for mac, gateway in ((legacy, "10.0.2.2"), (modern, "192.168.77.2")):
                name = interface(m, mac)
                run(m, f"ifconfig {name} up")
                assert "ip=" in run(m, f"udhcpc -q -n -t 10 -i {name} -s /bin/dhcp")
                transfers_with_the_host(m, name, gateway)
                run(m, f"netload parallel {gateway} {echoes.getsockname()[1]} 1000 1000", 600)
                if mac == legacy:
                    run(m, "tftp -g -r /file -l /tmp/tftp 10.0.2.2", 300)
                    assert run(m, "md5sum /tmp/tftp").split()[0] == SUM
                    assert run(m, "(echo through; sleep 1) | nc 10.0.2.100 7") == "through"
                    run(m, f"n=0; until ping6 -c 1 -I {name} fec0::2; do n=$((n+1)); [ $n -lt 60 ] || break; done")
                    run(m, "mkdir -p /etc/dropbear; chmod 700 /root /root/.ssh; dropbear -R -s -p 22", 300)
                    p = ssh(d, port, "cat >/tmp/s; md5sum /tmp/s; cat /tmp/s")
                    line, _, back = p.stdout.partition(b"\n")
                    assert line.split()[:1] == [SUM.encode()] and back == DATA, (p.returncode, p.stderr, line)
            name = interface(m, modern)
            set_link(m, "new", False)
            run(m, f"while [ $(cat /sys/class/net/{name}/carrier) = 1 ]; do sleep 0.1; done")
            set_link(m, "new", True)
            run(m, f"while [ $(cat /sys/class/net/{name}/carrier) = 0 ]; do sleep 0.1; done")
            run(m, f"ping -c 3 -W 20 -I {name} 192.168.77.2")
            check_rx_filter(m, name)
            m.quit()


def set_link(m, name, up):
    reply = m.qmp.raw({"execute": "set_link", "arguments": {"name": name, "up": up}})
    assert reply.get("return") == {}, reply


def check_rx_filter(m, name):
    """What the driver asked the card to receive."""
    def query():
        return m.qmp.raw({"execute": "query-rx-filter", "arguments": {"name": "new"}})["return"][0]

    before = query()
    assert (before["name"], before["main-mac"], before["promiscuous"]) == ("new", "52:54:00:00:00:02", False), before
    assert "01:00:5e:00:00:01" in before["multicast-table"], before
    run(m, f"ifconfig {name} promisc")
    assert query()["promiscuous"] is True
    run(m, f"ifconfig {name} -promisc allmulti")
    after = query()
    assert (after["promiscuous"], after["multicast"]) == (False, "all"), after
    run(m, f"ifconfig {name} -allmulti down; ifconfig {name} hw ether 52:54:00:00:00:77; ifconfig {name} up")
    assert query()["main-mac"] == "52:54:00:00:00:77"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def talk_to_guest(m, port):
    """Reads what the guest's server offers through a forwarded port; the server may not listen yet."""
    end = time.monotonic() + 60 * context.patience()
    while True:
        data = bytearray()
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.settimeout(20 * context.patience())
            with contextlib.suppress(OSError):
                while len(data) < len(DATA) and (piece := s.recv(65536)):
                    data += piece
        if hashlib.md5(data).hexdigest() == SUM:
            return
        assert time.monotonic() < end, f"{len(data)} bytes through the forwarded port"
        time.sleep(0.2)


@contextlib.contextmanager
def namespace():
    """A network namespace of our own; yields the words to put before a command that shall run in it."""
    for program in ("unshare", "nsenter", "ip"):
        context.requires(program)
    if not os.path.exists("/dev/net/tun"):
        raise context.Skip("there is no /dev/net/tun")
    holder = subprocess.Popen(["unshare", "-Urn", "sh", "-c", "echo ready; exec sleep 100000"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    try:
        if holder.stdout.readline().strip() != "ready":
            raise context.Skip("namespaces cannot be made here")
        enter = ["nsenter", "-t", str(holder.pid), "-U", "-n", "--preserve-credentials"]
        for command in ("ip link set lo up", "ip link add br0 type bridge", "ip addr add 10.9.4.1/24 dev br0",
                        "ip link set br0 up"):
            p = subprocess.run([*enter, *command.split()], capture_output=True, text=True)
            if p.returncode:
                raise context.Skip(f"{command}: {p.stderr.strip()}")
        yield enter
    finally:
        holder.kill()
        holder.wait()


@contextlib.contextmanager
def vde_switch(folder):
    if not shutil.which("vde_switch"):
        yield None
        return
    sock = os.path.join(folder, "vde")
    switch = subprocess.Popen(["vde_switch", "-s", sock], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while not os.path.exists(os.path.join(sock, "ctl")):
            if switch.poll() is not None or time.monotonic() > end:
                yield None
                return
            time.sleep(0.02)
        yield sock
    finally:
        switch.kill()
        switch.wait()


@cost(70)
def test_two_guests_over_socket_datagrams_vde_and_a_bridge():
    with tempfile.TemporaryDirectory() as d, namespace() as enter, vde_switch(d) as vde:
        def networks(n):
            # Each kind of network with each card at one of its two ends.
            legacy, modern, pci = "virtio-net-pci,disable-modern=on", "virtio-net-pci,disable-legacy=on", "ne2k_pci"
            ways = [(f"stream,addr.type=unix,addr.path={d}/stream,server={'on' if n == 1 else 'off'}", pci, modern),
                    (f"dgram,local.type=unix,local.path={d}/d{n},remote.type=unix,remote.path={d}/d{3 - n}", legacy,
                     "ne2k_isa,iobase=0x320,irq=3"),
                    ("socket,mcast=239.9.9.9:5999,localaddr=127.0.0.1", modern, pci),
                    (f"tap,ifname=tap{n},script=no,downscript=no", legacy, modern),
                    (f"tap,ifname=tap{n}b,script=no,downscript=no", "ne2k_isa,irq=7", pci)]
            # Without the library the refusal is one sentence, and the rest is tested all the same.
            if vde and "libvdeplug" in built_with():
                ways += [(f"vde,sock={vde}", "ne2k_isa,iobase=0x340,irq=5", legacy)]
            args = ["-name", f"guest{n}", "-nic", "none"]
            for k, way in enumerate(ways):
                args += ["-netdev", f"{way[0]},id=n{k}", "-device", f"{way[n]},netdev=n{k}"]
            return args

        with boot(networks(1), enter) as one, boot(networks(2), enter) as two:
            machines = (one, two)
            found = [re.findall(r"macaddr=([0-9a-f:]{17})\s+\\ n(\d+):", m.hmp("info network")) for m in machines]
            macs = [[mac for mac, _ in sorted(pairs, key=lambda pair: int(pair[1]))] for pairs in found]
            assert len(set(macs[0] + macs[1])) == 2 * len(macs[0]), macs
            assert all(mac.startswith("52:54:00:") for mac in macs[0] + macs[1])
            for n in (1, 2):
                for tap in (f"tap{n}", f"tap{n}b"):
                    subprocess.run([*enter, "ip", "link", "set", tap, "master", "br0", "up"], check=True)
            for m in machines:
                m.wait_serial("GUEST-READY")
            run(one, "insmod /modules/ne.ko io=0x300,0x340 irq=7,5")
            run(two, "insmod /modules/ne.ko io=0x320 irq=3")
            for link in range(len(macs[0])):
                for n, m in enumerate(machines):
                    name = interface(m, macs[n][link])
                    run(m, f"ifconfig {name} 10.9.{link + 1}.{11 + n} netmask 255.255.255.0 up")
            run(one, "dd if=/dev/urandom of=/tmp/f bs=1000 count=400 2>/dev/null")
            want = run(one, "md5sum /tmp/f").split()[0]
            run(two, "mkfifo /tmp/q")  # input that does not end: at its end nc would hang up
            for link in range(len(macs[0])):
                other = f"10.9.{link + 1}.12"
                run(one, f"ping -c 3 -W 30 {other}")
                run(two, "nc -l -p 7 <> /tmp/q > /tmp/g & true")
                run(one, f"n=0; until nc {other} 7 < /tmp/f; do n=$((n+1)); [ $n -lt 60 ] || break; sleep 1; done", 300)
                run(two, "wait", 300)
                assert run(two, "md5sum /tmp/g").split()[0] == want, f"link {link + 1}"
            # The host is on the bridge, too.
            run(one, "ping -c 3 -W 30 10.9.4.1")
            one.quit()
            two.quit()


@cost(30)
def test_tap_with_offloads_and_two_queues():
    """Frames larger than the wire's pass both ways with their headers, and each CPU has a queue."""
    with tempfile.TemporaryDirectory() as d, namespace() as enter, \
            boot(["-smp", "2", "-netdev", "tap,id=n,ifname=q0,queues=2,script=no,downscript=no", "-device",
                  "virtio-net-pci,netdev=n,mac=52:54:00:00:00:01,id=card", "-object",
                  f"filter-dump,id=f,netdev=n,file={d}/dump,maxlen=200"], enter) as m:
        subprocess.run([*enter, "ip", "link", "set", "q0", "master", "br0", "up"], check=True)
        m.wait_serial("GUEST-READY")
        name = interface(m, "52:54:00:00:00:01")
        run(m, f"ifconfig {name} 10.9.4.7 netmask 255.255.255.0 up")
        assert run(m, f"ls -d /sys/class/net/{name}/queues/*-1 | wc -l") == "2"
        pathlib.Path(d, "file").write_bytes(DATA * 4)
        want = hashlib.md5(DATA * 4).hexdigest()
        code = f"""import socket; s = socket.create_server(("10.9.4.1", 0)); print(s.getsockname()[1], flush=True)
c, _ = s.accept(); c.sendall(open("{d}/file", "rb").read()); c.shutdown(socket.SHUT_WR); c.recv(1); c.close()
c, _ = s.accept(); f = open("{d}/back", "wb")
while p := c.recv(65536): f.write(p)
"""
        peer = subprocess.Popen([*enter, "python3", "-c", code], stdout=subprocess.PIPE, text=True)
        try:
            port = int(peer.stdout.readline())
            run(m, f"nc 10.9.4.1 {port} </dev/null >/tmp/f", 300)
            assert run(m, "md5sum /tmp/f").split()[0] == want
            run(m, f"nc 10.9.4.1 {port} </tmp/f", 300)
            assert peer.wait(300) == 0
        finally:
            peer.kill()
            peer.wait()
            peer.stdout.close()
        assert hashlib.md5(pathlib.Path(d, "back").read_bytes()).hexdigest() == want
        m.quit()
        data = pathlib.Path(d, "dump").read_bytes()
        at, large = 24, {}
        while at + 16 <= len(data):
            kept, length = struct.unpack("<II", data[at + 8:at + 16])
            if length > 1514:
                large[data[at + 22:at + 28]] = length  # by sender
            at += 16 + kept
        assert len(large) == 2, large


def built_with():
    return subprocess.run([context.minivm(), "-version"], capture_output=True, text=True, check=True).stdout \
        .split("built without")[0]


def pxe_folder(d):
    """A TFTP folder with Debian's pxelinux and installer kernel, and an initramfs of ours."""
    images = pathlib.Path(context.requires_file("/usr/lib/debian-installer/images/12/i386/text",
                                                "debian-installer-12-netboot-i386"))
    context.requires_file("/usr/lib/ipxe/qemu/pxe-ne2k_pci.rom", "ipxe-qemu")
    for name in ("pxelinux.0", "ldlinux.c32"):
        shutil.copy(images / name, d)
    shutil.copy(images / "debian-installer/i386/linux", d)
    shutil.copy(guests.initramfs(guests.SHELL), f"{d}/initrd.gz")
    os.mkdir(f"{d}/pxelinux.cfg")
    pathlib.Path(d, "pxelinux.cfg", "default").write_text(
        "default linux\nlabel linux\nkernel linux\nappend initrd=initrd.gz console=ttyS0 quiet panic=-1 "
        "cryptomgr.notests\n")


def boots_from_the_network(card, netdev, enter=()):
    program = [*enter, context.minivm()]
    return vm.Vm(program[0], [*program[1:], "-accel", "soft", "-m", "192", "-boot", "n", "-netdev", netdev, "-device",
                              f"{card},netdev=n"])


def reaches_the_kernel(m):
    m.wait_serial("GUEST-READY", 400)
    assert "panic=-1" in run(m, "cat /proc/cmdline")
    m.quit()


@cost(60)
def test_network_boot_of_the_installers_kernel():
    with tempfile.TemporaryDirectory() as d:
        pxe_folder(d)
        netdev = f"user,id=n,tftp={d},bootfile=/pxelinux.0"
        with boots_from_the_network("ne2k_pci", netdev) as one, boots_from_the_network("virtio-net-pci", netdev) as two:
            reaches_the_kernel(one)
            reaches_the_kernel(two)


@cost(60)
def test_network_boot_from_dnsmasq_over_tap():
    dnsmasq = context.requires("dnsmasq")
    with tempfile.TemporaryDirectory() as d, namespace() as enter:
        pxe_folder(d)
        os.chmod(d, 0o755)
        server = subprocess.Popen(
            [*enter, dnsmasq, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=br0", "--bind-interfaces",
             "--dhcp-range=10.9.4.50,10.9.4.99,255.255.255.0", "--dhcp-boot=pxelinux.0", "--enable-tftp", "--user=root",
             "--group=root", f"--tftp-root={d}", f"--dhcp-leasefile={d}/leases", f"--pid-file={d}/pid",
             f"--log-facility={d}/log"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + 60 * context.patience()
            while not (os.path.exists(f"{d}/log") and "TFTP root" in pathlib.Path(d, "log").read_text()):
                assert server.poll() is None, server.stderr.read()
                assert time.monotonic() < end, "dnsmasq does not begin"
                time.sleep(0.05)
            taps = {"ne2k_pci": "pxe0", "virtio-net-pci": "pxe1"}
            with contextlib.ExitStack() as stack:
                machines = []
                for card, tap in taps.items():
                    # The interface is there, and on the bridge, before the boot ROM looks for a server.
                    for command in (f"ip tuntap add dev {tap} mode tap", f"ip link set {tap} master br0 up"):
                        subprocess.run([*enter, *command.split()], check=True)
                    machines.append(stack.enter_context(
                        boots_from_the_network(f"{card},mac=52:54:00:00:01:{len(machines):02x}",
                                               f"tap,id=n,ifname={tap},script=no,downscript=no", enter)))
                for m in machines:
                    reaches_the_kernel(m)
        finally:
            server.kill()
            server.wait()
            server.stderr.close()


def test_bootindex_puts_the_card_before_the_disk():
    """With a boot index the card comes first; with romfile= empty there is nothing to boot from."""
    context.requires_file("/usr/lib/ipxe/qemu/pxe-ne2k_pci.rom", "ipxe-qemu")
    for extra, says in ((",bootindex=1", "iPXE initialising"), (",romfile=", "No bootable device")):
        with vm.Vm(context.minivm(), ["-accel", "soft", "-netdev", "user,id=n,restrict=on", "-device",
                                      "ne2k_pci,netdev=n" + extra], serial=False) as m:
            m.wait_screen(says, 120)
            if "romfile" in extra:
                assert "iPXE" not in m.screen()
            m.quit()


def refused(*args):
    p = subprocess.run([context.minivm(), "-S", "-display", "none", "-accel", "soft", *args], capture_output=True,
                       text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert p.returncode == 1 and len(p.stderr.strip().splitlines()) == 1, (args, p.returncode, p.stderr)
    return p.stderr


def test_wrong_network_options_are_one_sentence():
    for args, says in ((["-netdev", "user"], "needs id="), (["-netdev", "usr,id=a"], "did you mean 'user'"),
                       (["-nic", "user,mac=01:00:5e:00:00:01"], "multicast"), (["-nic", "user,mac=52:54"], "six pairs"),
                       (["-nic", "user,model=e1000"], "model=help"), (["-net", "dump"], "filter-dump"),
                       (["-nic", "user,smb=/tmp"], "no SMB server"), (["-nic", "user,hostfwd=tcp::x-:2"], "port"),
                       (["-nic", "user,net=10.0.0.0/31"], "30"), (["-nic", "user,host=1.2.3.4,net=10.0.0.0/8"], "network"),
                       (["-nic", "user,colour=red"], "colour"), (["-device", "ne2k_pci,netdev=no"], "no -netdev"),
                       (["-device", "ne2k_isa,iobase=0x301"], "multiple"), (["-device", "ne2k_isa,irq=8"], "irq"),
                       (["-netdev", "user,id=a", "-netdev", "user,id=a"], "already"),
                       (["-netdev", "socket,id=s"], "exactly one"), (["-netdev", "tap,id=t,vhost=on"], "vhost"),
                       (["-netdev", "tap,id=t,fd=0"], "not a tap"), (["-netdev", "hubport,id=h"], "hubid"),
                       (["-object", "filter-dump,id=f,netdev=x,file=/dev/null"], "no -netdev"),
                       (["-netdev", "user,id=a", "-device", "ne2k_pci,netdev=a", "-device", "ne2k_pci,netdev=a"],
                        "connected")):
        text = refused(*args)
        assert says in text, (args, text)
