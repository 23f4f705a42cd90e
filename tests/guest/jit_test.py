# SPDX-License-Identifier: MIT
"""The translator of the software CPU with a real guest: in lock-step with the interpreter, with little room for code, switched off, and
what it tells of itself."""
import os
import re
import subprocess
import sys
import tempfile

import context
import guests
import vm
from context import cost

sys.path.insert(0, str(context.ROOT / "tests" / "guest"))
import load_test  # noqa: E402

MIB = 1 << 20


def boot(properties, files=None, args=()):
    kernel, _ = guests.kernel()
    m = vm.Vm(context.minivm(), ["-accel", f"soft{properties}", "-m", "256", "-kernel", kernel, "-initrd",
                                 guests.initramfs(guests.SHELL, (), files), "-append",
                                 "console=ttyS0 panic=-1 cryptomgr.notests quiet", "-no-reboot", *args])
    m.wait_serial("GUEST-READY", timeout=600)
    return m


def info_jit(m):
    """{name: number} of what `info jit` prints."""
    text = m.hmp("info jit")
    return {name.strip(): int(value) for name, value in re.findall(r"(?m)^ *([A-Za-z0-9][^\d\n]*?) +(\d+)", text)}, text


def programs(names):
    built = {name: load_test.program(name) for name in names}
    return {f"bin/{name}": built[name][0] for name in names}, {name: built[name][1] for name in names}


def run(m, expected):
    for name, output in expected.items():
        status, said = m.run_serial(name, timeout=600)
        assert (status, said.strip()) == (0, output.strip()), f"{name} ended with {status} and said:\n{said}\nnot:\n{output}"


def lock_step(every):
    files, expected = programs(["floats", "faults", "selfmod"])
    with boot(f",verify={every}", files) as m:
        run(m, expected)
        numbers, text = info_jit(m)
        compared = re.search(r"lock-step +(\d+) pieces compared, (\d+) too long", text)
        assert compared, text
        good, skipped = map(int, compared.groups())
        assert good > 100000 and skipped < good / 10, text
        load_test.power_off(m)


@cost(60)
def test_boot_and_programs_in_lock_step():
    """Each 20th entry into translated code does what the interpreter does, through boot and self-modifying programs."""
    lock_step(20)


@cost(400)
def test_boot_and_programs_wholly_in_lock_step():
    if not context.long:
        raise context.Skip("takes several minutes; make test-long runs it")
    lock_step(1)


@cost(60)
def test_little_room_for_code():
    """A mebibyte of translated code is not enough for a kernel: it is thrown away many times, and all still runs."""
    files, expected = programs(["floats", "faults", "selfmod", "step", "procs"])
    with boot(",tb-size=1", files) as m:
        run(m, expected)
        numbers, text = info_jit(m)
        assert re.search(r"gen code size +\d+/1048576\n", text), text
        assert numbers["TB flush count"] > 5, text
        load_test.power_off(m)


@cost(60)
def test_interpreter_alone():
    files, expected = programs(["floats", "selfmod"])
    with boot(",jit=off", files) as m:
        assert "interpreter" in m.hmp("info engine")
        assert "nothing is translated" in m.hmp("info jit")
        run(m, expected)
        load_test.power_off(m)


def resident(m, name):
    """Bytes of the process's memory that smaps_rollup counts under a name."""
    with open(f"/proc/{m.process.pid}/smaps_rollup") as f:
        return int(re.search(rf"(?m)^{name}: +(\d+) kB", f.read()).group(1)) << 10


@cost(60)
def test_translator_takes_less_than_64_mib():
    """Beside its RAM and what a machine without translator has, after a load of many processes."""
    files, expected = programs(["procs", "faults"])
    used = {}
    for properties in ("", ",jit=off"):
        # The guest has touched the same memory: all of it.
        with boot(properties, files) as m:
            run(m, expected)
            status, output = m.run_serial("mkdir /tmp/fill; mount -t tmpfs -o size=95% none /tmp/fill; "
                                          "dd if=/dev/zero of=/tmp/fill/x bs=1M count=150 2>&1; rm /tmp/fill/x; "
                                          "n=0; while [ $n -lt 40 ]; do busybox true; n=$((n+1)); done", timeout=300)
            used[properties] = resident(m, "Pss")
            load_test.power_off(m)
    more = used[""] - used[",jit=off"]
    assert more < 64 * MIB, f"{more / MIB:.1f} MiB more with the translator"


@cost(10)
def test_traces_and_symbols():
    with tempfile.TemporaryDirectory() as d:
        # The firmware is guest enough. The map of the process goes when the test has read it.
        m = vm.Vm(context.minivm(), ["-accel", "soft", "-d", "out_asm", "-D", f"{d}/trace", "-perfmap", "-m", "32", "-boot", "d"],
                  serial=False)
        path = f"/tmp/perf-{m.process.pid}.map"
        try:
            with m:
                m.wait_screen(r"(?i)boot|No bootable")
                reply = m.qmp.command("x-query-jit")["human-readable-text"]
                assert "Translation buffer state" in reply, reply
                assert int(re.search(r"TB count +(\d+)", reply).group(1)) > 50, reply
                m.quit()
            with open(path) as f:
                lines = f.read().splitlines()
            assert len(lines) > 50
            for line in lines:
                assert re.fullmatch(r"[0-9a-f]+ [0-9a-f]+ (minivm_thunks|(guest|stubs)_[0-9a-f]{8})", line), line
            with open(f"{d}/trace") as f:
                trace = f.read()
            translated = re.findall(r"translated [0-9a-f]{4}:[0-9a-f]{8}, \d+ instructions", trace)
            assert len(translated) > 50, trace[:2000]
        finally:
            if os.path.exists(path):
                os.unlink(path)


def test_properties_are_checked():
    def refused(*args, says):
        p = subprocess.run([context.minivm(), "-display", "none", *args], capture_output=True, text=True, timeout=20,
                           stdin=subprocess.DEVNULL)
        assert p.returncode == 1 and says in p.stderr and len(p.stderr.splitlines()) == 1, p.stderr

    refused("-accel", "soft,tb-size=0", says="tb-size")
    refused("-accel", "soft,jit=off,verify=1", says="verify")
    refused("-accel", "soft,jot=off", says="did you mean 'jit'")
    refused("-accel", "kvm,jit=on", says="jit")
