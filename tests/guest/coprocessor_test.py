# SPDX-License-Identifier: MIT
"""x87 exceptions of programs that leave CR0.NE clear: FERR#, IRQ13, port F0h, IGNNE#."""
import os
import subprocess
import tempfile

import context
import vm

SOURCE = context.ROOT / "tests" / "guest" / "programs" / "ferr.S"


def test_x87_exception_with_ne_clear_is_irq13():
    compiler = context.requires("gcc")
    with tempfile.TemporaryDirectory() as d:
        floppy, console = f"{d}/floppy.img", f"{d}/console"
        subprocess.run([compiler, "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--oformat=binary,-Ttext=0x7c00,--build-id=none",
                        "-o", floppy, str(SOURCE)], check=True)
        os.truncate(floppy, 1440 * 1024)
        with vm.Vm(context.minivm(), ["-accel", "soft", "-m", "16", "-drive", f"file={floppy},if=floppy,format=raw", "-boot", "a",
                                      "-chardev", f"file,id=e9,path={console}", "-device", "isa-debugcon,iobase=0xe9,chardev=e9",
                                      "-device", "isa-debug-exit,iobase=0xf4"], serial=False) as m:
            assert m.wait_exit(60) == 0x31 << 1 | 1
        with open(console) as f:
            told = f.read()
        assert told == "/!a/!b.", told
