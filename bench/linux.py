# SPDX-License-Identifier: MIT
"""Debian's i386 kernel with a busybox initramfs: its IDE disk in both formats."""
import subprocess
import time

import guests
import programs
import vm

MIB = 64
DISKS = {"sda": "raw", "sdb": "qcow2"}


def make_disks(folder):
    args = []
    for slot, kind in zip(("hda", "hdb"), DISKS.values()):
        path = folder / f"disk.{kind}"
        if kind == "raw":
            with open(path, "wb") as f:
                f.truncate(2 * MIB << 20)
        else:
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, f"{2 * MIB}M"], check=True)
        args += ["-drive", f"file={path},format={kind},if=ide,index={'hda hdb'.split().index(slot)}"]
    return args


def transfer(machine, write, disk, times):
    """MiB a second of sequential transfers that bypass the guest's page cache; the host's takes part."""
    end = f"if=/dev/zero of=/dev/{disk} oflag=direct" if write else f"if=/dev/{disk} of=/dev/null iflag=direct"
    speeds = []
    for _ in range(times):
        start = time.perf_counter()
        status, output = machine.run_serial(f"dd bs=1M count={MIB} {end} 2>&1", timeout=600)
        speeds.append(MIB / (time.perf_counter() - start))
        if status:
            raise RuntimeError(f"dd in the guest: {output}")
    return programs.median(speeds)


def rows(running, folder, rounds):
    kernel, _ = guests.kernel()
    initrd = guests.shell_initramfs()
    speeds = {}
    for name, command in running.items():
        for path in folder.glob("disk.*"):
            path.unlink()
        args = command[1:] + ["-m", "256", "-kernel", str(kernel), "-initrd", str(initrd), "-append",
                              "console=ttyS0 quiet panic=-1 cryptomgr.notests"] + make_disks(folder)
        with vm.Vm(command[0], args) as machine:
            machine.wait_serial("GUEST-READY", 900)
            for disk, kind in DISKS.items():
                for write in (True, False):
                    what = f"IDE DMA, {MIB} MiB {'written to' if write else 'read from'} {kind}"
                    speeds.setdefault(what, {})[name] = transfer(machine, write, disk, 3)
    for what, speed in speeds.items():
        yield what, "MiB/s", speed, True
