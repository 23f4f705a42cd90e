# SPDX-License-Identifier: MIT
"""Booting from the network: iPXE from each PCI card's ROM, pxelinux, the Debian installer."""
import contextlib
import os
import pathlib
import shutil
import tempfile

import context
import guests
import netlab
import vm
from context import cost
from netlab import run

CARDS = {"ne2k_pci": "ne2k_pci", "virtio-net": "virtio-net-pci"}
IMAGES = "/usr/lib/debian-installer/images/12/i386/text"


def pxe_folder(d, initrd):
    """A TFTP folder with Debian's pxelinux and installer kernel."""
    images = pathlib.Path(context.requires_file(IMAGES, "debian-installer-12-netboot-i386"))
    context.requires_file("/usr/lib/ipxe/qemu/pxe-ne2k_pci.rom", "ipxe-qemu")
    for name in ("pxelinux.0", "ldlinux.c32"):
        shutil.copy(images / name, d)
    shutil.copy(images / "debian-installer/i386/linux", d)
    shutil.copy(initrd, f"{d}/initrd.gz")
    os.mkdir(f"{d}/pxelinux.cfg")
    pathlib.Path(d, "pxelinux.cfg", "default").write_text(
        "default linux\nlabel linux\nkernel linux\nappend initrd=initrd.gz console=ttyS0 quiet panic=-1 "
        "cryptomgr.notests\n")


def boots_from_the_network(card, netdev, enter=()):
    program = [*enter, context.minivm()]
    # The installer wants more than 273 MB.
    return vm.Vm(program[0], [*program[1:], "-accel", "soft", "-m", "512", "-boot", "n", "-netdev", netdev, "-device",
                              f"{card},netdev=n"])


def reaches_the_kernel(m):
    m.wait_serial("GUEST-READY", 400)
    assert "panic=-1" in run(m, "cat /proc/cmdline")
    m.quit()


def reaches_the_installer(m):
    m.wait_serial("(?i)select a language", 600)
    m.quit()


@contextlib.contextmanager
def on_bridge(d, enter, number, card):
    """A machine whose tap is there, and on the bridge, before the boot ROM looks for a server."""
    netlab.on_bridge(enter, f"pxe{number}", make=True)
    with boots_from_the_network(f"{card},mac=52:54:00:00:01:{number:02x}",
                                f"tap,id=n,ifname=pxe{number},script=no,downscript=no", enter) as m:
        yield m


def from_slirp(part, initrd, reached):
    with tempfile.TemporaryDirectory() as d, contextlib.ExitStack() as stack:
        pxe_folder(d, initrd)
        netdev = f"user,id=n,tftp={d},bootfile=/pxelinux.0"
        machines = [stack.enter_context(boots_from_the_network(card, netdev)) for card in CARDS.values()]
        for name, m in zip(CARDS, machines):
            with part(name):
                reached(m)


def from_dnsmasq(part, initrd, reached):
    with tempfile.TemporaryDirectory() as d, contextlib.ExitStack() as stack:
        pxe_folder(d, initrd)
        enter = stack.enter_context(netlab.namespace())
        stack.enter_context(netlab.dnsmasq(enter, d, "--dhcp-boot=pxelinux.0", "--enable-tftp", f"--tftp-root={d}"))
        machines = [stack.enter_context(on_bridge(d, enter, n, card)) for n, card in enumerate(CARDS.values())]
        for name, m in zip(CARDS, machines):
            with part(name):
                reached(m)


@cost(60)
@context.parts(*CARDS)
def test_from_the_user_networks_tftp(part):
    from_slirp(part, guests.initramfs(guests.SHELL), reaches_the_kernel)


@cost(60)
@context.parts(*CARDS)
def test_from_dnsmasq_over_tap(part):
    from_dnsmasq(part, guests.initramfs(guests.SHELL), reaches_the_kernel)


def installers_initramfs():
    return context.requires_file(f"{IMAGES}/debian-installer/i386/initrd.gz", "debian-installer-12-netboot-i386")


@cost(50)
def test_the_installer_starts():
    with tempfile.TemporaryDirectory() as d:
        pxe_folder(d, installers_initramfs())
        with boots_from_the_network(CARDS["virtio-net"], f"user,id=n,tftp={d},bootfile=/pxelinux.0") as m:
            reaches_the_installer(m)


@cost(200)
@context.parts(*CARDS)
def test_the_installer_starts_from_the_user_networks_tftp(part):
    if not context.long:
        raise context.Skip("both cards are for make test-long")
    from_slirp(part, installers_initramfs(), reaches_the_installer)


@cost(200)
@context.parts(*CARDS)
def test_the_installer_starts_from_dnsmasq_over_tap(part):
    if not context.long:
        raise context.Skip("both cards are for make test-long")
    from_dnsmasq(part, installers_initramfs(), reaches_the_installer)


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
