# SPDX-License-Identifier: MIT
"""-option-rom: a ROM of our own is run, and boots when its turn comes."""
import pathlib
import struct
import subprocess
import tempfile
import time

import context
import vm
from context import cost


def say(text):
    """Real-mode code that writes the text to the debug port E9h and returns far."""
    return b"\xba\xe9\x00" + b"".join(bytes((0xB0, c, 0xEE)) for c in text.encode()) + b"\xcb"


def rom():
    """An option ROM with a bootstrap entry vector (BIOS Boot Specification 1.01, 3.3 and appendix A)."""
    image = bytearray(512)
    image[:3] = b"\x55\xaa\x01"
    image[3:6] = b"\xe9" + struct.pack("<H", 0x60 - 6)
    struct.pack_into("<H", image, 0x1A, 0x20)
    image[0x20:0x40] = b"$PnP" + struct.pack("<BBHBBIHH3sBHHHHH", 1, 2, 0, 0, 0, 0, 0, 0, b"\2\0\0", 0, 0, 0, 0x100, 0, 0)
    image[0x29] = -sum(image[0x20:0x40]) & 0xFF
    # Initialisation: AX = 20h says that there is a boot device.
    code = say("ROM-INIT\n")[:-1] + b"\xb8\x20\x00\xcb"
    image[0x60:0x60 + len(code)] = code
    boot = say("ROM-BOOT\n")
    image[0x100:0x100 + len(boot)] = boot
    image[511] = -sum(image) & 0xFF
    return bytes(image)


def log_of(folder, args, wanted):
    """What the debug console got, once `wanted` is in it."""
    path = pathlib.Path(folder, "log")
    path.unlink(missing_ok=True)
    with vm.Vm(context.minivm(), ["-accel", "soft", "-m", "16", "-nodefaults", "-debugcon", f"file:{path}", *args],
               serial=False) as m:
        end = time.monotonic() + 60 * context.patience()
        while wanted not in (text := path.read_text(errors="replace") if path.exists() else ""):
            assert time.monotonic() < end, text
            time.sleep(0.02)
        m.quit()
    return text


@cost(5)
def test_an_option_rom_is_run_and_boots_by_its_index():
    with tempfile.TemporaryDirectory() as d:
        file = pathlib.Path(d, "own.rom")
        file.write_bytes(rom())
        with open(f"{d}/disk", "wb") as f:
            f.truncate(1 << 20)
        disk = ["-drive", f"file={d}/disk,format=raw,if=none,id=x", "-device", "ide-hd,drive=x,bootindex=5"]
        first = log_of(d, ["-option-rom", f"{file},bootindex=1", *disk], "Booting from Hard Disk")
        assert 0 < first.index("ROM-INIT") < first.index("ROM-BOOT") < first.index("Booting from Hard Disk"), first
        last = log_of(d, ["-option-rom", f"{file},bootindex=9", *disk], "ROM-BOOT")
        assert last.index("Booting from Hard Disk") < last.index("ROM-BOOT"), last


@cost(5)
def test_letters_of_the_boot_order_put_the_network_in_its_place():
    """n is any ROM that boots: alone in front, behind the disk, or for the first start only."""
    with tempfile.TemporaryDirectory() as d:
        file = pathlib.Path(d, "own.rom")
        file.write_bytes(rom())
        with open(f"{d}/disk", "wb") as f:
            f.truncate(1 << 20)
        args = ["-option-rom", file, "-drive", f"file={d}/disk,format=raw", "-boot"]
        disk, net = "Booting from Hard Disk", "ROM-BOOT"
        for order, first, second in (("nc", net, disk), ("order=cn", disk, net)):
            text = log_of(d, [*args, order], second)
            assert 0 < text.find(first) < text.index(second), (order, text)
        path = pathlib.Path(d, "once")
        with vm.Vm(context.minivm(), ["-accel", "soft", "-m", "16", "-nodefaults", "-debugcon", f"file:{path}", *args,
                                      "order=cn,once=nc"], serial=False) as m:
            for start in (1, 2):
                end = time.monotonic() + 60 * context.patience()
                while len(parts := path.read_text(errors="replace").split("ROM-INIT")) <= start or \
                        not (disk in parts[start] and net in parts[start]):
                    assert time.monotonic() < end, parts
                    time.sleep(0.02)
                assert (parts[start].index(net) < parts[start].index(disk)) == (start == 1), parts
                m.qmp.command("system_reset")
            m.quit()


def refused(*args):
    p = subprocess.run([context.minivm(), "-S", "-display", "none", "-accel", "soft", *args], capture_output=True,
                       text=True, timeout=60 * context.patience(), stdin=subprocess.DEVNULL)
    assert p.returncode == 1 and len(p.stderr.strip().splitlines()) == 1, (args, p.returncode, p.stderr)
    return p.stderr


def test_wrong_option_roms_and_boot_indices_are_refused():
    with tempfile.TemporaryDirectory() as d:
        file, other = pathlib.Path(d, "own.rom"), pathlib.Path(d, "text")
        file.write_bytes(rom())
        other.write_text("no ROM")
        for args, says in ((["-option-rom", "/nonexistent"], "/nonexistent"), (["-option-rom", other], "55 AA"),
                           (["-option-rom", f"{file},bootindex=x"], "number"), (["-option-rom", f"{file},x=1"], "unknown"),
                           (["-option-rom", file, "-option-rom", file], "already"),
                           (["-option-rom", f"{file},bootindex=3", "-device", "virtio-rng-pci,bootindex=3"], "given twice"),
                           (["-device", "ne2k_isa,bootindex=1"], "-option-rom"),
                           (["-device", "virtio-net-pci,romsize=4096"], "romsize"),
                           (["-device", "ne2k_pci,romsize=3000"], "power of two")):
            if "romsize" in says:
                context.requires_file("/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu")
            assert says in refused(*args), (args, says)
