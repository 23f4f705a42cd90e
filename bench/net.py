# SPDX-License-Identifier: MIT
"""TCP through a network card both ways, under Debian's i386 kernel: virtio-net on the user network and on tap, ne2k_pci."""
import subprocess
import sys

import guests
import netlab
import programs
import vm

# (what, backend, card, MiB of one transfer up and down; an NE2000 that loses frames in QEMU is slow to the guest)
CASES = [("virtio-net, user", "user", "virtio-net-pci", {"up": 64, "down": 64}),
         ("virtio-net, tap", "tap", "virtio-net-pci", {"up": 256, "down": 128}),
         ("ne2k_pci, user", "user", "ne2k_pci", {"up": 16, "down": 4})]
TRANSFERS = 3

# Runs where the guest's peer must be (in the namespace for tap): the port, then for each connection bytes and seconds.
PEER = """
import socket, sys, time
way, mib = sys.argv[1], int(sys.argv[2])
server = socket.create_server(("0.0.0.0", 0))
print(server.getsockname()[1], flush=True)
data = bytes(1 << 20)
while True:
    connection, _ = server.accept()
    start, total = time.perf_counter(), 0
    with connection:
        if way == "up":
            while piece := connection.recv(1 << 20):
                total += len(piece)
        else:
            for _ in range(mib):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
            total = mib << 20
    print(total, time.perf_counter() - start, flush=True)
"""


def transfers(machine, enter, gateway, way, mib):
    """MiB a second of a few transfers, timed by the guest's peer."""
    peer = subprocess.Popen([*enter, sys.executable, "-c", PEER, way, str(mib)], stdout=subprocess.PIPE, text=True)
    try:
        port = int(peer.stdout.readline())
        speeds = []
        for _ in range(TRANSFERS):
            command = f"netload send {gateway} {port} {mib}" if way == "up" else f"netload receive {gateway} {port}"
            netlab.run(machine, command, 900)
            total, seconds = peer.stdout.readline().split()
            if int(total) != mib << 20:
                raise RuntimeError(f"{total} of {mib << 20} bytes arrived")
            speeds.append(mib / float(seconds))
        return programs.median(speeds)
    finally:
        peer.kill()
        peer.wait()


def measure(command, backend, card, mib, enter):
    """{way: MiB/s}."""
    kernel, _ = guests.kernel()
    initrd = netlab.initramfs({"bin/netload": guests.program("netload").read_bytes()})
    kept = [word for word in command[1:] if word not in ("-nic", "none")]
    options = "user,id=n" if backend == "user" else "tap,id=n,ifname=bench0,script=no,downscript=no"
    prefix = [] if backend == "user" else enter
    program = [*prefix, command[0], *kept, "-m", "256", "-kernel", str(kernel), "-initrd", str(initrd), "-append",
               "console=ttyS0 quiet panic=-1 cryptomgr.notests", "-netdev", options, "-device",
               f"{card},netdev=n,mac=52:54:00:00:00:01,romfile="]
    with vm.Vm(program[0], program[1:]) as m:
        if prefix:
            subprocess.run([*enter, "ip", "link", "set", "bench0", "master", "br0", "up"], check=True)
        m.wait_serial("GUEST-READY", 600)
        name = netlab.interface(m, "52:54:00:00:00:01")
        address, gateway = ("10.0.2.15", "10.0.2.2") if backend == "user" else ("10.9.4.15", "10.9.4.1")
        netlab.run(m, f"ifconfig {name} {address} netmask 255.255.255.0 up")
        netlab.run(m, f"ping -c 3 -W 20 {gateway}")
        return {way: transfers(m, prefix, gateway, way, mib[way]) for way in ("up", "down")}


def rows(running, folder, rounds):
    words = {"up": "guest to host", "down": "host to guest"}
    for what, backend, card, mib in CASES:
        speeds = {}
        try:
            for name, command in running.items():
                if backend == "tap":
                    with netlab.namespace() as enter:
                        speeds[name] = measure(command, backend, card, mib, enter)
                else:
                    speeds[name] = measure(command, backend, card, mib, [])
        except programs.Skip as e:
            print(f"SKIP {what}: {e}", file=sys.stderr)
            continue
        for way in ("up", "down"):
            yield f"TCP, {what}, {words[way]}", "MiB/s", {name: speeds[name][way] for name in running}, True
