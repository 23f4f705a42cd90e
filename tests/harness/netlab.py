# SPDX-License-Identifier: MIT
"""Networks to test guests in: a namespace with a bridge, a switch and servers of its own; a guest with the cards' drivers."""
import contextlib
import hashlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import time

import context
import guests
import vm

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

# The host on the namespace's bridge; guests get addresses beginning with BRIDGE_NET.
BRIDGE_NET = "10.9.4."
BRIDGE_HOST = BRIDGE_NET + "1"


def md5(data):
    return hashlib.md5(data).hexdigest()


SUM = md5(DATA)


# ---- The guest ----

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


def programs(*names):
    """Files of these programs, for boot()."""
    return {f"bin/{name}": guests.program(name).read_bytes() for name in names}


def run(m, command, timeout=180):
    status, output = m.run_serial(command, timeout)
    assert status == 0, f"{command}: status {status}: {output}"
    return output.strip()


def interface(m, mac):
    """The name of the interface with this address."""
    return run(m, f"grep -il {mac} /sys/class/net/*/address").split("/")[4]


def dhcp(m, name):
    """Asks for an address; returns what was offered."""
    run(m, f"ifconfig {name} up")
    for line in run(m, f"udhcpc -q -n -t 10 -i {name} -s /bin/dhcp").splitlines():
        if line.startswith("OFFER"):
            return dict(word.split("=", 1) for word in line.split()[2:])
    raise AssertionError(f"{name} got no address")


# ---- The host ----

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition, process, what):
    """Waits for a server that was started; an assertion if it ends."""
    end = time.monotonic() + context.limit(30)
    while not condition():
        assert process.poll() is None, f"{what} ended with status {process.returncode}"
        assert time.monotonic() < end, f"{what} does not begin"
        time.sleep(0.02)


@contextlib.contextmanager
def running(command, **options):
    """A process that is killed at the end."""
    process = subprocess.Popen([str(c) for c in command], **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **options})
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


def require_tun():
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as e:
        raise context.Skip(f"cannot open /dev/net/tun: {e.strerror}")


@contextlib.contextmanager
def namespace(taps=True):
    """A network namespace of our own with a bridge br0; yields the words to put before a command that shall run in it.
    Skip without /dev/net/tun, unless taps is False."""
    for program in ("unshare", "nsenter", "ip"):
        context.requires(program)
    if taps:
        require_tun()
    with running(["unshare", "-Urn", "sh", "-c", "echo ready; exec sleep 100000"], stdout=subprocess.PIPE,
                 stderr=subprocess.PIPE, text=True) as holder:
        if holder.stdout.readline().strip() != "ready":
            raise context.Skip(f"namespaces cannot be made here: {holder.stderr.read().strip()}")
        enter = ["nsenter", "-t", str(holder.pid), "-U", "-n", "--preserve-credentials"]
        for command in ("ip link set lo up", "ip link add br0 type bridge", f"ip addr add {BRIDGE_HOST}/24 dev br0",
                        "ip link set br0 up"):
            p = subprocess.run([*enter, *command.split()], capture_output=True, text=True)
            if p.returncode:
                raise context.Skip(f"{command}: {p.stderr.strip()}")
        yield enter


def on_bridge(enter, tap, make=False):
    """Puts a tap on the bridge, one that somebody made or a new one that stays."""
    for command in ([f"ip tuntap add dev {tap} mode tap"] if make else []) + [f"ip link set {tap} master br0 up"]:
        subprocess.run([*enter, *command.split()], check=True)


@contextlib.contextmanager
def dnsmasq(enter, folder, *options):
    """DHCP for the bridge, without a wait before an address is given out."""
    program = context.requires("dnsmasq")
    os.chmod(folder, 0o755)
    log = pathlib.Path(folder, "dnsmasq.log")
    with running([*enter, program, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=br0", "--bind-interfaces",
                  f"--dhcp-range={BRIDGE_NET}50,{BRIDGE_NET}99,255.255.255.0", "--no-ping", "--user=root", "--group=root",
                  f"--dhcp-leasefile={folder}/leases", f"--pid-file={folder}/pid", f"--log-facility={log}", *options],
                 stderr=subprocess.DEVNULL) as server:
        wait_until(lambda: log.exists() and "DHCP, IP range" in log.read_text(), server, "dnsmasq")
        yield


@contextlib.contextmanager
def vde_switch(folder, prefix=(), *options):
    """A switch of its own; yields where it listens. Skip without the program or the library."""
    if "libvdeplug" not in built_with():
        raise context.Skip("this build has no libvdeplug")
    if context.sanitized:
        raise context.Skip("sanitizers refuse how libvdeplug loads its modules (RTLD_DEEPBIND)")
    context.requires("vde_switch")
    sock = os.path.join(folder, "vde")
    with running([*prefix, "vde_switch", "-s", sock, *options], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as switch:
        wait_until(lambda: os.path.exists(os.path.join(sock, "ctl")), switch, "vde_switch")
        yield sock


class Peer:
    """netpeer.py as a process: servers for what guests send and ask."""

    def __init__(self, address, path, prefix=()):
        script = context.ROOT / "tests" / "harness" / "netpeer.py"
        self.address = address
        self.process = subprocess.Popen([*prefix, sys.executable, script, address, str(path)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.ports = json.loads(self.process.stdout.readline())

    def ask(self, *command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline())
        assert "error" not in reply, f"the peer's {command}: {reply['error']}"
        return reply["return"]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def built_with():
    return subprocess.run([context.minivm(), "-version"], capture_output=True, text=True, check=True).stdout \
        .split("built without")[0]
