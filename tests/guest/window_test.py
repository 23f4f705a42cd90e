# SPDX-License-Identifier: MIT
"""The SDL window on a virtual X server: pictures, keys, mouse, size, closing."""
import contextlib
import ctypes
import ctypes.util
import os
import re
import struct
import subprocess
import tempfile
import time

import context
import guests
import vm
from context import cost

# Echoes keys on the screen and on COM1; G fills the 320x200 mode with red above green, T goes back to text.
ECHO = """
bits 16
org 0x7c00
text:   mov ax, 3
        int 0x10
        mov al, 'T'
echo:   mov dx, 0x3f8
        out dx, al
next:   mov ah, 0
        int 0x16
        cmp al, 'G'
        je graphics
        cmp al, 'T'
        je text
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        jmp echo
graphics:
        mov ax, 0x13
        int 0x10
        mov ax, 0xa000
        mov es, ax
        xor di, di
        mov cx, 32000
        mov al, 4
        rep stosb
        mov cx, 32000
        mov al, 2
        rep stosb
        mov al, 'G'
        jmp echo
        times 510-($-$$) db 0
        dw 0xaa55
"""


def echo_disk(folder):
    nasm = context.requires("nasm")
    with open(f"{folder}/echo.asm", "w") as f:
        f.write(ECHO)
    subprocess.run([nasm, "-f", "bin", "-o", f"{folder}/echo.img", f"{folder}/echo.asm"], check=True)
    return f"file={folder}/echo.img,format=raw"


class Screen:
    """A virtual X server and the one window on it."""

    def __init__(self, program, args, **options):
        xvfb = context.requires("Xvfb")
        self.xdotool = context.requires("xdotool")
        readable, writable = os.pipe()
        self.server = subprocess.Popen([xvfb, "-displayfd", str(writable), "-screen", "0", "1280x1024x24", "-nolisten",
                                        "tcp", "-noreset"], pass_fds=(writable,), stderr=subprocess.DEVNULL)
        os.close(writable)
        # The line comes in two pieces, and the server ends if nobody takes the second one.
        with os.fdopen(readable) as f:
            number = f.readline().strip()
        if not number:
            raise context.Skip("Xvfb does not start here")
        self.display = f":{number}"
        self.env = {**os.environ, "DISPLAY": self.display}
        try:
            self.m = vm.Vm(program, args, env=self.env, **options)
            self.window = self.wait(lambda: self.x("search", "--name", "minivm").split()[:1], "a window")[0]
        except BaseException:
            self.close()
            raise

    def x(self, *args):
        return subprocess.run([self.xdotool, *map(str, args)], capture_output=True, text=True,
                              env=self.env).stdout

    def wait(self, what, name, timeout=20):
        end = time.monotonic() + context.limit(timeout)
        while True:
            value = what()
            if value:
                return value
            if time.monotonic() > end:
                raise vm.Timeout(f"no {name}; stderr: {self.m.stderr()}")
            time.sleep(0.05)

    def title(self):
        return self.x("getwindowname", self.window).strip()

    def size(self):
        match = re.search(r"Geometry: (\d+)x(\d+)", self.x("getwindowgeometry", self.window))
        return tuple(map(int, match.groups())) if match else None

    def pixels(self):
        """(width, height, bytes in RGB order) of the window."""
        tool = context.requires("import")
        data = subprocess.run([tool, "-window", self.window, "-depth", "8", "ppm:-"], capture_output=True,
                              env=self.env).stdout
        match = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", data)
        return int(match[1]), int(match[2]), data[match.end():]

    def pixel(self, x, y):
        """Colour at a place given as fractions of the window."""
        width, height, data = self.pixels()
        at = 3 * (int(y * height) * width + int(x * width))
        return tuple(data[at:at + 3])

    def close_button(self):
        """Sends what a window manager sends for it (ICCCM 4.2.8.1)."""
        name = ctypes.util.find_library("X11")
        if not name:
            raise context.Skip("libX11 is not installed")
        x11 = ctypes.CDLL(name)
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XInternAtom.restype = ctypes.c_ulong
        x11.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        x11.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
        x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
        display = x11.XOpenDisplay(self.display.encode())
        protocols = x11.XInternAtom(display, b"WM_PROTOCOLS", 0)
        delete = x11.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
        # XClientMessageEvent: type, serial, send_event, display, window, message_type, format, data
        event = struct.pack("@iLiPLLi5l", 33, 0, 1, display, int(self.window), protocols, 32, delete, 0, 0, 0, 0)
        x11.XSendEvent(display, int(self.window), 0, 0, event + bytes(192 - len(event)))
        x11.XCloseDisplay(display)

    def close(self):
        if hasattr(self, "m"):
            self.m.close()
        self.server.terminate()
        self.server.wait()


def requires_sdl():
    out = subprocess.run([context.minivm(), "-version"], capture_output=True, text=True).stdout
    if "SDL" not in out.split("built without")[0]:
        raise context.Skip("built without SDL2")


@contextlib.contextmanager
def screen(args, **options):
    requires_sdl()
    s = Screen(context.minivm(), ["-accel", "soft", *args], **options)
    try:
        yield s
    finally:
        s.close()


def test_keys_pictures_size_and_close_button():
    with tempfile.TemporaryDirectory() as d, \
            screen(["-display", "sdl", "-name", "echo", "-drive", echo_disk(d)]) as s:
        s.m.wait_serial("T")
        s.wait(lambda: "echo" in s.title(), "machine's name in the title")
        s.wait(lambda: s.size() == (720, 400), "720x400 text window")
        s.x("windowfocus", "--sync", s.window)
        s.x("type", "--delay", "40", "Hello, w0rld! [x]")
        s.m.wait_serial(re.escape("Hello, w0rld! [x]"), 20)
        assert "Hello, w0rld! [x]" in s.m.screen()
        width, height, data = s.pixels()
        first_row = data[:3 * width * 16]
        assert sum(1 for n in range(0, len(first_row), 3) if first_row[n] > 100) > 100, "no letters in the window"
        s.x("key", "shift+g")
        s.m.wait_serial("G")
        s.wait(lambda: s.size() == (640, 400), "window of the graphics mode")
        s.wait(lambda: s.pixel(0.5, 0.25) == (170, 0, 0) and s.pixel(0.5, 0.75) == (0, 170, 0), "red above green")
        # A window that the user has sized keeps its size, and the picture its shape.
        s.x("windowsize", s.window, 900, 700)
        s.wait(lambda: s.size() == (900, 700), "larger window")
        s.wait(lambda: s.pixel(0.5, 0.4) == (170, 0, 0) and s.pixel(0.5, 0.6) == (0, 170, 0)
               and s.pixel(0.5, 0.02) == (0, 0, 0), "scaled picture with borders")
        s.x("key", "shift+t")
        s.m.wait_serial("T")
        assert s.size() == (900, 700)
        s.m.qmp.command("stop")
        s.wait(lambda: "Stopped" in s.title(), "title of a stopped machine")
        s.m.qmp.command("cont")
        s.wait(lambda: "Stopped" not in s.title(), "title of a running machine")
        s.x("mousemove", "--window", s.window, 100, 100, "click", 1)
        s.wait(lambda: "grab" in s.title(), "grab after a click")
        s.x("key", "ctrl+alt+g")
        s.wait(lambda: "grab" not in s.title(), "release of the grab")
        s.close_button()
        event = s.m.qmp.wait_event("SHUTDOWN", 20)
        assert event["data"]["reason"] == "host-ui", event
        assert s.m.wait_exit(20) == 0


def test_close_button_can_be_switched_off():
    with screen(["-display", "sdl,window-close=off,full-screen=on"], serial=False) as s:
        s.close_button()
        time.sleep(0.5)
        assert s.m.process.poll() is None
        assert s.m.quit() == 0


def test_window_is_the_default_where_there_is_a_screen():
    requires_sdl()
    with screen(["-display", "sdl"], serial=False) as s:
        p = subprocess.Popen([context.minivm(), "-accel", "soft", "-name", "second"], stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, env=s.env)
        try:
            s.wait(lambda: s.x("search", "--name", "second"), "window without -display")
        finally:
            p.terminate()
            assert p.wait(context.limit(20)) == 0
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")}
    p = subprocess.run([context.minivm(), "-accel", "soft", "-display", "sdl"], capture_output=True, text=True,
                       timeout=context.limit(20), env=env, stdin=subprocess.DEVNULL)
    assert p.returncode == 1 and len(p.stderr.strip().splitlines()) == 1, p


@cost(30)
def test_mouse_and_wheel_reach_linux():
    kernel, _ = guests.kernel()
    with screen(["-display", "sdl", "-m", "128", "-kernel", kernel, "-initrd", guests.shell_initramfs(), "-append",
                 "console=ttyS0 panic=-1 cryptomgr.notests"]) as s:
        s.m.wait_serial("GUEST-READY", timeout=300)
        s.m.run_serial("n=0; until grep -qi mouse /proc/bus/input/devices || [ $n = 30 ]; do sleep 1; n=$((n+1)); done")
        _, out = s.m.run_serial("grep -A5 -i 'mouse' /proc/bus/input/devices | grep -o 'event[0-9]*'")
        device = out.split()[0]
        s.x("mousemove", "--window", s.window, 200, 200, "click", 1)
        s.wait(lambda: "grab" in s.title(), "grab after a click")
        # The shell opens the device before it says so.
        s.m.type_serial("{ echo LISTEN''ING; timeout 600 dd bs=16 count=12 2>/dev/null | od -An -v -td2; echo EV_END; } "
                        f"</dev/input/{device}\n")
        s.m.wait_serial("LISTENING")
        end = time.monotonic() + context.limit(60)
        while "EV_END" not in s.m.log[s.m.seen:] and time.monotonic() < end:
            s.x("mousemove_relative", 7, 3)
            s.x("click", 4)
            s.m.poll_serial(0.1)
        log = s.m.wait_serial(r"(?s)(.*?)EV_END", 60).group(1)
        # struct input_event on 32 bits: seconds, microseconds, type, code, value; type 2 is relative motion.
        words = [int(w) for w in re.findall(r"-?\d+", log)]
        events = {}
        for n in range(0, len(words) - 7, 8):
            kind, code, value = words[n + 4], words[n + 5], words[n + 6]
            if kind == 2:
                events.setdefault(code, []).append(value)
        assert any(v > 0 for v in events.get(0, [])) and any(v > 0 for v in events.get(1, [])), (events, log)
        assert any(v > 0 for v in events.get(8, [])), f"no wheel: {events}"
