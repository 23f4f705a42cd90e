# SPDX-License-Identifier: MIT
"""QMP and the human monitor, on minivm and on QEMU with the same code."""
import json
import os
import tempfile
import time

import context
import vm


def machines():
    yield context.minivm(), ["-accel", "soft", "-nic", "none"]
    try:
        yield context.requires("qemu-system-i386"), ["-nic", "none"]
    except context.Skip:
        pass


def test_greeting_and_errors_are_qemus():
    for program, args in machines():
        with vm.Vm(program, args + ["-S"], serial=False) as m:
            version = m.qmp.greeting["QMP"]["version"]
            assert {"qemu", "package"} <= set(version) and {"major", "minor", "micro"} <= set(version["qemu"])
            assert isinstance(m.qmp.greeting["QMP"]["capabilities"], list)
            reply = m.qmp.raw({"execute": "no-such-command", "id": 7})
            assert reply["error"]["class"] == "CommandNotFound" and reply["id"] == 7, reply
            reply = m.qmp.raw({"execute": "pmemsave", "arguments": {"val": 0}})
            assert reply["error"]["class"] == "GenericError" and "missing" in reply["error"]["desc"], reply
            reply = m.qmp.raw({"execute": "pmemsave", "arguments": {"val": "x", "size": 1, "filename": "/dev/null"}})
            assert "Invalid parameter type" in reply["error"]["desc"], reply
            reply = m.qmp.raw({"execute": "query-status", "arguments": {"x": 1}})
            assert "unexpected" in reply["error"]["desc"], reply
            reply = m.qmp.raw({"execute": "qmp_capabilities"})
            assert reply["error"]["class"] == "CommandNotFound", reply


def test_status_stop_cont_and_their_events():
    for program, args in machines():
        with vm.Vm(program, args + ["-S"], serial=False) as m:
            status = m.qmp.command("query-status")
            assert status["running"] is False and status["status"] == "prelaunch", status
            m.qmp.command("cont")
            m.qmp.wait_event("RESUME")
            assert m.qmp.command("query-status")["status"] == "running"
            m.qmp.command("stop")
            m.qmp.wait_event("STOP")
            assert m.qmp.command("query-status")["status"] == "paused"
            m.qmp.command("cont")
            m.qmp.command("system_reset")
            event = m.qmp.wait_event("RESET")
            assert event["data"] == {"guest": False, "reason": "host-qmp-system-reset"}, event
            assert {"seconds", "microseconds"} == set(event["timestamp"])
            m.qmp.command("system_powerdown")
            m.qmp.wait_event("POWERDOWN")
            m.qmp.command("quit")
            event = m.qmp.wait_event("SHUTDOWN")
            assert event["data"] == {"guest": False, "reason": "host-qmp-quit"}, event
            assert m.wait_exit() == 0


def test_every_listed_command_is_there():
    with vm.Vm(context.minivm(), ["-accel", "soft", "-S"], serial=False) as m:
        names = {c["name"] for c in m.qmp.command("query-commands")}
        for wanted in ("qmp_capabilities query-status query-version query-commands stop cont system_reset "
                       "system_powerdown quit send-key screendump pmemsave eject blockdev-change-medium "
                       "human-monitor-command").split():
            assert wanted in names, wanted
    # A peer that sends rubbish gets errors and loses nothing else.
    with vm.Vm(context.minivm(), ["-accel", "soft", "-S"], serial=False) as m:
        for rubbish in (b"{]\n", b"[1,2]\n", b'"x"\n', b"{\"execute\": 5}\n", b"[" * 500 + b"\n"):
            m.qmp.sock.sendall(rubbish)
            reply = m.qmp._message(time.monotonic() + context.limit(10))
            assert "error" in reply, (rubbish, reply)
            while m.qmp.buffer:
                m.qmp.buffer = m.qmp.buffer.split(b"\n", 1)[1] if b"\n" in m.qmp.buffer else b""
        m.qmp.sock.sendall(b"\n")
        time.sleep(0.2)
        m.qmp.buffer = b""
    with vm.Vm(context.minivm(), ["-accel", "soft", "-S"], serial=False) as m:
        m.qmp.sock.sendall(json.dumps({"execute": "query-status"}).encode() * 3)
        for _ in range(3):
            assert "return" in m.qmp._message(time.monotonic() + context.limit(10))


def test_screendump_formats():
    with tempfile.TemporaryDirectory() as d:
        for program, args in machines():
            with vm.Vm(program, args, serial=False) as m:
                m.wait_screen("SeaBIOS")
                m.screendump(f"{d}/a.png", "png")
                m.screendump(f"{d}/a.ppm", "ppm")
                png, ppm = open(f"{d}/a.png", "rb").read(), open(f"{d}/a.ppm", "rb").read()
                assert png.startswith(b"\x89PNG\r\n\x1a\n")
                assert ppm.startswith(b"P6\n720 400\n255\n") and len(ppm) == len(b"P6\n720 400\n255\n") + 720 * 400 * 3
                reply = m.qmp.raw({"execute": "screendump", "arguments": {"filename": f"{d}/no/a.png"}})
                assert "error" in reply


def test_memory_commands_agree():
    with tempfile.TemporaryDirectory() as d:
        for program, args in machines():
            with vm.Vm(program, args, serial=False) as m:
                m.wait_screen("No bootable device")
                m.qmp.command("pmemsave", val=0xFFFF0, size=16, filename=f"{d}/reset")
                reset = open(f"{d}/reset", "rb").read()
                assert reset[0] == 0xEA and reset[5:13] == b"06/23/99", reset
                assert "0x000000ea" in m.hmp("xp/1xb 0xffff0").replace("0xea", "0x000000ea")
                assert "EIP" in m.hmp("info registers").upper()
                assert "unknown command" in m.hmp("nonsense").lower()


def test_media_change_and_eject():
    with tempfile.TemporaryDirectory() as d:
        for name in ("a.iso", "b.iso"):
            with open(f"{d}/{name}", "wb") as f:
                f.truncate(1 << 20)
        for program, args in machines():
            with vm.Vm(program, args + ["-S", "-cdrom", f"{d}/a.iso"], serial=False) as m:
                def medium():
                    block = [b for b in m.qmp.command("query-block") if b["device"] == "ide1-cd0"][0]
                    return block["inserted"]["file"] if "inserted" in block else None
                assert medium() == f"{d}/a.iso"
                m.qmp.command("blockdev-change-medium", device="ide1-cd0", filename=f"{d}/b.iso")
                assert medium() == f"{d}/b.iso"
                m.qmp.command("eject", device="ide1-cd0")
                assert medium() is None
                reply = m.qmp.raw({"execute": "eject", "arguments": {"device": "nothing"}})
                assert reply["error"]["desc"] == "Device 'nothing' not found", reply
                m.hmp(f"change ide1-cd0 {d}/a.iso")
                assert medium() == f"{d}/a.iso"


def test_nographic_keys_and_exit():
    """Ctrl-A c reaches the monitor, Ctrl-A x ends with status 0."""
    import pty
    import select
    import subprocess
    try:
        master, slave = pty.openpty()
    except OSError as e:
        raise context.Skip(f"no pseudo-terminals here: {e}")
    p = subprocess.Popen([context.minivm(), "-accel", "soft", "-nographic"], stdin=slave, stdout=slave,
                         stderr=subprocess.STDOUT)
    os.close(slave)
    output = b""

    def expect(text):
        nonlocal output
        end = time.monotonic() + context.limit(30)
        while text not in output:
            ready, _, _ = select.select([master], [], [], 0.5)
            if ready:
                output += os.read(master, 4096)
            assert time.monotonic() < end, f"no {text!r} in {output!r}"
        output = output.split(text, 1)[1]

    try:
        expect(b"SeaBIOS")
        os.write(master, b"\x01c")
        os.write(master, b"info status\n")
        expect(b"VM status: running")
        os.write(master, b"\x01h")
        expect(b"Ctrl-A x")
        os.write(master, b"\x01x")
        assert p.wait(context.limit(30)) == 0
    finally:
        p.kill()
        p.wait()
        os.close(master)


def shape(value):
    """The types and keys of a reply, without its values."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def contains(whole, part, where):
    """Everything in `part` is in `whole` too, of the same type."""
    if isinstance(part, dict):
        for key in part:
            assert key in whole, f"{where}: QEMU has no {key!r}"
            contains(whole[key], part[key], f"{where}.{key}")
    elif isinstance(part, list):
        if part:
            contains(whole[0], part[0], where)
    else:
        assert whole == part, f"{where}: {part}, in QEMU {whole}"


def test_replies_have_the_shape_of_qemus():
    context.requires("qemu-system-i386")
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/a.iso", "wb") as f:
            f.truncate(1 << 20)
        seen = []
        for program, args in machines():
            with vm.Vm(program, args + ["-S", "-name", "n", "-cdrom", f"{d}/a.iso", "-serial", "null"], serial=False) as m:
                replies = {name: m.qmp.command(name) for name in
                           ("query-status", "query-version", "query-name", "query-uuid", "query-kvm", "query-chardev",
                            "query-cpus-fast", "query-commands")}
                replies["query-block"] = [b for b in m.qmp.command("query-block") if b["device"] == "ide1-cd0"]
                replies["labels"] = {c["label"]: "" for c in replies["query-chardev"]}
                seen.append(replies)
        names = [{c["name"] for c in replies.pop("query-commands")} for replies in seen]
        assert names[0] <= names[1], names[0] - names[1]
        for name in seen[0]:
            contains(shape(seen[1][name]), shape(seen[0][name]), name)


def test_trays_and_states_go_as_qemus_do():
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/a.iso", "wb") as f:
            f.truncate(1 << 20)
        traces = []
        for program, args in machines():
            trace = []
            with vm.Vm(program, args + ["-S", "-cdrom", f"{d}/a.iso"], serial=False) as m:
                def run(name, **arguments):
                    reply = m.qmp.raw({"execute": name, **({"arguments": arguments} if arguments else {})})
                    status = m.qmp.command("query-status")["status"]
                    cd = [b for b in m.qmp.command("query-block") if b["device"] == "ide1-cd0"][0]
                    events = [(e["event"], e.get("data", {}).get("tray-open"), e.get("data", {}).get("reason"))
                              for e in m.qmp.events]
                    m.qmp.events.clear()
                    trace.append((name, reply.get("error", {}).get("class"), status, cd["tray_open"], cd["locked"],
                                  "inserted" in cd, events))
                medium = {"device": "ide1-cd0", "filename": f"{d}/a.iso", "format": "raw"}
                run("eject", device="ide1-cd0")
                run("eject", device="ide1-cd0")
                run("blockdev-change-medium", **medium)
                run("blockdev-change-medium", **medium)
                run("blockdev-change-medium", **{**medium, "filename": "/nonexistent"})
                run("eject")
                run("eject", device="ide1-cd0", id="ide1-cd0")
                run("eject", device="floppy0")
                run("cont")
                run("stop")
                run("cont")
                run("stop")
                m.qmp.command("system_reset")
                m.qmp.wait_event("RESET")
                run("query-name")
                run("human-monitor-command", **{"command-line": "info name", "cpu-index": 7})
            traces.append(trace)
        for mine, theirs in zip(*traces) if len(traces) == 2 else ():
            assert mine == theirs, f"{mine}\nin QEMU {theirs}"


def test_monitor_prints_as_qemus_does():
    lines = ["info status", "info name", "info uuid", "info kvm", "info nonsense", "nonsense", "help nonsense",
             "xp/4xb 0xffff0", "xp/8xw 0", "xp/4dh 0x400", "xp/4dw 0x400", "xp/4ub 0xffff0", "xp/4ob 0xffff0",
             "xp/1xg 0", "xp /4xw 0xffff0", "o/b 0x80 5", "boot_set c", "eject nope", "cont", "stop",
             "info status"]
    texts = []
    for program, args in machines():
        with vm.Vm(program, args + ["-S", "-name", "n", "-uuid", "12345678-1234-5678-9abc-123456789abc"],
                   serial=False) as m:
            texts.append([m.hmp(line).replace("\r", "") for line in lines])
    for line, mine, theirs in zip(lines, *texts) if len(texts) == 2 else ():
        assert mine == theirs, f"{line}: {mine!r}, in QEMU {theirs!r}"
