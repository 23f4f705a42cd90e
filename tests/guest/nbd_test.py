# SPDX-License-Identifier: MIT
"""Disks on NBD servers: nbdkit, nbd-server and qemu-nbd serve, minivm-img and guests use them; TLS; servers that go and come."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import context
import nbdpeer
import vm

MIB = 1024 * 1024


class Server:
    """A server process that listens on `path`; killed at the end."""

    def __init__(self, command, path):
        self.command, self.path = [str(c) for c in command], str(path)
        self.start()

    def start(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 30 * context.patience()
        while True:
            with socket.socket(socket.AF_UNIX) as s:
                try:
                    s.connect(self.path)
                    return
                except OSError:
                    pass
            assert self.process.poll() is None and time.monotonic() < end, (self.command, self.output())
            time.sleep(0.02)

    def output(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()


class Proxy:
    """TCP port `port` of `host` leads to a unix socket. The kernel chooses the port, so tests never compete for one."""

    def __init__(self, path, host="127.0.0.1"):
        self.path = str(path)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self.listener = socket.create_server((host, 0), family=family)
        except OSError as e:
            raise context.Skip(f"no address {host} here: {e}")
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.path)
            except OSError:
                client.close()
                continue
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self.copy, args=pair, daemon=True).start()

    @staticmethod
    def copy(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            # Closing would not wake the thread of the other direction.
            for s in (source, target):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.listener.close()


def nbdkit(folder, *args, name="kit"):
    path = folder / name
    return Server([context.requires("nbdkit"), "-f", "-U", path, *args], path)


def qemu_nbd(folder, *args, name="qemu"):
    path = folder / name
    return Server([context.requires("qemu-nbd"), "-t", "-k", path, "-e", "16", *args], path)


def uri(server, export="", scheme="nbd+unix"):
    return f"{scheme}:///{export}?socket={server.path}"


def img(*args, ok=True):
    tried = subprocess.run([context.minivm_img(), *[str(a) for a in args]], capture_output=True, text=True,
                           timeout=120 * context.patience())
    if ok:
        assert tried.returncode == 0, (args, tried.stderr)
        return tried.stdout
    assert tried.returncode == 1, (args, tried.returncode, tried.stdout)
    lines = tried.stderr.strip().split("\n")
    assert len(lines) == 1, lines
    return lines[0]


def make_data(size=4 * MIB):
    """Something in which every sector differs, with a hole."""
    data = bytearray(b"".join(struct.pack("<Q", n) * 64 for n in range(size // 512)))
    data[MIB:2 * MIB] = bytes(MIB)
    return bytes(data)


def copy_both_ways(folder, address, size=4 * MIB, opts=False):
    """Writes a disk to the server, compares it there, reads it back."""
    data = make_data(size)
    plain, back = folder / "plain.raw", folder / "back.raw"
    plain.write_bytes(data)
    if opts:
        img("convert", "-n", "--target-image-opts", "-f", "raw", plain, address)
        img("convert", "--image-opts", "-O", "raw", address, back)
    else:
        img("convert", "-n", "-f", "raw", "-O", "raw", plain, address)
        assert "identical" in img("compare", "-f", "raw", "-F", "raw", plain, address)
        img("convert", "-f", "raw", "-O", "raw", address, back)
    assert back.read_bytes() == data


def test_disks_are_copied_to_every_server_and_back():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for args in (["memory", "4M"],
                     ["--no-sr", "memory", "4M"],
                     ["--mask-handshake=0", "memory", "4M"],
                     ["-o", "memory", "4M"],
                     ["--filter=delay", "memory", "4M", "rdelay=5ms", "wdelay=5ms"],
                     ["--filter=blocksize-policy", "memory", "4M", "blocksize-minimum=4096", "blocksize-preferred=4096",
                      "blocksize-maximum=65536", "blocksize-error-policy=error"],
                     ["--filter=nozero", "memory", "4M"]):
            with nbdkit(folder, *args) as server:
                copy_both_ways(folder, uri(server))
        disk = folder / "disk.qcow2"
        img("create", "-f", "qcow2", disk, "4M")
        with qemu_nbd(folder, "-f", "qcow2", "-x", "a name/with%signs", disk) as server:
            copy_both_ways(folder, uri(server, "a%20name/with%25signs"))
            copy_both_ways(folder, f"nbd:unix:{server.path}:exportname=a name/with%signs")
            copy_both_ways(folder, "json:" + json.dumps({"driver": "nbd", "export": "a name/with%signs",
                                                          "server": {"type": "unix", "path": server.path}}))
            copy_both_ways(folder, f"driver=nbd,path={server.path},export=a name/with%signs", opts=True)
            copy_both_ways(folder, f"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={server.path},"
                                   "file.export=a name/with%signs", opts=True)
        img("check", disk)


def start_nbd_server(folder):
    """(port, pid) of an nbd-server with the export "disk"; it wants a TCP port of its own, which others may take first."""
    program = context.requires("nbd-server")
    (folder / "disk").write_bytes(bytes(4 * MIB))
    for _ in range(10):
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        (folder / "config").write_text(f"[generic]\nallowlist = true\nlistenaddr = 127.0.0.1\nport = {port}\n[disk]\n"
                                       f"exportname = {folder}/disk\ntrim = true\nflush = true\nfua = true\n")
        tried = subprocess.run([program, "-p", folder / "pid", "-C", folder / "config"], capture_output=True)
        end = time.monotonic() + 10 * context.patience()
        while tried.returncode == 0 and time.monotonic() < end:
            try:
                pid = int((folder / "pid").read_text())
                socket.create_connection(("127.0.0.1", port)).close()
                return port, pid
            except (OSError, ValueError):
                time.sleep(0.05)
    raise context.Skip("nbd-server does not start")


def test_nbd_server_of_the_nbd_project():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        port, pid = start_nbd_server(folder)
        try:
            copy_both_ways(folder, f"nbd://127.0.0.1:{port}/disk")
            assert "'none'" in img("info", f"nbd://127.0.0.1:{port}/none", ok=False)
        finally:
            os.kill(pid, signal.SIGKILL)


def test_tcp_with_names_and_addresses():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with nbdkit(folder, "memory", "4M") as server:
            with Proxy(server.path) as p:
                copy_both_ways(folder, f"nbd://127.0.0.1:{p.port}")
                copy_both_ways(folder, f"nbd:localhost:{p.port}")
                copy_both_ways(folder, f"driver=nbd,host=127.0.0.1,port={p.port}", opts=True)
                copy_both_ways(folder, "driver=raw,file.driver=nbd,file.server.type=inet,"
                                       f"file.server.host=localhost,file.server.port={p.port}", opts=True)
            with Proxy(server.path, "::1") as p:
                copy_both_ways(folder, f"nbd://[::1]:{p.port}/")
                copy_both_ways(folder, f"nbd:[::1]:{p.port}")


def test_image_formats_lie_on_exports():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        base = folder / "base.qcow2"
        img("create", "-f", "qcow2", base, "4M")
        subprocess.run([context.requires("qemu-io"), "-c", "write -P 7 1M 64k", str(base)], check=True, capture_output=True)
        with qemu_nbd(folder, "-f", "raw", base) as server:
            info = json.loads(img("info", "--output=json", uri(server)))
            assert info["format"] == "qcow2" and info["virtual-size"] == 4 * MIB and "actual-size" not in info, info
            assert json.loads(img("info", "-f", "raw", "--output=json", uri(server)))["virtual-size"] < 4 * MIB
            top = folder / "top.qcow2"
            img("create", "-f", "qcow2", "-b", uri(server), "-F", "qcow2", top)
            subprocess.run(["qemu-io", "-c", "read -P 7 1M 64k", str(top)], check=True, capture_output=True)
            flat = folder / "flat.raw"
            img("convert", "-O", "raw", top, flat)
            assert flat.read_bytes() == bytes(MIB) + b"\7" * 65536 + bytes(3 * MIB - 65536)
        # A new qcow2 image on an export, which qemu-img then reads.
        with nbdkit(folder, "memory", "8M") as server:
            (folder / "data").write_bytes(make_data())
            img("convert", "-f", "raw", "-O", "qcow2", folder / "data", uri(server))
            assert "No errors" in img("check", "-f", "qcow2", uri(server))
            subprocess.run([context.requires("qemu-img"), "compare", "-f", "raw", "-F", "qcow2", folder / "data", uri(server)],
                           check=True, capture_output=True)


def test_holes_of_the_server_are_holes_here():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        disk = folder / "disk.qcow2"
        img("create", "-f", "qcow2", disk, "1G")
        subprocess.run([context.requires("qemu-io"), "-c", "write -P 1 512M 64k", str(disk)], check=True, capture_output=True)
        with qemu_nbd(folder, "-f", "qcow2", "--discard=unmap", disk) as server:
            found = json.loads(img("map", "-f", "raw", "--output=json", uri(server)))
            assert [(e["start"], e["length"]) for e in found if not e["zero"]] == [(512 * MIB, 65536)], found
            img("convert", "-f", "raw", "-O", "raw", uri(server), folder / "out.raw")
            assert os.stat(folder / "out.raw").st_blocks * 512 < MIB


def test_a_wish_to_cache_is_passed_on_to_the_server_that_has_the_data():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for args, heard in (([], True), (["--filter=nocache"], False)):
            log, front = folder / "log", folder / "front"
            with nbdkit(folder, "--filter=log", *args, "memory", "4M", f"logfile={log}") as server, \
                    Server([context.minivm_nbd(), "-t", "-f", "raw", "-k", front, uri(server)], front) as here, \
                    nbdpeer.Client(here.path) as client:
                assert client.command(nbdpeer.CACHE, MIB + 512, 65536)[0] == 0
                assert client.command(nbdpeer.CACHE, 4 * MIB, 0)[0] == 0
                assert client.command(nbdpeer.CACHE, 4 * MIB, 1)[0] == nbdpeer.EINVAL
            said = [line for line in log.read_text().splitlines() if " Cache id=" in line or " Read id=" in line]
            wanted = f"{'Cache' if heard else 'Read'} id="
            assert any(wanted in line and "offset=0x100200 count=0x10000" in line for line in said), said
            # What is not read need not be sent.
            assert heard != any("Read id=" in line and "offset=0x100200" in line for line in said), said


def test_a_dirty_bitmap_is_shown_in_place_of_the_allocation():
    qemu_img, qemu_io = context.requires("qemu-img"), context.requires("qemu-io")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        disk = folder / "disk.qcow2"
        img("create", "-f", "qcow2", disk, "4M")
        subprocess.run([qemu_img, "bitmap", "--add", str(disk), "bm"], check=True, capture_output=True)
        subprocess.run([qemu_io, "-c", "write 1M 64k", str(disk)], check=True, capture_output=True)
        with qemu_nbd(folder, "-f", "qcow2", "-B", "bm", disk) as server:
            address = f"driver=nbd,path={server.path},x-dirty-bitmap=qemu:dirty-bitmap:"
            found = json.loads(img("map", "--image-opts", "--output=json", address + "bm"))
            assert [(e["start"], e["length"]) for e in found if not e["data"]] == [(MIB, 65536)], found
            assert "no bitmap" in img("map", "--image-opts", address + "other", ok=False)


def test_errors_of_the_server_are_told():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with nbdkit(folder, "--filter=error", "pattern", "4M", "error-pread=ENOSPC", "error-pread-rate=100%") as server:
            assert "No space left" in img("convert", "-f", "raw", "-O", "raw", uri(server), folder / "out", ok=False)
        with nbdkit(folder, "-r", "memory", "4M") as server:
            (folder / "in").write_bytes(make_data(65536))
            assert "read-only" in img("convert", "-n", "-f", "raw", "-O", "raw", folder / "in", uri(server), ok=False)
        with nbdkit(folder, "memory", "4M") as server:
            assert "nbd" in img("resize", "-f", "raw", uri(server), "8M", ok=False)
        assert "cannot connect to socket" in img("info", f"nbd+unix:///?socket={folder}/none", ok=False)
        with nbdkit(folder, "--tls=require", "--tls-psk=" + str(make_psk(folder)), "memory", "4M") as server:
            assert "wants TLS" in img("info", uri(server), ok=False)


# ---- TLS ----

def make_psk(folder):
    (folder / "psk").mkdir(exist_ok=True)
    keys = folder / "psk" / "keys.psk"
    keys.write_text("alice:00112233445566778899aabbccddeeff\nqemu:deadbeefdeadbeefdeadbeefdeadbeef\n")
    keys.chmod(0o600)
    return keys


def make_certificates(folder):
    """A CA, a server certificate for localhost and 127.0.0.1, a client's; another CA with a client's."""
    certtool = context.requires("certtool")

    def run(*args):
        subprocess.run([certtool, *[str(a) for a in args]], check=True, capture_output=True)

    def sign(pki, who, template):
        (pki / f"{who}.info").write_text(template)
        run("--generate-privkey", "--ecdsa", "--outfile", pki / f"{who}-key.pem")
        run("--generate-certificate", "--load-privkey", pki / f"{who}-key.pem", "--load-ca-certificate", pki / "ca-cert.pem",
            "--load-ca-privkey", pki / "ca-key.pem", "--template", pki / f"{who}.info", "--outfile", pki / f"{who}-cert.pem")

    for name in ("pki", "other"):
        pki = folder / name
        pki.mkdir()
        (pki / "ca.info").write_text(f"cn = {name}\nca\ncert_signing_key\nexpiration_days = 30\n")
        run("--generate-privkey", "--ecdsa", "--outfile", pki / "ca-key.pem")
        run("--generate-self-signed", "--load-privkey", pki / "ca-key.pem", "--template", pki / "ca.info", "--outfile",
            pki / "ca-cert.pem")
        sign(pki, "server", "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\n"
                            "expiration_days = 30\n")
        sign(pki, "client", "cn = client\ntls_www_client\nsigning_key\nexpiration_days = 30\n")
    # A client that trusts the CA but has no certificate.
    bare = folder / "bare"
    bare.mkdir()
    (bare / "ca-cert.pem").write_bytes((folder / "pki" / "ca-cert.pem").read_bytes())
    return folder / "pki", folder / "other", bare


def test_tls_with_certificates():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        pki, other, bare = make_certificates(folder)
        disk = folder / "disk.raw"
        disk.write_bytes(bytes(4 * MIB))

        def creds(folder, more=""):
            return f"tls-creds-x509,id=t,dir={folder},endpoint=client{more}"

        def servers():
            yield lambda: nbdkit(folder, "--tls=require", f"--tls-certificates={pki}", "--tls-verify-peer", "memory", "4M")
            yield lambda: qemu_nbd(folder, "-f", "raw", "--object", f"tls-creds-x509,id=s,dir={pki},endpoint=server,verify-peer=yes",
                                   "--tls-creds", "s", disk)

        for start in servers():
            with start() as server, Proxy(server.path) as p:
                address = f"driver=nbd,host=localhost,port={p.port},tls-creds=t"
                plain, back = folder / "plain.raw", folder / "back.raw"
                plain.write_bytes(make_data())
                img("convert", "--object", creds(pki), "-n", "--target-image-opts", "-f", "raw", plain, address)
                img("convert", "--object", creds(pki), "--image-opts", "-O", "raw", address, back)
                assert back.read_bytes() == plain.read_bytes()
                img("info", f"nbds://localhost:{p.port}/?tls-certificates={pki}")
                img("info", f"nbds+unix:///?socket={server.path}&tls-certificates={pki}&tls-hostname=localhost")
                # The name: 127.0.0.1 is in the certificate, elsewhere.example is not.
                img("info", "--object", creds(pki), "--image-opts", address.replace("localhost", "127.0.0.1"))
                text = img("info", "--object", creds(pki), "--image-opts", address + ",tls-hostname=elsewhere.example", ok=False)
                assert "not for 'elsewhere.example'" in text, text
                # A server whose CA we do not know; one that we do not check, and that then does not know us.
                text = img("info", "--object", creds(other), "--image-opts", address, ok=False)
                assert "certificate was refused" in text, text
                img("info", "--object", creds(other, ",verify-peer=off"), "--image-opts", address, ok=False)
                img("info", "--object", creds(bare), "--image-opts", address, ok=False)
                img("info", "--image-opts", address.replace(",tls-creds=t", ""), ok=False)
        text = img("info", "--object", creds(folder), "--image-opts", "driver=nbd,path=/x,tls-creds=t", ok=False)
        assert "ca-cert.pem" in text, text
        text = img("info", "--object", f"tls-creds-x509,id=t,dir={pki},endpoint=server", "--image-opts",
                   "driver=nbd,path=/x,tls-creds=t", ok=False)
        assert "endpoint=client is needed" in text, text


def test_tls_with_shared_keys():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        keys = make_psk(folder)
        disk = folder / "disk.raw"
        disk.write_bytes(bytes(4 * MIB))

        def servers():
            yield lambda: nbdkit(folder, "--tls=require", f"--tls-psk={keys}", "memory", "4M")
            yield lambda: qemu_nbd(folder, "-f", "raw", "--object", f"tls-creds-psk,id=s,dir={keys.parent},endpoint=server",
                                   "--tls-creds", "s", disk)

        for start in servers():
            with start() as server:
                address = f"driver=nbd,path={server.path},tls-creds=t"
                creds = f"tls-creds-psk,id=t,dir={keys.parent},endpoint=client"
                plain, back = folder / "plain.raw", folder / "back.raw"
                plain.write_bytes(make_data())
                img("convert", "--object", creds, "-n", "--target-image-opts", "-f", "raw", plain, address)
                img("convert", "--object", creds + ",username=alice", "--image-opts", "-O", "raw", address, back)
                assert back.read_bytes() == plain.read_bytes()
                img("info", f"nbds+unix://alice@/?socket={server.path}&tls-psk-file={keys}")
                wrong = folder / "wrong"
                wrong.mkdir(exist_ok=True)
                (wrong / "keys.psk").write_text("alice:ffffffffffffffffffffffffffffffff\n")
                img("info", "--object", f"tls-creds-psk,id=t,dir={wrong},username=alice", "--image-opts", address, ok=False)
                text = img("info", "--object", f"tls-creds-psk,id=t,dir={wrong}", "--image-opts", address, ok=False)
                assert "no key of user 'qemu'" in text, text


# ---- Guests ----

STEP = 8  # sectors from one that is written to the next

# A boot sector: writes itself to LBA 0, STEP, 2 * STEP ... of a hard disk and puts a dot (or an E) for each on port E9h, at the
# end a D.
CODE = bytes.fromhex(
    "31c0 8ed8 8ed0 bc007c"          # xor ax,ax; mov ds,ax; mov ss,ax; mov sp,0x7c00
    "b80043 b2%02x be307c cd13"      # next: mov ax,0x4300; mov dl,DISK; mov si,dap; int 0x13
    "b02e 7302 b045 e6e9"            # mov al,'.'; jnc +2; mov al,'E'; out 0xe9,al
    "8306387c%02x"                   # add word [dap.lba],STEP
    "ff0e407c 75e3"                  # dec word [count]; jnz next
    "b044 e6e9 f4 ebfd"              # mov al,'D'; out 0xe9,al; hlt; jmp hlt
    .replace("%02x", "80", 1).replace("%02x", f"{STEP:02x}", 1))


def boot_sector(disk, count):
    sector = bytearray(512)
    sector[0:len(CODE)] = CODE.replace(b"\xb2\x80", bytes([0xB2, disk]))
    sector[0x30:0x40] = struct.pack("<BBHHHQ", 16, 0, 1, 0x7C00, 0, 0)
    sector[0x40:0x42] = struct.pack("<H", count)
    sector[510:512] = b"\x55\xaa"
    return bytes(sector)


def guest_log(folder):
    """What the guest wrote; SeaBIOS logs there too, in lines."""
    try:
        return (folder / "log").read_bytes().decode("latin-1").rsplit("\n", 1)[-1]
    except FileNotFoundError:
        return ""


def wait_log(folder, machine, done):
    end = time.monotonic() + 120 * context.patience()
    while not done(guest_log(folder)):
        assert machine.process.poll() is None, machine.stderr()
        assert time.monotonic() < end, guest_log(folder)
        time.sleep(0.02)


def written(data, count):
    return all(data[n * STEP * 512 + 510:n * STEP * 512 + 512] == b"\x55\xaa" for n in range(count))


def start_guest(folder, *args):
    return vm.Vm(context.minivm(), ["-accel", "soft", "-m", "32", "-debugcon", f"file:{folder}/log", *args], serial=False)


def test_a_guest_boots_from_one_export_and_writes_to_another():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        boot, data = folder / "boot.raw", folder / "data.raw"
        boot.write_bytes(boot_sector(0x81, 64).ljust(4 * MIB, b"\0"))
        data.write_bytes(bytes(4 * MIB))
        with nbdkit(folder, "file", boot) as first, qemu_nbd(folder, "-f", "raw", data) as second, Proxy(first.path) as p:
            with start_guest(folder, "-drive", f"driver=nbd,host=127.0.0.1,port={p.port}", "-hdb", uri(second)) as m:
                wait_log(folder, m, lambda log: log.endswith("D"))
                assert guest_log(folder).endswith("." * 64 + "D"), guest_log(folder)
                shown = {d["device"]: d["inserted"] for d in m.qmp.command("query-block") if "inserted" in d}
                assert shown["ide0-hd1"]["file"] == uri(second), shown
                assert shown["ide0-hd0"]["file"] == f"nbd://127.0.0.1:{p.port}", shown
                assert shown["ide0-hd0"]["drv"] == "nbd", shown
                m.quit()
        assert written(data.read_bytes(), 64)


def test_a_guest_uses_a_disk_under_tls():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        keys = make_psk(folder)
        boot = folder / "boot.raw"
        boot.write_bytes(boot_sector(0x80, 64).ljust(4 * MIB, b"\0"))
        with nbdkit(folder, "--tls=require", f"--tls-psk={keys}", "file", boot) as server:
            with start_guest(folder, "-object", f"tls-creds-psk,id=t,dir={keys.parent},username=alice", "-drive",
                             f"driver=nbd,path={server.path},tls-creds=t") as m:
                wait_log(folder, m, lambda log: log.endswith("D"))
                assert guest_log(folder).endswith("." * 64 + "D"), guest_log(folder)
                # The drive goes on with what it took.
                m.qmp.command("object-del", id="t")
                m.quit()
        assert written(boot.read_bytes(), 64)


def test_a_server_killed_under_a_guest_loses_nothing():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        floppy, data = folder / "floppy.img", folder / "data.raw"
        count = 100
        floppy.write_bytes(boot_sector(0x80, count).ljust(1440 * 1024, b"\0"))
        data.write_bytes(bytes(4 * MIB))
        with nbdkit(folder, "--filter=delay", "file", data, "wdelay=20ms") as server:
            with start_guest(folder, "-boot", "a", "-drive", f"file={floppy},if=floppy,format=raw", "-drive",
                             f"driver=nbd,path={server.path},reconnect-delay=1000") as m:
                for dots in (10, 40, 70):
                    wait_log(folder, m, lambda log: log.count(".") >= dots)
                    server.kill()
                    server.start()
                wait_log(folder, m, lambda log: log.endswith("D"))
                assert guest_log(folder).endswith("." * count + "D"), guest_log(folder)
                m.quit()
        assert written(data.read_bytes(), count)


def test_without_reconnect_delay_requests_fail_until_the_server_is_back():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        floppy, data = folder / "floppy.img", folder / "data.raw"
        floppy.write_bytes(boot_sector(0x80, 60000).ljust(1440 * 1024, b"\0"))
        data.write_bytes(bytes(512 * MIB))
        with nbdkit(folder, "file", data) as server:
            with start_guest(folder, "-boot", "a", "-drive", f"file={floppy},if=floppy,format=raw", "-drive",
                             f"driver=nbd,path={server.path},werror=report") as m:
                wait_log(folder, m, lambda log: log.count(".") >= 3)
                server.kill()
                wait_log(folder, m, lambda log: "E" in log)
                server.start()
                failed = len(guest_log(folder))
                wait_log(folder, m, lambda log: "." in log[failed:])


def test_two_guests_share_one_read_only_export():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        boot = folder / "boot.raw"
        boot.write_bytes(boot_sector(0x80, 64).ljust(4 * MIB, b"\0"))
        before = boot.read_bytes()
        path = folder / "shared"
        with Server([context.minivm_nbd(), "--read-only", "--shared=2", "-t", "-f", "raw", "-k", path, boot], path) as server:
            guests = []
            with contextlib.ExitStack() as stack:
                for n in (1, 2):
                    (folder / str(n)).mkdir()
                    guests.append(stack.enter_context(start_guest(folder / str(n), "-drive", f"file={uri(server)},format=raw,snapshot=on")))
                for n, m in enumerate(guests, 1):
                    wait_log(folder / str(n), m, lambda log: log.endswith("D"))
                    assert guest_log(folder / str(n)).endswith("." * 64 + "D")
                for m in guests:
                    m.quit()
            p = subprocess.run([context.minivm(), "-accel", "soft", "-display", "none", "-drive", f"file={uri(server)},format=raw,if=virtio"],
                               capture_output=True, text=True, timeout=context.limit(60))
            assert p.returncode == 1 and "read-only" in p.stderr and p.stderr.count("\n") == 1, p.stderr
        assert boot.read_bytes() == before


def test_a_server_that_hangs_or_is_gone_does_not_keep_the_machine_from_ending():
    for gone in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            floppy, data = folder / "floppy.img", folder / "data.raw"
            floppy.write_bytes(boot_sector(0x80, 60000).ljust(1440 * 1024, b"\0"))
            data.write_bytes(bytes(512 * MIB))
            with nbdkit(folder, "file", data) as server:
                with start_guest(folder, "-boot", "a", "-drive", f"file={floppy},if=floppy,format=raw", "-drive",
                                 f"driver=nbd,path={server.path},reconnect-delay=100000") as m:
                    wait_log(folder, m, lambda log: log.count(".") >= 3)
                    if gone:
                        server.kill()
                    else:
                        server.process.send_signal(signal.SIGSTOP)
                    m.quit()
