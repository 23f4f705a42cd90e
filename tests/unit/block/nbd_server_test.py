# SPDX-License-Identifier: MIT
"""minivm-nbd beside qemu-nbd, and with clients of every kind: libnbd's tools, QEMU's, and one that says what no good client says."""
import json
import os
import random
import shlex
import signal
import socket
import struct
import subprocess
import threading

import context
import nbdpeer
from context import limit
from nbdpeer import Folder, Server

MIB = 1 << 20


def run(*argv, code=0, cwd=None):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=limit(60), cwd=cwd)
    assert p.returncode == code, f"{' '.join(map(str, argv))}: exit {p.returncode}: {p.stdout}{p.stderr}"
    return p.stdout


def noise(seed, size):
    return random.Random(seed).randbytes(size)


CHAIN = ("qemu-img create -q -f qcow2 base.qcow2 8M", "qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 4M 256k' base.qcow2",
         "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2",
         "qemu-io -c 'write -P 3 512k 1M' -c 'write -z 4M 64k' -c 'write -P 4 7M 64k' top.qcow2",
         "qemu-img bitmap --add -g 64k top.qcow2 b0", "qemu-img bitmap --add top.qcow2 off", "qemu-img bitmap --disable top.qcow2 off",
         "qemu-io -c 'write -P 5 2M 128k' -c 'write -P 6 6M 64k' top.qcow2", "qemu-img convert -O raw top.qcow2 flat.raw")


# ---- What is offered ----

def test_tells_the_same_as_qemu_nbd():
    for tool in ("qemu-nbd", "nbdinfo", "qemu-img"):
        context.requires(tool)
    with Folder() as f:
        f.sh(*CHAIN)
        for options in ("-r -f qcow2 top.qcow2", "-f qcow2 top.qcow2", "-e 3 -x name -D words -f qcow2 top.qcow2",
                        "-r -A -B b0 -B off -f qcow2 top.qcow2", "-r -f raw flat.raw", "-f raw -o 1048576 flat.raw",
                        "-s -f qcow2 top.qcow2"):
            said = []
            for program in ("qemu-nbd", None):
                with Server(f, "-t", *shlex.split(options), program=program) as s:
                    listed = run("qemu-nbd", "-L", "-k", s.socket)
                    assert run(context.minivm_nbd(), "-L", "-k", s.socket) == listed
                    told = json.loads(run("nbdinfo", "--list", "--json", s.uri()))
                    for e in told["exports"]:
                        e.pop("uri", None)
                        e["contexts"].sort()
                    maps = {}
                    name = "name" if "-x" in options else ""
                    for c in told["exports"][0]["contexts"]:
                        maps[c] = run("nbdinfo", f"--map={c}", s.uri(name))
                    said.append((sorted(listed.splitlines()), told, maps))
            assert said[0] == said[1], f"{options}:\n{said[0]}\n--- ours:\n{said[1]}"


def test_every_way_of_negotiating():
    with Folder() as f:
        f.raw("d", bytes(MIB))
        with Server(f, "-t", "-e", "0", "-x", "exp", "-D", "desc", "-f", "raw", "d") as s:
            # EXPORT_NAME, with and without the zeroes behind
            for flags, size in ((1, 134), (3, 10)):
                with s.client(go=False, flags=flags) as c:
                    c.send_option(nbdpeer.EXPORT_NAME, b"exp")
                    length, bits = struct.unpack(">QH", c.recv(size)[:10])
                    assert length == MIB and bits & 1 and not bits & 128
                    assert c.read(0, 512) == bytes(512)
            with s.client(go=False) as c:
                c.send_option(nbdpeer.EXPORT_NAME, b"nope")
                assert c.at_end()
            # without fixed newstyle there is that option only
            with s.client(go=False, flags=0) as c:
                c.send_option(nbdpeer.LIST)
                assert c.at_end()
            with s.client(go=False) as c:
                assert c.option(99, b"x" * 100)[0][0] == nbdpeer.UNSUP
                assert c.option(99, b"x" * 200000)[0][0] == nbdpeer.TOO_BIG
                assert c.option(nbdpeer.STARTTLS)[0][0] == nbdpeer.POLICY
                assert c.option(nbdpeer.LIST, b"x")[0][0] == nbdpeer.INVALID
                assert c.option(nbdpeer.LIST) == [(nbdpeer.SERVER, b"\0\0\0\3expdesc"), (nbdpeer.ACK, b"")]
                assert c.option(nbdpeer.INFO, c.info_query(b""))[0][0] == nbdpeer.UNKNOWN
                assert c.option(nbdpeer.INFO, b"\0\0\0\xff")[0][0] == nbdpeer.INVALID
                assert c.option(nbdpeer.GO, c.info_query(b"exp") + b"!")[0][0] == nbdpeer.INVALID
                assert c.option(nbdpeer.LIST_META, c.meta_query(b"exp", []))[0][0] == nbdpeer.INVALID
                assert c.option(nbdpeer.STRUCTURED)[0][0] == nbdpeer.ACK
                for query, want in ((["base:"], ["base:allocation"]), ([], ["base:allocation"]), (["nope:"], []),
                                    (["qemu:"], [])):
                    got = c.option(nbdpeer.LIST_META, c.meta_query(b"exp", query))
                    assert [d[4:].decode() for k, d in got if k == nbdpeer.META] == want
                assert c.option(nbdpeer.LIST_META, c.meta_query(b"exp", ["a"])[:-1])[0][0] == nbdpeer.INVALID
                info = c.option(nbdpeer.INFO, c.info_query(b"exp", 1, 2, 3))
                assert (nbdpeer.REP_INFO, b"\0\1exp") in info and (nbdpeer.REP_INFO, b"\0\2desc") in info
                assert (nbdpeer.REP_INFO, b"\0\3" + struct.pack(">III", 1, 4096, 32 * MIB)) in info
                assert c.option(nbdpeer.ABORT)[0][0] == nbdpeer.ACK
                assert c.at_end()
            with s.client(export=b"exp") as c:
                assert c.read(5, 7) == bytes(7)


# ---- Requests ----

def test_requests_and_their_errors():
    with Folder() as f:
        f.raw("d", bytes(4 * MIB))
        with Server(f, "-t", "-e", "0", "--discard=unmap", "-f", "raw", "d") as s:
            for structured in (True, False):
                with s.client(structured=structured) as c:
                    data = noise(structured, 300000)
                    assert c.write(1000, data) == 0
                    assert c.read(1000, 300000) == data and c.read(999, 2) == b"\0" + data[:1]
                    assert c.write(5, b"fua", nbdpeer.FUA) == 0
                    assert c.command(nbdpeer.FLUSH)[0] == 0
                    assert c.command(nbdpeer.ZEROES, 2000, 100000)[0] == 0
                    assert c.command(nbdpeer.ZEROES, 200000, 100, nbdpeer.NO_HOLE | nbdpeer.FUA)[0] == 0
                    assert c.read(1000, 300000) == \
                        data[:1000] + bytes(100000) + data[101000:199000] + bytes(100) + data[199100:]
                    assert c.command(nbdpeer.TRIM, 0, MIB)[0] == 0 and c.read(0, MIB) == bytes(MIB)
                    assert c.command(nbdpeer.CACHE, 0, MIB)[0] == 0
                    assert c.read(4 * MIB, 0) == b""
                    # errors, after each of which the connection still works
                    assert c.command(nbdpeer.READ, 4 * MIB - 1, 2)[0] == nbdpeer.EINVAL
                    assert c.command(nbdpeer.READ, (1 << 64) - 1, 2)[0] == nbdpeer.EINVAL
                    assert c.command(nbdpeer.READ, 0, 32 * MIB + 1)[0] == nbdpeer.EINVAL
                    assert c.command(nbdpeer.READ, 0, 1, 0x80)[0] == nbdpeer.EINVAL
                    assert c.write(4 * MIB - 1, b"xy") == nbdpeer.ENOSPC
                    assert c.write((1 << 64) - 1, b"xy") == nbdpeer.ENOSPC
                    assert c.write(0, bytes(32 * MIB + 1)) == nbdpeer.EINVAL
                    assert c.command(nbdpeer.ZEROES, 4 * MIB, 1)[0] == nbdpeer.ENOSPC
                    assert c.command(nbdpeer.TRIM, 4 * MIB, 1)[0] == nbdpeer.EINVAL
                    assert c.command(nbdpeer.STATUS, 0, 100)[0] == nbdpeer.EINVAL  # no context chosen
                    assert c.command(77, 0, 0)[0] == nbdpeer.EINVAL
                    assert c.read(0, 512) == bytes(512)
                    c.send(nbdpeer.DISC)
                    assert c.at_end()
        with Server(f, "-r", "-f", "raw", "d") as s, s.client() as c:
            assert c.flags & 2
            assert c.write(0, b"x") == nbdpeer.EPERM
            assert c.command(nbdpeer.TRIM, 0, 1)[0] == c.command(nbdpeer.ZEROES, 0, 1)[0] == nbdpeer.EPERM
            assert c.read(0, 1) == b"\0"


def test_fast_zeroes_are_fast_or_refused():
    with Folder() as f:
        f.sh(f"{context.minivm_img()} create -q -f qcow2 d 4M", f"{context.minivm_img()} create -q -f qcow2 -o compat=0.10 old 4M")
        for name, aligned in (("d", 0), ("old", nbdpeer.ENOTSUP)):
            with Server(f, "--discard=unmap", "-f", "qcow2", name) as s, s.client() as c:
                assert c.flags & 2048
                assert c.write(0, b"x" * MIB) == 0
                assert c.command(nbdpeer.ZEROES, 65536, 131072, nbdpeer.FAST_ZERO)[0] == aligned
                assert c.command(nbdpeer.ZEROES, 5, 10, nbdpeer.FAST_ZERO)[0] == nbdpeer.ENOTSUP
                assert c.read(0, MIB) == (b"x" * 65536 + bytes(131072) + b"x" * (MIB - 196608) if not aligned else b"x" * MIB)
                assert c.command(nbdpeer.ZEROES, 5, 10)[0] == 0 and c.read(0, 20) == b"xxxxx" + bytes(10) + b"xxxxx"


def test_structured_replies_have_holes_and_pieces():
    with Folder() as f:
        data = noise(1, 2 * MIB)
        f.raw("d", bytes(2 * MIB) + data)
        with Server(f, "-r", "-f", "raw", "d") as s, s.client() as c:
            for length in (4096, MIB):
                error, chunks = c.command(nbdpeer.READ, 0, length)
                assert not error and all(kind == nbdpeer.HOLE for kind, _ in chunks)
            error, chunks = c.command(nbdpeer.READ, MIB, 3 * MIB)
            assert {kind for kind, _ in chunks} == {nbdpeer.HOLE, nbdpeer.DATA}
            assert c.read(MIB, 3 * MIB) == bytes(MIB) + data
            error, chunks = c.command(nbdpeer.READ, MIB, 3 * MIB, nbdpeer.DF)
            assert [kind for kind, _ in chunks] == [nbdpeer.DATA] and chunks[0][1][8:] == bytes(MIB) + data


def test_block_status_of_chains_and_bitmaps():
    context.requires("qemu-img")
    names = ("base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0")
    with Folder() as f:
        f.sh(*CHAIN)
        with Server(f, "-A", "-B", "b0", "-f", "qcow2", "top.qcow2") as s, s.client(metas=names) as c:
            assert sorted(c.contexts.values()) == sorted(names)
            got = c.status(0, 8 * MIB)
            assert all(sum(n for n, _ in extents) == 8 * MIB for extents in got.values()), got
            assert got["qemu:allocation-depth"][:3] == [(MIB // 2, 2), (MIB, 1), (MIB // 2, 0)]
            assert got["qemu:dirty-bitmap:b0"][:3] == [(2 * MIB, 0), (MIB // 8, 1), (6 * MIB - 2 * MIB - MIB // 8, 0)]
            assert c.status(0, 8 * MIB, nbdpeer.REQ_ONE)["base:allocation"] == [(3 * MIB // 2, 0)]
            assert c.status(2 * MIB + 1000, 8, 0)["qemu:dirty-bitmap:b0"] == [(8, 1)]
            # what is written now is dirty at once
            assert c.write(3 * MIB + 5, b"now") == 0
            assert (65536, 1) in c.status(3 * MIB, MIB)["qemu:dirty-bitmap:b0"]
            assert c.status(0, 0) == nbdpeer.EINVAL and c.status(8 * MIB, 1) == nbdpeer.EINVAL
        f.sh("qemu-img check -q top.qcow2")


def test_many_requests_in_flight():
    with Folder() as f:
        disk = bytearray(noise(2, 4 * MIB))
        f.raw("d", bytes(disk))
        with Server(f, "-f", "raw", "d") as s, s.client() as c:
            rng, pending = random.Random(3), {}
            for n in range(600):
                length = rng.choice((1, 512, 4096, 70000, 300000))
                at = rng.randrange(len(disk) - length)
                pending[c.send(nbdpeer.READ, at, length)] = [at, length, bytearray(length), 0]
                while len(pending) > 40 or (n == 599 and pending):
                    cookie, error, done, kind, payload = c.reply()
                    at, length, buf, seen = pending[cookie]
                    assert not error and kind == nbdpeer.DATA
                    start = struct.unpack(">Q", payload[:8])[0] - at
                    buf[start:start + len(payload) - 8] = payload[8:]
                    pending[cookie][3] += len(payload) - 8
                    if done:
                        assert pending[cookie][3] == length and buf == disk[at:at + length]
                        del pending[cookie]


def test_clients_at_once_and_what_they_wrote():
    context.requires("qemu-img")
    clients, part = 8, MIB
    with Folder() as f:
        f.sh(f"{context.minivm_img()} create -q -f qcow2 d.qcow2 {clients * part}")
        parts = [bytearray(part) for _ in range(clients)]
        failures = []

        def one(n, server):
            rng, base = random.Random(n), n * part
            try:
                with server.client() as c:
                    assert c.flags & 256  # multi-conn
                    for _ in range(60):
                        length = rng.choice((512, 5000, 65536, 200000))
                        at = rng.randrange(part - length)
                        if rng.random() < 0.2:
                            assert c.command(nbdpeer.ZEROES, base + at, length)[0] == 0
                            parts[n][at:at + length] = bytes(length)
                        else:
                            data = rng.randbytes(length)
                            assert c.write(base + at, data) == 0
                            parts[n][at:at + length] = data
                        if rng.random() < 0.1:
                            assert c.command(nbdpeer.FLUSH)[0] == 0
                        assert c.read(base, part) == parts[n]
            except BaseException as e:  # handed to the test's own thread
                failures.append(e)
        with Server(f, "-t", "-e", "0", "--discard=unmap", "-f", "qcow2", "d.qcow2") as s:
            threads = [threading.Thread(target=one, args=(n, s)) for n in range(clients)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        assert not failures, failures
        f.sh("qemu-img check -q d.qcow2", "qemu-img convert -O raw d.qcow2 out.raw")
        assert open(f("out.raw"), "rb").read() == b"".join(parts)


def test_copies_by_nbdcopy_and_qemu():
    for tool in ("nbdcopy", "qemu-img", "qemu-io"):
        context.requires(tool)
    with Folder() as f:
        f.sh(*CHAIN)
        flat = open(f("flat.raw"), "rb").read()
        with Server(f, "-t", "-e", "0", "-r", "-f", "qcow2", "top.qcow2") as s:
            f.sh(f"nbdcopy '{s.uri()}' a.raw", f"qemu-img convert -f raw -O raw '{s.uri()}' b.raw",
                 f"nbdcopy --connections=1 --synchronous '{s.uri()}' c.raw")
            for name in "abc":
                assert open(f(name + ".raw"), "rb").read() == flat, name
        for fmt, more in (("raw", []), ("qcow2", ["--discard=unmap", "--detect-zeroes=unmap"]), ("raw", ["-n"]),
                          ("qcow2", ["--cache=writethrough"]), ("qcow2", ["--cache=directsync"])):
            if "-n" in more or "--cache=directsync" in more:
                if subprocess.run(["dd", "if=/dev/zero", "of=" + f("probe"), "bs=4096", "count=1", "oflag=direct"],
                                  capture_output=True).returncode:
                    continue  # no O_DIRECT in this folder; the other modes remain
            f.sh(f"{context.minivm_img()} create -q -f {fmt} new 8M")
            with Server(f, "-t", "-e", "0", "-f", fmt, *more, "new") as s:
                f.sh(f"nbdcopy flat.raw '{s.uri()}'", f"qemu-io -f raw -c 'read -P 3 600k 400k' -c 'write -P 9 1000 70000' "
                     f"-c 'read -P 9 1000 70000' -c 'write -z 5000 20000' -c 'discard 1M 1M' -c flush '{s.uri()}'")
            f.sh("cp flat.raw want.raw", "qemu-io -f raw -c 'write -P 9 1000 70000' -c 'write -P 0 5000 20000' want.raw",
                 f"qemu-img convert -f {fmt} -O raw new got.raw")
            want, got = (bytearray(open(f(n), "rb").read()) for n in ("want.raw", "got.raw"))
            want[MIB:2 * MIB] = got[MIB:2 * MIB]  # discarded: anything
            assert want == got, (fmt, more)


def test_libnbd_program():
    python = nbdpeer.has_libnbd()
    program = """
import nbd, sys
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
assert h.get_size() == 1 << 20 and h.can_df() and h.can_flush() and h.can_trim() and h.can_zero() and h.can_fua()
assert h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20
h.pwrite(b"x" * 100000, 1234, nbd.CMD_FLAG_FUA)
cookies = [h.aio_pread(nbd.Buffer(4096), n * 4096) for n in range(200)]
while any(not h.aio_command_completed(c) for c in cookies[-1:]):
    h.poll(-1)
assert h.pread(100000, 1234) == b"x" * 100000
seen = []
h.block_status(1 << 20, 0, lambda context, offset, entries, error: seen.append((context, list(entries))))
assert seen[0][0] == "base:allocation" and sum(seen[0][1][::2]) == 1 << 20, seen
h.zero(4096, 8192); h.trim(4096, 0); h.cache(4096, 0); h.flush()
assert h.pread_structured(8192, 8192, lambda *a: None)[:4096] == bytes(4096)
try:
    h.pread(1, 1 << 20)
    raise SystemExit("read behind the end")
except nbd.Error:
    pass
h.shutdown()
"""
    with Folder() as f:
        f.raw("d", bytes(MIB))
        with Server(f, "-f", "raw", "d") as s:
            run(python, "-c", program, s.uri(), cwd="/")
            assert s.ended() == 0  # its only client has left


# ---- Life of the server ----

def test_shared_clients_and_the_end():
    with Folder() as f:
        f.raw("d", bytes(MIB))
        with Server(f, "-e", "2", "-f", "raw", "d") as s:
            # listing is no use of the export
            run(context.minivm_nbd(), "-L", "-k", s.socket)
            a, b = s.client(), s.client()
            third = socket.socket(socket.AF_UNIX)
            third.connect(s.socket)
            third.settimeout(0.3)
            try:
                third.recv(1)
                raise AssertionError("a third client is served")
            except TimeoutError:
                pass
            assert a.read(0, 10) == b.read(0, 10)
            a.sock.close()
            third.settimeout(limit(30))
            assert third.recv(8) == b"NBDMAGIC"
            third.close()
            assert b.read(0, 10) == bytes(10)
            b.sock.close()
            assert s.ended() == 0 and not os.path.exists(s.socket)
        with Server(f, "-v", "-t", "-f", "raw", "d") as s:
            for _ in range(3):
                with s.client() as c:
                    assert c.read(0, 10) == bytes(10)
            assert s.process.poll() is None
        assert s.errors.count("connected") == 3, s.errors


def test_fork_and_pid_file():
    with Folder() as f:
        f.raw("d", b"hello".ljust(MIB, b"\0"))
        sock, pid_file = f("sock"), f("pid")
        done = subprocess.run([context.minivm_nbd(), "--fork", "--pid-file", pid_file, "-t", "-k", sock, "-f", "raw", "d"],
                              cwd=f.path, timeout=limit(60), capture_output=True)  # ends only when nobody holds the pipes
        assert done.returncode == 0 and not done.stderr, done
        pid = int(open(pid_file).read())
        try:
            with nbdpeer.Client(sock) as c:
                assert c.read(0, 5) == b"hello"
            # the file is locked as long as its process lives
            p = subprocess.run([context.minivm_nbd(), "--pid-file", pid_file, "-t", "-k", f("other"), "-r", "-U", "-f", "raw",
                                "d"], cwd=f.path, timeout=limit(60), capture_output=True, text=True)
            assert p.returncode == 1 and "still runs" in p.stderr and p.stderr.count("\n") == 1, p
        finally:
            os.kill(pid, signal.SIGTERM)
        nbdpeer.wait_for(lambda: not os.path.exists(sock), "the server's end")
        # what goes wrong is said, and the parent fails
        p = subprocess.run([context.minivm_nbd(), "--fork", "-k", sock, "-f", "raw", "missing"], cwd=f.path,
                           timeout=limit(60), capture_output=True, text=True)
        assert p.returncode == 1 and "'missing'" in p.stderr and p.stderr.count("\n") == 1, p


def test_socket_activation():
    program = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = "1", str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
    with Folder() as f:
        f.raw("d", b"hello".ljust(MIB, b"\0"))
        for more, code in (([], 0), (["-p", "1234"], 1)):
            sock = f(f"sock{code}")
            p = subprocess.Popen(["python3", "-c", program, sock, context.minivm_nbd(), "-f", "raw", *more, "d"], cwd=f.path,
                                 stderr=subprocess.PIPE, text=True)
            if not code:
                with nbdpeer.Client(sock) as c:
                    assert c.read(0, 5) == b"hello"
            said = p.communicate(timeout=limit(30))[1]
            assert p.returncode == code and said.count("\n") == code, said


def test_tcp():
    with Folder() as f:
        f.raw("d", b"hello".ljust(MIB, b"\0"))
        # a port that is free now; another program may take it in between, then the next one is tried
        for _ in range(20):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            p = subprocess.Popen([context.minivm_nbd(), "-b", "127.0.0.1", "-p", str(port), "-f", "raw", "d"], cwd=f.path,
                                 stderr=subprocess.PIPE, text=True)

            def there():
                try:
                    return p.poll() is not None or socket.create_connection(("127.0.0.1", port), limit(30))
                except ConnectionRefusedError:
                    return False
            s = nbdpeer.wait_for(there, "the server's port")
            if p.poll() is None:
                break
        assert s.recv(8) == b"NBDMAGIC"
        taken = subprocess.run([context.minivm_nbd(), "-b", "127.0.0.1", "-p", str(port), "-r", "-U", "-f", "raw", "d"],
                               cwd=f.path, capture_output=True, text=True, timeout=limit(30))
        assert taken.returncode == 1 and "Address already in use" in taken.stderr, taken
        s.close()
        run(context.minivm_nbd(), "-L", "-b", "127.0.0.1", "-p", port)
        p.terminate()
        assert p.wait(limit(30)) == 0
        p.stderr.close()


def test_sigterm_keeps_what_was_answered():
    context.requires("qemu-img")
    with Folder() as f:
        f.sh(f"{context.minivm_img()} create -q -f qcow2 d.qcow2 16M")
        data, answered = noise(7, 65536), 0
        with Server(f, "-f", "qcow2", "d.qcow2") as s, s.client() as c:
            try:
                while True:
                    c.send(nbdpeer.WRITE, answered % 200 * 65536, 65536, data=data)
                    if answered == 100:
                        s.process.send_signal(signal.SIGTERM)
                    assert c.reply()[1] == 0
                    answered += 1
            except (EOFError, ConnectionError):
                pass
            assert s.ended() == 0
        assert answered >= 100
        f.sh("qemu-img check -q d.qcow2", "qemu-img convert -O raw d.qcow2 out.raw")
        assert open(f("out.raw"), "rb").read(min(answered, 200) * 65536) == data * min(answered, 200)


# ---- Which part of which image ----

def test_snapshots():
    context.requires("qemu-img")
    with Folder() as f:
        f.sh("qemu-img create -q -f qcow2 d.qcow2 4M", "qemu-io -c 'write -P 1 0 1M' d.qcow2", "qemu-img snapshot -c first d.qcow2",
             "qemu-io -c 'write -P 2 0 1M' d.qcow2", "qemu-img snapshot -c second d.qcow2", "qemu-io -c 'write -P 3 0 1M' d.qcow2",
             "cp d.qcow2 before")
        with Server(f, "-s", "-f", "qcow2", "d.qcow2") as s, s.client() as c:
            assert c.write(100, b"x" * 5000) == 0 and c.read(99, 2) == b"\3x"
        f.sh("cmp d.qcow2 before")
        for name, byte in (("first", 1), ("2", 2), ("snapshot.name=second", 2), ("snapshot.id=1", 1),
                           ("snapshot.id=1,snapshot.name=first", 1)):
            with Server(f, "-l", name, "-f", "qcow2", "d.qcow2") as s, s.client() as c:
                assert c.read(0, 100) == bytes([byte]) * 100 and c.flags & 2
        f.sh("cmp d.qcow2 before")


def test_partitions_and_offsets():
    context.requires("sfdisk")
    context.requires("qemu-img")
    with Folder() as f:
        disk = bytearray(16 * MIB)
        f.raw("d", bytes(disk))
        f.sh("printf '2048,4096\\n8192,2048\\n10240,,E\\n\\n12288,2048\\n16384,4096\\n' | sfdisk -q --wipe never -X dos d")
        dump = json.loads(f.sh("sfdisk -J d"))["partitiontable"]["partitions"]
        assert [int(p["node"][1:]) for p in dump] == [1, 2, 3, 5, 6]
        for p in dump:
            number, start, size = int(p["node"][1:]), p["start"] * 512, p["size"] * 512
            with open(f("d"), "r+b") as disk:
                disk.seek(start + 1024)
                disk.write(b"partition%d" % number)
            with Server(f, "-P", str(number), "-f", "raw", "d") as s, s.client() as c:
                assert c.size == size and c.read(1024, 10) == b"partition%d" % number
                assert c.command(nbdpeer.READ, size, 1)[0] == nbdpeer.EINVAL
        f.sh("qemu-img convert -f raw -O qcow2 d d.qcow2")
        with Server(f, "-P", "6", "-o", "1024", "-f", "qcow2", "d.qcow2") as s, s.client() as c:
            assert c.size == 4096 * 512 - 1024 and c.read(0, 10) == b"partition6"
        with Server(f, "-o", "1M", "-f", "raw", "d") as s, s.client() as c:
            assert c.size == 15 * MIB and c.read(1024, 10) == b"partition1"
        with Server(f, "--image-opts", "driver=raw,offset=1M,size=64k,file.driver=file,file.filename=d") as s:
            with s.client() as c:
                assert c.size == 65536 and c.read(1024, 10) == b"partition1" and c.write(65535, b"xx") == nbdpeer.ENOSPC
        for n in (4, 7):
            refused(f, f"-P {n} -f raw d", "none of this number")


def refused(folder, options, text):
    p = subprocess.run([context.minivm_nbd(), *shlex.split(options)], cwd=folder.path, capture_output=True, text=True,
                       timeout=limit(60))
    assert p.returncode == 1 and text in p.stderr and p.stderr.count("\n") == 1 and not p.stdout, f"{options}: {p}"
    assert p.stderr.startswith("minivm-nbd: "), p.stderr


def test_refusals_are_one_sentence():
    context.requires("qemu-img")
    with Folder() as f:
        f.raw("d", bytes(MIB))
        f.sh("qemu-img create -q -f qcow2 q 1M")
        s = "-k " + f("sock")
        for options, text in (
                ("", "a file is missing"), ("d d", "one file too many"), ("--zork d", "unknown option"),
                ("--persistant d", "did you mean '--persistent'"), ("-Z d", "unknown option '-Z'"), ("-p", "needs a value"),
                ("-k sock d", "must be absolute"), ("-e -1 d", "--shared"), ("-e x d", "--shared"),
                ("-p 99999 -f raw d", "port"), ("--cache=x d", "invalid cache mode"), ("--cache=none -n d", "twice"),
                ("--discard=x d", "invalid discard mode"), ("--detect-zeroes=x d", "invalid detect-zeroes mode"),
                ("--detect-zeroes=unmap d", "needs --discard=unmap"), ("--aio=x d", "aio mode"), ("--aio=native d", "needs --cache=none"),
                ("-f nope d", "unknown image format"), (f"{s} missing", "No such file"), (f"{s} -f qcow2 d", "'d'"),
                (f"{s} -f raw -o 2M d", "offset"), (f"{s} -f raw -o x d", "invalid offset"), (f"{s} -f raw -P 1 d", "partition 1"),
                (f"{s} -f raw -B b d", "bitmap 'b'"), (f"{s} -f qcow2 -B b q", "bitmap 'b'"),
                (f"{s} -f raw -l x d", "snapshot 'x'"), (f"{s} -f qcow2 -l x q", "no snapshot 'x'"),
                (f"{s} -f qcow2 -l snapshot.id=9 q", "snapshot.id=9"), ("--tls-creds x d", "x"), ("--tls-authz x d", "--tls-authz"),
                ("--tls-hostname x d", "--list"), ("--object zork,id=a d", "zork"), ("-L d", "no file"), ("-L -x e", "--list"),
                ("-L -k /nowhere/sock", "cannot connect"), (f"-k {f('x' * 200)} -f raw d", "too long"),
                ("-k /nowhere/sock -f raw d", "cannot listen"), (f"{s} -x {'a' * 5000} -f raw d", "too long"),
                (f"{s} -D {'a' * 5000} -f raw d", "too long"), ("-b nowhere.invalid -f raw d", "nowhere.invalid"),
                (f"{s} --pid-file=/nowhere/pid -f raw d", "cannot create"), ("-d /dev/nowhere", "/dev/nowhere"),
                ("-c /dev/nowhere -f raw d", "/dev/nowhere"), ("--image-opts -f raw x", "driver="),
                (f"{s} --image-opts driver=raw", "file.filename="), (f"{s} --image-opts driver=raw,file.filename=d,x=1", "x")):
            refused(f, options, text)
        assert not os.path.exists(f("sock"))
        # an image in use is refused, but with -U
        with Server(f, "-t", "-f", "qcow2", "q"):
            refused(f, f"{s} -f qcow2 q", "q")
            with Server(f, "-r", "-U", "-f", "qcow2", "q"):
                pass
        for option, text in (("--help", "usage"), ("-V", "version")):
            assert text in run(context.minivm_nbd(), option)


def test_kernel_device():
    if not os.path.exists("/dev/nbd0") or os.geteuid():
        raise context.Skip("the kernel has no NBD driver here, or this is not root")
    with Folder() as f:
        f.raw("d", b"hello".ljust(MIB, b"\0"))
        p = subprocess.Popen([context.minivm_nbd(), "-c", "/dev/nbd0", "-f", "raw", "d"], cwd=f.path, stderr=subprocess.PIPE,
                             text=True)
        assert "connected" in p.stderr.readline()
        with open("/dev/nbd0", "rb") as dev:
            assert dev.read(5) == b"hello"
        run(context.minivm_nbd(), "-d", "/dev/nbd0")
        assert p.wait(limit(30)) == 0


# ---- Bad clients ----

def resident(pid):
    return int(next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")).split()[1]) * 1024


def test_bad_clients_harm_only_themselves():
    with Folder() as f:
        disk = noise(5, 64 * MIB)
        f.raw("d", disk)
        with Server(f, "-t", "-e", "0", "-f", "raw", "d") as s, s.client() as good:
            rng, held = random.Random(9), []
            for n in range(60):
                bad = s.client(go=False) if n % 2 else s.client()
                if n % 4 == 3:  # an option or a request whose end never comes
                    bad.sock.sendall(struct.pack(">QII", nbdpeer.IHAVEOPT, nbdpeer.GO, 5000))
                    held.append(bad)
                elif n % 4 == 2:
                    bad.sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, nbdpeer.WRITE, 1, 0, 32 * MIB) + b"x" * 1000)
                    held.append(bad)
                else:
                    try:
                        bad.sock.sendall(rng.randbytes(rng.choice((1, 28, 100, 5000))))
                    except (ConnectionResetError, BrokenPipeError):
                        pass
                    bad.sock.close()
                assert good.read(n * 1000, 10) == disk[n * 1000:n * 1000 + 10]
            # replies that nobody reads: a client's share of memory is bounded
            before, greedy = resident(s.process.pid), s.client(structured=False)
            for _ in range(50):
                greedy.send(nbdpeer.READ, 0, 32 * MIB)
            for n in range(200):
                assert good.read(n * 4096, 4096) == disk[n * 4096:(n + 1) * 4096]
            assert resident(s.process.pid) - before < 100 * MIB or context.sanitized
            for c in [*held, greedy]:
                c.sock.close()
            assert good.read(0, MIB) == disk[:MIB]
            with s.client() as c:
                assert c.read(0, MIB) == disk[:MIB]


def test_a_slow_handshake_is_cut_off():
    with Folder() as f:
        f.raw("d", bytes(MIB))
        with Server(f, "-t", "--handshake-limit=2", "-f", "raw", "d") as s:
            idle = s.client(go=False)

            def attempt():
                try:  # is let in when the idle one was dropped: there is one place
                    return s.client()
                except (EOFError, ConnectionError):  # on a busy host this one may be late, too
                    return None
            with nbdpeer.wait_for(attempt, "a client's turn") as second:
                assert idle.at_end()
                assert second.read(0, 512) == bytes(512)


# ---- TLS ----

def certificates(folder):
    """A CA, a server's and a client's certificate, another CA with a client, in the folders that tls-creds-x509 wants; PSK keys."""
    context.requires("certtool")

    def make(name, template, *how):
        folder.sh(f"certtool -q --generate-privkey --key-type=ecdsa --outfile {name}-key.pem")
        folder.raw(f"{name}.cfg", template.encode())
        folder.sh(f"certtool -q {' '.join(how)} --load-privkey {name}-key.pem --template {name}.cfg --outfile {name}-cert.pem")
    for ca in ("ca", "otherca"):
        make(ca, f"cn = {ca}\nca\ncert_signing_key\n", "--generate-self-signed")
    for name, ca, use in (("server", "ca", "tls_www_server\ndns_name = localhost\nip_address = 127.0.0.1"),
                          ("client", "ca", "tls_www_client"), ("stranger", "otherca", "tls_www_client")):
        make(name, f"cn = {name}\n{use}\nsigning_key\nencryption_key\n", "--generate-certificate", "--load-ca-certificate",
             f"{ca}-cert.pem", "--load-ca-privkey", f"{ca}-key.pem")
    folder.sh("mkdir srv cli bare odd psk",
              "cp ca-cert.pem srv/ca-cert.pem; cp server-cert.pem server-key.pem srv",
              "cp ca-cert.pem cli/ca-cert.pem; cp client-cert.pem client-key.pem cli", "cp ca-cert.pem bare/ca-cert.pem",
              "cp ca-cert.pem odd/ca-cert.pem; cp stranger-cert.pem odd/client-cert.pem; cp stranger-key.pem odd/client-key.pem",
              "echo joe:0123456789abcdef0123456789abcdef > psk/keys.psk")


def tls_object(folder, where, endpoint, more=""):
    return ["--object", f"tls-creds-x509,id=t,endpoint={endpoint},dir={folder(where)}{more}", "--tls-creds", "t"]


def needs_tls(folder):
    folder.raw("d", b"hello".ljust(MIB, b"\0"))
    p = subprocess.run([context.minivm_nbd(), *tls_object(folder, "srv", "server"), "-L", "-k", "/nowhere"], capture_output=True,
                       text=True, timeout=limit(30))
    if "GnuTLS" in p.stderr:
        raise context.Skip("this build has no GnuTLS")


def ask_list(program, server, creds, code=0):
    p = subprocess.run([program, "-L", "-k", server.socket, *creds], capture_output=True, text=True, timeout=limit(60))
    assert p.returncode == code, f"{program} {creds}: {p}"
    return p.stdout


def test_tls_with_certificates():
    context.requires("qemu-nbd")
    with Folder() as f:
        certificates(f)
        needs_tls(f)
        host = ["--tls-hostname", "localhost"]
        with Server(f, "-t", "-e", "0", "-f", "raw", *tls_object(f, "srv", "server", ",verify-peer=yes"), "d") as s:
            for program in ("qemu-nbd", context.minivm_nbd()):
                assert "size:  1048576" in ask_list(program, s, tls_object(f, "cli", "client") + host)
                ask_list(program, s, tls_object(f, "cli", "client") + ["--tls-hostname", "elsewhere"], code=1)
                ask_list(program, s, tls_object(f, "odd", "client") + host, code=1)
                ask_list(program, s, [], code=1)
            with s.client(go=False) as c:  # nothing but TLS is answered
                for option in (nbdpeer.LIST, nbdpeer.INFO, nbdpeer.STRUCTURED, 99):
                    assert c.option(option)[0][0] == nbdpeer.TLS_REQD
                c.send_option(nbdpeer.EXPORT_NAME)
                assert c.at_end()
            with s.client(go=False) as c:  # what follows in the clear is not taken for the client's
                c.send_option(nbdpeer.STARTTLS)
                c.recv(20)
                c.send_option(nbdpeer.LIST)
                assert c.at_end()
        with Server(f, "-t", "-f", "raw", *tls_object(f, "srv", "server", ",verify-peer=no"), "d") as s:
            for program in ("qemu-nbd", context.minivm_nbd()):
                assert "size:  1048576" in ask_list(program, s, tls_object(f, "bare", "client") + host)
        # transfers through it
        context.requires("nbdcopy")
        f.sh("mkdir up; cp cli/* up; head -c 8M /dev/urandom > big")
        with Server(f, "-t", "-e", "0", "-f", "raw", *tls_object(f, "srv", "server", ",verify-peer=yes"), "big") as s:
            uri = f"nbds+unix://localhost/?socket={s.socket}&tls-certificates={f('up')}"
            f.sh(f"nbdcopy '{uri}' got", "cmp got big", "head -c 8M /dev/urandom > next", f"nbdcopy next '{uri}'", "cmp next big")


def test_tls_with_keys():
    context.requires("qemu-nbd")
    with Folder() as f:
        f.sh("mkdir psk other", "echo joe:0123456789abcdef0123456789abcdef > psk/keys.psk",
             "echo joe:aaaa456789abcdef0123456789abcdef > other/keys.psk")
        f.raw("d", b"hello".ljust(MIB, b"\0"))
        f.sh("mkdir srv")
        needs_tls(f)

        def creds(where, endpoint):
            user = ",username=joe" if endpoint == "client" else ""
            return ["--object", f"tls-creds-psk,id=t,endpoint={endpoint},dir={f(where)}{user}", "--tls-creds", "t"]
        with Server(f, "-t", "-e", "0", "-f", "raw", *creds("psk", "server"), "d") as s:
            for program in ("qemu-nbd", context.minivm_nbd()):
                assert "size:  1048576" in ask_list(program, s, creds("psk", "client"))
                ask_list(program, s, creds("other", "client"), code=1)
            context.requires("nbdcopy")
            f.sh(f"nbdcopy 'nbds+unix://joe@/?socket={s.socket}&tls-psk-file={f('psk/keys.psk')}' got", "cmp got d")
