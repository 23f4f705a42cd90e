# SPDX-License-Identifier: MIT
"""minivm-img and qemu-img take the same options: images described key by key, -o help, and what does not go together."""
import json
import os
import re
import subprocess

import context
from twins import Twins

IMAGES = ("qemu-img create -q -f qcow2 base.qcow2 8M", "qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 3M 128k' base.qcow2",
          "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 ov.qcow2", "qemu-io -c 'write -P 4 512k 100k' ov.qcow2",
          "qemu-img create -q -f qcow2 -u -b gone.qcow2 -F qcow2 orphan.qcow2 8M",
          "dd if=/dev/urandom of=r.raw bs=64k count=16 status=none")


def said(twins, args):
    """The one sentence of an error."""
    p = twins.tool(True, args)
    assert p.returncode == 1 and p.stderr.count("\n") == 1, (args, p.returncode, p.stdout, p.stderr)
    return p.stderr


def test_images_are_described_key_by_key():
    with Twins() as t:
        t.setup(*IMAGES)
        nested = '{"driver":"qcow2","file":{"driver":"file","filename":"ov.qcow2"}}'
        for name in ("driver=qcow2,file.filename=ov.qcow2", "driver=qcow2,file.driver=file,file.filename=ov.qcow2",
                     "driver=qcow2,file.filename=ov.qcow2,force-share=on,read-only=on",
                     "driver=qcow2,file.filename=ov.qcow2,cache.direct=on,cache.no-flush=off,file.aio=native",
                     "driver=qcow2,file.filename=ov.qcow2,file.locking=off,discard=unmap,detect-zeroes=unmap,node-name=n",
                     "file.filename=ov.qcow2", "driver=file,filename=r.raw", "driver=raw,file.driver=file,file.filename=ov.qcow2"):
            if "direct=on" in name and not t.direct:
                continue
            # QEMU calls the format of a bare file "file"
            t.both(f"info --image-opts {name}", output="driver=file" not in name)
            t.both(f"map --output=json --image-opts {name}", output="driver=raw" not in name)
        for name in ("json:" + nested, 'json:{"driver":"qcow2","file.filename":"ov.qcow2"}', "file:ov.qcow2",
                     'json:{"driver":"qcow2","read-only":true,"file":{"driver":"file","filename":"ov.qcow2","locking":"off"}}'):
            t.both(f"info {name}")
            t.both(f"info --output=json {name}")
            t.both(f"map {name}")
        t.both(f"compare --image-opts driver=qcow2,file.filename=ov.qcow2 driver=qcow2,file.filename=ov.qcow2,cache.no-flush=on")
        t.both("commit --image-opts driver=qcow2,file.filename=ov.qcow2,cache.no-flush=on")
        t.both("convert -n --target-image-opts base.qcow2 driver=raw,file.driver=file,file.filename=r.raw,cache.no-flush=on", 1,
               output=False)
        t.both("rebase -u -b json:" + nested.replace("ov", "base") + " -F qcow2 ov.qcow2")
        t.both("info --backing-chain ov.qcow2")
        t.both("map --output=json ov.qcow2")
        t.same_disk("ov.qcow2", "base.qcow2")


def test_a_backing_image_is_described_in_place_of_the_headers():
    with Twins() as t:
        t.setup(*IMAGES, "qemu-img create -q -f qcow2 other.qcow2 8M", "qemu-io -c 'write -P 9 0 8M' other.qcow2")
        for n, more in enumerate(("backing.driver=qcow2,backing.file.filename=other.qcow2", "backing.file.filename=other.qcow2",
                                  "backing.driver=raw,backing.file.driver=file,backing.file.filename=r.raw,"
                                  "backing.offset=128k,backing.size=512k")):
            t.both(f"convert --image-opts -O raw driver=qcow2,file.filename=ov.qcow2,{more} c{n}")
            t.both(f"convert --image-opts -O raw driver=qcow2,file.filename=orphan.qcow2,{more} o{n}")
            t.same_disk(f"c{n}", f"o{n}", image_format="raw")
        # qemu-img has no way to say "none" in an option string
        t.both('map --output=json json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"orphan.qcow2"}}')
        p = t.tool(True, "map --output=json --image-opts driver=qcow2,file.filename=orphan.qcow2,backing=")
        assert p.returncode == 0, p.stderr
        assert "no backing images" in said(t, "map --image-opts driver=raw,file.filename=r.raw,backing.file.filename=base.qcow2")
        assert "loop" in said(t, "map --image-opts driver=qcow2,file.filename=ov.qcow2,backing.file.filename=ov.qcow2")


def test_a_raw_image_can_be_a_part_of_its_file():
    with Twins() as t:
        t.setup(*IMAGES)
        with open(os.path.join(t.ours, "r.raw"), "rb") as f:
            whole = f.read()
        for n, (offset, size) in enumerate(((512, None), (65536, 131072), (0, 4096), (len(whole) - 512, 512), (1000, 1024))):
            part = f"driver=raw,file.filename=r.raw,offset={offset}" + (f",size={size}" if size else "")
            t.both(f"map --output=json --image-opts {part}")
            a, b = (json.loads(t.tool(ours, f"info --output=json --image-opts {part}").stdout) for ours in (False, True))
            for i in (a, b):
                name = json.loads(i.pop("filename")[5:])
                assert int(name["offset"]) == offset and name["file"]["filename"] == "r.raw", name
                i.pop("actual-size")
            assert a == b, (a, b)
            t.both(f"convert --image-opts -O raw {part} c{n}")
            t.same_disk(f"c{n}", image_format="raw")
            with open(os.path.join(t.ours, f"c{n}"), "rb") as f:
                assert f.read().startswith(whole[offset:offset + size if size else None])
        # written through the window, and nowhere else
        t.both("convert -n -O raw --image-opts --target-image-opts driver=raw,file.filename=r.raw,offset=0,size=64k "
               "driver=raw,file.filename=r.raw,offset=512k,size=64k", 1, output=False)
        t.both("convert -n --image-opts --target-image-opts driver=qcow2,file.filename=base.qcow2 "
               "driver=raw,file.filename=r.raw,offset=512k,size=64k", 1, output=False)
        for folder, tool in ((t.theirs, "qemu-img"), (t.ours, context.minivm_img())):
            subprocess.run([tool, "bench", "-w", "-c", "16", "-d", "1", "--pattern=7", "--image-opts",
                            "driver=raw,file.filename=r.raw,offset=512k,size=64k"], cwd=folder, check=True, capture_output=True)
        with open(os.path.join(t.ours, "r.raw"), "rb") as f:
            assert f.read() == whole[:512 << 10] + b"\7" * 65536 + whole[576 << 10:]
        for wrong in ("offset=2M", "offset=1000,size=1M", "size=1000", "offset=x", "offset=-1"):
            t.both(f"info --image-opts driver=raw,file.filename=r.raw,{wrong}", 1, output=False)
            said(t, f"info --image-opts driver=raw,file.filename=r.raw,{wrong}")
        t.both("resize --image-opts driver=raw,file.filename=r.raw,size=64k 1M", 1, output=False)
        t.both("resize --image-opts driver=raw,file.filename=r.raw,offset=64k 1M")
        assert os.path.getsize(os.path.join(t.ours, "r.raw")) == (1 << 20) + 65536


def test_a_description_that_says_too_much_or_too_little_is_refused():
    with Twins() as t:
        t.setup(*IMAGES)
        for command in ("info", "map", "check", "measure"):
            for name in ("nonsense", "driver=qcow2", "driver=qcow2,file.filename=ov.qcow2,nope=1", "driver=qcow2,file.filename=gone",
                         "driver=nonsense,file.filename=ov.qcow2", "driver=qcow2,file.driver=nonsense,file.filename=ov.qcow2",
                         "driver=qcow2,file.filename=ov.qcow2,read-only=perhaps", "driver=qcow2,file.filename=r.raw",
                         "driver=qcow2,file.filename=ov.qcow2,file.locking=perhaps", "driver=raw,file.filename=r.raw,lazy-refcounts=on",
                         "driver=qcow2,file.filename=ov.qcow2,detect-zeroes=unmap", "driver=qcow2,file.filename=ov.qcow2,backing=node"):
                t.both(f"{command} --image-opts {name}", 1, output=False)
                said(t, f"{command} --image-opts {name}")
        for name in ("json:", "json:{", "json:[]", "json:{}", 'json:{"driver":"qcow2"}', 'json:{"driver":"qcow2","file":7}',
                     'json:{"driver":"qcow2","file":{"driver":"file","filename":"ov.qcow2"},"nope":null}',
                     'json:{"driver":"nbd","nope":null}'):
            t.both(f"info {name}", 1, output=False)
            said(t, f"info {name}")
        t.both("bench -w -c 1 --image-opts driver=qcow2,file.filename=base.qcow2,read-only=on", 1, output=False)
        t.both("snapshot -U -c x base.qcow2", 1, output=False)
        t.both("bench -U -w -c 1 base.qcow2", 1, output=False)
        t.both("convert -n -O raw --target-image-opts base.qcow2 driver=raw,file.filename=r.raw", 1, output=False)


def test_option_help_lists_what_each_format_takes():
    names = lambda text: set(re.findall(r"^  (\S+?)=", text, re.M))
    with Twins() as t:
        t.setup(*IMAGES)
        for args in ("create -f qcow2 -o help", "create -f raw -o help", "create -o ?", "create -f qcow2 -o help x",
                     "create -f raw -o help x", "create -f qcow2 -o cluster_size=4k,help x 1M", "convert -O qcow2 -o help",
                     "convert -o help base.qcow2 x", "convert -O qcow2 -o help base.qcow2 x", "amend -f qcow2 -o help",
                     "amend -o help base.qcow2"):
            q, m = t.tool(False, args), t.tool(True, args)
            assert q.returncode == m.returncode == 0, (args, q.stderr, m.stderr)
            theirs = {n for n in names(q.stdout) if not n.startswith("encrypt")}
            assert names(m.stdout) == theirs, (args, theirs ^ names(m.stdout))
            assert q.stdout.splitlines()[0] == m.stdout.splitlines()[0], args
        for args in ("amend -f raw -o help", "amend -o help", "create -f nonsense -o help"):
            t.both(args, 1, output=False)
        assert not os.path.exists(os.path.join(t.ours, "x"))


def test_what_does_not_go_together_is_refused_and_changes_nothing():
    with Twins() as t:
        t.setup(*IMAGES, "qemu-img snapshot -c one base.qcow2", "qemu-img snapshot -c two base.qcow2")
        t.both("info --backing-chain orphan.qcow2", 1)
        t.both("info --backing-chain --output=json orphan.qcow2", 1, output=False)
        t.both("info orphan.qcow2")
        assert "gone.qcow2" in said(t, "info --backing-chain orphan.qcow2")
        for args in ("check orphan.qcow2", "create -f qcow2 -o size=5M x 6M", "create -f qcow2 -b base.qcow2 -F qcow2 base.qcow2",
                     "create -f qcow2 -u -b nope x 1M", "create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s x 1M",
                     "amend -o backing_file=other.qcow2 ov.qcow2", "snapshot -d 2 base.qcow2", "resize base.qcow2 8388609",
                     "resize --preallocation=metadata -f raw r.raw 4M", "compare base.qcow2", "compare --nope base.qcow2 r.raw",
                     "convert -l snapshot.name=one,snapshot.id=2 base.qcow2 x", "convert -l snapshot.foo=1 base.qcow2 x",
                     "convert -S 32M base.qcow2 x", "measure -l snapshot.id=9 -O qcow2 base.qcow2"):
            t.both(args, 1, output=False)
            said(t, args)
        assert os.path.getsize(os.path.join(t.ours, "r.raw")) == 1 << 20
        t.both("convert -l snapshot.name=two,snapshot.id=2 -O raw base.qcow2 x")
        t.both("measure -l snapshot.id=1 -O qcow2 base.qcow2")
        t.both("amend -o backing_file=base.qcow2,backing_fmt=qcow2 ov.qcow2")
        for args in ("create -f qcow2 -o nocow=on n 1M", "create -f raw -o nocow=on,extent_size_hint=0 n 1M",
                     "create -f qcow2 -u -o backing_file=a,,b,backing_fmt=raw n 1M", "info n",
                     "map --output=json --start-offset=100M ov.qcow2", "map --output=json --max-length=0 ov.qcow2"):
            t.both(args)
        t.same_disk("base.qcow2", "ov.qcow2")


def test_progress_is_shown_where_qemu_img_shows_it():
    def last(text):
        return re.findall(r"\(([\d.]+)/100%\)", text)
    with Twins() as t:
        t.setup(*IMAGES)
        for args in ("rebase -u -p -b base.qcow2 -F qcow2 ov.qcow2", "rebase -p -b base.qcow2 -F qcow2 ov.qcow2",
                     "amend -p -o lazy_refcounts=on base.qcow2", "convert -p base.qcow2 x", "commit -p ov.qcow2",
                     "compare -p ov.qcow2 base.qcow2"):
            q, m = t.tool(False, args), t.tool(True, args)
            assert q.returncode == m.returncode == 0, (args, m.stderr)
            shown = last(m.stdout)
            assert last(q.stdout)[-1] == shown[-1] == "100.00", (args, q.stdout, m.stdout)
            assert [float(x) for x in shown] == sorted(float(x) for x in shown), m.stdout
            if "compare" not in args:
                assert shown[0] == last(q.stdout)[0] == "0.00", (args, m.stdout)
