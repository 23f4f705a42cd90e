# SPDX-License-Identifier: MIT
"""The command line and the consoles as a user of QEMU meets them."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import tempfile
import termios
import threading
import time

import context
import guests
import vm
from context import cost


def minivm(*args, **options):
    # Without a network card: its boot ROM would look for a server for some seconds.
    return vm.Vm(context.minivm(), ["-accel", "soft", "-nic", "none", *args], **options)


def wait_for(what, name, timeout=20):
    end = time.monotonic() + context.limit(timeout)
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, f"no {name} in {timeout} s"
        time.sleep(0.02)


class Terminal:
    """minivm on a terminal of its own."""

    def __init__(self, *args):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen([context.minivm(), "-accel", "soft", *args], stdin=self.slave,
                                        stdout=self.slave, stderr=self.slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.output = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def expect(self, text, timeout=20):
        end = time.monotonic() + context.limit(timeout)
        while text not in self.output:
            assert time.monotonic() < end, f"no {text!r} in {self.output!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.output += os.read(self.master, 4096)
        self.output = self.output.split(text, 1)[1]

    def type(self, data):
        os.write(self.master, data)

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before

    def taken(self):
        """Waits until minivm has set the terminal up for itself."""
        wait_for(lambda: not self.restored(), "terminal of minivm's own")


# ---- The terminal ----

def test_terminal_is_put_back_however_it_ends():
    ways = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV, b"\x01x"]
    if context.sanitized:
        ways.remove(signal.SIGSEGV)  # the sanitizer takes that one itself
    for how in ways:
        with Terminal("-nographic") as t:
            t.expect(b"SeaBIOS")
            assert not t.restored()
            if isinstance(how, bytes):
                t.type(how)
            else:
                t.process.send_signal(how)
            status = t.process.wait(context.limit(20))
            assert status == (-how if how == signal.SIGSEGV else 0), (how, status)
            assert t.restored(), how


def test_ctrl_c_is_the_guests_in_nographic_and_ends_otherwise():
    for args in (["-nographic"], ["-nographic", "-monitor", "none", "-serial", "stdio"]):
        with Terminal(*args) as t:
            t.expect(b"SeaBIOS")
            t.type(b"\x03")
            time.sleep(0.3)
            assert t.process.poll() is None, args
    with Terminal("-display", "none", "-serial", "stdio") as t:
        t.taken()
        t.type(b"\x03")
        assert t.process.wait(context.limit(20)) == 0 and t.restored()


def test_monitor_edits_lines_and_remembers_them():
    with Terminal("-display", "none", "-monitor", "stdio", "-S") as t:
        t.expect(b"(qemu) ")
        t.type(b"info statux\x7fs\r")
        t.expect(b"paused (prelaunch)")
        t.type(b"\x1b[A\r")
        t.expect(b"paused (prelaunch)")
        t.type(b"info stXatus\x1b[D\x1b[D\x1b[D\x1b[D\x7f\r")
        t.expect(b"paused (prelaunch)")
        t.type(b"status\x01info \x05\r")
        t.expect(b"paused (prelaunch)")
        t.type(b"info na\t\r")
        t.expect(b"info name")
        t.type(b"nonsense\r")
        t.expect(b"unknown command: 'nonsense'")
        t.type(b"q\r")
        assert t.process.wait(context.limit(20)) == 0


def test_chardev_mux_as_scripts_for_qemu_write_it():
    with Terminal("-display", "none", "-chardev", "stdio,mux=on,id=con,signal=off", "-serial", "chardev:con", "-mon",
                  "chardev=con,mode=readline") as t:
        t.taken()
        t.type(b"\x03\x01c")
        t.expect(b"(qemu) ")
        t.type(b"info chardev\r")
        t.expect(b"con: filename=")
        t.type(b"\x01x")
        assert t.process.wait(context.limit(20)) == 0


def test_output_is_complete_for_slow_readers_and_survives_closed_pipes():
    with tempfile.TemporaryDirectory() as d:
        p = subprocess.Popen([context.minivm(), "-accel", "soft", "-display", "none", "-serial", "stdio", "-monitor", "none",
                              "-qmp", f"unix:{d}/qmp,server=on,wait=off"], stdout=subprocess.PIPE,
                             stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        p.stdout.close()
        qmp = vm.Qmp(f"{d}/qmp")
        time.sleep(0.5)  # the firmware writes meanwhile
        assert qmp.command("query-status")["running"], "ended with its reader"
        qmp.close()
        p.terminate()
        assert p.wait(context.limit(20)) == 0
        p.stderr.close()
    # Far more than a pipe holds, before anything is read.
    p = subprocess.Popen([context.minivm(), "-accel", "soft", "-display", "none", "-S", "-monitor", "stdio"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p.stdin.write(b"xp/40000xb 0xf0000\n" * 8 + b"quit\n")
    p.stdin.flush()
    time.sleep(1)
    out = p.stdout.read()
    assert p.wait(context.limit(20)) == 0
    assert out.count(b"00000000000f9c30: ") == 8, out.count(b"00000000000f9c30: ")
    p.stdin.close()
    p.stdout.close()


# ---- Ports ----

def test_every_kind_of_serial_port():
    with tempfile.TemporaryDirectory() as d:
        for end in (".in", ".out"):
            os.mkfifo(f"{d}/pipe{end}")
        kinds = {"file": f"file:{d}/log,,x", "unix": f"unix:{d}/sock,server=on,wait=off",
                 "tcp": "tcp:127.0.0.1:0,server=on,wait=off", "pty": "pty", "null": "null", "pipe": f"pipe:{d}/pipe",
                 "vc": "vc:80Cx24C", "chardev": "chardev:c"}
        for name, spec in kinds.items():
            with minivm("-chardev", "null,id=c", "-serial", spec, serial=False) as m:
                text = m.hmp("info chardev")
                label = "c" if name == "chardev" else "serial0"
                assert re.search(rf"(?m)^{label}: filename=", text), text
                m.wait_screen("No bootable device")
                assert m.quit() == 0
        assert b"" == open(f"{d}/log,x", "rb").read()
        assert not os.path.exists(f"{d}/sock"), "the socket stays behind"
        with minivm("-serial", "none", serial=False) as m:
            m.wait_screen("No bootable device")
            assert "serial0" not in m.hmp("info chardev")
            assert m.hmp("i/b 0x3f8").strip() == "portb[0x03f8] = 0xff"


@cost(20)
def test_linux_sees_four_serial_ports_and_the_parallel_port():
    kernel, _ = guests.kernel()
    with tempfile.TemporaryDirectory() as d:
        ports = [x for n in (2, 3, 4) for x in ("-serial", f"file:{d}/com{n}")]
        with minivm("-m", "128", "-kernel", kernel, "-initrd", guests.shell_initramfs(), "-append",
                    "console=ttyS0 panic=-1 cryptomgr.notests 8250.nr_uarts=4", "-nodefaults", "-vga", "std", "-serial",
                    f"unix:{d}/com1,server=on,wait=off", *ports, "-parallel", f"file:{d}/lpt", "-name", "x", "-uuid",
                    "12345678-1234-5678-9abc-123456789abc", "-rtc", "base=2001-02-03T04:05:06", serial=False) as m:
            m.serial = m._connect(f"{d}/com1")
            m.wait_serial("GUEST-READY", timeout=300)
            for n in (2, 3, 4):
                status, out = m.run_serial(f"echo port{n} > /dev/ttyS{n - 1}")
                assert status == 0, out
                wait_for(lambda: f"port{n}" in open(f"{d}/com{n}").read(), f"output of COM{n}")
            _, out = m.run_serial("dmesg | grep parport0")
            assert "PC-style" in out, out
            _, out = m.run_serial("cat /sys/class/dmi/id/product_uuid")
            assert "12345678-1234-5678-9abc-123456789abc" in out.lower(), out
            _, out = m.run_serial("date -u +%Y-%m-%d")
            assert "2001-02-03" in out, out


# ---- Media ----

@cost(20)
def test_tray_that_linux_has_locked():
    kernel, _ = guests.kernel()
    with tempfile.TemporaryDirectory() as d:
        first = guests.isolinux_cd("front-a", {"a.txt": b"first"}, "prompt 1\n")
        second = guests.isolinux_cd("front-b", {"b.txt": b"second"}, "prompt 1\n")
        with open(f"{d}/floppy", "wb") as f:
            f.truncate(1440 * 1024)
        with minivm("-m", "128", "-kernel", kernel, "-initrd", guests.shell_initramfs(), "-append",
                    "console=ttyS0 panic=-1 cryptomgr.notests", "-cdrom", first, "-fda", f"{d}/floppy") as m:
            def cd():
                return [b for b in m.qmp.command("query-block") if b["device"] == "ide1-cd0"][0]
            m.wait_serial("GUEST-READY", timeout=300)
            assert m.run_serial("mount -o ro /dev/sr0 /cdrom && cat /cdrom/a.txt")[1].strip().endswith("first")
            assert cd()["locked"] and not cd()["tray_open"]
            assert "Removable device: locked, tray closed" in m.hmp("info block")
            reply = m.qmp.raw({"execute": "eject", "arguments": {"device": "ide1-cd0"}})
            assert "locked" in reply["error"]["desc"], reply
            reply = m.qmp.raw({"execute": "blockdev-change-medium", "arguments": {"device": "ide1-cd0", "filename": str(second)}})
            assert "locked" in reply["error"]["desc"], reply
            assert cd()["inserted"]["file"] == str(first)
            assert m.run_serial("umount /cdrom")[0] == 0
            wait_for(lambda: not cd()["locked"], "unlocked tray")
            m.qmp.events.clear()
            assert m.hmp(f"change ide1-cd0 {second}") == ""
            trays = [m.qmp.wait_event("DEVICE_TRAY_MOVED")["data"]["tray-open"] for _ in range(2)]
            assert trays == [True, False], trays
            assert m.run_serial("mount -o ro /dev/sr0 /cdrom && cat /cdrom/b.txt")[1].strip().endswith("second")
            # By force, mounted or not.
            assert m.hmp("eject -f ide1-cd0") == ""
            assert "inserted" not in cd()
            m.run_serial("umount /cdrom")
            assert m.hmp(f"change ide1-cd0 {first}") == ""
            assert m.run_serial("mount -o ro /dev/sr0 /cdrom && cat /cdrom/a.txt")[1].strip().endswith("first")
            assert cd()["locked"]
            m.run_serial("umount /cdrom")
            # Another floppy is noticed.
            with open(f"{d}/other", "wb") as f:
                f.write(b"other floppy" + bytes(1440 * 1024 - 12))
            m.run_serial("dd if=/dev/fd0 bs=512 count=1 of=/dev/null")
            assert m.hmp(f"change floppy0 {d}/other raw") == ""
            # Linux asks the drive for a change every few seconds at most.
            status, out = m.run_serial("sleep 5; dd if=/dev/fd0 bs=512 count=1 2>/dev/null | head -c 12")
            assert "other floppy" in out, (out, m.run_serial("dmesg | tail -5")[1])


@cost(20)
def test_drive_properties_reach_linux():
    kernel, _ = guests.kernel()
    with tempfile.TemporaryDirectory() as d:
        for name in "ab":
            subprocess.run([context.minivm_img(), "create", "-q", "-f", "qcow2", f"{d}/{name}", "32M"], check=True)
        with minivm("-m", "128", "-kernel", kernel, "-initrd", guests.shell_initramfs(), "-append",
                    "console=ttyS0 panic=-1 cryptomgr.notests", "-drive",
                    f"file={d}/a,if=none,id=one,cache=unsafe,serial=ABC123", "-device",
                    "ide-hd,drive=one,bus=ide.1,unit=1,bootindex=1", "-drive",
                    f"file={d}/b,index=0,cyls=64,heads=16,secs=63,cache=none,format=qcow2") as m:
            m.wait_serial("GUEST-READY", timeout=300)
            _, out = m.run_serial("for s in /sys/block/sd?; do readlink -f $s/device; done")
            assert "ata1" in out and "ata2" in out, out
            _, out = m.run_serial("hexdump -s 20 -n 20 -e '\"%_p\"' /sys/class/ata_device/dev2.1/id; "
                                  "cat /sys/block/sdb/device/model; dmesg | grep -i 'ata.*sectors'")
            assert "HARDDISK" in out, out
            identify = m.run_serial("cat /sys/class/ata_device/dev2.1/id")[1]
            words = [int(w, 16) for w in identify.split()]
            serial = b"".join(w.to_bytes(2, "big") for w in words[10:20])
            assert serial.strip() == b"ABC123", serial
            words = [int(w, 16) for w in m.run_serial("cat /sys/class/ata_device/dev1.0/id")[1].split()]
            assert (words[1], words[3], words[6]) == (64, 16, 63), words[:8]
            assert "Cache mode:       writeback, direct" in m.hmp("info block")
            one = [b for b in m.qmp.command("query-block") if b["device"] == "one"][0]
            assert one["inserted"]["cache"] == {"writeback": True, "direct": False, "no-flush": True}, one


# ---- Running and ending ----

def test_keys_in_a_row_do_not_overlap():
    with minivm(serial=False) as m:
        m.wait_screen("No bootable device")
        # SeaBIOS's keyboard buffer holds what was typed: 15 words at 0040:001E.
        for key in "abcdef":
            m.hmp(f"sendkey {key} 20")
        m.hmp("sendkey shift-minus 20")
        def typed():
            words = [int(w, 16) for w in re.findall(r"0x([0-9a-f]{4})\b", m.hmp("xp/16xh 0x41e"))]
            return "".join(chr(w & 0xFF) for w in words if w & 0xFF)
        wait_for(lambda: "abcdef_" in typed(), "keys in order")


def test_shutdown_and_reset_options():
    for key, options in (("-no-reboot", ["-no-reboot"]),):
        with minivm(*options, serial=False) as m:
            m.qmp.command("system_reset")
            assert m.qmp.wait_event("SHUTDOWN")["data"]["reason"] == "host-qmp-system-reset"
            assert m.wait_exit(20) == 0
    with tempfile.TemporaryDirectory() as d:
        kernel, _ = guests.kernel()
        off = guests.initramfs("#!/bin/busybox sh\n/bin/busybox poweroff -f\n")
        with minivm("-m", "128", "-kernel", kernel, "-initrd", off, "-append", "cryptomgr.notests", "-no-shutdown",
                    serial=False) as m:
            event = m.qmp.wait_event("SHUTDOWN", 200)
            assert event["data"] == {"guest": True, "reason": "guest-shutdown"}, event
            m.qmp.wait_event("STOP")
            assert m.qmp.command("query-status")["status"] == "shutdown"
            assert "error" in m.qmp.raw({"execute": "cont"})
            m.qmp.command("system_reset")
            m.qmp.wait_event("RESET")
            assert m.qmp.command("query-status")["status"] == "prelaunch"
            m.qmp.command("cont")
            assert m.qmp.command("query-status")["status"] == "running"


def test_daemon_with_relative_paths():
    with tempfile.TemporaryDirectory() as d:
        run = [context.minivm(), "-accel", "soft", "-display", "none", "-daemonize", "-pidfile", "pid", "-qmp",
               "unix:qmp,server=on,wait=off"]
        p = subprocess.run(run, cwd=d, timeout=context.limit(20), capture_output=True, text=True)
        assert p.returncode == 0 and not p.stderr.replace("minivm: using the software CPU", ""), p
        pid = int(open(f"{d}/pid").read())
        try:
            again = subprocess.run(run, cwd=d, timeout=context.limit(20), capture_output=True, text=True)
            assert again.returncode == 1 and "pid" in again.stderr, again
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
        finally:
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split()[2] == "Z", "end")
        assert not os.path.exists(f"{d}/pid") and not os.path.exists(f"{d}/qmp"), os.listdir(d)
        # While it waits for a peer the parent can be interrupted, and nothing is left running.
        p = subprocess.Popen(run + ["-serial", "unix:com,server=on"], cwd=d, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        wait_for(lambda: os.path.exists(f"{d}/com"), "socket")
        p.terminate()
        assert p.wait(context.limit(20)) == -signal.SIGTERM
        socket.socket(socket.AF_UNIX).connect(f"{d}/com")
        wait_for(lambda: not os.path.exists(f"{d}/com"), "end of the child")


def test_signal_while_waiting_for_a_peer():
    with tempfile.TemporaryDirectory() as d:
        p = subprocess.Popen([context.minivm(), "-accel", "soft", "-display", "none", "-serial",
                              f"unix:{d}/com,server=on"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        wait_for(lambda: os.path.exists(f"{d}/com"), "socket")
        p.send_signal(signal.SIGINT)
        assert p.wait(context.limit(20)) == 1
        p.stderr.close()
        assert not os.path.exists(f"{d}/com")


def test_a_file_is_no_socket_to_be_replaced():
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/precious", "w") as f:
            f.write("data")
        p = subprocess.run([context.minivm(), "-accel", "soft", "-display", "none", "-qmp",
                            f"unix:{d}/precious,server=on,wait=off"], capture_output=True, text=True, timeout=context.limit(20))
        assert p.returncode == 1 and "precious" in p.stderr, p
        assert open(f"{d}/precious").read() == "data"


# ---- QMP ----

def test_qmp_peers_come_and_go_and_need_not_read():
    with minivm("-S", serial=False) as m:
        m.qmp.sock.sendall(b'{"execute": "query-st')
        m.qmp.close()
        for _ in range(3):
            peer = vm.Qmp(m.qmp_path)
            assert peer.command("query-status")["status"] == "prelaunch"
            peer.close()
        # One that asks a lot and reads late gets every answer whole.
        peer = vm.Qmp(m.qmp_path)
        message = json.dumps({"execute": "query-commands"}).encode()
        wanted = 3000
        sender = threading.Thread(target=lambda: peer.sock.sendall(message * wanted))
        sender.start()
        time.sleep(1)
        rss = int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{m.process.pid}/status").read())[1])
        assert rss < 200000, f"{rss} KiB: replies pile up"
        for _ in range(wanted):
            assert "return" in peer._message(time.monotonic() + context.limit(30))
        sender.join()
        peer.close()
        m.qmp = vm.Qmp(m.qmp_path)
