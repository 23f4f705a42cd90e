# SPDX-License-Identifier: MIT
"""minivm-img against qemu-img: the same command line on copies of the same images gives the same output, the same exit
code and the same disk."""
import json
import os
import random
import re
import resource
import shutil
import subprocess
import tempfile
import time

import context
from twins import Twins


BASE = ("qemu-img create -q -f qcow2 base.qcow2 64M",
        "qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 10M 128k' -c 'write -z 20M 1M' -c 'write -P 3 63M 1M' base.qcow2")
OVERLAY = BASE + ("qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 ov.qcow2 80M",
                  "qemu-io -c 'write -P 4 512k 100k' -c 'write -z 10M 64k' -c 'write -P 9 70M 10k' ov.qcow2")
SUBCLUSTERS = ("qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=32k -b base.qcow2 -F qcow2 ext.qcow2",
               "qemu-io -c 'write -P 4 512k 3k' -c 'write -z 10M 64k' -c 'write -P 9 60M 10k' ext.qcow2")


def test_info_map_check_measure_print_what_qemu_img_prints():
    with Twins() as t:
        t.setup(*OVERLAY, *SUBCLUSTERS,
                "qemu-img convert -c -O qcow2 base.qcow2 comp.qcow2",
                "qemu-img convert -O raw base.qcow2 base.raw",
                "qemu-img create -q -f qcow2 -o data_file=df.data df.qcow2 32M",
                "qemu-io -c 'write -P 4 512k 3k' df.qcow2",
                "qemu-img snapshot -c snap1 base.qcow2",
                "qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k v2.qcow2 10M")
        for f in "base.qcow2 ov.qcow2 ext.qcow2 comp.qcow2 base.raw df.qcow2 v2.qcow2".split():
            for c in ("info", "info --output=json", "map --output=json", "measure", "measure -O qcow2",
                      "measure --output=json -O qcow2 -o cluster_size=4k", "measure -O qcow2 -o extended_l2=on"):
                t.both(f"{c} {f}")
            t.both(f"check {f}", 63 if f == "base.raw" else 0)
            t.both(f"map {f}", 1 if f == "comp.qcow2" else 0)
            if f != "base.raw":
                t.both(f"check --output=json {f}")
        t.both("info --backing-chain ov.qcow2")
        t.both("info --backing-chain --output=json ov.qcow2")
        t.both("map --start-offset=1M --max-length=10M --output=json base.qcow2")
        t.both("snapshot -l base.qcow2")
        for a in ("--size 1G -O qcow2", "--size 1T -O qcow2 -o refcount_bits=1", "--size 3M",
                  "--size 1G -O qcow2 -o preallocation=full", "--size 10000 -O raw"):
            t.both("measure " + a)


def test_create_says_what_qemu_img_says():
    with Twins() as t:
        t.setup(*BASE)
        for a in ("-f raw n.raw 1M", "-f raw -o preallocation=falloc n.raw 1M", "-f qcow2 n 1G",
                  "-f qcow2 -o extended_l2=on,preallocation=metadata n 1M",
                  "-f qcow2 -o data_file=z,data_file_raw=on n 1M", "-f qcow2 -b base.qcow2 -F qcow2 n",
                  "-f qcow2 -o compat=0.10 n 1M", "-q -f qcow2 n 1M",
                  "-f qcow2 -o lazy_refcounts=on,refcount_bits=8,cluster_size=4k,compression_type=zstd n 1M"):
            t.both("create " + a)
        for a in ("-f qcow2 -o cluster_size=100 n 1M", "-f nope n 1M", "-f qcow2 n", "-f qcow2 -b missing -F raw n",
                  "-f qcow2 -o extended_l2=on,cluster_size=4k n 1M", "-f qcow2 -b base.qcow2 n",
                  "-f qcow2 -o data_file_raw=on n 1M", "-f raw -o nope=1 n 1M"):
            t.both("create " + a, 1, output=False)


def test_compare_tells_and_exits_alike():
    with Twins() as t:
        t.setup(*OVERLAY, "qemu-img convert -O raw base.qcow2 base.raw", "qemu-img convert -O raw ov.qcow2 ov.raw",
                "cp base.raw bad.raw", "printf x | dd of=bad.raw bs=1 seek=11000000 conv=notrunc status=none")
        for a, code in (("base.qcow2 base.raw", 0), ("-q base.qcow2 base.raw", 0), ("base.qcow2 ov.qcow2", 1),
                        ("ov.qcow2 ov.raw", 0), ("-s ov.qcow2 base.qcow2", 1), ("-f raw -F qcow2 bad.raw base.qcow2", 1),
                        ("-q bad.raw base.raw", 1)):
            t.both("compare " + a, code)
        t.both("compare nope base.raw", 2, output=False)


def test_convert_options_make_the_same_disk():
    with Twins() as t:
        t.setup(*OVERLAY, *SUBCLUSTERS, "qemu-img snapshot -c s1 base.qcow2", "qemu-io -c 'write -P 8 3M 1M' base.qcow2",
                "qemu-img create -q -f qcow2 ready.qcow2 100M")
        n = 0
        for a in ("-O raw ov.qcow2", "-O qcow2 ov.qcow2", "-c -O qcow2 ov.qcow2", "-c -W -m 2 -O qcow2 ov.qcow2",
                  "-c -O qcow2 -o compression_type=zstd,cluster_size=4k ov.qcow2", "-S 0 -O qcow2 base.qcow2",
                  "-S 64k -O raw base.qcow2", "-l s1 -O raw base.qcow2", "-l snapshot.name=s1 -O qcow2 base.qcow2",
                  "-O qcow2 -B base.qcow2 -F qcow2 ov.qcow2", "-O qcow2 -B base.qcow2 -F qcow2 ext.qcow2",
                  "-c -O qcow2 -B base.qcow2 -F qcow2 ov.qcow2", "-O qcow2 -o extended_l2=on,cluster_size=128k ext.qcow2",
                  "-O raw base.qcow2 ov.qcow2", "-C -O raw base.qcow2", "-W -O qcow2 -o preallocation=metadata ov.qcow2",
                  "-O qcow2 -o data_file=conv.data ov.qcow2", "-t writeback -O qcow2 ov.qcow2"):
            n += 1
            t.both(f"convert {a} c{n}")
            t.same_disk(f"c{n}", image_format="raw" if "-O raw" in a else "qcow2")
            if "-B" in a:
                t.both(f"map --output=json c{n}", places=False)
        t.both("convert -n --target-is-zero -O qcow2 ov.qcow2 ready.qcow2")
        t.same_disk("ready.qcow2")
        for a in ("-c -O raw base.qcow2 x", "-C -S 4k base.qcow2 x", "--target-is-zero base.qcow2 x", "base.qcow2",
                  "-l nope base.qcow2 x", "-n base.qcow2 missing", "-O nope base.qcow2 x", "-S 100 base.qcow2 x"):
            t.both("convert " + a, 1, output=False)


def test_sparse_stays_sparse_and_a_tebibyte_takes_an_instant():
    with Twins() as t:
        t.setup("qemu-img create -q -f qcow2 big.qcow2 1T", "truncate -s 1T big.raw")
        for a in ("big.qcow2 -O raw out.raw", "big.raw -f raw -O qcow2 out.qcow2"):
            p = subprocess.run([context.minivm_img(), "convert", *a.split()], cwd=t.ours, timeout=context.limit(10),
                               capture_output=True, text=True)
            assert p.returncode == 0, p.stderr
        for f in ("out.raw", "out.qcow2"):
            assert os.stat(os.path.join(t.ours, f)).st_blocks * 512 < 1 << 20
        assert subprocess.run([context.minivm_img(), "compare", "-q", "out.raw", "big.qcow2"], cwd=t.ours,
                              timeout=context.limit(10)).returncode == 0


def test_an_empty_tebibyte_takes_next_to_no_cpu_time():
    """However many threads happen to be at work: what is a hole is passed over in long strides."""
    def little_cpu():
        resource.setrlimit(resource.RLIMIT_CPU, (4, 4))

    def img(folder, *args):
        p = subprocess.run([context.minivm_img(), *args], cwd=folder, capture_output=True, text=True, preexec_fn=little_cpu)
        assert p.returncode == 0, (args, p.returncode, p.stderr)
    with tempfile.TemporaryDirectory(prefix="minivm-img-") as folder:
        img(folder, "create", "-q", "-f", "qcow2", "t.qcow2", "1T")
        img(folder, "create", "-q", "-f", "raw", "t.raw", "1T")
        for source, to in (("qcow2", "raw"), ("qcow2", "qcow2"), ("raw", "qcow2"), ("raw", "raw")):
            for options in ((), ("-W",), ("-c",) if to == "qcow2" else ("-m", "1")):
                img(folder, "convert", *options, "-f", source, "-O", to, f"t.{source}", "out")
                assert os.stat(os.path.join(folder, "out")).st_blocks * 512 < 4 << 20
        img(folder, "check", "-q", "t.qcow2")
        img(folder, "compare", "-q", "t.qcow2", "t.raw")
        img(folder, "map", "t.qcow2")


def test_commit_leaves_the_same_layers():
    for options in ("", "-d ", "-b base.qcow2 ", "-b mid.qcow2 ", "-q -p "):
        with Twins() as t:
            t.setup(*BASE, "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2",
                    "qemu-io -c 'write -P 7 1M 3M' -c 'write -z 0 64k' mid.qcow2",
                    "qemu-img create -q -f qcow2 -o cluster_size=4k -b mid.qcow2 -F qcow2 top.qcow2 90M",
                    "qemu-io -c 'write -P 4 512k 5k' -c 'write -z 2M 100k' -c 'write -P 9 80M 10k' top.qcow2")
            t.both(f"commit {options}top.qcow2")
            t.same_disk("base.qcow2")
            t.same_disk(*([] if "base" in options else ["mid.qcow2"]))
            if "-d" not in options and "-b" not in options:
                t.same_disk("top.qcow2")
                t.both("map --output=json top.qcow2", places=False)
    with Twins() as t:
        t.setup(*OVERLAY, "qemu-img convert -O raw base.qcow2 raw.img",
                "qemu-img create -q -f qcow2 -b raw.img -F raw top.qcow2",
                "qemu-io -c 'write -P 4 512k 5k' -c 'write -z 10M 64k' top.qcow2")
        t.both("commit top.qcow2")
        t.same_disk("raw.img", image_format="raw")
        t.both("commit base.qcow2", 1, output=False)
        t.both("commit -b nope ov.qcow2", 1, output=False)


def test_rebase_keeps_contents_or_just_renames():
    setup = OVERLAY + ("qemu-img create -q -f qcow2 other.qcow2 70M",
                       "qemu-io -c 'write -P 1 0 1M' -c 'write -P 5 30M 1M' -c 'write -P 3 63M 100k' other.qcow2",
                       "qemu-img convert -O raw other.qcow2 other.raw")
    for a in ("-b other.qcow2 -F qcow2", "-b other.raw -F raw", "-u -b other.qcow2 -F qcow2", "-p -q -b other.qcow2 -F qcow2"):
        with Twins() as t:
            t.setup(*setup)
            t.both(f"rebase {a} ov.qcow2")
            t.same_disk("ov.qcow2")
            t.both("info ov.qcow2")
    with Twins() as t:
        t.setup(*setup)
        for name in (t.ours, t.theirs):
            tool = context.minivm_img() if name == t.ours else "qemu-img"
            subprocess.run([tool, "rebase", "-b", "", "ov.qcow2"], check=True, cwd=name)
        t.same_disk("ov.qcow2")
        t.both("info ov.qcow2")
        t.both("rebase -b missing -F qcow2 ov.qcow2", 1, output=False)
        t.both("rebase ov.qcow2", 1, output=False)
        t.both("rebase -b base.qcow2 ov.qcow2", 1, output=False)


def test_resize_grows_shrinks_and_preallocates():
    with Twins() as t:
        t.setup(*OVERLAY, *SUBCLUSTERS, "truncate -s 10M r.raw", "qemu-img create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 4M")
        for a, code in (("base.qcow2 +10M", 0), ("-f raw r.raw 12M", 0), ("--shrink base.qcow2 -20M", 0), ("base.qcow2 1M", 1),
                        ("ov.qcow2 100M", 0), ("ext.qcow2 +1M", 0), ("-q ext.qcow2 +1M", 0), ("--shrink ext.qcow2 3M", 0),
                        ("d.qcow2 8M", 0), ("--preallocation=metadata base.qcow2 +5M", 0), ("base.qcow2 nonsense", 1),
                        ("-f raw --preallocation=full r.raw +1M", 0), ("--preallocation=falloc base.qcow2 +1M", 0),
                        ("--shrink -f raw r.raw 1M", 0), ("--shrink d.qcow2 2M", 0)):
            t.both("resize " + a, code, output=code == 0)
        t.same_disk("base.qcow2", "ov.qcow2", "ext.qcow2", "d.qcow2")
        t.same_disk("r.raw", image_format="raw")


def test_amend_changes_the_header():
    with Twins() as t:
        t.setup(*OVERLAY, "qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 8M", "qemu-io -c 'write -P 3 1M 1M' v2.qcow2",
                "qemu-img create -q -f qcow2 plain.qcow2 8M", "qemu-io -c 'write -P 3 1M 1M' -c 'write -z 2M 1M' plain.qcow2",
                "qemu-img snapshot -c s plain.qcow2", "qemu-img create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 4M", "cp d.raw e.raw")
        for a, code in (("-o compat=1.1 v2.qcow2", 0), ("-o compat=0.10 v2.qcow2", 0), ("-o lazy_refcounts=on plain.qcow2", 0),
                        ("-o refcount_bits=64 plain.qcow2", 0), ("-o refcount_bits=1 plain.qcow2", 1),
                        ("-o lazy_refcounts=off plain.qcow2", 0), ("-o compat=0.10 ov.qcow2", 0),
                        ("-o backing_file=base.qcow2,backing_fmt=qcow2 ov.qcow2", 0), ("-o size=20M v2.qcow2", 0),
                        ("-o cluster_size=4k plain.qcow2", 1), ("-o compat=nope plain.qcow2", 1), ("-o data_file=e.raw d.qcow2", 0),
                        ("-o data_file_raw=off d.qcow2", 0), ("-o data_file_raw=on d.qcow2", 1), ("-o data_file=x plain.qcow2", 1)):
            t.both("amend " + a, code, output=False)
            for f in ("v2.qcow2", "plain.qcow2", "ov.qcow2", "d.qcow2"):
                t.both(f"info --output=json {f}")
        t.same_disk("v2.qcow2", "plain.qcow2", "ov.qcow2", "d.qcow2")


def test_snapshots_with_a_machine_state_come_back():
    context.requires("qemu-system-i386")
    with Twins() as t:
        vm = "qemu-system-i386 -accel tcg -nodefaults -display none -S -m 4 -monitor stdio -drive file=v.qcow2,format=qcow2"
        t.setup("qemu-img create -q -f qcow2 -o cluster_size=4k v.qcow2 8M", "qemu-io -c 'write -P 1 1M 1M' v.qcow2",
                f"printf 'savevm one\\nquit\\n' | {vm}", "qemu-io -c 'write -P 2 1500k 1M' v.qcow2",
                "qemu-img resize -q v.qcow2 10M", "qemu-io -c 'write -P 3 9M 1M' v.qcow2", "qemu-img snapshot -c two v.qcow2")
        t.both("snapshot -l v.qcow2")
        t.both("info --output=json v.qcow2")
        for step in ("-a one", "-a two", "-a one"):
            t.both(f"snapshot {step} v.qcow2")
            t.same_disk("v.qcow2")
            t.both("info --output=json v.qcow2")
        # the state that we left in place is one that a machine can be loaded from
        p = subprocess.run(f"printf 'loadvm one\\ninfo status\\nquit\\n' | {vm}", shell=True, cwd=t.ours, capture_output=True,
                           text=True, timeout=context.limit(60))
        assert "Error" not in p.stdout and "Error" not in p.stderr, p.stdout + p.stderr
        t.both("snapshot -d one v.qcow2")
        t.both("snapshot -d two v.qcow2")
        t.both("snapshot -d nope v.qcow2", 1, output=False)
        t.same_disk("v.qcow2")


def test_dd_copies_a_part():
    with Twins() as t:
        t.setup(*OVERLAY)
        for n, a in enumerate(("if=ov.qcow2", "bs=1M skip=9 if=ov.qcow2", "-O qcow2 bs=64k skip=3 if=base.qcow2",
                               "count=3 if=base.qcow2", "bs=1M skip=100 if=base.qcow2")):
            q, m = (t.tool(ours, f"dd {a} of=out{n}") for ours in (False, True))
            assert q.returncode == m.returncode == 0, (q.stderr, m.stderr)
            t.same_disk(f"out{n}", image_format="qcow2" if "qcow2 bs" in a else "raw")
        # qemu-img 7.2 counts from the start even with skip=; dd does not, nor do we
        t.tool(True, "dd bs=1M count=2 skip=9 if=ov.qcow2 of=part")
        t.tool(True, "convert -O raw ov.qcow2 all")
        with open(os.path.join(t.ours, "part"), "rb") as a, open(os.path.join(t.ours, "all"), "rb") as b:
            assert a.read() == b.read()[9 << 20:11 << 20]
        for a in ("if=ov.qcow2", "bs=0 if=ov.qcow2 of=x", "nonsense", "if=missing of=x"):
            t.both("dd " + a, 1, output=False)


def test_unknown_header_extensions_survive_a_rebase():
    with Twins() as t:
        t.setup(*OVERLAY)
        path = os.path.join(t.ours, "ov.qcow2")
        with open(path, "r+b") as f:
            head = bytearray(f.read(65536))
            length = int.from_bytes(head[100:104], "big")
            name_at = int.from_bytes(head[8:16], "big")
            extra = b"\xab\xcd\xef\x01" + (5).to_bytes(4, "big") + b"hello\0\0\0"
            name = head[name_at:name_at + int.from_bytes(head[16:20], "big")]
            head[length:] = extra + head[length:65536 - len(extra)]
            head[8:16] = (name_at + len(extra)).to_bytes(8, "big")
            assert head[name_at + len(extra):][:len(name)] == name
            f.seek(0)
            f.write(head)
        m = t.tool(True, "rebase -u -b base.qcow2 -F qcow2 ov.qcow2")
        assert m.returncode == 0, m.stderr
        with open(path, "rb") as f:
            assert b"\xab\xcd\xef\x01\0\0\0\x05hello" in f.read(65536)
        subprocess.run(["qemu-img", "check", "-q", path], check=True)


def test_dirty_bitmaps_are_kept():
    with Twins() as t:
        t.setup("qemu-img create -q -f qcow2 b.qcow2 64M", "qemu-img bitmap --add b.qcow2 live",
                "qemu-img bitmap --add -g 4096 b.qcow2 fine", "qemu-img bitmap --add --disable b.qcow2 frozen",
                "qemu-io -c 'write -P 1 1M 64k' b.qcow2", "qemu-img bitmap --add b.qcow2 late")
        t.both("info b.qcow2")
        t.both("info --output=json b.qcow2")
        t.both("measure -O qcow2 b.qcow2")
        t.both("check b.qcow2")
        subprocess.run(["qemu-io", "-c", "write -P 7 10M 300k", "-c", "write -P 7 32M 4k", "b.qcow2"], cwd=t.theirs, check=True,
                       stdout=subprocess.DEVNULL)
        for at, n in (("10M", "300k"), ("32M", "4k")):
            m = t.tool(True, f"bench -q -w -c 1 -d 1 -s {n} -o {at} --pattern=7 b.qcow2")
            assert m.returncode == 0, m.stderr
        t.both("info --output=json b.qcow2")
        t.both("check b.qcow2", output=False)
        t.same_disk("b.qcow2")
        for name in ("live", "fine", "frozen", "late"):
            dirty = []
            for folder in (t.theirs, t.ours):
                dirty.append(bitmap_bits(os.path.join(folder, "b.qcow2"), name))
            assert dirty[0] == dirty[1], f"bitmap {name}: {dirty}"
        t.both("resize b.qcow2 1M", 1, output=False)


def test_bitmaps_are_changed_as_qemu_img_does():
    with Twins() as t:
        t.setup("qemu-img create -q -f qcow2 b.qcow2 64M", "qemu-img create -q -f qcow2 -o cluster_size=512 other.qcow2 64M",
                "qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 1M", "qemu-img create -q -f raw r.raw 1M",
                "qemu-img create -q -f qcow2 odd.qcow2 100000")

        def write(*commands):
            """The same writes to both, each with QEMU, whose bitmaps record them."""
            for folder in (t.theirs, t.ours):
                for c in commands:
                    subprocess.run(["qemu-io", "-f", "qcow2", "-c", c[1], c[0]], cwd=folder, check=True,
                                   stdout=subprocess.DEVNULL)

        def agree(*names, image="b.qcow2"):
            t.both(f"info --output=json {image}")
            t.both(f"check {image}", output=False)
            for folder in (t.theirs, t.ours):
                subprocess.run(["qemu-img", "check", "-q", image], cwd=folder, check=True)
            for name in names:
                bits = [bitmap_bits(os.path.join(folder, image), name) for folder in (t.theirs, t.ours)]
                assert bits[0] == bits[1], (name, bits)
            return bits[1] if names else None
        t.both("bitmap --add b.qcow2 one")
        agree("one")
        write(("b.qcow2", "write 1M 200k"))
        t.both("bitmap --add -g 4k b.qcow2 two")
        t.both("bitmap --add --disable b.qcow2 three")
        write(("b.qcow2", "write 5M 64k"))
        agree("one", "two", "three")
        assert agree("one")
        t.both("bitmap --disable b.qcow2 one")
        t.both("bitmap --enable b.qcow2 three")
        write(("b.qcow2", "write 9M 64k"))
        agree("one", "two", "three")
        t.both("bitmap --merge one --merge two b.qcow2 three")
        t.both("bitmap --clear --merge three b.qcow2 one")
        agree("one", "two", "three")
        t.both("bitmap --add --merge one -b b.qcow2 -F qcow2 other.qcow2 copy")
        agree("copy", image="other.qcow2")
        write(("other.qcow2", "write 33M 4k"))
        agree("copy", image="other.qcow2")
        t.both("bitmap --clear b.qcow2 two")
        t.both("convert --bitmaps -O qcow2 b.qcow2 copied.qcow2")
        agree("one", "two", "three", image="copied.qcow2")
        t.both("convert --bitmaps -O raw b.qcow2 copied.raw", 1, output=False)
        t.both("convert --bitmaps -f raw -O qcow2 r.raw copied2.qcow2", 1, output=False)
        t.both("bitmap --remove b.qcow2 one")
        agree("two", "three")
        t.both("bitmap --remove b.qcow2 two")
        t.both("bitmap --remove b.qcow2 three")
        agree()
        t.both("bitmap --add odd.qcow2 x")
        write(("odd.qcow2", "write 99840 160"))
        t.both("bitmap --disable odd.qcow2 x")
        agree("x", image="odd.qcow2")
        for wrong in ("--remove b.qcow2 none", "--add -g 1000 b.qcow2 x", "--add old.qcow2 x", "--add -f raw r.raw x",
                      "b.qcow2 x", "--add b.qcow2", "--clear -g 4k b.qcow2 x", "--merge none b.qcow2 x",
                      "--add --merge x -b odd.qcow2 -F qcow2 b.qcow2 y"):
            t.both("bitmap " + wrong, 1, output=False)
        t.both("bitmap --add b.qcow2 twice")
        t.both("bitmap --add b.qcow2 twice", 1, output=False)


def bitmap_bits(path, wanted):
    """The positions of the set bits of a bitmap, straight from the file (qcow2 spec, "Bitmaps extension")."""
    with open(path, "rb") as f:
        b = f.read()
    num = lambda at, n: int.from_bytes(b[at:at + n], "big")
    cluster, size, at = 1 << num(20, 4), num(24, 8), num(100, 4)
    while num(at, 4) != 0x23852875:
        at += 8 + (num(at + 4, 4) + 7) // 8 * 8
    count, entry = num(at + 8, 4), num(at + 24, 8)
    for _ in range(count):
        name, extra = num(entry + 18, 2), num(entry + 20, 4)
        start = entry + 24 + extra
        if b[start:start + name].decode() == wanted:
            assert not num(entry + 12, 4) & 1, f"{wanted} is in use"
            bits = b""
            for i in range(num(entry + 8, 4)):
                t = num(num(entry, 8) + 8 * i, 8)
                bits += b[t & ~511:][:cluster] if t & ~511 else (b"\xff" if t & 1 else b"\0") * cluster
            total = -(-size // (1 << b[entry + 17]))
            return [i for i in range(total) if bits[i // 8] >> i % 8 & 1]
        entry = (start + name + 7) // 8 * 8
    raise AssertionError(f"no bitmap {wanted}")


def test_a_block_device_of_the_host_is_a_disk():
    context.requires("losetup")
    with tempfile.TemporaryDirectory(prefix="minivm-img-") as folder:
        image, other = os.path.join(folder, "disk.raw"), os.path.join(folder, "other.raw")
        size = 8 << 20
        with open(image, "wb") as f, open(other, "wb") as g:
            f.truncate(size)
            g.write(os.urandom(size // 2) + bytes(size // 2))
        p = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True)
        if p.returncode:
            raise context.Skip("no loop devices here: " + p.stderr.strip())
        device = p.stdout.strip()

        def img(*args):
            p = subprocess.run([context.minivm_img(), *args], capture_output=True, text=True)
            assert p.returncode == 0, (args, p.stderr)
            return p
        try:
            info = json.loads(img("info", "--output=json", "-f", "raw", device).stdout)
            assert info["virtual-size"] == size, info
            for options in ((), ("-t", "none")):
                p = img("convert", "-n", "-f", "raw", "-O", "raw", *options, other, device)
                assert "mounted" not in p.stderr
                img("compare", "-f", "raw", "-F", "raw", other, device)
            qcow2 = os.path.join(folder, "copy.qcow2")
            img("convert", "-f", "raw", "-O", "qcow2", device, qcow2)
            img("compare", "-F", "raw", qcow2, device)
            locked = subprocess.run(["losetup", "-r", "-f", "--show", other], capture_output=True, text=True,
                                    check=True).stdout.strip()
            try:
                img("compare", "-f", "raw", "-F", "raw", other, locked)
                p = subprocess.run([context.minivm_img(), "bench", "-w", "-c", "1", "-f", "raw", locked], capture_output=True,
                                   text=True)
                assert p.returncode == 1 and "the device is read-only" in p.stderr, p
            finally:
                subprocess.run(["losetup", "-d", locked], check=False)
            mount = os.path.join(folder, "mnt")
            os.mkdir(mount)
            script = ('mkfs.ext4 -q "$1" && mount "$1" "$2" || { echo no mount; exit 0; }; '
                      '"$3" bench -q -w -c 1 -f raw "$1"; umount "$2"')
            p = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", device, mount, context.minivm_img()],
                               capture_output=True, text=True)
            if "no mount" not in p.stdout and p.returncode == 0:
                assert f"'{device}' is mounted on '{mount}'" in p.stderr, p.stderr
        finally:
            subprocess.run(["losetup", "-d", device], check=False)


def test_noise_is_stored_plainly_and_all_else_compressed():
    with tempfile.TemporaryDirectory(prefix="minivm-img-") as folder:
        rng = random.Random(5)
        noise = rng.randbytes(65536)
        near = rng.randbytes(2048)
        clusters = [noise,
                    bytes(range(256)) * 256,                   # every byte as often as any other, and yet a pattern
                    near * 32,                                 # noise that comes back within the window
                    rng.randbytes(32768) + bytes(32768),       # half of it
                    bytes(rng.randrange(64) for _ in range(65536))]  # six bits a byte
        with open(os.path.join(folder, "a.raw"), "wb") as f:
            f.write(b"".join(clusters))
        img = lambda *args: subprocess.run([context.minivm_img(), *args], cwd=folder, check=True, capture_output=True, text=True)
        img("convert", "-c", "-f", "raw", "-O", "qcow2", "a.raw", "a.qcow2")
        img("compare", "-f", "raw", "-F", "qcow2", "a.raw", "a.qcow2")
        check = json.loads(img("check", "--output=json", "a.qcow2").stdout)
        assert check["compressed-clusters"] == 4 and check["allocated-clusters"] == 5, check


def test_encrypted_images_are_refused_by_name():
    with Twins() as t:
        secret = "--object secret,id=s,data=x"
        # qemu-img measures the CPU's speed for the key, which sometimes fails on a busy host.
        again = "for n in $(seq 50); do qemu-img create -q {} && exit 0; done; exit 1"
        t.setup(again.format(f"-f qcow2 {secret} -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 l.qcow2 1M"),
                again.format(f"-f luks {secret} -o key-secret=s,iter-time=10 l.img 1M"),
                "qemu-img create -q -f qcow2 plain.qcow2 1M")
        for c in ("info l.qcow2", "check l.qcow2", "convert -O raw l.qcow2 o", "map l.qcow2", "compare l.qcow2 plain.qcow2",
                  "create -f qcow2 -b l.qcow2 -F qcow2 ov.qcow2"):
            p = t.tool(True, c)
            assert p.returncode and "encrypted (LUKS)" in p.stderr and p.stderr.count("\n") == 1, (c, p.stderr)
        p = t.tool(True, "info l.img")
        assert p.returncode == 1 and "luks image" in p.stderr and p.stderr.count("\n") == 1, p.stderr
        t.both("amend --force -o lazy_refcounts=on plain.qcow2")
        t.both("info --output=json plain.qcow2")


def test_bench_takes_the_options_of_qemu_img():
    with Twins() as t:
        t.setup("qemu-img create -q -f raw b.raw 1M")
        t.both("bench -q -n -c 10 b.raw", 1, output=False)
        text = t.tool(True, "bench -n -c 10 b.raw").stderr
        assert "aio=native was specified, but it requires cache.direct=on" in text, text
        t.both("bench -q -c 10 -w --flush-interval=3 b.raw", 1, output=False)
        for o in ("", "-w", "-w -d 2 --flush-interval=3", "-w -d 3 --flush-interval=3 --no-drain", "-i threads", "-o 4k -s 8k -S 16k -d 3"):
            t.both(f"bench -q -c 100 {o} b.raw", output=False)


def test_names_are_not_relative_to_an_export():
    """A backing file of an image on an NBD server that is named by a relative path."""
    with Twins() as t:
        t.setup(*OVERLAY, "qemu-img create -q -f qcow2 -o backing_file=$PWD/base.qcow2,backing_fmt=qcow2 whole.qcow2 1M")
        for name in ("ov.qcow2", "whole.qcow2"):
            path = os.path.join(t.ours, name + ".socket")
            with Export(["-r", "-t", "-e", "0", "-f", "raw", "-k", path, os.path.join(t.ours, name)], path):
                uri = f"nbd+unix:///?socket={path}"
                # QEMU leaves out a slash of the address
                q, m = ([x.replace(":///", "://") for x in t.tool(ours, "info " + uri).stdout.splitlines()] for ours in (False, True))
                assert q == m, f"{q}\n--- ours:\n{m}"
                t.both(f"info --backing-chain {uri}", 1 if name == "ov.qcow2" else 0, output=False)
                t.both(f"convert -O raw {uri} out.raw", 1 if name == "ov.qcow2" else 0, output=False)
                if name == "ov.qcow2":
                    for c in ("info --backing-chain ", "convert -O raw "):
                        text = t.tool(True, c + uri + (" o" if "-O" in c else "")).stderr
                        assert "relative to an NBD export" in text and text.count("\n") == 1, text


class Export:
    """minivm-nbd with these options, until the end."""

    def __init__(self, args, path):
        self.command, self.path = [context.minivm_nbd(), *args], path

    def __enter__(self):
        self.process = subprocess.Popen(self.command)
        end = time.monotonic() + context.limit(30)
        while not os.path.exists(self.path):
            assert self.process.poll() is None and time.monotonic() < end, self.command
            time.sleep(0.01)

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait()


def test_an_export_is_served_again():
    """--image-opts names an image on another server; -k comes before -b and -p."""
    with Twins() as t:
        t.setup(*BASE, "qemu-img convert -O raw base.qcow2 base.raw")
        first, second = os.path.join(t.ours, "first"), os.path.join(t.ours, "second")
        with Export(["-r", "-t", "-e", "0", "-f", "raw", "-k", first, "-b", "127.0.0.1", "-p", "1", os.path.join(t.ours, "base.qcow2")], first):
            for options in (f"driver=qcow2,file.driver=nbd,file.path={first},read-only=on",
                            f"driver=qcow2,file.driver=nbd,file.server.type=unix,file.server.path={first},read-only=on"):
                with Export(["-t", "-k", second, "--image-opts", options], second):
                    p = t.tool(True, f"compare base.raw nbd+unix:///?socket={second}")
                    assert p.returncode == 0, p.stdout + p.stderr
