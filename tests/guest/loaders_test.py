# SPDX-License-Identifier: MIT
"""Real firmware and boot loaders, checked by what stands on the screen or the serial line."""
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile

import context
import guests
import vm

SOFT = ["-accel", "soft", "-m", "64", "-nic", "none"]


def test_seabios_reports_no_bootable_device():
    with tempfile.TemporaryDirectory() as d:
        with vm.Vm(context.minivm(), SOFT + ["-debugcon", f"file:{d}/log"], serial=False) as m:
            m.wait_screen("No bootable device")
            log = open(f"{d}/log").read()
            assert "SeaBIOS (version" in log and "No bootable device" in log, log
            assert m.quit() == 0


def test_grub_rescue_cd():
    iso = context.requires_file("/usr/lib/grub-rescue/grub-rescue-cdrom.iso", "grub-rescue-pc")
    with vm.Vm(context.minivm(), SOFT + ["-cdrom", iso, "-boot", "d"], serial=False) as m:
        m.wait_screen("GNU GRUB|grub>", timeout=120)
        m.keys("c")
        m.wait_screen("grub>")
        m.type_keys("ls\n")
        m.wait_screen(r"\(cd\)|\(cd0\)|\(proc\)")


def test_grub_rescue_floppy():
    image = context.requires_file("/usr/lib/grub-rescue/grub-rescue-floppy.img", "grub-rescue-pc")
    with vm.Vm(context.minivm(), SOFT + ["-snapshot", "-fda", image, "-boot", "a"], serial=False) as m:
        m.wait_screen("GNU GRUB|grub>", timeout=180)
        m.keys("c")
        m.wait_screen("grub>")
        m.type_keys("ls\n")
        m.wait_screen(r"\(fd0\)")


def test_memtest86_cd_starts_its_first_pass():
    iso = context.requires_file("/usr/lib/memtest86+/memtest86+ia32.iso", "memtest86+")
    with vm.Vm(context.minivm(), SOFT + ["-cdrom", iso, "-boot", "d"], serial=False) as m:
        m.wait_screen("Memtest86", timeout=120)
        m.wait_screen(r"Pass\s+[1-9]\d*%|Test\s+[1-9]\d*%", timeout=240)


def test_memtest86_as_kernel():
    kernel = context.requires_file("/boot/memtest86+ia32.bin", "memtest86+")
    with vm.Vm(context.minivm(), SOFT + ["-kernel", kernel], serial=False) as m:
        m.wait_screen("Memtest86", timeout=120)


def syslinux_floppy(folder):
    """A 1.44 MB FAT floppy with syslinux and memtest86+ on it."""
    memtest = context.requires_file("/boot/memtest86+ia32.bin", "memtest86+")
    for program in ("syslinux", "mkfs.vfat", "mcopy"):
        if not shutil.which(program) and not shutil.which(program, path="/sbin:/usr/sbin"):
            raise context.Skip(f"{program} is not installed")
    image = f"{folder}/floppy.img"
    with open(image, "wb") as f:
        f.truncate(1440 * 1024)
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/sbin:/usr/sbin", MTOOLS_SKIP_CHECK="1")
    pathlib.Path(f"{folder}/syslinux.cfg").write_text("default memtest\nprompt 1\ntimeout 50\nlabel memtest\n"
                                                      "  kernel memtest\n")
    for command in (["mkfs.vfat", image], ["syslinux", "--install", image],
                    ["mcopy", "-i", image, memtest, "::memtest"],
                    ["mcopy", "-i", image, f"{folder}/syslinux.cfg", "::syslinux.cfg"]):
        subprocess.run(command, check=True, capture_output=True, env=env)
    return image


def test_syslinux_floppy():
    with tempfile.TemporaryDirectory() as d:
        image = syslinux_floppy(d)
        with vm.Vm(context.minivm(), SOFT + ["-drive", f"file={image},if=floppy,format=raw", "-boot", "a"],
                   serial=False) as m:
            m.wait_screen("boot:", timeout=120)
            m.keys("ret")
            m.wait_screen("Memtest86", timeout=120)


def test_isolinux_menu_and_keyboard():
    memtest = context.requires_file("/boot/memtest86+ia32.bin", "memtest86+")
    iso = guests.isolinux_cd("keys", {"memtest": memtest},
                             "prompt 1\ntimeout 0\nlabel tester\n  kernel /memtest\n")
    with vm.Vm(context.minivm(), SOFT + ["-cdrom", iso, "-boot", "d"], serial=False) as m:
        m.wait_screen("boot:", timeout=120)
        m.type_keys("tester\n")
        m.wait_screen("Memtest86", timeout=120)


def print_and_halt(text):
    """A boot sector that prints a text by INT 10h and halts."""
    code = b"\xfa\x31\xc0\x8e\xd8\xbe\x13\x7c\xac\x84\xc0\x74\xfe\xb4\x0e\xcd\x10\xeb\xf5"
    return (code + text.encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"


def test_boot_menu_and_once():
    iso = context.requires_file("/usr/lib/memtest86+/memtest86+ia32.iso", "memtest86+")
    with tempfile.TemporaryDirectory() as d:
        disk = f"{d}/disk.img"
        pathlib.Path(disk).write_bytes(print_and_halt("THE-DISK").ljust(1 << 20, b"\0"))
        args = SOFT + ["-cdrom", iso, "-drive", f"file={disk},format=raw,index=0"]
        with vm.Vm(context.minivm(), args + ["-boot", "order=c,once=d"], serial=False) as m:
            m.wait_screen("Memtest86", timeout=120)
            m.qmp.command("system_reset")
            m.wait_screen("THE-DISK", timeout=120)
        with vm.Vm(context.minivm(), args + ["-boot", "cd"], serial=False) as m:
            m.wait_screen("THE-DISK", timeout=120)
        with vm.Vm(context.minivm(), args + ["-boot", "menu=on,splash-time=5000"], serial=False) as m:
            m.wait_screen("ESC for boot menu")
            m.keys("esc")
            m.wait_screen("Select boot device")
            m.wait_screen("DVD/CD")
            m.keys("2")
            m.wait_screen("Memtest86|THE-DISK", timeout=120)


def test_gnu_mach_by_multiboot():
    import debs
    root = debs.unpack("gnumach-image-1.8-486")
    kernel = next((root / "boot").glob("gnumach*"))
    if kernel.suffix == ".gz":
        import gzip
        plain = context.cache() / "gnumach"
        plain.write_bytes(gzip.decompress(kernel.read_bytes()))
        kernel = plain
    with vm.Vm(context.minivm(), SOFT + ["-kernel", kernel, "-append", "console=com0"]) as m:
        m.wait_serial("No bootstrap code loaded with the kernel", timeout=120)


def grub_disk(folder):
    """A qcow2 disk with GRUB in its boot sector and behind it, and an ext2 partition with Linux and an initramfs."""
    mkimage = context.requires("grub-mkimage")
    boot = context.requires_file("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin")
    mke2fs = shutil.which("mke2fs") or shutil.which("mke2fs", path="/sbin:/usr/sbin")
    if not mke2fs:
        raise context.Skip("mke2fs is not installed (package e2fsprogs)")
    context.requires("qemu-img")
    kernel, _ = guests.kernel()
    tree = pathlib.Path(folder) / "tree"
    tree.mkdir()
    shutil.copy(kernel, tree / "linux")
    shutil.copy(guests.shell_initramfs(), tree / "initrd.gz")
    config = pathlib.Path(folder) / "grub.cfg"
    config.write_text("serial --unit=0 --speed=115200\nterminal_output console serial\necho GRUB-FROM-DISK\n"
                      "linux (hd0,msdos1)/linux console=ttyS0 panic=-1 quiet cryptomgr.notests\n"
                      "initrd (hd0,msdos1)/initrd.gz\nboot\n")
    core = f"{folder}/core.img"
    subprocess.run([mkimage, "-O", "i386-pc", "-o", core, "-p", "(hd0,msdos1)/", "-c", str(config), "biosdisk",
                    "part_msdos", "ext2", "linux", "serial", "terminal", "echo", "boot"], check=True)
    raw = f"{folder}/disk.raw"
    start, sectors = 2048, 96 * 2048
    with open(raw, "wb") as f:
        f.truncate((start + sectors) * 512)
    subprocess.run([mke2fs, "-q", "-t", "ext2", "-d", str(tree), "-E", f"offset={start * 512}", raw,
                    f"{sectors // 2}k"], check=True, capture_output=True)
    mbr = bytearray(pathlib.Path(boot).read_bytes())
    # One active Linux partition (MBR partition table, entry 1); on floppies there is code in its place.
    mbr[446:510] = bytes(64)
    mbr[446:462] = struct.pack("<BBBBBBBBII", 0x80, 0xFE, 0xFF, 0xFF, 0x83, 0xFE, 0xFF, 0xFF, start, sectors)
    mbr[510:512] = b"\x55\xaa"
    with open(raw, "r+b") as f:
        f.write(mbr)
        f.write(pathlib.Path(core).read_bytes())
    disk = f"{folder}/disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, disk], check=True)
    return disk


@context.cost(40)
def test_grub_from_disk_boots_linux():
    with tempfile.TemporaryDirectory() as d:
        disk = grub_disk(d)
        with vm.Vm(context.minivm(), ["-accel", "soft", "-m", "128", "-hda", disk, "-boot", "c"]) as m:
            m.wait_serial("GRUB-FROM-DISK", timeout=120)
            m.wait_serial("GUEST-READY", timeout=300)
            m.type_serial("poweroff -f\n")
            assert m.wait_exit() == 0
