# SPDX-License-Identifier: MIT
"""What every guest test needs: the programs under test, the cache of guest images, skipping aloud."""
import os
import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
build = ROOT / "build"
sanitized = False  # the build has sanitizers: everything takes several times as long
long = False  # make test-long


class Skip(Exception):
    """The test cannot run here; the message says why."""


def minivm():
    return str(build / "minivm")


def minivm_img():
    return str(build / "minivm-img")


def minivm_nbd():
    return str(build / "minivm-nbd")


def requires(program):
    """The path of a program, or Skip."""
    path = shutil.which(program)
    if not path:
        raise Skip(f"{program} is not installed")
    return path


def requires_file(path, package):
    if not os.path.exists(path):
        raise Skip(f"{path} is missing (package {package})")
    return path


def cache():
    """The folder for guest images, outside the tree."""
    base = os.environ.get("MINIVM_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "minivm")
    os.makedirs(base, exist_ok=True)
    return pathlib.Path(base)


def patience():
    """By what to multiply the time that something may take: hosts are busy, sanitizers slow."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) * (8 if sanitized else 3)


def limit(seconds):
    """How long to wait at most for what takes far less than this on an idle host."""
    return seconds * patience()


def cost(seconds):
    """Says how long a test takes: the slow ones are started first."""
    def mark(function):
        function.cost = seconds
        return function
    return mark


def parts(*names):
    """The test reports these one by one: it is given a function for `with part(name): ...`, where what is raised is that part's
    result. After a failed assertion the test goes on; another exception ends it, and the parts it did not reach fail or are
    skipped with it."""
    def mark(function):
        function.parts = names
        return function
    return mark
