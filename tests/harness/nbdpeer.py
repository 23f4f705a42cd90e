# SPDX-License-Identifier: MIT
"""NBD for tests: a server program in a folder of its own, and a client that says exactly what a test wants it to say."""
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import context

NBDMAGIC, IHAVEOPT, REPLY = 0x4e42444d41474943, 0x49484156454f5054, 0x3e889045565a9
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META = 1, 2, 3, 5, 6, 7, 8, 9, 10
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
ACK, SERVER, REP_INFO, META = 1, 2, 3, 4
ERR = 1 << 31
UNSUP, POLICY, INVALID, TLS_REQD, UNKNOWN, TOO_BIG = ERR | 1, ERR | 2, ERR | 3, ERR | 5, ERR | 6, ERR | 9
DATA, HOLE, BLOCK_STATUS, ERROR = 1, 2, 5, 0x8001
EPERM, EINVAL, ENOSPC, ENOTSUP = 1, 22, 28, 95


def wait_for(condition, what, seconds=30):
    """Polls until condition() is true; what it returned."""
    end = time.monotonic() + context.limit(seconds)
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)


class Folder:
    """An empty folder, in memory where that is possible."""

    def __enter__(self):
        shm = "/dev/shm"
        self.path = tempfile.mkdtemp(prefix="minivm-nbd-", dir=shm if os.access(shm, os.W_OK) else None)
        return self

    def __exit__(self, *exc):
        shutil.rmtree(self.path, ignore_errors=True)

    def __call__(self, name):
        return os.path.join(self.path, name)

    def sh(self, *commands):
        for c in commands:
            p = subprocess.run(c, shell=True, cwd=self.path, capture_output=True, text=True, timeout=context.limit(120))
            assert p.returncode == 0, f"{c}: {p.stdout}{p.stderr}"
        return p.stdout

    def raw(self, name, data):
        with open(self(name), "wb") as f:
            f.write(data)


def listening(path):
    """Whether somebody listens on this unix socket; its file is there a moment earlier."""
    accepts = 0x10000  # __SO_ACCEPTCON, the fourth column: proc(5), /proc/net/unix
    with open("/proc/net/unix") as f:
        return any(line[7:] == [str(path)] and int(line[3], 16) & accepts for line in map(str.split, f))


class Server:
    """minivm-nbd (or another program) with these options, on a unix socket unless `tcp`."""
    numbers = iter(range(1 << 30))

    def __init__(self, folder, *args, program=None, tcp=False, ready=True, env=None):
        self.folder = folder
        self.socket = folder(f"s{next(self.numbers)}")
        where = [] if tcp else ["-k", self.socket]
        self.command = [program or context.minivm_nbd(), *where, *args]
        self.process = subprocess.Popen(self.command, cwd=folder.path, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                        text=True, env=env)
        if ready and not tcp:
            wait_for(lambda: listening(self.socket) or self.process.poll() is not None, "the server's socket")
            assert self.process.poll() is None, f"{self.command}: {self.process.stderr.read()}"

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(context.limit(60))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = "none within a minute"
        self.errors = self.process.stderr.read()
        self.process.stderr.close()
        if not kind:
            assert status == 0, f"{self.command}: exit status {status}: {self.errors}"

    def uri(self, export="", scheme="nbd+unix"):
        return f"{scheme}:///{export}?socket={self.socket}"

    def client(self, **kw):
        return Client(self.socket, **kw)

    def ended(self):
        """Waits for the program to end by itself."""
        return self.process.wait(context.limit(30))


def connect(path):
    """A socket that is connected, though the listener may not be there yet."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(context.limit(60))

    def attempt():
        try:
            s.connect(path)
            return True
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    wait_for(attempt, f"a connection to {path}")
    return s


class Client:
    """Speaks the protocol. Greets and, unless go=False, uses the export."""

    def __init__(self, path, go=True, structured=True, export=b"", metas=(), flags=3):
        self.sock, self.structured, self.cookie = connect(path), False, 0
        magic, opts, self.server_flags = struct.unpack(">QQH", self.recv(18))
        assert (magic, opts) == (NBDMAGIC, IHAVEOPT)
        self.sock.sendall(struct.pack(">I", flags))
        if not go:
            return
        if structured:
            assert self.option(STRUCTURED)[-1][0] == ACK
            self.structured = True
        self.contexts = {}
        if metas:
            for kind, data in self.option(SET_META, self.meta_query(export, metas)):
                assert kind in (META, ACK), hex(kind)
                if kind == META:
                    self.contexts[struct.unpack(">I", data[:4])[0]] = data[4:].decode()
        replies = self.option(GO, self.info_query(export))
        assert replies[-1][0] == ACK, replies
        for kind, data in replies:
            if kind == REP_INFO and data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def recv(self, n):
        got = b""
        while len(got) < n:
            part = self.sock.recv(n - len(got))
            if not part:
                raise EOFError(f"{len(got)} of {n} bytes")
            got += part
        return got

    def at_end(self):
        """True if the server closes the connection now, whatever it still says."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    @staticmethod
    def meta_query(export, names):
        names = [n.encode() for n in names]
        return (struct.pack(">I", len(export)) + export + struct.pack(">I", len(names)) +
                b"".join(struct.pack(">I", len(n)) + n for n in names))

    @staticmethod
    def info_query(export, *wishes):
        return (struct.pack(">I", len(export)) + export + struct.pack(">H", len(wishes)) +
                b"".join(struct.pack(">H", w) for w in wishes))

    def send_option(self, code, data=b""):
        self.sock.sendall(struct.pack(">QII", IHAVEOPT, code, len(data)) + data)

    def option(self, code, data=b""):
        """All replies to an option, [(type, data)]."""
        self.send_option(code, data)
        replies = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.recv(20))
            assert (magic, option) == (REPLY, code)
            replies.append((kind, self.recv(length)))
            if kind == ACK or kind & ERR:
                return replies

    def send(self, command, offset=0, length=0, flags=0, data=b""):
        self.cookie += 1
        self.sock.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, self.cookie, offset, length) + data)
        return self.cookie

    def reply(self, length=0):
        """One reply or chunk: (cookie, error, done, type, payload)."""
        magic, = struct.unpack(">I", self.recv(4))
        if magic == 0x67446698:
            error, cookie = struct.unpack(">IQ", self.recv(12))
            return cookie, error, True, None, self.recv(length) if not error else b""
        assert magic == 0x668e33ef, hex(magic)
        flags, kind, cookie, size = struct.unpack(">HHQI", self.recv(16))
        payload = self.recv(size)
        error = struct.unpack(">I", payload[:4])[0] if kind & 0x8000 else 0
        return cookie, error, bool(flags & 1), kind, payload

    def command(self, command, offset=0, length=0, flags=0, data=b""):
        """Runs one request: (error, chunks)."""
        cookie = self.send(command, offset, length, flags, data)
        chunks, error = [], 0
        while True:
            got, e, done, kind, payload = self.reply(length if command == READ else 0)
            assert got == cookie
            error = error or e
            chunks.append((kind, payload))
            if done:
                return error, chunks

    def read(self, offset, length, flags=0):
        error, chunks = self.command(READ, offset, length, flags)
        assert not error, error
        buf = bytearray(length)
        for kind, payload in chunks:
            if kind is None:
                return payload
            at = struct.unpack(">Q", payload[:8])[0] - offset if kind in (DATA, HOLE) else 0
            if kind == DATA:
                buf[at:at + len(payload) - 8] = payload[8:]
        return bytes(buf)

    def write(self, offset, data, flags=0):
        return self.command(WRITE, offset, len(data), flags, data)[0]

    def status(self, offset, length, flags=0):
        """{context: [(length, flags)]}, or the error."""
        error, chunks = self.command(STATUS, offset, length, flags)
        if error:
            return error
        found = {}
        for kind, payload in chunks:
            if kind == BLOCK_STATUS:
                name = self.contexts[struct.unpack(">I", payload[:4])[0]]
                found[name] = list(struct.iter_unpack(">II", payload[4:]))
        return found


def has_libnbd():
    """A command that runs Python with libnbd's module."""
    import sys
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([python, "-c", "import nbd; nbd.NBD()"], capture_output=True, cwd="/").returncode == 0:
            return python
    raise context.Skip("libnbd's Python module is not installed (package python3-libnbd)")
