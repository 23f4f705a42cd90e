# SPDX-License-Identifier: MIT
"""Drives one virtual machine, minivm or QEMU, through QMP, its serial ports and its screen.

The same code serves both programs: that is what keeps minivm's QMP honest.
"""
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import context


class Timeout(Exception):
    """Something did not appear in time; the message says what and shows what was there."""


class Qmp:
    """A QMP connection. Events that arrive meanwhile are kept in `events`."""

    def __init__(self, path, timeout=30, process=None):
        end = time.monotonic() + timeout * context.patience()
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(path)
                break
            except OSError:
                self.sock.close()
                if process and process.poll() is not None:
                    raise RuntimeError(f"ended with status {process.returncode}") from None
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        self.buffer = b""
        self.events = []
        self.greeting = self._message(end)
        self.command("qmp_capabilities")

    def _message(self, end):
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.sock], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise Timeout("no QMP message")
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:  # it ended with something of ours unread
                data = b""
            if not data:
                raise EOFError("QMP connection closed")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def raw(self, message, timeout=60):
        """Sends a whole message and returns the whole reply."""
        try:
            self.sock.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError("QMP connection closed") from None
        end = time.monotonic() + timeout * context.patience()
        while True:
            reply = self._message(end)
            if "event" in reply:
                self.events.append(reply)
            else:
                return reply

    def command(self, name, **arguments):
        arguments = {k.replace("_", "-"): v for k, v in arguments.items()}
        message = {"execute": name}
        if arguments:
            message["arguments"] = arguments
        reply = self.raw(message)
        if "error" in reply:
            raise RuntimeError(f"{name}: {reply['error']['desc']}")
        return reply["return"]

    def wait_event(self, name, timeout=60):
        end = time.monotonic() + timeout * context.patience()
        while True:
            for n, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(n)
            message = self._message(end)
            if "event" in message:
                self.events.append(message)

    def close(self):
        self.sock.close()


class Vm:
    """A running machine. Use as a context manager: it is killed at the end, whatever happened.

    serial: True gives COM1 on a socket, readable with wait_serial() and writable with type_serial().
    """

    def __init__(self, program, args, serial=True, qmp=True, stdin=subprocess.DEVNULL, env=None):
        self.dir = tempfile.mkdtemp(prefix="minivm-test-")
        self.program = program
        self.is_qemu = "qemu" in os.path.basename(program)
        self.log = ""  # what COM1 sent so far
        self.seen = 0  # how far wait_serial() has read
        command = [program] + [str(a) for a in args]
        if "-display" not in command and "-nographic" not in command:
            command += ["-display", "none"]
        if serial:
            self.serial_path = os.path.join(self.dir, "serial")
            command += ["-serial", f"unix:{self.serial_path},server=on,wait=on"]
        if qmp:
            self.qmp_path = os.path.join(self.dir, "qmp")
            command += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        self.command_line = command
        self.stderr_path = os.path.join(self.dir, "stderr")
        self.process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL,
                                        stderr=open(self.stderr_path, "wb"), env=env)
        self.qmp = self.serial = None
        try:
            if serial:
                self.serial = self._connect(self.serial_path)
            if qmp:
                self.qmp = Qmp(self.qmp_path, process=self.process)
        except Exception as e:
            errors = self.stderr()
            self.close()
            raise RuntimeError(f"{' '.join(command)}: {e}; stderr: {errors}") from e

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def _connect(self, path, timeout=30):
        end = time.monotonic() + timeout * context.patience()
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
                return sock
            except OSError:
                sock.close()
                if self.process.poll() is not None:
                    raise RuntimeError(f"ended with status {self.process.returncode}")
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def stderr(self):
        with open(self.stderr_path, errors="replace") as f:
            return f.read().strip()

    # ---- Serial ----

    def _read_serial(self, wait):
        ready, _, _ = select.select([self.serial], [], [], wait)
        if not ready:
            return True
        try:
            data = self.serial.recv(65536)
        except OSError:
            data = b""
        self.log += data.decode("utf-8", "replace")
        return bool(data)

    def poll_serial(self, seconds):
        """Takes what COM1 sends within this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not self._read_serial(left):
                time.sleep(left)

    def wait_serial(self, pattern, timeout=120):
        """Waits until COM1 has sent text that matches; returns the match. Later waits look only behind it."""
        end = time.monotonic() + timeout * context.patience()
        while True:
            match = re.search(pattern, self.log[self.seen:])
            if match:
                self.seen += match.end()
                return match
            open_ = self._read_serial(min(1, max(0, end - time.monotonic())))
            if not open_ and not re.search(pattern, self.log[self.seen:]):
                raise EOFError(f"COM1 closed before {pattern!r}; the end of it:\n{self.log[-2000:]}"
                               f"\nstderr: {self.stderr()}")
            if time.monotonic() > end:
                raise Timeout(f"no {pattern!r} on COM1 in {timeout} s; the end of it:\n{self.log[-2000:]}"
                              f"\nstderr: {self.stderr()}")

    def type_serial(self, text):
        self.serial.sendall(text.encode())

    def run_serial(self, command, timeout=120):
        """Runs a command in a guest whose COM1 is a shell without echo and prompt; returns (status, output)."""
        mark = f"_done{time.monotonic_ns()}_"
        self.type_serial(f"{command}; echo {mark}$?_\n")
        match = self.wait_serial(f"(?s)(.*?){mark}(\\d+)_", timeout)
        return int(match.group(2)), match.group(1).replace("\r", "")

    # ---- Screen and keys ----

    def screen(self):
        """The 80x25 colour text screen, read from display memory; also what is not ASCII shows as '?'."""
        path = os.path.join(self.dir, "text")
        self.qmp.command("pmemsave", val=0xB8000, size=80 * 25 * 2, filename=path)
        with open(path, "rb") as f:
            cells = f.read()[::2]
        rows = [cells[n:n + 80] for n in range(0, len(cells), 80)]
        return "\n".join("".join(chr(c) if 32 <= c < 127 else " " if c in (0, 255) else "?" for c in row)
                         .rstrip() for row in rows)

    def wait_screen(self, pattern, timeout=60):
        end = time.monotonic() + timeout * context.patience()
        while True:
            text = self.screen()
            match = re.search(pattern, text)
            if match:
                return match
            if self.process.poll() is not None:
                raise EOFError(f"ended with status {self.process.returncode} before {pattern!r}; "
                               f"stderr: {self.stderr()}")
            if time.monotonic() > end:
                raise Timeout(f"no {pattern!r} on the screen in {timeout} s:\n{text}\nstderr: {self.stderr()}")
            time.sleep(0.05)

    def screendump(self, path, format="png"):
        self.qmp.command("screendump", filename=str(path), format=format)

    def keys(self, *names):
        """Presses keys one after the other; "ctrl-c" is pressed together."""
        for name in names:
            keys = [{"type": "qcode", "data": k} for k in name.split("-")]
            self.qmp.command("send-key", keys=keys, hold_time=30)
            time.sleep(0.08)

    def type_keys(self, text):
        names = {" ": "spc", "\n": "ret", "-": "minus", "=": "equal", "/": "slash", ".": "dot", ",": "comma",
                 "_": "shift-minus", ":": "shift-semicolon", ";": "semicolon", "+": "shift-equal", "*": "shift-8"}
        self.keys(*[names.get(c, f"shift-{c.lower()}" if c.isupper() else c) for c in text])

    def hmp(self, line):
        return self.qmp.command("human-monitor-command", command_line=line)

    # ---- End ----

    def wait_exit(self, timeout=120):
        """Waits until the program ends by itself; returns its status."""
        end = time.monotonic() + timeout * context.patience()
        while self.process.poll() is None:
            if self.serial:
                if not self._read_serial(0.05):
                    time.sleep(0.02)
            else:
                time.sleep(0.02)
            if time.monotonic() > end:
                raise Timeout(f"still running after {timeout} s; stderr: {self.stderr()}; "
                              f"the end of COM1:\n{self.log[-2000:]}")
        return self.process.returncode

    def quit(self, timeout=30):
        try:
            self.qmp.command("quit")
        except EOFError:
            pass
        return self.wait_exit(timeout)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        if self.qmp:
            self.qmp.close()
        if self.serial:
            self.serial.close()
        shutil.rmtree(self.dir, ignore_errors=True)
