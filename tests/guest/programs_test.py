# SPDX-License-Identifier: MIT
"""Programs compute in a guest of the software CPU what they compute on the host: the rows of the CPU benchmark (bench/cpu), and what
installing and building software is made of: unpacking, a C compiler, running what it made, compressing, checksums."""
import io
import lzma
import os
import pathlib
import random
import re
import subprocess
import sys
import tarfile
import tempfile

import context
import debs
import guests
import vm
from context import cost

sys.path.insert(0, str(context.ROOT / "bench" / "cpu"))
import cpurows  # noqa: E402

UNITS = 2  # the second unit of a row's work finds what the first left behind
LIBRARIES = ["ld-linux.so.2", "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"]

# $1: folder with ld-linux.so.2 and libraries; $2: archive with the compiler in tcc/ and sources in src/. Works in the
# current folder with busybox's tools alone; prints a checksum of each file that was made.
BUILD = """
set -e
loader="$1/ld-linux.so.2 --library-path $1"
xzcat "$2" | tar x
tcc="$loader $PWD/tcc/bin/tcc -B$PWD/tcc/lib -nostdlib"
support="$PWD/tcc/lib/libtcc1.a $1/libc.so.6"
cd src
for f in part*.c main.c; do $tcc -c $f -o ${f%.c}.o; done
$tcc -o program *.o $support
$loader ./program >output
status=0
$tcc -run memory.c || status=$?
echo $status >status
[ $status -ge 64 ]
cat *.c *.o | tee all | gzip -9 >all.gz
bzip2 -k all
gunzip -c all.gz | cmp - all
bunzip2 -c all.bz2 | cmp - all
sort -u *.c | md5sum
sha256sum *
"""


def sources():
    """{name: C source} of a program of many small functions that prints what they compute."""
    r = random.Random(3)
    files, calls = {}, []
    for n in range(8):
        text = ["typedef struct { int a; unsigned b; long long c; double d; char name[12]; } thing;",
                "static thing things[16];"]
        for k in range(40):
            name = f"f{n}_{k}"
            body = []
            for _ in range(r.randint(3, 12)):
                c = r.randint(1, 1 << 20)
                body.append(r.choice([
                    f"x = x * {c}u + y;", f"y ^= x >> {c % 31};", f"if (x & {c}) y += {c}; else x -= y;",
                    f"for (i = 0; i < {c % 50}; i++) x += i * y + (x >> 3);",
                    f"t->c += (long long)x * {c}; x += (unsigned)(t->c >> 7);", f"t->d = t->d * 0.5 + x % {c % 1000 + 1}; y += (int)t->d;",
                    f"switch (x % 7) {{ case 0: y += {c}; break; case 1: y -= {c}; case 2: x++; break; case 5: x ^= {c}; break; default: y++; }}",
                    f"x = x / {c}u + x % {c % 977 + 1}u; t = &things[x & 15];", f"t->name[y % 12] = 'a' + x % 26; y += t->name[x % 12];",
                    f"{{ unsigned v[{c % 9 + 2}]; for (i = 0; i < {c % 9 + 2}; i++) v[i] = x + i; y += v[x % {c % 9 + 2}]; }}"]))
            text.append(f"unsigned {name}(unsigned x, unsigned y) {{\n  unsigned i; thing *t = &things[y & 15];\n  "
                        + "\n  ".join(body) + "\n  return x ^ y;\n}")
            calls.append(name)
        files[f"part{n}.c"] = "\n".join(text) + "\n"
    main = ["extern int printf(const char *, ...);", "extern void exit(int);", "extern void *malloc(unsigned long);"]
    main += [f"extern unsigned {name}(unsigned, unsigned);" for name in calls]
    main.append("static unsigned (*const table[])(unsigned, unsigned) = {" + ", ".join(calls) + "};")
    main.append("void _start(void) { unsigned n, k, s = 1; for (n = 0; n < 20; n++) for (k = 0; k < sizeof(table) / sizeof(table[0]); k++) {"
                " s = table[k](s, n * k); if (n == 19) printf(\"%u %08x %g\\n\", k, s, s / 3.0); } exit(0); }")
    files["main.c"] = "\n".join(main) + "\n"
    # Compiled to memory and run there; what it computes, from 64 to 127, is the exit status.
    files["memory.c"] = ("int run(unsigned n) { unsigned s = 7; while (n--) s = s * 69069 + (s >> 5) / (n + 1); return s & 63 | 64; }\n"
                         "int _start(void) { return run(5000); }\n")
    return files


def package():
    """An archive of the compiler and of what it is to compile."""
    root = debs.unpack("tcc", "libc6")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        def add(name, data, mode=0o644):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))

        add("tcc/bin/tcc", (root / "usr/bin/tcc").read_bytes(), 0o755)
        library = root / "usr/lib/i386-linux-gnu/tcc"
        for path in sorted(p for p in library.rglob("*") if p.is_file()):
            add(f"tcc/lib/{path.relative_to(library)}", path.read_bytes())
        for name, text in sorted(sources().items()):
            add(f"src/{name}", text.encode())
    return lzma.compress(out.getvalue(), preset=1)


def libraries():
    folder = debs.unpack("tcc", "libc6") / "lib" / "i386-linux-gnu"
    return {name: (folder / name).read_bytes() for name in LIBRARIES}


def on_host(archive):
    """(checksum by row, what the build prints), both natively."""
    with tempfile.TemporaryDirectory(prefix="minivm-programs-") as folder:
        folder = pathlib.Path(folder)
        for place in ("bin", "lib", "work", "rows"):
            (folder / place).mkdir()
        busybox = cpurows.busybox()
        subprocess.run([busybox, "--install", "-s", folder / "bin"], check=True)
        for name, data in libraries().items():
            (folder / "lib" / name).write_bytes(data)
            (folder / "lib" / name).chmod(0o755)
        (folder / "archive").write_bytes(archive)
        try:
            rows = subprocess.run([str(cpurows.build()), "run", "all", str(UNITS)], cwd=folder / "rows", capture_output=True, text=True,
                                  env=dict(os.environ, BUSYBOX=str(busybox)))
        except OSError as e:
            raise context.Skip(f"this host does not run i386 programs: {e}")
        built = subprocess.run([busybox, "sh", "-c", BUILD, "build", folder / "lib", folder / "archive"], cwd=folder / "work",
                               capture_output=True, text=True, env={"PATH": str(folder / "bin"), "LC_ALL": "C"})
        assert not rows.returncode, rows.stdout
        assert not built.returncode, built.stdout + built.stderr
        return rows.stdout, built.stdout


def checksums(output):
    """{row: checksum}, and the rows' complaints."""
    return dict(re.findall(r"(?m)^(\S+) +([0-9a-f]{8}) +\d+ us$", output)), re.findall(r"(?m)^fail .*$", output)


@cost(40)
def test_programs_and_builds_give_what_the_host_gives():
    archive = package()
    host_rows, host_build = on_host(archive)
    files = {"bin/rows": cpurows.build().read_bytes(), "build/archive": archive, "build/script": BUILD}
    files |= {f"lib/{name}": data for name, data in libraries().items()}
    kernel, _ = guests.kernel()
    with vm.Vm(context.minivm(), ["-accel", "soft", "-m", "256", "-kernel", kernel, "-initrd", guests.initramfs(guests.SHELL, (), files),
                                  "-append", cpurows.APPEND, "-no-reboot"]) as m:
        m.wait_serial("GUEST-READY", timeout=300)
        m.run_serial("mount -t tmpfs none /tmp; mkdir /tmp/rows /tmp/work; cd /tmp/rows")
        _, output = m.run_serial(f"rows run all {UNITS}", timeout=300)
        expected, _ = checksums(host_rows)
        found, complaints = checksums(output)
        assert len(expected) == len(cpurows.rows()), host_rows
        wrong = [f"{row}: {found.get(row)}, on the host {expected[row]}" for row in expected if found.get(row) != expected[row]]
        assert not wrong and not complaints, "\n".join(complaints + wrong)
        status, output = m.run_serial("cd /tmp/work; sh /build/script /lib /build/archive 2>&1", timeout=300)
        differ = sorted(set(output.split("\n")) ^ set(host_build.split("\n")) - {""})
        assert status == 0 and output.strip() == host_build.strip(), f"status {status}; in one of the two only: {differ}\n{output}"
        m.type_serial("poweroff -f\n")
        assert m.wait_exit(120) == 0
