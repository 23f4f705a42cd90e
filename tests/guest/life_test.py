# SPDX-License-Identifier: MIT
"""A whole life of a system: installed from a CD onto a qcow2 disk, booted from it, booted from an overlay.

The CD is isolinux with Debian's kernel and a busybox shell; the disk gets a partition table, ext2 made and written through IDE
DMA, extlinux or GRUB, the kernel, and a small system with a login prompt.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

import context
import debs
import guests
import vm
from context import cost

# The installed system's init: mounts the root file system that the boot loader named and starts getty through busybox init.
DISK_INIT = guests.PRELUDE + guests.LOAD_MODULES + """
for n in 1 2 3 4 5 6 7 8 9 10; do
	for root in /dev/sda1 /dev/vda1; do [ -b $root ] && break 2; done
	sleep 1
done
mount -t ext2 $root /mnt || exec sh
mount --move /dev /mnt/dev; mount --move /proc /mnt/proc; mount --move /sys /mnt/sys
exec switch_root /mnt /sbin/init
"""

INITTAB = """::sysinit:/bin/busybox mount -o remount,rw /
ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100
::shutdown:/bin/busybox umount -a -r
"""

INSTALL = """set -e
printf 'n\\np\\n1\\n\\n\\na\\n1\\nw\\n' | fdisk /dev/sda >/tmp/fdisk.log 2>&1
mdev -s 2>/dev/null || true
for n in 1 2 3 4 5; do [ -b /dev/sda1 ] && break; sleep 1; done
mke2fs -L root /dev/sda1 >/tmp/mke2fs.log 2>&1
mount -t ext2 /dev/sda1 /mnt
cd /mnt
mkdir -p bin sbin etc dev proc sys tmp root boot/extlinux
cp /bin/busybox bin/
for a in $(bin/busybox --list); do [ -e bin/$a ] || ln -s busybox bin/$a; done
for a in init getty login switch_root poweroff reboot; do ln -sf ../bin/busybox sbin/$a; done
cp /install/inittab etc/inittab
echo 'root::0:0:root:/root:/bin/sh' > etc/passwd
echo 'root:x:0:' > etc/group
echo minivm-guest > etc/hostname
cp /cdrom/linux /cdrom/disk.gz boot/
printf 'default linux\\nprompt 0\\nlabel linux\\nkernel /boot/linux\\nappend initrd=/boot/disk.gz console=ttyS0 quiet panic=-1 cryptomgr.notests\\n' > boot/extlinux/extlinux.conf
extlinux --install boot/extlinux >/tmp/extlinux.log 2>&1
dd if=/install/mbr.bin of=/dev/sda bs=440 count=1 conv=notrunc 2>/dev/null
cd /
umount /mnt
sync
"""


def installer_cd():
    """The CD: linux, an initramfs with the installer script, and what goes onto the disk."""
    kernel, _ = guests.kernel()
    mbr = pathlib.Path(context.requires_file("/usr/lib/EXTLINUX/mbr.bin", "extlinux"))
    extlinux = debs.unpack("extlinux", "libc6")
    libc = extlinux / "lib" / "i386-linux-gnu"
    if not libc.exists():
        libc = extlinux / "usr" / "lib" / "i386-linux-gnu"
    disk = guests.initramfs(DISK_INIT, ["ata_piix", "sd_mod", "virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "button",
                                       "evdev"])
    init = guests.PRELUDE + guests.LOAD_MODULES + """
mount -t iso9660 /dev/sr0 /cdrom
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
echo GUEST-READY
while read -r line; do eval "$line"; done
"""
    live = guests.initramfs(init, guests.PC_MODULES, {
        "bin/extlinux": (extlinux / "usr" / "bin" / "extlinux").read_bytes(),
        "lib/ld-linux.so.2": (libc / "ld-linux.so.2").read_bytes(),
        "lib/i386-linux-gnu/libc.so.6": (libc / "libc.so.6").read_bytes(),
        "install/inittab": INITTAB.encode(),
        "install/install.sh": INSTALL.encode(),
        "install/mbr.bin": mbr.read_bytes(),
    })
    return guests.isolinux_cd("life", {"linux": kernel, "live.gz": live, "disk.gz": disk},
                              "serial 0 115200\ndefault live\nprompt 0\nlabel live\n  kernel /linux\n"
                              "  append initrd=/live.gz console=ttyS0 panic=-1 cryptomgr.notests\n")


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            h.update(chunk)
    return h.hexdigest()


def img(*args):
    return subprocess.run([context.minivm_img(), *map(str, args)], check=True, capture_output=True, text=True).stdout


def qemu_img(*args):
    context.requires("qemu-img")
    p = subprocess.run(["qemu-img", *map(str, args)], capture_output=True, text=True)
    assert p.returncode == 0, f"qemu-img {args}: {p.stdout}{p.stderr}"


def login(m):
    m.wait_serial("login:", timeout=300)
    m.type_serial("root\n")
    m.wait_serial(r"[#$] ", timeout=60)
    m.type_serial("stty -echo\n")
    m.wait_serial(r"[#$] ", timeout=60)


def life(program, arguments, folder):
    disk, overlay = f"{folder}/disk.qcow2", f"{folder}/overlay.qcow2"
    iso = installer_cd()
    img("create", "-f", "qcow2", disk, "300M")

    with vm.Vm(program, arguments + ["-m", "256", "-hda", disk, "-cdrom", iso, "-boot", "d"]) as m:
        m.wait_serial("GUEST-READY", timeout=300)
        status, output = m.run_serial("cat /sys/class/ata_device/dev1.0/xfer_mode")
        assert "DMA" in output, output
        status, output = m.run_serial("sh /install/install.sh; echo status $?", timeout=300)
        assert "status 0" in output, output + m.run_serial("cat /tmp/*.log")[1]
        m.type_serial("poweroff -f\n")
        assert m.wait_exit() == 0
    qemu_img("check", disk)
    img("check", disk)

    with vm.Vm(program, arguments + ["-m", "256", "-hda", disk, "-boot", "c"]) as m:
        login(m)
        status, output = m.run_serial("dmesg | grep -i -E 'i/o error|ext4.*error|ext2.*error'; cat /etc/hostname")
        assert "minivm-guest" in output and "rror" not in output, output
        m.type_serial("sync; mount -o remount,ro /; poweroff -f\n")
        assert m.wait_exit() == 0
    qemu_img("check", disk)
    base = digest(disk)

    img("create", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", overlay)
    with vm.Vm(program, arguments + ["-m", "256", "-hda", overlay, "-boot", "c"]) as m:
        login(m)
        status, output = m.run_serial("mount -o remount,rw /; dd if=/dev/urandom of=/data bs=64k count=64 2>/dev/null; "
                                      "sync; sha256sum </data")
        written = output.split()[0]
        m.type_serial("mount -o remount,ro /; poweroff -f\n")
        assert m.wait_exit() == 0
    assert digest(disk) == base, "the base image changed"
    qemu_img("check", overlay)
    img("check", overlay)
    with vm.Vm(program, arguments + ["-m", "256", "-hda", overlay, "-boot", "c", "-snapshot"]) as m:
        login(m)
        status, output = m.run_serial("sha256sum </data")
        assert written in output, output
        m.type_serial("mount -o remount,rw /; rm /data; sync; mount -o remount,ro /; poweroff -f\n")
        assert m.wait_exit() == 0
    # The disk that was installed on IDE, on another card.
    with vm.Vm(program, arguments + ["-m", "256", "-drive", f"file={overlay},if=virtio", "-boot", "order=c"]) as m:
        login(m)
        status, output = m.run_serial("mount | grep -c vda1; sha256sum </data; [ -e /dev/sda ] || echo no IDE disk")
        assert written in output and "no IDE disk" in output and not output.startswith("0"), output
        status, output = m.run_serial("mount -o remount,rw /; dd if=/dev/urandom of=/more bs=64k count=64 2>/dev/null; sync; "
                                      "echo 3 >/proc/sys/vm/drop_caches; a=$(sha256sum </more); echo 3 >/proc/sys/vm/drop_caches; "
                                      "[ \"$a\" = \"$(sha256sum </more)\" ] && echo same; rm /more; sync")
        assert "same" in output, output
        m.type_serial("mount -o remount,ro /; poweroff -f\n")
        assert m.wait_exit() == 0
    qemu_img("check", overlay)
    before = digest(overlay)
    with vm.Vm(program, arguments + ["-m", "256", "-hda", overlay, "-boot", "c", "-snapshot"]) as m:
        login(m)
        status, output = m.run_serial("sha256sum </data")
        assert written in output, output
    assert digest(overlay) == before, "-snapshot wrote to the image"
    # A second implementation reads the same disk from our files.
    flat = f"{folder}/flat.raw"
    qemu_img("convert", "-O", "raw", overlay, flat)
    qemu_img("compare", overlay, flat)


@cost(200)
def test_installed_from_cd_booted_from_disk_and_overlay():
    with tempfile.TemporaryDirectory() as d:
        life(context.minivm(), ["-accel", "soft"], d)
