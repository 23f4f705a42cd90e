#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The other end of a guest's networks: a program, so that it can run in another network namespace than the test.

usage: netpeer.py ADDRESS FILE

Serves on ports of ADDRESS that the kernel chooses: HTTP (GET gives the file, PUT takes one), TFTP (RFC 1350; the same both ways),
datagrams (an echo that keeps what comes) and connections (an echo). The first line on standard output is their ports. Then each
line on standard input is a command, answered by one line; all lines are JSON:

    ["received"]              MD5 of what came since the last time, by protocol
    ["get", URL]              MD5 of what a web server answers
    ["ping", HOST, SIZE]      sends the file in ICMP echo requests of SIZE bytes; MD5 of what came back
"""
import contextlib
import hashlib
import http.server
import json
import os
import selectors
import socket
import struct
import sys
import threading
import time
import urllib.request

TFTP_BLOCK = 512
TFTP_MAX = 60_000  # bytes of the file; a block waits for its acknowledgement, so it is kept short
PING_MAX = 100_000
PATIENCE = 300


def md5(data):
    return hashlib.md5(data).hexdigest()


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.data)))
        self.end_headers()
        self.wfile.write(self.server.data)

    def do_PUT(self):
        self.server.received["http"] = md5(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def tftp(server, data, received):
    """One reading or writing transfer at a time."""
    blocks = {}
    while True:
        packet, peer = server.recvfrom(2048)
        code, number = struct.unpack(">HH", packet[:4].ljust(4, b"\0"))
        if code == 1:
            number = 0
        if code in (1, 4) and number * TFTP_BLOCK <= len(data):
            part = data[number * TFTP_BLOCK:(number + 1) * TFTP_BLOCK]
            server.sendto(struct.pack(">HH", 3, number + 1) + part, peer)
        if code == 2:
            blocks.clear()
            server.sendto(struct.pack(">HH", 4, 0), peer)
        if code == 3:
            blocks[number] = packet[4:]
            received["tftp"] = md5(b"".join(blocks[n] for n in sorted(blocks)))
            server.sendto(struct.pack(">HH", 4, number), peer)


def datagrams(server, received):
    """Pieces of a file, each behind its number; number 0 begins a new one."""
    pieces = {}
    while True:
        packet, peer = server.recvfrom(65536)
        number, = struct.unpack(">I", packet[:4])
        if number == 0:
            pieces.clear()
        pieces[number] = packet[4:]
        received["udp"] = md5(b"".join(pieces[n] for n in sorted(pieces)))
        server.sendto(packet, peer)


def echo(server):
    """Sends back what comes, over as many connections at once as there are."""
    ready = selectors.DefaultSelector()
    ready.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is server:
                connection, _ = server.accept()
                ready.register(connection, selectors.EVENT_READ)
                continue
            data = b""
            with contextlib.suppress(OSError):
                data = key.fileobj.recv(65536)
                key.fileobj.sendall(data)
            if not data:
                ready.unregister(key.fileobj)
                key.fileobj.close()


def internet_checksum(data):
    total = sum(struct.unpack(f">{len(data + b'0') // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(host, size, data):
    """What came back of `data`, which is sent in ICMP echo requests (RFC 792)."""
    ident, pieces = os.getpid() & 0xFFFF, [data[n:n + size] for n in range(0, len(data), size)]
    back, end = {}, time.monotonic() + PATIENCE
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        s.settimeout(1)
        while len(back) < len(pieces):
            if time.monotonic() > end:
                raise TimeoutError(f"{len(back)} of {len(pieces)} echo requests were answered")
            number = next(n for n in range(len(pieces)) if n not in back)
            head = struct.pack(">BBHHH", 8, 0, 0, ident, number)
            head = struct.pack(">BBHHH", 8, 0, internet_checksum(head + pieces[number]), ident, number)
            s.sendto(head + pieces[number], (host, 0))
            with contextlib.suppress(TimeoutError):
                while number not in back:
                    packet, sender = s.recvfrom(65536)
                    message = packet[(packet[0] & 15) * 4:]
                    kind, _, _, their, which = struct.unpack(">BBHHH", message[:8])
                    if (kind, their, sender[0]) == (0, ident, host):
                        if internet_checksum(message):
                            raise ValueError(f"the checksum of echo reply {which} is wrong")
                        back[which] = message[8:]
    return b"".join(back[n] for n in range(len(pieces)))


def answer(command, data, received):
    if command[0] == "received":
        sums = dict(received)
        received.clear()
        return sums
    if command[0] == "get":
        with urllib.request.urlopen(command[1], timeout=PATIENCE) as reply:
            return md5(reply.read())
    if command[0] == "ping":
        return md5(ping(command[1], command[2], data[:PING_MAX]))
    raise ValueError(command)


def main():
    address, path = sys.argv[1:]
    with open(path, "rb") as f:
        data = f.read()
    received = {}
    web = http.server.ThreadingHTTPServer((address, 0), Web)
    web.data, web.received, web.daemon_threads = data, received, True
    udp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for s in udp:
        s.bind((address, 0))
    tcp = socket.create_server((address, 0), backlog=4096)
    for function, *args in ((web.serve_forever,), (tftp, udp[0], data[:TFTP_MAX], received), (datagrams, udp[1], received),
                            (echo, tcp)):
        threading.Thread(target=function, args=args, daemon=True).start()
    print(json.dumps({"http": web.server_address[1], "tftp": udp[0].getsockname()[1], "udp": udp[1].getsockname()[1],
                      "echo": tcp.getsockname()[1]}), flush=True)
    for line in sys.stdin:
        try:
            print(json.dumps({"return": answer(json.loads(line), data, received)}), flush=True)
        except Exception as e:
            print(json.dumps({"error": f"{type(e).__name__}: {e}"}), flush=True)


if __name__ == "__main__":
    main()
