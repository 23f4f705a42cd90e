# SPDX-License-Identifier: MIT
"""A real kernel: Debian's i386 Linux on the software CPU."""
import os
import re
import subprocess
import tempfile

import context
import guests
import vm
from context import cost


def boot(args, append=""):
    kernel, _ = guests.kernel()
    return vm.Vm(context.minivm(), ["-accel", "soft", "-m", "256", "-kernel", kernel, "-initrd",
                                    guests.shell_initramfs(), "-append", f"console=ttyS0 panic=-1 cryptomgr.notests {append}", *args])


def check_log(log, cpus):
    """No device that the PC has may have failed to bind, and nothing may have gone wrong."""
    bad = [line for line in log.splitlines()
           if re.search(r"(?i)\bBUG\b|oops|call trace|unable to|failed|timed? ?out|error|exception|unknown nmi|"
                        r"irq \d+: nobody cared|lost", line)
           and not re.search(r"(?i)spectre|mds|mitigation|error handler|ERST|BERT|HEST|APEI|EDAC|tsx|RETBleed|"
                             r"correctable|firmware bug|failed to enable AER|exception table|thermal|error-correct|"
                             r"PCI: System does not support PCI|report a bug|"
                             # On a busy host the calibration loops miss their window and the kernel takes another clock.
                             r"calibrat|"
                             r"Unable to read CMOS|mce|vmap|signature|certificate|X\.509|blacklist|platform keyring",
                             line)]
    assert not bad, "\n".join(bad)


# Linux finds a mouse in a thread of its own, which takes its time.
AWAIT_MOUSE = "n=0; until grep -qi mouse /proc/bus/input/devices || [ $n = 30 ]; do sleep 1; n=$((n+1)); done"


def devices(m):
    m.run_serial(AWAIT_MOUSE)
    checks = {
        "IDE disk": ("grep -c sda /proc/partitions", r"[1-9]"),
        "CD drive": ("cat /proc/sys/dev/cdrom/info | grep 'drive name'", r"sr0"),
        "floppy": ("ls /dev/fd0", r"/dev/fd0"),
        "serial": ("dmesg | grep 'ttyS0 at'", r"16550A"),
        "VGA console": ("dmesg | grep 'Console: colour'", r"80x25"),
        "keyboard": ("cat /proc/bus/input/devices", r"AT Translated Set 2 keyboard"),
        "mouse": ("cat /proc/bus/input/devices", r"ImExPS/2|IntelliMouse"),
        "RTC": ("dmesg | grep rtc_cmos", r"setting system clock|registered as rtc"),
    }
    for name, (command, pattern) in checks.items():
        status, output = m.run_serial(command)
        assert re.search(pattern, output), f"{name}: {command} said {output!r}"


def run(cpus):
    with tempfile.TemporaryDirectory() as d:
        disk, iso, floppy = f"{d}/disk.qcow2", f"{d}/x.iso", f"{d}/floppy.img"
        subprocess.run([context.minivm_img(), "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
        for path, size in ((iso, 1 << 20), (floppy, 1440 * 1024)):
            with open(path, "wb") as f:
                f.write(os.urandom(size))
        with boot(["-smp", cpus, "-hda", disk, "-cdrom", iso, "-drive", f"file={floppy},if=floppy,format=raw",
                   "-no-reboot"]) as m:
            m.wait_serial("GUEST-READY", timeout=300)
            status, output = m.run_serial("grep -c ^processor /proc/cpuinfo")
            assert output.split()[-1] == str(cpus), output
            devices(m)
            # Bytes arrive unchanged, by IDE DMA, ATAPI and floppy DMA.
            import hashlib
            for device, path in (("/dev/sr0", iso), ("/dev/fd0", floppy)):
                status, output = m.run_serial(f"sha256sum {device}")
                assert hashlib.sha256(open(path, "rb").read()).hexdigest() in output, (device, output)
            status, output = m.run_serial(
                "dd if=/dev/urandom of=/tmp/r bs=1M count=8 2>/dev/null; dd if=/tmp/r of=/dev/sda bs=64k conv=fsync "
                "2>/dev/null; echo 3 > /proc/sys/vm/drop_caches; sha256sum </tmp/r; head -c 8388608 /dev/sda | sha256sum")
            sums = re.findall(r"[0-9a-f]{64}", output)
            assert len(sums) == 2 and sums[0] == sums[1], output
            m.type_serial("dmesg; echo LOG-''END\n")
            log = m.wait_serial("(?s)(.*)LOG-END").group(1)
            check_log(log, cpus)
            m.type_serial("poweroff -f\n")
            assert m.wait_exit(120) == 0
            check = subprocess.run(["qemu-img", "check", disk], capture_output=True, text=True)
            assert check.returncode == 0, check.stdout + check.stderr


@cost(60)
def test_debian_kernel_one_cpu_all_devices():
    run(1)


@cost(90)
def test_debian_kernel_two_cpus_all_devices():
    run(2)


@cost(60)
def test_reboot_and_power_button():
    with boot([]) as m:
        m.wait_serial("GUEST-READY", timeout=300)
        m.type_serial("reboot -f\n")
        m.qmp.wait_event("RESET", timeout=60)
        m.wait_serial("GUEST-READY", timeout=300)
        status, output = m.run_serial("grep -A9 'Power Button' /proc/bus/input/devices")
        event = re.search(r"event\d+", output).group()
        # The shell opens the device before it says so.
        m.type_serial(f"{{ echo LISTEN''ING; dd bs=16 count=1 2>/dev/null | wc -c; echo PRESS''ED; }} </dev/input/{event}\n")
        m.wait_serial("LISTENING")
        m.qmp.command("system_powerdown")
        m.wait_serial("PRESSED", timeout=60)
        m.type_serial("poweroff -f\n")
        event = m.qmp.wait_event("SHUTDOWN", timeout=60)
        assert event["data"] == {"guest": True, "reason": "guest-shutdown"}, event
        assert m.wait_exit(60) == 0


@cost(40)
def test_pae_kernel_features_and_high_memory():
    """More RAM than fits below the PCI hole is there for a PAE guest, and the kernel uses NX."""
    with boot(["-m", "4608"], "") as m:
        m.wait_serial("GUEST-READY", timeout=300)
        status, output = m.run_serial("dmesg | grep -i -E 'BIOS-e820|highmem'")
        assert "0x0000000100000000" in output, output
