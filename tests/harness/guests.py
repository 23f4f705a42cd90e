# SPDX-License-Identifier: MIT
"""Guest systems made from Debian packages: Linux kernels with small initramfs images, CDs, floppies.

Everything is made once and kept in the cache; the name of each file holds a hash of what it was made from.
"""
import gzip
import hashlib
import os
import pathlib
import re
import shutil
import stat
import subprocess
import threading

import context
import debs

_lock = threading.RLock()

# Drivers of the devices that the PC has, and file systems. Dependencies are added from modules.dep.
PC_MODULES = ["ata_piix", "ata_generic", "sd_mod", "sr_mod", "ext4", "isofs", "vfat", "nls_cp437", "nls_ascii", "floppy",
              "psmouse", "evdev", "parport_pc", "button", "crc32c_generic"]


def kernel_package():
    return [p for p in debs.depends("linux-image-686") if p.startswith("linux-image-")][0]


def kernel():
    """(path of vmlinuz, version) of Debian's i386 kernel."""
    root = debs.unpack(kernel_package())
    vmlinuz = next((root / "boot").glob("vmlinuz-*"))
    return vmlinuz, vmlinuz.name.split("-", 1)[1]


def _modules():
    """(folder, {module name: path}, {path: [paths it needs]}) of the kernel's modules."""
    root = debs.unpack(kernel_package())
    _, version = kernel()
    folder = root / "lib" / "modules" / version
    with _lock:
        if not (folder / "modules.dep").exists():
            depmod = shutil.which("depmod") or shutil.which("depmod", path="/sbin:/usr/sbin")
            if not depmod:
                raise context.Skip("depmod is not installed (package kmod)")
            subprocess.run([depmod, "-b", str(root), version], check=True)
    needs = {}
    for line in open(folder / "modules.dep"):
        module, others = line.split(":", 1)
        needs[module] = others.split()
    names = {os.path.basename(m).split(".")[0].replace("-", "_"): m for m in needs}
    return folder, names, needs


def _cpio(entries):
    """A newc archive (Linux Documentation/driver-api/early-userspace/buffer-format) of (name, mode, data or device)."""
    out = bytearray()

    def add(name, mode, data=b"", rdev=(0, 0), ino=[0]):
        ino[0] += 1
        fields = [ino[0], mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name) + 1, 0]
        out.extend(b"070701" + b"".join(b"%08X" % f for f in fields))
        out.extend(name.encode() + b"\0")
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    folders = set()
    for name, mode, data in entries:
        for parent in reversed(pathlib.PurePosixPath(name).parents):
            if str(parent) != "." and str(parent) not in folders:
                folders.add(str(parent))
                add(str(parent), stat.S_IFDIR | 0o755)
        if stat.S_ISCHR(mode):
            add(name, mode, rdev=data)
        elif stat.S_ISDIR(mode):
            if name not in folders:
                folders.add(name)
                add(name, mode)
        else:
            add(name, mode, data.encode() if isinstance(data, str) else data)
    add("TRAILER!!!", 0)
    return bytes(out)


PRELUDE = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /mnt /cdrom /sbin /usr/bin /usr/sbin
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
"""

LOAD_MODULES = "for m in $(cat /modules.list); do insmod /modules/$m.ko 2>/dev/null; done\n"

# Of what the kernel says later only disasters go to the console, where the tests read what commands print.
SHELL = PRELUDE + LOAD_MODULES + """
dmesg -n 1
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
echo GUEST-READY
while read -r line; do eval "$line"; done
"""


def initramfs(init, modules=(), files=None):
    """Path of an initramfs with busybox, these modules in an order that loads, files {name: bytes} and /init."""
    busybox = debs.unpack("busybox-static") / "bin" / "busybox"
    entries = [("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
               ("dev/console", stat.S_IFCHR | 0o600, (5, 1)),
               ("init", stat.S_IFREG | 0o755, init)]
    if modules:
        folder, names, needs = _modules()
        order = []

        def load(path):
            for other in reversed(needs[path]):
                load(other)
            if path not in order:
                order.append(path)

        for m in modules:
            if m.replace("-", "_") in names:
                load(names[m.replace("-", "_")])
        listing = []
        for path in order:
            name = os.path.basename(path).split(".")[0]
            listing.append(name)
            entries.append((f"modules/{name}.ko", stat.S_IFREG | 0o644, (folder / path).read_bytes()))
        entries.append(("modules.list", stat.S_IFREG | 0o644, "\n".join(listing) + "\n"))
    for name, data in sorted((files or {}).items()):
        mode = 0o755 if name.startswith(("bin/", "sbin/", "lib")) else 0o644
        entries.append((name, stat.S_IFREG | mode, data))
    image = _cpio(entries)
    digest = hashlib.sha256(image).hexdigest()[:16]
    with _lock:
        path = context.cache() / f"initramfs-{digest}.gz"
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_bytes(gzip.compress(image, 6, mtime=0))
            part.rename(path)
    return path


def program(name, *flags):
    """Path of tests/guest/programs/NAME.c, compiled for any i386 guest (and the host)."""
    compiler = context.requires("gcc")
    source = context.ROOT / "tests" / "guest" / "programs" / f"{name}.c"
    flags = ["-m32", "-O1", "-static", "-no-pie", "-fno-pie", *flags]
    digest = hashlib.sha256(source.read_bytes() + " ".join(flags).encode()).hexdigest()[:16]
    with _lock:
        path = context.cache() / f"{name}-{digest}"
        if not path.exists():
            part = f"{path}.{os.getpid()}.part"
            built = subprocess.run([compiler, *flags, "-o", part, str(source)], capture_output=True, text=True)
            if built.returncode:
                raise context.Skip(f"{compiler} -m32 -static does not work (package gcc-multilib): {built.stderr.strip()}")
            os.rename(part, path)
        return path


def shell_initramfs():
    """A command interpreter on ttyS0 that prints GUEST-READY first, with the PC's drivers loaded."""
    return initramfs(SHELL, PC_MODULES)


def isolinux_cd(name, files, config):
    """Path of a CD with isolinux, files {name: path or bytes} and that isolinux.cfg."""
    context.requires("xorriso")
    isolinux = context.requires_file("/usr/lib/ISOLINUX/isolinux.bin", "isolinux")
    ldlinux = context.requires_file("/usr/lib/syslinux/modules/bios/ldlinux.c32", "syslinux-common")
    digest = hashlib.sha256(config.encode())
    for key, value in sorted(files.items()):
        digest.update(key.encode())
        digest.update(value if isinstance(value, bytes) else f"{value}{os.stat(value).st_mtime}".encode())
    with _lock:
        path = context.cache() / f"{name}-{digest.hexdigest()[:16]}.iso"
        if path.exists():
            return path
        work = context.cache() / f"{name}.iso.d"
        shutil.rmtree(work, ignore_errors=True)
        (work / "isolinux").mkdir(parents=True)
        shutil.copy(isolinux, work / "isolinux")
        shutil.copy(ldlinux, work / "isolinux")
        (work / "isolinux" / "isolinux.cfg").write_text(config)
        for key, value in files.items():
            (work / key).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(value, bytes):
                (work / key).write_bytes(value)
            else:
                shutil.copy(value, work / key)
        part = f"{path}.part"
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-J", "-R", "-V", name.upper(), "-b",
                        "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4",
                        "-boot-info-table", "-o", part, str(work)], check=True, capture_output=True)
        os.rename(part, path)
        shutil.rmtree(work)
        return path
