# SPDX-License-Identifier: MIT
"""Network cards and virtio cards on the command line: their forms, names, addresses, properties and help."""
import json
import os
import re
import subprocess
import tempfile

import context
from context import cost


def run(*args, commands=()):
    return subprocess.run([context.minivm(), "-S", "-display", "none", "-accel", "soft", *args], capture_output=True,
                          text=True, timeout=60 * context.patience(), input="".join(f"{c}\n" for c in [*commands, "quit"]))


def monitor(command, *args):
    """What a monitor command prints; the machine must start without a word."""
    p = run("-monitor", "stdio", *args, commands=[command])
    assert p.returncode == 0 and not p.stderr, (args, p.returncode, p.stderr)
    return p.stdout.split(command + "\n", 1)[1].split("(qemu)")[0]


def refused(*args):
    p = run(*args)
    assert p.returncode == 1 and len(p.stderr.strip().splitlines()) == 1, (args, p.returncode, p.stderr)
    return p.stderr


def warned(*args):
    p = run("-monitor", "stdio", *args)
    assert p.returncode == 0, (args, p.stderr)
    return p.stderr


def printed(*args):
    p = run(*args)
    assert p.returncode == 0 and not p.stderr, (args, p.returncode, p.stderr)
    return p.stdout


def macs(*args):
    return re.findall(r"macaddr=([0-9a-f:]{17})", monitor("info network", *args))


@cost(5)
def test_default_addresses_belong_to_the_machine():
    with tempfile.TemporaryDirectory() as d:
        for name in ("one", "two"):
            with open(f"{d}/{name}", "wb") as f:
                f.truncate(1 << 20)
        os.symlink(f"{d}/one", f"{d}/link")
        uuid = "11111111-2222-3333-4444-55555555555"
        machines = {"name a": ["-name", "a"], "name b": ["-name", "b"], "uuid 5": ["-uuid", uuid + "5"],
                    "uuid 6": ["-uuid", uuid + "6"], "disk one": ["-drive", f"file={d}/one,format=raw"],
                    "disk two": ["-drive", f"file={d}/two,format=raw"], "nothing": ["-m", "17"]}
        found = {}
        for what, args in machines.items():
            three = macs(*args, *["-nic", "user,model=ne2k_pci"] * 2, "-nic", "user,model=ne2k_isa")
            assert len(set(three)) == 3 and all(mac.startswith("52:54:00:") for mac in three), three
            assert macs(*args, *["-nic", "user,model=ne2k_pci"] * 2, "-nic", "user,model=ne2k_isa") == three
            found[what] = three
        assert len({mac for three in found.values() for mac in three}) == 3 * len(machines), found
        # What else stands on the command line makes no difference, nor how the disk is written.
        assert macs("-m", "64", "-name", "a", "-nic", "user,model=virtio") == found["name a"][:1]
        assert macs("-drive", f"file={d}/link,format=raw,if=virtio", "-nic", "user", "-m", "31") == found["disk one"][:1]
        # One that is given does not count on the others.
        given = macs("-name", "a", "-nic", "user,mac=52-54-0-A-b-1", "-nic", "user")
        assert given == ["52:54:00:0a:0b:01", found["name a"][1]], given


@cost(5)
def test_forms_of_nics():
    for args, wanted in (
            (["-nic", "none"], ""),
            (["-net", "none"], ""),
            (["-nodefaults"], ""),
            ([], r"virtio-net-pci\.0: index=0,type=nic,model=virtio-net-pci,macaddr=\S+\n \\ user\.0: index=0,type=user,"
                 r"net=10\.0\.2\.0,restrict=off\n"),
            (["-nic", "model=ne2k_pci"], r"ne2k_pci\.0: .*\n \\ user\.0: .*\n"),
            (["-nic", "user,model=virtio-net-pci-transitional,id=b"], r"virtio-net-pci\.0: .*\n \\ b: .*\n"),
            (["-netdev", "user,id=x", "-device", "ne2k_isa,netdev=x,id=x"], r"x: .*model=ne2k_isa.*\n \\ x: .*type=user.*\n"),
            (["-net", "nic,model=ne2k_pci", "-net", "nic,model=virtio,id=c", "-net", "user"],
             r"hub 0\n \\ hub0port0: user\.0: .*\n \\ hub0port1: ne2k_pci\.0: .*\n \\ hub0port2: c: .*model=virtio-net-pci.*\n"),
            (["-net", "nic,netdev=n,model=ne2k_isa", "-netdev", "user,id=n"], r"ne2k_isa\.0: .*\n \\ n: .*\n"),
            (["-nic", "hubport,hubid=3", "-netdev", "user,id=u", "-netdev", "hubport,id=h,hubid=3,netdev=u"],
             r"hub 3\n \\ h: u: .*\n \\ hubport\.0: virtio-net-pci\.0: .*\n")):
        text = monitor("info network", *args)
        assert re.fullmatch(wanted, text), (args, text)


def test_options_may_be_written_as_json():
    """As QEMU takes them, and libvirt writes them."""
    netdev = {"type": "user", "id": "net0", "restrict": True,
              "hostfwd": [{"str": "tcp:127.0.0.1:0-:22"}, {"str": "udp:127.0.0.1:0-:53"}]}
    device = {"driver": "virtio-net-pci", "netdev": "net0", "id": "net0", "mac": "52:54:00:00:00:07", "bus": "pci.0", "addr": "0x5",
              "mrg_rxbuf": False, "rx_queue_size": 512}
    args = ["-netdev", json.dumps(netdev), "-device", json.dumps(device),
            "-object", json.dumps({"qom-type": "rng-random", "id": "r", "filename": "/dev/urandom"}),
            "-device", '{"driver":"virtio-rng-pci","rng":"r"}']
    assert re.fullmatch(r"net0: .*model=virtio-net-pci,macaddr=52:54:00:00:00:07\n \\ net0: .*restrict=on\n",
                        monitor("info network", *args))
    usernet = monitor("info usernet", *args)
    assert "TCP[HOST_FORWARD]" in usernet and "UDP[HOST_FORWARD]" in usernet, usernet
    with tempfile.TemporaryDirectory() as d:
        nested = {"type": "dgram", "id": "n", "local": {"type": "unix", "path": f"{d}/a,b"},
                  "remote": {"type": "unix", "path": f"{d}/c"}}
        text = monitor("info network", "-netdev", json.dumps(nested), "-device", "ne2k_pci,netdev=n")
        assert f"local={d}/a,b,remote={d}/c" in text, text
    for args, says in ((["-netdev", '{"type":"user"'], "no JSON object"), (["-device", "{}"], "needs"),
                       (["-netdev", '{"type":"usr","id":"a"}'], "did you mean"),
                       (["-netdev", '{"type":"user","id":"a","x":' + '{"y":' * 12 + "1" + "}" * 13], "unknown parameter"),
                       (["-object", '{"id":"r"}'], "type")):
        assert says in refused(*args), args


def test_what_is_most_likely_a_mistake_is_said_once_the_machine_is_built():
    for args, says in ((["-netdev", "user,id=a"], "the network backend 'a' is connected to no card"),
                       (["-device", "ne2k_pci,id=c"], "the network card 'c' is connected to nothing"),
                       (["-net", "user"], "hub 0 has no network card"), (["-net", "nic"], "hub 0 is connected to no network"),
                       (["-nic", "user,mac=52:54:00:00:00:01"] * 2, "the same MAC address 52:54:00:00:00:01")):
        text = warned(*args)
        assert says in text and len(text.strip().splitlines()) == 1, (args, text)
    # Not when there is a mistake for sure.
    assert "warning" not in refused("-device", "virtio-net-pci,colour=red")


def test_wrong_forms_are_one_sentence():
    for args, says in ((["-nic", "nic"], "-net nic"), (["-net", "hubport,hubid=0"], "-netdev and -nic"),
                       (["-nic", "none,x=y"], "no parameters"), (["-netdev", "user,id=9a"], "begins with a letter"),
                       (["-device", "ne2k_pci,id=a/b"], "begins with a letter"), (["-nic", "user,model=ne2k"], "model=help"),
                       (["-device", "ne2k_isa", "-device", "ne2k_isa"], "belong to 'ne2k_isa'"),
                       (["-device", "ne2k_isa,iobase=0x3e0"], "belong to 'serial0'"),
                       (["-nic", "user,model=ne2k_isa,addr=5"], "-nic user,model=ne2k_isa,addr=5"),
                       (["-nic", "user,mac=00:00:00:00:00:00"], "no address"), (["-nic", "user,mac=ff:ff:ff:ff:ff:ff"], "multicast"),
                       (["-nic", "user,dns=10.9.0.1,restrict=on"], "does not lie in the network"),
                       (["-nic", "user,hostname=" + 33 * "x"], "longer than 32"), (["-nic", "user,ipv4=off,ipv6=off"], "no network"),
                       (["-net", "vde,sock=/nonexistent"], "vde"), (["-netdev", "tap,id=t,colour=red,script=/x"], "colour")):
        assert says in refused(*args), args


def test_properties_of_qemus_that_change_nothing_are_taken_and_others_refused():
    for device, says in (("guest_ufo=on", "UDP fragmentation"), ("rss=on", "scaling"), ("iommu_platform=on", "IOMMU"),
                         ("aer=yes", "conventional PCI"), ("acpi-index=3", "index"), ("failover=on", "failover"),
                         ("packed=on", "packed"), ("speed=fast", "number"), ("duplex=both", "'half' or 'full'"),
                         ("tx=timer", "at once"), ("migrate-extra=off", "moving running machines")):
        assert says in refused("-nic", "none", "-device", f"virtio-net-pci,{device}"), device
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/disk", "wb") as f:
            f.truncate(1 << 20)
        drive = ["-drive", f"file={d}/disk,format=raw,if=none,id=d", "-device"]
        for device, says in (("scsi=on", "SCSI"), ("iothread=x", "threads of their own"), ("discard_granularity=1000", "multiple"),
                             ("max-discard-sectors=0", "must be 1"), ("account-failed=on", "statistics"),
                             ("werror=maybe", "'werror'"), ("num-queues=0", "num-queues"), ("queue-size=100", "power of two")):
            assert says in refused(*drive, f"virtio-blk-pci,drive=d,{device}"), device
        harmless = "aer=off,ats=off,iommu_platform=no,page-per-vq=off,modern-pio-notify=false,acpi-index=0"
        pci = monitor("info pci", "-netdev", "user,id=n", *drive,
                      f"virtio-blk-pci-non-transitional,drive=d,scsi=off,seg-max-adjust=on,account-failed=auto,{harmless}",
                      "-device", f"virtio-net-pci-transitional,netdev=n,rss=off,gso=off,tx=bh,{harmless}",
                      "-device", f"virtio-rng-pci,disable-modern=on,{harmless}",
                      "-device", f"virtio-serial-pci,emergency-write=off,{harmless}")
        assert {"1af4:1042", "1af4:1000", "1af4:1005", "1af4:1003"} <= set(re.findall("1af4:[0-9a-f]{4}", pci)), pci
        assert "driver's name" in refused(*drive, "virtio-blk-pci-transitional,drive=d,disable-legacy=on")


def test_help_lists_cards_backends_and_properties():
    cards = printed("-nic", "user,model=help")
    assert all(name in cards for name in ("virtio-net-pci", "ne2k_pci", "ne2k_isa")) and cards.count("(default)") == 1
    assert printed("-nic", "model=?") == printed("-net", "nic,model=help") == cards
    backends = printed("-netdev", "help")
    assert re.findall(r"(?m)^(\w+) ", backends)[1:] == \
        ["user", "tap", "socket", "stream", "dgram", "vde", "hubport", "bridge"], backends
    for driver in re.findall(r"(?m)^([a-z][\w-]+) ", printed("-device", "help")):
        text = printed("-device", f"{driver},help")
        assert text.startswith(f"{driver} options:\n") and printed("-device", f"{driver},?") == text
        lines = text.splitlines()[1:]
        # Each has a word of explanation.
        assert lines and all(re.fullmatch(r"  [\w-]+=<[^<>]+> +- \S.*", line) for line in lines), text
    assert "speed=<" in printed("-device", "virtio-net,help")
    assert "did you mean" in refused("-device", "ne2k_pc,help")
    assert "no such network card" in refused("-device", "e1000,help")
