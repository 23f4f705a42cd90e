# SPDX-License-Identifier: MIT
"""Every card on every kind of network: an address by DHCP, and files both ways over HTTP, TFTP, UDP and ICMP.

One guest has all four cards, each on a network of the same kind; one after the other is up. Each card is a result of its own.
"""
import contextlib
import pathlib
import re
import subprocess
import tempfile

import context
import guests
import netlab
import vm
from context import cost
from netlab import DATA, SUM, md5, run

# In the order of their MAC addresses.
CARDS = {"ne2k_isa": "ne2k_isa,irq=10", "ne2k_pci": "ne2k_pci", "virtio-net legacy": "virtio-net-pci,disable-modern=on",
         "virtio-net modern": "virtio-net-pci,disable-legacy=on"}
PROGRAMS = ("netfile", "netload")
SMALL = DATA[:60_000]  # what goes over TFTP
MIDDLE = DATA[:100_000]  # what goes over ICMP
HTTP_PORT, ECHO_PORT = 80, 7


def mac(n):
    return f"52:54:00:00:05:{n:02x}"


def cards(netdevs):
    """Options: card n on netdevs[n]."""
    args = ["-nic", "none"]
    for n, (card, netdev) in enumerate(zip(CARDS.values(), netdevs)):
        args += ["-netdev", f"{netdev},id=net{n}", "-device", f"{card},netdev=net{n},mac={mac(n)},id=card{n}"]
    return args


@contextlib.contextmanager
def guest(netdevs, enter=()):
    with netlab.boot(cards(netdevs), enter, netlab.programs(*PROGRAMS)) as m:
        m.wait_serial("GUEST-READY")
        run(m, "insmod /modules/ne.ko io=0x300 irq=10")
        run(m, "ifconfig lo up; mkdir /www && httpd -h /www")
        yield m
        m.quit()


def files_both_ways(m, peer, name):
    """What the guest begins: with the peer's servers."""
    host, ports = peer.address_for_guest, peer.ports
    run(m, f"wget -q -O /tmp/file http://{host}:{ports['http']}/", 300)
    assert run(m, "md5sum /tmp/file").split()[0] == SUM
    run(m, f"(printf 'PUT / HTTP/1.0\\r\\nContent-Length: {len(DATA)}\\r\\n\\r\\n'; cat /tmp/file) | "
           f"nc {host} {ports['http']} | grep -q ' 201 '", 300)
    run(m, f"tftp -g -r x -l /tmp/small {host} {ports['tftp']}", 300)
    assert run(m, "md5sum /tmp/small").split()[0] == md5(SMALL)
    run(m, f"tftp -p -r x -l /tmp/small {host} {ports['tftp']}", 300)
    # Datagrams that fit a frame, and such as need three: out, kept there, and back.
    for size in (1400, 4000):
        run(m, f"netfile udp {host} {ports['udp']} {size} </tmp/file >/tmp/back", 300)
        assert run(m, "md5sum /tmp/back").split()[0] == SUM
    assert peer.ask("received") == {"http": SUM, "tftp": md5(SMALL), "udp": SUM}
    run(m, f"head -c {len(MIDDLE)} /tmp/file >/tmp/middle")
    for size in (1400, 4000):
        run(m, f"netfile ping {host} {size} </tmp/middle >/tmp/back", 300)
        assert run(m, "md5sum /tmp/back").split()[0] == md5(MIDDLE)
    run(m, "mv /tmp/file /www/file")


def no_errors(m, name):
    """Neither the card nor its driver saw a broken frame."""
    counters = run(m, f"cd /sys/class/net/{name}/statistics; grep . *_errors rx_bytes tx_bytes; cd /").split()
    counts = {key: int(value) for key, value in (line.split(":") for line in counters)}
    assert counts["rx_bytes"] > len(DATA) and counts["tx_bytes"] > len(DATA), counts
    assert not [key for key, value in counts.items() if key.endswith("errors") and value], counts


@contextlib.contextmanager
def only(m, n):
    """Card n alone is up, and has asked for an address; yields its name and what it was offered."""
    name = netlab.interface(m, mac(n))
    try:
        yield name, netlab.dhcp(m, name)
    finally:
        run(m, f"ifconfig {name} down; rm -f /www/* /tmp/*")


def thousand_connections(m, enter, host, port, guest, guest_port):
    """Out to the peer and in to the guest: all open at once, and each carries its own data."""
    run(m, f"netload parallel {host} {port} 1000 1000", 600)
    run(m, f"netload echo {ECHO_PORT} & "
           f"n=0; until nc 127.0.0.1 {ECHO_PORT} </dev/null; do n=$((n+1)); [ $n -lt 600 ] || break; sleep 0.1; done")
    done = subprocess.run([*enter, guests.program("netload"), "parallel", guest, str(guest_port), "1000", "1000"],
                          capture_output=True, text=True, timeout=context.limit(600))
    assert done.returncode == 0, done.stdout + done.stderr
    run(m, "kill $!; wait $!; true")  # wait alone would wait for httpd, too


def forwarded(m, port):
    """The ports of this host that lead to one of the guest's, in the order of the networks."""
    lines = re.findall(r"TCP\[HOST_FORWARD\] +\d+ +127\.0\.0\.1 +(\d+) +10\.0\.2\.15 +(\d+)", m.hmp("info usernet"))
    return [int(ours) for ours, theirs in lines if int(theirs) == port]


@cost(30)
@context.parts(*CARDS)
def test_user(part):
    with tempfile.TemporaryDirectory() as d:
        path = pathlib.Path(d, "file")
        path.write_bytes(DATA)
        netdev = f"user,tftp={d},hostfwd=tcp:127.0.0.1:0-:{HTTP_PORT},hostfwd=tcp:127.0.0.1:0-:{ECHO_PORT}"
        with netlab.Peer("127.0.0.1", path) as peer, guest([netdev] * len(CARDS)) as m:
            peer.address_for_guest = "10.0.2.2"
            web, echo = forwarded(m, HTTP_PORT), forwarded(m, ECHO_PORT)
            assert len(web) == len(echo) == len(CARDS)
            for n, card in enumerate(CARDS):
                with part(card), only(m, n) as (name, offer):
                    assert (offer["ip"], offer["dns"]) == ("10.0.2.15", "10.0.2.3"), offer
                    files_both_ways(m, peer, name)
                    run(m, "tftp -g -r /file -l /tmp/file 10.0.2.2", 300)
                    assert run(m, "md5sum /tmp/file").split()[0] == SUM
                    assert peer.ask("get", f"http://127.0.0.1:{web[n]}/file") == SUM
                    if "virtio" in card:
                        thousand_connections(m, (), peer.address_for_guest, peer.ports["echo"], "127.0.0.1", echo[n])
                    no_errors(m, name)


@contextlib.contextmanager
def bridge(folder):
    """A namespace with a DHCP server and a peer on its bridge."""
    path = pathlib.Path(folder, "file")
    path.write_bytes(DATA)
    with netlab.namespace() as enter, netlab.dnsmasq(enter, folder, f"--dhcp-option=6,{netlab.BRIDGE_HOST}"), \
            netlab.Peer(netlab.BRIDGE_HOST, path, enter) as peer:
        peer.address_for_guest = netlab.BRIDGE_HOST
        yield enter, peer


def cards_on_the_bridge(m, part, peer, also=None):
    for n, card in enumerate(CARDS):
        with part(card), only(m, n) as (name, offer):
            assert offer["ip"].startswith(netlab.BRIDGE_NET) and offer["dns"] == netlab.BRIDGE_HOST, offer
            files_both_ways(m, peer, name)
            # What the peer begins.
            assert peer.ask("get", f"http://{offer['ip']}:{HTTP_PORT}/file") == SUM
            for size in (1400, 4000):
                assert peer.ask("ping", offer["ip"], size) == md5(MIDDLE)
            if also:
                also(card, offer["ip"])
            no_errors(m, name)


@cost(30)
@context.parts(*CARDS)
def test_tap(part):
    with tempfile.TemporaryDirectory() as d, bridge(d) as (enter, peer), \
            guest([f"tap,ifname=tap{n},script=no,downscript=no" for n in range(len(CARDS))], enter) as m:
        for n in range(len(CARDS)):
            netlab.on_bridge(enter, f"tap{n}")

        def connections(card, address):
            if "virtio" in card:
                thousand_connections(m, enter, peer.address_for_guest, peer.ports["echo"], address, ECHO_PORT)

        cards_on_the_bridge(m, part, peer, connections)


def stopped_machine():
    return [context.minivm(), "-accel", "soft", "-m", "1", "-S"]


def bridge_program():
    """QEMU where it is installed, so that what is on the wire is QEMU's. (Its hubs stand still while it is stopped.)"""
    with contextlib.suppress(context.Skip):
        return [context.requires("qemu-system-i386"), "-machine", "none"]
    return stopped_machine()


@contextlib.contextmanager
def bridges(program, enter, netdevs):
    """A machine without a guest: each of its networks is joined, by a hub, with a tap on the bridge."""
    args = ["-nodefaults"]
    for n, netdev in netdevs.items():
        args += ["-netdev", f"{netdev},id=n{n}", "-netdev", f"tap,id=t{n},ifname=tap{n},script=no,downscript=no",
                 "-netdev", f"hubport,id=a{n},hubid={n},netdev=n{n}", "-netdev", f"hubport,id=b{n},hubid={n},netdev=t{n}"]
    with vm.Vm(enter[0], [*enter[1:], *program, *args], serial=False) as m:
        for n in netdevs:
            netlab.on_bridge(enter, f"tap{n}")
        yield m


def cards_across(part, ways):
    """ways: (our netdev, the other machine's, which of both has to be there first)."""
    with tempfile.TemporaryDirectory() as d, bridge(d) as (enter, peer), contextlib.ExitStack() as stack:
        ours, theirs = [], {"first": {}, "second": {}}
        for n, (our, their, when) in enumerate(ways):
            ours.append(our.replace("DIR", d))
            theirs[when][n] = their.replace("DIR", d)
        if theirs["first"]:
            stack.enter_context(bridges(stopped_machine(), enter, theirs["first"]))
        m = stack.enter_context(guest(ours, enter))
        stack.enter_context(bridges(bridge_program(), enter, theirs["second"]))
        cards_on_the_bridge(m, part, peer)


@cost(30)
@context.parts(*CARDS)
def test_socket_streams(part):
    cards_across(part, [
        ("socket,listen=127.0.0.1:5001", "socket,connect=127.0.0.1:5001", "second"),
        ("socket,connect=127.0.0.1:5002", "socket,listen=127.0.0.1:5002", "first"),
        ("stream,server=on,addr.type=unix,addr.path=DIR/3", "stream,server=off,addr.type=unix,addr.path=DIR/3", "second"),
        ("stream,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=5004",
         "stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=5004", "first")])


@cost(30)
@context.parts(*CARDS)
def test_socket_datagrams(part):
    def dgram(kind, ours, other):
        if kind == "unix":
            return f"dgram,local.type=unix,local.path=DIR/{ours},remote.type=unix,remote.path=DIR/{other}"
        return f"dgram,local.type=inet,local.host=127.0.0.1,local.port={ours},remote.type=inet,remote.host=127.0.0.1,remote.port={other}"

    def udp(ours, other):
        return f"socket,udp=127.0.0.1:{other},localaddr=127.0.0.1:{ours}"

    # The group's other member is minivm: QEMU also gets what it sends itself, which would go round over the bridge.
    group = "socket,mcast=239.9.9.9:5001,localaddr=127.0.0.1"
    cards_across(part, [
        (udp(5002, 5003), udp(5003, 5002), "second"),
        (group, group, "first"),
        (dgram("unix", "a", "b"), dgram("unix", "b", "a"), "first"),
        (dgram("inet", 5004, 5005), dgram("inet", 5005, 5004), "second")])


@cost(30)
@context.parts(*CARDS)
def test_vde(part):
    with tempfile.TemporaryDirectory() as d, bridge(d) as (enter, peer), netlab.vde_switch(d, enter, "-t", "vde0") as sock:
        netlab.on_bridge(enter, "vde0")
        with guest([f"vde,sock={sock}"] * len(CARDS), enter) as m:
            cards_on_the_bridge(m, part, peer)
