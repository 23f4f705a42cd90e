# SPDX-License-Identifier: MIT
"""A full host disk stops the guest, and nothing is lost when it goes on; what both can do is tested on minivm and on QEMU with the same code."""
import itertools
import os
import pathlib
import struct
import subprocess
import tempfile
import time

import context
import vm

SECTORS = 64
STEP = 8  # sectors from one to the next: a page of the tmpfs each

# A boot sector: writes itself to LBA 0, STEP, 2 * STEP ... of the first hard disk and puts a dot (or an E) for each on port
# E9h, at the end a D.
CODE = bytes.fromhex(
    "31c0 8ed8 8ed0 bc007c"          # xor ax,ax; mov ds,ax; mov ss,ax; mov sp,0x7c00
    "b80043 b280 be307c cd13"        # next: mov ax,0x4300; mov dl,0x80; mov si,dap; int 0x13
    "b02e 7302 b045 e6e9"            # mov al,'.'; jnc +2; mov al,'E'; out 0xe9,al
    f"8306387c{STEP:02x}"            # add word [dap.lba],STEP
    "ff0e407c 75e3"                  # dec word [count]; jnz next
    "b044 e6e9 f4 ebfd".replace(" ", ""))  # mov al,'D'; out 0xe9,al; hlt; jmp hlt
DAP = struct.pack("<BBHHHQ", 16, 0, 1, 0x7C00, 0, 0)


def boot_sector():
    sector = bytearray(512)
    sector[0:len(CODE)] = CODE
    assert len(CODE) <= 0x30
    sector[0x30:0x40] = DAP
    sector[0x40:0x42] = struct.pack("<H", SECTORS)
    sector[510:512] = b"\x55\xaa"
    return bytes(sector)


def machines():
    yield context.minivm(), ["-accel", "soft"]
    try:
        yield context.requires("qemu-system-i386"), ["-nic", "none"]
    except context.Skip:
        pass


def start(folder, program, args, options, ballast, interface="ide"):
    """A machine in a mount namespace of its own, whose disk lies on a tmpfs that has `ballast` KiB of its MiB taken.

    It waits for go(): events are told from the moment on that QMP is agreed upon, and the disk is full soon after the start.
    """
    floppy = folder / "floppy.img"
    floppy.write_bytes(boot_sector().ljust(1440 * 1024, b"\0"))
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    wrapper = folder / "wrapper"
    wrapper.write_text(f"""#!/bin/sh
exec unshare -Urm sh -c 'mount -t tmpfs -o size=1m tmpfs {disk} && truncate -s 8M {disk}/d.img &&
    head -c {ballast}K /dev/zero >{disk}/ballast && exec "$@"' sh {program} "$@"
""")
    wrapper.chmod(0o755)
    drive = f"file={disk}/d.img,format=raw,if={interface},index=0" + options
    return vm.Vm(str(wrapper), args + ["-boot", "a", "-drive", f"file={floppy},if=floppy,format=raw", "-drive", drive,
                                       "-debugcon", f"file:{folder}/log", "-m", "32", "-S"], serial=False)


def go(m):
    m.qmp.command("cont")
    m.qmp.wait_event("RESUME")


def inside(m, folder):
    return pathlib.Path(f"/proc/{m.process.pid}/root{folder}/disk")


def guest_log(folder):
    """What the guest wrote; SeaBIOS logs there too, in lines."""
    try:
        return (folder / "log").read_bytes().decode("latin-1").rsplit("\n", 1)[-1]
    except FileNotFoundError:
        return ""


def wait_log(folder, last):
    end = time.monotonic() + 60 * context.patience()
    while not guest_log(folder).endswith(last):
        assert time.monotonic() < end, guest_log(folder)
        time.sleep(0.05)


def require_namespaces():
    context.requires("unshare")
    tried = subprocess.run(["unshare", "-Urm", "sh", "-c", "mount -t tmpfs tmpfs /tmp"], capture_output=True, text=True)
    if tried.returncode:
        raise context.Skip("no mount namespaces here: " + tried.stderr.strip())


def full_disk(interface, device):
    """On minivm alone: on a busy host QEMU 7.2 now and then loses the sector that failed on IDE, or tells the guest of it."""
    require_namespaces()
    for program, args in list(machines())[:1]:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            with start(folder, program, args, "", 900, interface) as m:
                go(m)
                event = m.qmp.wait_event("BLOCK_IO_ERROR")["data"]
                assert event["operation"] == "write" and event["action"] == "stop", event
                assert event["nospace"] is True and event["reason"] == "No space left on device", event
                assert event["device"] == device, event
                m.qmp.wait_event("STOP")
                status = m.qmp.command("query-status")
                assert status["status"] == "io-error" and status["running"] is False, status
                assert m.hmp("info status").strip() == "VM status: paused (io-error)"
                disk = [d for d in m.qmp.command("query-block") if d["device"] == device][0]
                assert disk["io-status"] == "nospace", disk
                assert "nospace" in m.hmp("info block")
                done = guest_log(folder).count(".")
                assert 0 < done < SECTORS and "E" not in guest_log(folder), guest_log(folder)
                # Still full: it stops again, at the same place.
                go(m)
                m.qmp.wait_event("BLOCK_IO_ERROR")
                m.qmp.wait_event("STOP")
                assert guest_log(folder).count(".") == done
                (inside(m, folder) / "ballast").unlink()
                go(m)
                wait_log(folder, "D")
                assert guest_log(folder).endswith("." * SECTORS + "D"), guest_log(folder)
                m.qmp.command("stop")
                data = (inside(m, folder) / "d.img").read_bytes()
                for n in range(SECTORS):
                    at = n * STEP * 512
                    assert data[at:at + 2] == b"\x31\xc0" and data[at + 510:at + 512] == b"\x55\xaa", n
                m.quit()


def test_a_full_disk_stops_the_guest_and_cont_loses_nothing():
    full_disk("ide", "ide0-hd0")


def test_a_full_disk_on_virtio_stops_the_guest_and_cont_loses_nothing():
    full_disk("virtio", "virtio0")


def test_cont_before_the_machine_has_stopped_is_not_lost():
    require_namespaces()
    for program, args in list(machines())[:1]:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            with start(folder, program, args, "", 900) as m:
                go(m)
                m.qmp.wait_event("BLOCK_IO_ERROR")
                (inside(m, folder) / "ballast").unlink()
                m.qmp.command("cont")
                wait_log(folder, "." * SECTORS + "D")
                assert [e["event"] for e in m.qmp.events] == ["STOP", "RESUME"], m.qmp.events
                m.quit()


def test_other_policies_go_on():
    require_namespaces()
    for program, args in machines():
        # The BIOS notes in the request that nothing of it was done, so what follows it writes no sectors.
        for policy, errors in (("report", 1), ("ignore", 0)):
            with tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                with start(folder, program, args, f",werror={policy}", 900) as m:
                    go(m)
                    event = m.qmp.wait_event("BLOCK_IO_ERROR")["data"]
                    assert event["action"] == policy, event
                    wait_log(folder, "D")
                    assert guest_log(folder).count("E") == errors, (policy, guest_log(folder))
                    assert m.qmp.command("query-status")["status"] == "running"
                    m.quit()


def test_a_reset_gives_the_failed_request_up():
    require_namespaces()
    for (program, args), interface in itertools.product(machines(), ("ide", "virtio")):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            with start(folder, program, args, ",werror=stop", 900, interface) as m:
                go(m)
                m.qmp.wait_event("BLOCK_IO_ERROR")
                m.qmp.wait_event("STOP")
                (inside(m, folder) / "ballast").unlink()
                m.qmp.command("system_reset")
                m.qmp.wait_event("RESET")
                m.qmp.command("cont")
                wait_log(folder, "." * SECTORS + "D")
                m.quit()


def test_drives_share_the_limits_of_a_group_object():
    with tempfile.TemporaryDirectory() as name:
        drives = []
        for n in range(2):
            image = os.path.join(name, f"{n}.img")
            with open(image, "wb") as f:
                f.truncate(1 << 20)
            drives += ["-drive", f"file={image},format=raw,if=ide,index={n},throttling.group=both"]
        group = ["-object", "throttle-group,id=both,x-iops-total=60,x-iops-total-max=70,x-iops-total-max-length=3"]
        with vm.Vm(context.minivm(), ["-accel", "soft", "-S"] + group + drives, serial=False) as m:
            seen = 0
            for d in m.qmp.command("query-block"):
                if d["device"] in ("ide0-hd0", "ide0-hd1"):
                    now = d["inserted"]
                    assert (now["iops"], now["iops_max"], now["iops_max_length"]) == (60, 70, 3), now
                    assert now["group"] == "both", now
                    seen += 1
            assert seen == 2
            m.quit()


def test_limits_are_set_shown_and_taken_back():
    values = dict(bps=0, bps_rd=1000000, bps_wr=2000000, iops=100, iops_rd=0, iops_wr=0)
    for program, args in machines():
        with tempfile.TemporaryDirectory() as name:
            image = os.path.join(name, "d.img")
            with open(image, "wb") as f:
                f.truncate(1 << 20)
            drive = ["-drive", f"file={image},format=raw,if=ide,throttling.iops-total=50,throttling.iops-total-max=80,"
                               "throttling.iops-size=4096,bps_rd=12345"]
            with vm.Vm(program, args + drive + ["-S"], serial=False) as m:
                def inserted():
                    return [d for d in m.qmp.command("query-block") if d["device"] == "ide0-hd0"][0]["inserted"]
                now = inserted()
                assert now["iops"] == 50 and now["iops_max"] == 80 and now["iops_max_length"] == 1, now
                assert now["iops_size"] == 4096 and now["bps_rd"] == 12345 and now["bps"] == 0, now
                assert now["detect_zeroes"] == "off" and now["group"] == "ide0-hd0", now
                def limit(**limits):
                    return m.qmp.raw({"execute": "block_set_io_throttle",
                                      "arguments": dict(limits, device="ide0-hd0")})
                assert "return" in limit(**values)
                now = inserted()
                assert {k: now[k] for k in values} == values and "iops_max" not in now, now
                assert "bps_rd=1000000" in m.hmp("info block")
                m.hmp("block_set_io_throttle ide0-hd0 0 0 0 0 0 7")
                assert inserted()["iops_wr"] == 7
                for wrong in (dict(bps=5), dict(iops=-1), dict(iops_max=5)):
                    assert limit(**dict(values, **wrong))["error"]["class"] == "GenericError", wrong
                assert "return" in limit(**dict.fromkeys(values, 0))
                now = inserted()
                assert not any(now[k] for k in values) and "group" not in now, now
                m.quit()
