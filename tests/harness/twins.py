# SPDX-License-Identifier: MIT
"""The same command line for qemu-img and minivm-img, on copies of the same images."""
import json
import os
import re
import shutil
import subprocess
import tempfile

import context


class Twins:
    """Two folders with the same images: in one qemu-img works, in the other minivm-img."""

    def __init__(self):
        context.requires("qemu-img")
        context.requires("qemu-io")
        shm = "/dev/shm"
        self.top = tempfile.mkdtemp(prefix="minivm-img-", dir=shm if os.access(shm, os.W_OK) else None)
        self.theirs, self.ours = os.path.join(self.top, "q"), os.path.join(self.top, "m")
        os.mkdir(self.theirs)
        try:
            os.close(os.open(os.path.join(self.top, "direct"), os.O_CREAT | os.O_RDWR | os.O_DIRECT))
            self.direct = True
        except OSError:
            self.direct = False  # what the folder lies on has no O_DIRECT

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        shutil.rmtree(self.top, ignore_errors=True)

    def setup(self, *commands):
        """Shell lines that make the images with QEMU's tools."""
        for c in commands:
            p = subprocess.run(c, shell=True, cwd=self.theirs, capture_output=True, text=True)
            assert p.returncode == 0, f"{c}: {p.stdout}{p.stderr}"
        shutil.rmtree(self.ours, ignore_errors=True)
        subprocess.run(["cp", "-a", "--sparse=always", self.theirs, self.ours], check=True)

    def tool(self, ours, args):
        return subprocess.run([context.minivm_img() if ours else "qemu-img", *args.split()], capture_output=True,
                              text=True, cwd=self.ours if ours else self.theirs, timeout=context.limit(60))

    def both(self, args, code=0, output=True, places=True):
        q, m = self.tool(False, args), self.tool(True, args)
        assert q.returncode == code, f"qemu-img {args}: exit {q.returncode}, not {code}: {q.stderr}"
        assert m.returncode == code, f"minivm-img {args}: exit {m.returncode}, not {code}: {m.stdout}{m.stderr}"
        if not output:
            return
        if "=json" in args and "map" not in args:
            a, b = json.loads(q.stdout), json.loads(m.stdout)
            for x in (a, b) if isinstance(a, dict) else (*a, *b):
                x.pop("actual-size", None)
            assert a == b, f"{args}:\n{a}\n{b}"
        else:
            # places in the file are each one's own business once it has written to it
            drop = lambda t: [re.sub(r', "offset": \d+', "", x) if places is False else x
                              for x in t.splitlines() if not x.startswith("disk size")]
            assert drop(q.stdout) == drop(m.stdout), f"{args}:\n{q.stdout}\n--- ours:\n{m.stdout}"

    def same_disk(self, *names, image_format="qcow2"):
        for n in names:
            got = []
            for folder in (self.theirs, self.ours):
                if image_format == "qcow2":
                    subprocess.run(["qemu-img", "check", "-q", n], check=True, cwd=folder)
                p = subprocess.run(["qemu-img", "convert", "-f", image_format, "-O", "raw", n, "got.raw"], cwd=folder,
                                   capture_output=True, text=True)
                assert p.returncode == 0, f"{n}: {p.stderr}"
                got.append(os.path.join(folder, "got.raw"))
            p = subprocess.run(["cmp", *got], capture_output=True, text=True)
            assert p.returncode == 0, f"{n}: {p.stdout}{p.stderr}"
