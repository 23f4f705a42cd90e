# SPDX-License-Identifier: MIT
"""Networks under a Debian kernel's own drivers: settings, forwards, links, filters, guests among themselves, offloads. netmatrix_test.py moves
files through each card on each kind of network, netboot_test.py boots from the network."""
import contextlib
import hashlib
import pathlib
import re
import socket
import struct
import subprocess
import tempfile
import time

import context
import debs
import netlab
from context import cost
from netlab import DATA, SUM, boot, interface, run


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
                   "hostfwd=tcp:127.0.0.1:0-:7000",
                   "-device", f"ne2k_isa,netdev=a,mac={isa},irq=10",
                   "-netdev", "user,id=b,net=192.168.77.0/24,dhcpstart=192.168.77.40,ipv6=off",
                   "-device", f"ne2k_pci,netdev=b,mac={pci},id=card",
                   "-nic", "none",
                   "-object", f"filter-dump,id=f,netdev=b,file={dump}"]) as m:
            m.wait_serial("GUEST-READY")
            run(m, "insmod /modules/ne.ko io=0x300 irq=10")
            for mac, gateway, wanted in ((isa, "10.0.2.2", {"ip": "10.0.2.15", "dns": "10.0.2.3", "domain": "example.net",
                                                            "hostname": "guest-a", "boot": "/boot/me"}),
                                         (pci, "192.168.77.2", {"ip": "192.168.77.40", "dns": "192.168.77.3"})):
                name = interface(m, mac)
                offer = netlab.dhcp(m, name)
                assert wanted.items() <= offer.items(), offer
                run(m, f"ping -c 1 -W 20 -I {name} {gateway}")
                if mac == isa:
                    run(m, "tftp -g -r /file -l /tmp/down 10.0.2.2", 300)
                    assert run(m, "md5sum /tmp/down").split()[0] == SUM
                    # A port of the host leads into the guest, also one that is forwarded later.
                    first = int(re.search(r"HOST_FORWARD\] +\d+ +127\.0\.0\.1 +(\d+) +10\.0\.2\.15 +7000",
                                          m.hmp("info usernet")).group(1))
                    late = netlab.free_port()
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
            run(m, f"ping -c 1 -W 20 -I {name} 192.168.77.2")
            assert re.search(r"card: index=0,type=nic,model=ne2k_pci,macaddr=52:54:00:00:00:02\s+\\ b: index=0,type=user",
                             m.hmp("info network"))
            m.quit()
        seen = frames(dump)
        assert len(seen) > 10 and any(f[6:12] == bytes.fromhex(pci.replace(":", "")) for f in seen)


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


@cost(40)
def test_user_network_on_virtio_net():
    """An SSH server in the guest, guestfwd, IPv6, the cable, what the card is asked to receive."""
    legacy, modern = "52:54:00:00:00:01", "52:54:00:00:00:02"
    with tempfile.TemporaryDirectory() as d:
        with boot(["-netdev", "user,id=a,hostfwd=tcp:127.0.0.1:0-:22,guestfwd=tcp:10.0.2.100:7-cmd:cat",
                   "-device", f"virtio-net-pci,netdev=a,mac={legacy},id=old,disable-modern=on",
                   "-netdev", "user,id=b,net=192.168.77.0/24",
                   "-device", f"virtio-net-pci,netdev=b,mac={modern},id=new,disable-legacy=on"], files=ssh_server(d)) as m:
            m.wait_serial("GUEST-READY")
            name = interface(m, legacy)
            netlab.dhcp(m, name)
            assert run(m, "(echo through; sleep 1) | nc 10.0.2.100 7") == "through"
            run(m, f"n=0; until ping6 -c 1 -I {name} fec0::2; do n=$((n+1)); [ $n -lt 60 ] || break; done")
            run(m, "mkdir -p /etc/dropbear; chmod 700 /root /root/.ssh; dropbear -R -s -p 22", 300)
            port = int(re.search(r"HOST_FORWARD\] +\d+ +127\.0\.0\.1 +(\d+) +10\.0\.2\.15 +22 ", m.hmp("info usernet")).group(1))
            p = ssh(d, port, "cat >/tmp/s; md5sum /tmp/s; cat /tmp/s")
            line, _, back = p.stdout.partition(b"\n")
            assert line.split()[:1] == [SUM.encode()] and back == DATA, (p.returncode, p.stderr, line)
            name = interface(m, modern)
            netlab.dhcp(m, name)
            set_link(m, "new", False)
            run(m, f"while [ $(cat /sys/class/net/{name}/carrier) = 1 ]; do sleep 0.1; done")
            set_link(m, "new", True)
            run(m, f"while [ $(cat /sys/class/net/{name}/carrier) = 0 ]; do sleep 0.1; done")
            run(m, f"ping -c 1 -W 20 -I {name} 192.168.77.2")
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


# What two guests share. Each kind of network has another card at each of its ends.
LINKS = ("stream", "datagrams", "multicast", "bridge, virtio-net", "bridge, NE2000", "VDE")


def missing_links(stack, folder):
    """{link: why it cannot be tested here}; starts the switch."""
    missing = {}
    for links, start in ((LINKS[3:5], netlab.require_tun), (LINKS[5:], lambda: stack.enter_context(netlab.vde_switch(folder)))):
        try:
            start()
        except context.Skip as e:
            missing.update((link, e) for link in links)
    return missing


@cost(70)
@context.parts(*LINKS)
def test_two_guests_with_default_addresses(part):
    with tempfile.TemporaryDirectory() as d, netlab.namespace(taps=False) as enter, contextlib.ExitStack() as stack:
        missing = missing_links(stack, d)
        present = [link for link in LINKS if link not in missing]

        def networks(n):
            # Each kind of network with each card at one of its two ends.
            legacy, modern, pci = "virtio-net-pci,disable-modern=on", "virtio-net-pci,disable-legacy=on", "ne2k_pci"
            ways = [(f"stream,addr.type=unix,addr.path={d}/stream,server={'on' if n == 1 else 'off'}", pci, modern),
                    (f"dgram,local.type=unix,local.path={d}/d{n},remote.type=unix,remote.path={d}/d{3 - n}", legacy,
                     "ne2k_isa,iobase=0x320,irq=3"),
                    ("socket,mcast=239.9.9.9:5999,localaddr=127.0.0.1", modern, pci),
                    (f"tap,ifname=tap{n},script=no,downscript=no", legacy, modern),
                    (f"tap,ifname=tap{n}b,script=no,downscript=no", "ne2k_isa,irq=7", pci),
                    (f"vde,sock={d}/vde", "ne2k_isa,iobase=0x340,irq=5", legacy)]
            args = ["-name", f"guest{n}", "-nic", "none"]
            for k, (link, way) in enumerate(zip(LINKS, ways)):
                if link in present:
                    args += ["-netdev", f"{way[0]},id=n{k}", "-device", f"{way[n]},netdev=n{k}"]
            return args

        with boot(networks(1), enter) as one, boot(networks(2), enter) as two:
            machines = (one, two)
            found = [re.findall(r"macaddr=([0-9a-f:]{17})\s+\\ n(\d+):", m.hmp("info network")) for m in machines]
            macs = [{LINKS[int(k)]: mac for mac, k in pairs} for pairs in found]
            all_macs = [*macs[0].values(), *macs[1].values()]
            assert len(set(all_macs)) == 2 * len(present), macs
            assert all(mac.startswith("52:54:00:") for mac in all_macs), macs
            for n in (1, 2):
                for tap in (f"tap{n}", f"tap{n}b") if LINKS[3] in present else ():
                    netlab.on_bridge(enter, tap)
            for m in machines:
                m.wait_serial("GUEST-READY")
            # An error if neither of the cards is there.
            one.run_serial("insmod /modules/ne.ko io=0x300,0x340 irq=7,5")
            run(two, "insmod /modules/ne.ko io=0x320 irq=3")
            for link in present:
                for n, m in enumerate(machines):
                    name = interface(m, macs[n][link])
                    run(m, f"ifconfig {name} 10.9.{LINKS.index(link) + 1}.{12 + n} netmask 255.255.255.0 up")
            run(one, "dd if=/dev/urandom of=/tmp/f bs=1000 count=400 2>/dev/null")
            want = run(one, "md5sum /tmp/f").split()[0]
            run(two, "mkfifo /tmp/q")  # input that does not end: at its end nc would hang up
            for link, what in enumerate(LINKS):
                with part(what):
                    if what in missing:
                        raise missing[what]
                    other = f"10.9.{link + 1}.13"
                    run(one, f"ping -c 1 -W 30 {other}")
                    run(two, "nc -l -p 7 <> /tmp/q > /tmp/g & true")
                    run(one, f"n=0; until nc {other} 7 < /tmp/f; do n=$((n+1)); [ $n -lt 60 ] || break; sleep 1; done", 300)
                    run(two, "wait", 300)
                    assert run(two, "md5sum /tmp/g").split()[0] == want
                    if link == 3:  # the host is on the bridge, too
                        run(one, f"ping -c 1 -W 30 {netlab.BRIDGE_HOST}")
            one.quit()
            two.quit()


@cost(30)
def test_tap_with_offloads_and_two_queues():
    """Frames larger than the wire's pass both ways with their headers, and each CPU has a queue."""
    with tempfile.TemporaryDirectory() as d, netlab.namespace() as enter, \
            boot(["-smp", "2", "-netdev", "tap,id=n,ifname=q0,queues=2,script=no,downscript=no", "-device",
                  "virtio-net-pci,netdev=n,mac=52:54:00:00:00:01,id=card", "-object",
                  f"filter-dump,id=f,netdev=n,file={d}/dump,maxlen=200"], enter) as m:
        netlab.on_bridge(enter, "q0")
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
