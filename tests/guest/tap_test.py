# SPDX-License-Identifier: MIT
"""TAP interfaces as the command line names them: the bridge helper, persistent interfaces, what is refused and why."""
import contextlib
import os
import pathlib
import re
import subprocess
import tempfile

import context
import vm
from context import cost

HELPER = "/usr/lib/qemu/qemu-bridge-helper"


@contextlib.contextmanager
def world(folder):
    """A network namespace with a bridge br0 and an /etc of our own; yields the words that enter it."""
    for program in ("unshare", "nsenter", "ip", "setpriv"):
        context.requires(program)
    if not os.path.exists("/dev/net/tun"):
        raise context.Skip("there is no /dev/net/tun")
    os.makedirs(f"{folder}/etc/qemu")
    script = f"ip link add br0 type bridge && ip link set br0 up && mount --bind {folder}/etc /etc && echo ready; sleep 100000"
    holder = subprocess.Popen(["unshare", "-Urnm", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, start_new_session=True)
    try:
        if holder.stdout.readline().strip() != "ready":
            raise context.Skip("namespaces cannot be made here")
        enter = ["nsenter", "-t", str(holder.pid), "-U", "-n", "-m", "--preserve-credentials"]
        probe = subprocess.run([*enter, "ip", "tuntap", "add", "dev", "probe", "mode", "tap"], capture_output=True, text=True)
        if probe.returncode:
            raise context.Skip(f"no tap interfaces in a namespace: {probe.stderr.strip()}")
        yield enter
    finally:
        os.killpg(holder.pid, 9)
        holder.wait()
        holder.stdout.close()
        holder.stderr.close()


def refused(enter, *args):
    p = subprocess.run([*enter, context.minivm(), "-S", "-display", "none", "-accel", "soft", *args], capture_output=True,
                       text=True, timeout=60 * context.patience(), stdin=subprocess.DEVNULL)
    assert p.returncode == 1 and len(p.stderr.strip().splitlines()) == 1, (args, p.returncode, p.stderr)
    return p.stderr


def run(enter, *command):
    return subprocess.run([*enter, *command], check=True, capture_output=True, text=True).stdout


@cost(5)
def test_the_bridge_helper_of_the_distribution():
    """QEMU's own helper gives an interface on the bridge its list allows, and says why it gives none."""
    context.requires_file(HELPER, "qemu-system-common")
    with tempfile.TemporaryDirectory() as d, world(d) as enter:
        assert "acl" in refused(enter, "-netdev", "bridge,id=n")
        pathlib.Path(d, "etc/qemu/bridge.conf").write_text("allow br0\n")
        denied = refused(enter, "-netdev", "bridge,id=n,br=br7")
        assert "br7" in denied and "denied" in denied, denied
        program = [*enter, context.minivm()]
        with vm.Vm(program[0], [*program[1:], "-S", "-accel", "soft", "-nic", "bridge,model=virtio",
                                "-netdev", "tap,id=b,br=br0", "-device", "ne2k_pci,netdev=b",
                                "-netdev", f"tap,id=c,helper={HELPER} --br=br0", "-device", "ne2k_pci,netdev=c"],
                   serial=False) as m:
            names = re.findall(r"type=tap,helper=.*?,br=br0,ifname=(\w+),vnet_hdr=on", m.hmp("info network"))
            assert len(set(names)) == 3, m.hmp("info network")
            members = run(enter, "ip", "-o", "link", "show", "master", "br0")
            assert all(f" {name}:" in members for name in names), members
            m.quit()


@cost(5)
def test_what_a_helper_sends_is_checked():
    """A helper of our own: it is given QEMU's arguments; nothing, or something else than a tap interface, is refused."""
    with tempfile.TemporaryDirectory() as d:
        helper = pathlib.Path(d, "helper")
        for send, says in (("", "gave no interface on bridge 'br5' (it is broken, status 3)"),
                           ("socket.send_fds(socket.socket(fileno=fd), [b'x'], [0])", "not a tap interface")):
            helper.write_text(f"""#!/usr/bin/env python3
import socket, sys
assert sys.argv[1] == "--use-vnet" and sys.argv[2].startswith("--fd=") and sys.argv[3] == "--br=br5", sys.argv
fd = int(sys.argv[2][5:])
{send}
print("it is broken", file=sys.stderr)
sys.exit(3)
""")
            helper.chmod(0o755)
            assert says in refused([], "-netdev", f"bridge,id=n,br=br5,helper={helper}").replace("\n", "")
    assert "cannot run" in refused([], "-netdev", "bridge,id=n,helper=/nonexistent")


@cost(5)
def test_without_the_privilege_a_persistent_interface_does():
    """The sentence tells how to make one, and one made so works; so do descriptors opened by another."""
    with tempfile.TemporaryDirectory() as d, world(d) as enter:
        plain = [*enter, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
        text = refused(plain, "-netdev", "tap,id=n,ifname=mine,queues=2")
        recipe = re.search(r"'sudo (ip tuntap add dev mine mode tap multi_queue user \S+) && sudo (ip link set mine up)', "
                           r"then ifname=mine,script=no,downscript=no", text)
        assert recipe and "CAP_NET_ADMIN" in text, text
        for command in recipe.groups():
            run(enter, *command.split())
        assert "several queues" not in text and "multi_queue" in text
        assert "is not a tap device with one queue" in refused(plain, "-netdev", "tap,id=n,ifname=mine,script=no")
        program = [*plain, context.minivm()]
        common = ["-S", "-accel", "soft", "-nodefaults"]
        with vm.Vm(program[0], [*program[1:], *common, "-netdev", "tap,id=n,ifname=mine,queues=2,script=no,downscript=no",
                                "-device", "virtio-net-pci,netdev=n"], serial=False) as m:
            assert "ifname=mine,vnet_hdr=on,queues=2" in m.hmp("info network")
            m.quit()
        # Descriptors: opened by a program with the privilege, used by one without.
        opener = pathlib.Path(d, "opener")
        opener.write_text("""import fcntl, os, struct, sys
fds = []
for _ in range(2):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"mine", 0x0002 | 0x1000 | 0x4000 | 0x0100))
    os.set_inheritable(fd, True)
    fds.append(str(fd))
args = [a.replace("@FDS@", ":".join(fds)) for a in sys.argv[1:]]
os.execvp(args[0], args)
""")
        with vm.Vm(enter[0], [*enter[1:], "python3", opener, *plain[len(enter):], context.minivm(), *common, "-netdev",
                              "tap,id=n,fds=@FDS@", "-device", "virtio-net-pci,netdev=n"], serial=False) as m:
            assert "ifname=mine,vnet_hdr=on,queues=2" in m.hmp("info network")
            m.quit()


@cost(5)
def test_scripts_are_run_with_the_name_of_the_interface():
    with tempfile.TemporaryDirectory() as d, world(d) as enter:
        for name in ("up", "down"):
            pathlib.Path(d, name).write_text(f"#!/bin/sh\necho {name} $1 $# >>{d}/log\n")
            os.chmod(f"{d}/{name}", 0o755)
        program = [*enter, context.minivm()]
        with vm.Vm(program[0], [*program[1:], "-S", "-accel", "soft", "-nic",
                                f"tap,ifname=own,script={d}/up,downscript={d}/down"], serial=False) as m:
            assert pathlib.Path(d, "log").read_text() == "up own 1\n"
            assert "in use by another program" in refused(enter, "-netdev", "tap,id=n,ifname=own,script=no")
            m.quit()
        assert pathlib.Path(d, "log").read_text() == "up own 1\ndown own 1\n"
        for value, says in (("script=/nonexistent", "cannot run the script '/nonexistent'"),
                            ("script=/bin/false", "failed with status 1"), ("ifname=lo,script=no", "not a tap device"),
                            ("ifname=abcdefghijklmnop", "more than 15"), ("queues=99", "1 to 8"), ("fds=", "numbers"),
                            ("fd=77,ifname=x", "does not go with"), ("vhost=on", "no vhost")):
            assert says in refused(enter, "-netdev", f"tap,id=n,{value}"), value
