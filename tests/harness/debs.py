# SPDX-License-Identifier: MIT
"""Debian i386 packages for guests, fetched and unpacked without touching the host's package state."""
import os
import pathlib
import shutil
import subprocess
import threading

import context

_lock = threading.Lock()


def _apt(*args, cwd=None):
    """apt-get with a state of its own, for architecture i386 alone."""
    root = context.cache() / "apt"
    for d in ("lists/partial", "cache/archives/partial"):
        (root / d).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    command = ["apt-get", "-q", "-o", "APT::Architecture=i386", "-o", "APT::Architectures=i386",
               "-o", f"Dir::State::lists={root}/lists", "-o", f"Dir::State::status={root}/status",
               "-o", f"Dir::Cache={root}/cache", "-o", "APT::Sandbox::User=root", *args]
    p = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    # One archive of several may be unreachable; whether the packages are there shows at the download.
    if p.returncode and args[0] != "update":
        raise context.Skip(f"Debian's i386 packages cannot be fetched: {p.stderr.strip().splitlines()[-1:]}")
    return p.stdout


def unpack(*packages):
    """Folder with the contents of these packages, unpacked over each other. Kept in the cache."""
    context.requires("apt-get")
    context.requires("dpkg-deb")
    with _lock:
        target = context.cache() / "debs" / "+".join(packages)
        if target.exists():
            return target
        work = pathlib.Path(f"{target}.part")
        shutil.rmtree(work, ignore_errors=True)
        (work / "root").mkdir(parents=True)
        if not list((context.cache() / "apt" / "lists").glob("*Packages*")):
            _apt("update")
        try:
            _apt("download", *packages, cwd=work)
        except context.Skip:
            _apt("update")
            _apt("download", *packages, cwd=work)
        for deb in sorted(work.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(deb), str(work / "root")], check=True)
        os.rename(work / "root", target)
        shutil.rmtree(work)
        return target


def depends(package):
    """The packages that this one needs directly."""
    with _lock:
        if not list((context.cache() / "apt" / "lists").glob("*Packages*")):
            _apt("update")
        root = context.cache() / "apt"
        out = subprocess.run(["apt-cache", "-o", "APT::Architecture=i386", "-o", "APT::Architectures=i386",
                              "-o", f"Dir::State::lists={root}/lists", "-o", f"Dir::State::status={root}/status",
                              "-o", f"Dir::Cache={root}/cache", "depends", package],
                             capture_output=True, text=True, check=True).stdout
    return [line.split(":", 1)[1].strip() for line in out.splitlines() if line.strip().startswith("Depends:")]
