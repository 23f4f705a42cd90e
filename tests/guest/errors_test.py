# SPDX-License-Identifier: MIT
"""Bad input: one clear line on stderr, exit status 1, nothing changed on disk."""
import hashlib
import os
import pathlib
import random
import struct
import subprocess
import tempfile

import context
import vm


def refused(*args, says, env=None, accel=("-accel", "soft")):
    """Runs minivm and checks that it refuses with one line that holds every text of `says`."""
    p = subprocess.run([context.minivm(), "-display", "none", *accel, *map(str, args)], capture_output=True,
                       text=True, timeout=context.limit(20), stdin=subprocess.DEVNULL, env=env)
    lines = p.stderr.strip().splitlines()
    assert p.returncode == 1, f"status {p.returncode}: {p.stderr}"
    assert len(lines) == 1, f"expected one line: {p.stderr}"
    for text in [says] if isinstance(says, str) else says:
        assert text in lines[0], f"expected {text!r} in: {lines[0]}"
    return lines[0]


def make_qcow2(path, size="16M"):
    subprocess.run([context.minivm_img(), "create", "-q", "-f", "qcow2", str(path), size], check=True)
    return path


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def test_unknown_option_names_the_nearest():
    refused("-bot", "d", says=["-bot", "-boot"])


def test_option_without_its_argument():
    refused("-m", says=["-m", "argument"])


def test_missing_file_is_named():
    refused("-hda", "/nonexistent/disk.img", says=["/nonexistent/disk.img", "No such file"])


def test_directory_as_image():
    with tempfile.TemporaryDirectory() as d:
        refused("-hda", d, says=[d, "directory"])


def test_memory_sizes():
    refused("-m", "0", says="-m 0")
    refused("-m", "999999", says=["999999", "64 GiB"])
    refused("-m", "12q", says="12q")


def test_boot_indices_have_a_range():
    with tempfile.TemporaryDirectory() as d:
        disk = pathlib.Path(d) / "disk"
        disk.write_bytes(bytes(1 << 20))
        drive = ["-drive", f"file={disk},format=raw,if=none,id=x", "-device"]
        for index in ("10000", "99999999999", "x", "-2"):
            for device in ("ide-hd,drive=x", "virtio-blk-pci,drive=x", "floppy,drive=x"):
                refused(*drive, f"{device},bootindex={index}", says=["-device", "bootindex"])


def test_unknown_boot_letter():
    refused("-boot", "x", says=["-boot x", "x"])
    refused("-boot", "cc", says="cc")


def test_firmware_not_found_names_the_package():
    with tempfile.TemporaryDirectory() as d:
        refused("-bios", "no-such-bios.bin", says=["no-such-bios.bin", "seabios"])
        broken = pathlib.Path(d) / "bios.bin"
        broken.write_bytes(b"x" * 1000)
        refused("-bios", broken, says=["bios.bin", "1000 bytes"])


def test_the_choice_of_an_engine_adds_no_line():
    for accel in ((), ("-accel", "kvm"), ("-accel", "kvm", "-accel", "soft")):
        if "kvm" in accel and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            continue
        refused("-boot", "x", says="-boot x", accel=accel)
        refused("-hda", "/nonexistent/disk.img", says="/nonexistent/disk.img", accel=accel)
        refused("-pidfile", "/nonexistent/pid", says="/nonexistent/pid", accel=accel)


def test_two_drives_on_one_slot():
    with tempfile.TemporaryDirectory() as d:
        a, b = make_qcow2(f"{d}/a.qcow2"), make_qcow2(f"{d}/b.qcow2")
        refused("-hda", a, "-drive", f"file={b},index=0", says=["already taken", "slot 0"])
        refused("-hdc", a, "-cdrom", b, says="already taken")


def test_unknown_accelerator_cpu_machine_device():
    refused("-accel", "hvf", says="hvf")
    refused("-cpu", "pentium33", says=["pentium33", "pentium3"])
    refused("-M", "pcc", says="pcc")
    refused("-device", "isa-debug-exitt", says=["isa-debug-exitt", "isa-debug-exit"])
    refused("-serial", "foo:bar", says="foo:bar")
    refused("-drive", "file=x,cach=none", says="cach")


def test_bad_kernel():
    with tempfile.TemporaryDirectory() as d:
        kernel = pathlib.Path(d) / "kernel"
        kernel.write_bytes(os.urandom(5000))
        refused("-kernel", kernel, says="kernel")
        refused("-kernel", "/nonexistent", says="/nonexistent")
        refused("-append", "x", says="-kernel")


def test_truncated_and_corrupted_qcow2():
    with tempfile.TemporaryDirectory() as d:
        image = pathlib.Path(make_qcow2(f"{d}/a.qcow2"))
        good = image.read_bytes()
        for size in (5, 60, 100, 4096):
            image.write_bytes(good[:size])
            before = digest(image)
            refused("-drive", f"file={image},format=qcow2", says="a.qcow2")
            assert digest(image) == before
        # (offset in the header, format, value): one field after the other made absurd
        fields = [(4, ">I", 99), (20, ">I", 63), (20, ">I", 3), (24, ">Q", 1 << 63), (36, ">I", 0x7FFFFFFF),
                  (40, ">Q", 0x1234567), (48, ">Q", 0x123), (56, ">I", 0xFFFFFFFF), (72, ">Q", 1 << 40),
                  (96, ">I", 55), (100, ">I", 7)]
        for offset, form, value in fields:
            broken = bytearray(good)
            struct.pack_into(form, broken, offset, value)
            image.write_bytes(broken)
            before = digest(image)
            refused("-drive", f"file={image},format=qcow2", says="a.qcow2")
            assert digest(image) == before, f"field at {offset}"


def test_missing_backing_file_names_the_path_tried():
    with tempfile.TemporaryDirectory() as d:
        make_qcow2(f"{d}/base.qcow2")
        subprocess.run([context.minivm_img(), "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
                        f"{d}/overlay.qcow2"], check=True)
        os.unlink(f"{d}/base.qcow2")
        refused("-hda", f"{d}/overlay.qcow2", says=["base.qcow2", "overlay.qcow2", d])


def test_image_in_use_is_refused_both_ways():
    qemu = context.requires("qemu-system-i386")
    with tempfile.TemporaryDirectory() as d:
        for format in ("qcow2", "raw"):
            image = f"{d}/a.{format}"
            subprocess.run([context.minivm_img(), "create", "-q", "-f", format, image, "16M"], check=True)
            drive = f"file={image},format={format}"
            for holder in (context.minivm(), qemu):
                extra = ["-accel", "soft"] if holder == context.minivm() else ["-nic", "none"]
                with vm.Vm(holder, extra + ["-S", "-drive", drive], serial=False):
                    line = refused("-drive", drive, says="a." + format)
                    assert "lock" in line or "in use" in line, line
                    p = subprocess.run([qemu, "-display", "none", "-drive", drive], capture_output=True, text=True,
                                       timeout=context.limit(20))
                    assert p.returncode == 1 and "lock" in p.stderr, p.stderr


def test_no_permission_on_kvm_says_how_to_get_it():
    if os.geteuid() != 0:
        raise context.Skip("only root can become another user to try it")
    if not os.path.exists("/dev/kvm"):
        raise context.Skip("this host has no /dev/kvm")
    if os.stat("/dev/kvm").st_mode & 0o006:
        raise context.Skip("everyone may open /dev/kvm here")
    with tempfile.TemporaryDirectory() as d:
        # A copy that any user can reach, whatever the permissions of the build folder.
        os.chmod(d, 0o755)
        program = f"{d}/minivm"
        subprocess.run(["cp", context.minivm(), program], check=True)
        p = subprocess.run([program, "-display", "none", "-accel", "kvm"], capture_output=True, text=True, timeout=context.limit(20),
                           user=65534, group=65534, extra_groups=[])
    assert p.returncode == 1 and "/dev/kvm" in p.stderr and "kvm" in p.stderr.split("/dev/kvm", 1)[1], p.stderr


def test_random_command_lines_end_in_one_line():
    random.seed(1)
    words = ["-m", "-smp", "-cpu", "-drive", "-boot", "-hda", "-rtc", "-accel", "-device", "-serial", "file=", "0", "-1",
             "on", "d", "=,=", ",,,", "99999999999999999999", "help=", "\x01", "if=none,id=x", "order=", "unix:", "tcp::"]
    for _ in range(60):
        args = [random.choice(words) for _ in range(random.randint(1, 4))]
        p = subprocess.run([context.minivm(), "-S", "-display", "none", "-accel", "soft", *args, "-hdd", "/nonexistent"],
                           capture_output=True, text=True, timeout=context.limit(20), stdin=subprocess.DEVNULL)
        assert p.returncode == 1 and len(p.stderr.strip().splitlines()) >= 1, (args, p.returncode, p.stderr)


def test_what_qemu_has_and_we_have_not_is_said():
    for args, says in ((["-usb"], "USB"), (["-netdev", "l2tpv3,id=n"], "L2TPv3"), (["-nic", "user,model=e1000"], "network card"),
                       (["-device", "e1000"], "network"), (["-device", "virtio-blk-pci,drive=x"], "virtio"),
                       (["-device", "usb-tablet"], "USB"),
                       (["-vnc", ":1"], "-display"), (["-gdb", "tcp::1"], "gdb"), (["-machine", "pc,usb=on"], "usb"),
                       (["-device", "intel-hda"], "sound"), (["-machine", "q35"], "pc"), (["-hda", "nbd://x/y"], "nbd")):
        refused(*args, says=[args[0], says])


def test_consoles_that_cannot_be():
    refused("-serial", "stdio", "-monitor", "stdio", says=["stdio", "mon:stdio"])
    refused("-chardev", "null,id=c", "-serial", "chardev:c", "-serial", "chardev:c", says=["'c'", "mux=on"])
    refused("-chardev", "null,id=c", "-chardev", "null,id=c", says="id=c")
    refused("-chardev", "null", says="id=")
    refused("-chardev", "file,id=c", says="-chardev file,id=c")
    refused("-serial", "chardev:nope", says="nope")
    refused("-mon", "chardev=nope", says="nope")
    refused("-daemonize", "-serial", "mon:stdio", says="-daemonize")
    refused("-debugcon", "null", "-debugcon", "null", says="0x402")
    refused("-serial", "unix:" + "x" * 200, says="longer")
    refused(*["-serial", "null"] * 5, says="four")


def test_strange_names_of_images():
    with tempfile.TemporaryDirectory() as d:
        for name in ("a,b.img", "a:b.img", "x\udcff.img", "y" * 200):
            with open(f"{d}/{name}", "wb") as f:
                f.truncate(1 << 20)
            for args in (["-hda", f"{d}/{name}"], ["-drive", f"file={d}/{name.replace(',', ',,')},format=raw"]):
                with vm.Vm(context.minivm(), ["-accel", "soft", "-S", *args], serial=False) as m:
                    assert "ide0-hd0" in m.hmp("info block")
        refused("-hda", "a:b.img", says=["a:b.img", "./a:b.img"])
        refused("-drive", f"file={d}/a,b.img", says="b.img")
        refused("-hda", f"{d}/a,b.img", "-cdrom", f"{d}/a:b.img", "-hdc", f"{d}/a:b.img", says="a:b.img")
        refused("-drive", f"file={d}/a:b.img,format=raw,serial=" + "x" * 21, says="20 characters")
        refused("-drive", f"file={d}/a:b.img,if=none,id=x", "-drive", f"file={d}/a,,b.img,if=none,id=x", says="id=x")
        refused("-hda", "z" * 5000, says="zzz")


def test_drives_take_the_keys_of_their_format_and_no_others():
    context.requires("qemu-img")
    with tempfile.TemporaryDirectory() as d:
        raw, qcow2 = f"{d}/a.raw", f"{d}/a.qcow2"
        subprocess.run(f"truncate -s 4M {raw} && qemu-img create -q -f qcow2 {qcow2} 4M", shell=True, check=True)
        for drive, says in ((f"file={raw},format=raw,offset=5M", "offset"), (f"file={raw},format=raw,offset=1M,size=4M", "beyond"),
                            (f"file={raw},format=raw,l2-cache-size=1M", "l2-cache-size"), (f"file={qcow2},offset=1M", "offset"),
                            (f"file={qcow2},l2-cache-size=x", "l2-cache-size"), (f"file={qcow2},aio=native", "cache.direct"),
                            (f"driver=qcow2,file.driver=ftp,file.filename={qcow2}", "ftp"),
                            (f"file={qcow2},backing.file.filename={raw}", "json:"), (f"file={qcow2},force-share=on", "read-only")):
            refused("-drive", drive, says=says)
        drives = [f"driver=raw,file.driver=file,file.filename={raw},offset=1M,size=2M,if=none,id=part,file.aio=threads",
                  f"driver=qcow2,file.filename={qcow2},file.locking=off,l2-cache-size=1M,cache=off,if=none,id=whole"]
        with vm.Vm(context.minivm(), ["-accel", "soft", "-S", "-drive", drives[0], "-drive", drives[1], "-device", "ide-hd,drive=part",
                                      "-device", "ide-hd,drive=whole"], serial=False) as m:
            blocks = {b["device"]: b["inserted"]["image"] for b in m.qmp.command("query-block") if b.get("inserted")}
            assert blocks["part"]["virtual-size"] == 2 << 20, blocks
            assert blocks["whole"]["virtual-size"] == 4 << 20, blocks


def test_one_image_in_two_drives():
    with tempfile.TemporaryDirectory() as d:
        image = make_qcow2(f"{d}/a.qcow2")
        refused("-hda", image, "-hdb", image, says=["a.qcow2", "locked"])
